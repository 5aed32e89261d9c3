//! Connections of the engine: born, proven, joined to a share, gone (protocol §5).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use crate::channel::Transport;
use crate::channel::tls::LazyIdentity;
use crate::club::code::AccessCode;
use crate::club::codebook::{Uses, hello_tag};
use crate::club::cpace::code_prs;
use crate::club::keys::Club;
use crate::club::level::Level;
use crate::connection::login::{Login, Logins, Method, Role, Secret};
use crate::connection::pack::Deflating;
use crate::connection::reason::CloseReason;
use crate::connection::{
    ConnConfig, ConnEvent, Connection, EXTENSION_CBOR, EXTENSION_GZIP, EXTENSION_RSYNC, PING_TIMEOUT_DEFAULT,
    Ready,
};
use crate::discovery::lan::{LanId, day};
use crate::discovery::network::Networks;
use crate::engine::Engine;
use crate::engine::commands::AfterCommit;
use crate::engine::event::Event;
use crate::engine::links::{Link, Stage};
use crate::engine::settings::Compression;
use crate::engine::setup;
use crate::ids::{AccessId, ConnId, PeerId, RootId, Token};
use crate::io::store::{Durability, Space, StoreOp, Write};
use crate::io::{DiskOp, Output};
use crate::share::clock::ClockSample;
use crate::share::folder::{self, ShareFact};
use crate::share::layout::{self, Fact};
use crate::share::renewal::Renewal;
use crate::share::{Membership, Share, known_name, put_fact};
use crate::time::{Instant, NANOS_PER_SECOND, Now};
use crate::wire::keys::LevelEntry;
use crate::wire::message::Message;

/// Unauthenticated connections from one address (IPv6: one /64), and in all (protocol §3).
const STRANGERS_PER_SOURCE: usize = 10;
const STRANGERS: usize = 64;
/// A clock that differs by more is shown to the user (protocol §5 step 4).
pub(super) const CLOCK_DIFFERENCE: i64 = 60 * NANOS_PER_SECOND;
/// Why a link is ended with a peer whose identity another node runs under as well (protocol §5, Errors).
const COPIED: &str = "copied";
/// Why a joiner ends a link over which it was sent keys that it does not take (protocol §5, Errors).
const DECLINED: &str = "declined";
/// The longest name of a computer that is kept, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// Looks logins up over all shares.
struct Door<'a> {
    shares: &'a mut alloc::collections::BTreeMap<RootId, Share>,
    now: Now,
}

impl Logins for Door<'_> {
    fn find(
        &mut self,
        method: Method,
        role_of_client: Role,
        tag: &[u8; 32],
        exporter: &[u8; 32],
        from: IpAddr,
    ) -> Option<Login> {
        // All IDs are compared, so that the time taken tells nothing.
        let mut found = None;
        for share in self.shares.values().filter(|share| !share.paused) {
            let login = match method {
                Method::Key => share.key_login().filter(|login| hello_tag(&login.id, exporter) == *tag),
                Method::Code => share.code_login(role_of_client, tag, exporter, from, self.now),
            };
            found = login.or(found);
        }
        found
    }

    fn wrong_proof(&mut self, login: &Login, from: IpAddr) {
        if let (Some(share), Some(code)) = (self.shares.get_mut(&login.club), &login.code) {
            share.codes.wrong_proof(code, from, self.now.mono);
        }
    }
}

impl Share {
    fn login(&self, method: Method, role: Role, id: [u8; 32], secret: Secret) -> Login {
        let club = self.club.as_ref();
        Login {
            club: self.root,
            level: club.map_or(Level::ReadWrite, Club::level),
            method,
            role,
            id,
            secret,
            code: None,
            keys: self.keys.clone(),
            run: self.run,
            writer: club.and_then(|club| club.signing_key(Level::ReadWrite)),
            writer_public: club.map(|club| *club.public_key(Level::ReadWrite)),
        }
    }

    /// How this peer proves itself to other members.
    fn key_login(&self) -> Option<Login> {
        let club = self.club.as_ref()?;
        let (id, key) = (club.key_id(club.level())?, club.level_key(club.level())?);
        Some(self.login(Method::Key, Role::Member, id.0, Secret::LevelKey(*key)))
    }

    /// How this peer answers somebody who comes with a code.
    fn code_login(
        &self,
        role_of_client: Role,
        tag: &[u8; 32],
        exporter: &[u8; 32],
        from: IpAddr,
        now: Now,
    ) -> Option<Login> {
        match (&self.membership, role_of_client) {
            (Membership::Member, Role::Joiner) => {
                let (id, entry) = self.codes.find(tag, exporter, from, now.mono, now.wall)?;
                let secret = code_secret(entry.code());
                let login = self.login(Method::Code, Role::Member, id.0, secret);
                Some(Login { level: entry.level(), code: Some(id), ..login })
            }
            (Membership::Joining(_), Role::Member) => {
                self.joiner_login().filter(|login| hello_tag(&login.id, exporter) == *tag)
            }
            _ => None,
        }
    }

    fn joiner_login(&self) -> Option<Login> {
        let Membership::Joining(joining) = &self.membership else { return None };
        if self.declined.is_some() {
            return None;
        }
        let id = joining.code.access_id();
        let login = self.login(Method::Code, Role::Joiner, id.0, code_secret(&joining.code));
        Some(Login { code: Some(id), ..login })
    }

    /// How this peer dials somebody who looks for the maker of a code.
    fn invited_login(&self, code: &AccessId, now: Now) -> Option<Login> {
        let entry = self.codes.get(code, now.wall)?;
        let login = self.login(Method::Code, Role::Member, code.0, code_secret(entry.code()));
        Some(Login { level: entry.level(), code: Some(*code), ..login })
    }

    /// How this peer dials.
    fn dial_login(&self) -> Option<Login> {
        self.key_login().or_else(|| self.joiner_login())
    }

    /// The IDs under which this share is looked for on the network.
    fn lan_ids(&self) -> Vec<LanId> {
        let (club, peer) = (self.root, self.id());
        let mut ids = Vec::new();
        match &self.membership {
            Membership::Joining(_) if self.declined.is_some() => {}
            Membership::Joining(joining) => {
                ids.push(LanId { club, id: joining.code.access_id().0, peer });
            }
            Membership::Member => {
                let key = self.club.as_ref().and_then(|club| club.key_id(club.level()));
                ids.extend(key.map(|id| LanId { club, id: id.0, peer }));
                ids.extend(self.codes.iter().map(|(id, _)| LanId { club, id: id.0, peer }));
            }
        }
        ids
    }
}

/// What both sides of a link by code must know.
fn code_secret(code: &AccessCode) -> Secret {
    Secret::Password(code_prs(&code.password()).to_vec())
}

impl Engine {
    fn conn_config(&mut self, now: Now) -> ConnConfig {
        if day(now.wall) != self.tls_day {
            self.tls = LazyIdentity::draw(&mut self.rng);
            self.tls_day = day(now.wall);
        }
        #[cfg(any(test, feature = "simulator"))]
        let transport = self.plain.clone().unwrap_or_else(|| Transport::Tls(self.tls.get()));
        #[cfg(not(any(test, feature = "simulator")))]
        let transport = Transport::Tls(self.tls.get());
        let extensions: &[&str] = match self.settings.compression() {
            Compression::Never => &[EXTENSION_CBOR, EXTENSION_RSYNC],
            Compression::Auto | Compression::Always => &[EXTENSION_CBOR, EXTENSION_RSYNC, EXTENSION_GZIP],
        };
        let always = self.settings.compression() == Compression::Always;
        ConnConfig {
            transport,
            software: self.config.software.clone(),
            name: self.node_name().into(),
            extensions: extensions.iter().map(|name| String::from(*name)).collect(),
            deflating: if always { Deflating::Always } else { Deflating::OnSlowLinks },
            ping_timeout: PING_TIMEOUT_DEFAULT,
        }
    }

    fn new_link(&mut self, now: Now, addr: SocketAddr, dialed: bool) -> Link {
        Link {
            connection: None,
            addr,
            dialed,
            club: None,
            peer: None,
            run: None,
            name: None,
            member: false,
            clock: None,
            rsync: false,
            stage: if dialed { Stage::Dialing } else { Stage::Opening },
            reading: true,
            received: 0,
            sent: 0,
            since: now.mono,
        }
    }

    pub(super) fn accept(&mut self, now: Now, from: SocketAddr) -> Option<ConnId> {
        if self.paused || self.stopping || !self.boot.is_done() {
            return None;
        }
        let source = crate::club::codebook::source(from.ip());
        let strangers = || self.links.all.iter().filter(|(_, link)| !link.dialed && link.peer.is_none());
        let from_source =
            strangers().filter(|(_, link)| crate::club::codebook::source(link.addr.ip()) == source).count();
        if from_source >= STRANGERS_PER_SOURCE && !from.ip().is_loopback() {
            return None;
        }
        if strangers().count() >= STRANGERS
            && let Some(oldest) = strangers().next().map(|(&conn, _)| conn)
        {
            self.links.close(oldest, "limit", "too many connections wait to be let in");
        }
        let config = self.conn_config(now);
        let connection = Connection::accept(now, from.ip(), &config, &mut self.rng).ok()?;
        let mut link = self.new_link(now, from, false);
        link.connection = Some(connection);
        let conn = self.links.new_id();
        self.links.all.insert(conn, link);
        self.settle(now);
        Some(conn)
    }

    pub(super) fn dial(&mut self, now: Now) {
        self.remember_addresses(now);
        if self.paused || self.stopping || !self.boot.is_done() {
            return;
        }
        while let Some((root, addr)) = self.dialer.poll_dial(now.mono, &mut self.rng) {
            if self.shares.get(&root).is_none_or(|share| share.dial_login().is_none()) {
                self.dialer.failed(root, addr, now.mono);
                continue;
            }
            let conn = self.links.new_id();
            let mut link = self.new_link(now, addr, true);
            link.club = Some(root);
            self.links.all.insert(conn, link);
            self.out.push(Output::Dial { conn, addr });
        }
    }

    pub(super) fn dialed(&mut self, now: Now, conn: ConnId) {
        let config = self.conn_config(now);
        let Some(link) = self.links.all.get_mut(&conn) else { return };
        let code = link.club.and_then(|root| self.seekers.code(root, link.addr));
        let login = link.club.and_then(|root| self.shares.get(&root)).and_then(|share| {
            let invited = code.and_then(|code| share.invited_login(code, now));
            invited.or_else(|| share.dial_login())
        });
        let connection =
            login.and_then(|login| Connection::dial(now, link.addr.ip(), login, &config, &mut self.rng).ok());
        match connection {
            Some(connection) => {
                link.connection = Some(connection);
                link.stage = Stage::Opening;
                self.links.mark_writable(conn);
            }
            None => self.links.close(conn, "shutdown", "the share is gone"),
        }
    }

    pub(super) fn received(&mut self, now: Now, conn: ConnId, bytes: &[u8]) {
        let Some(link) = self.links.all.get_mut(&conn) else { return };
        let Some(connection) = &mut link.connection else { return };
        if link.stage == Stage::Closing {
            return;
        }
        link.received += bytes.len() as u64;
        self.rates.received.note(bytes.len() as u64, now.mono);
        let mut door = Door { shares: &mut self.shares, now };
        connection.handle_received(now, bytes, &mut door, &mut self.rng);
        self.links.mark_writable(conn);
        self.take_events(now, conn);
    }

    /// Goes through what a connection has to tell.
    pub(super) fn take_events(&mut self, now: Now, conn: ConnId) {
        let mut pumped = None;
        while let Some(link) = self.links.all.get_mut(&conn) {
            let (club, stage) = (link.club, link.stage);
            // A few bytes can be many once they are inflated: what the share cannot take now waits as it came.
            let holding = link.connection.as_ref().is_some_and(Connection::is_holding);
            if holding && !self.share_takes(conn) {
                break;
            }
            let Some(link) = self.links.all.get_mut(&conn) else { break };
            let Some(event) = link.connection.as_mut().and_then(Connection::poll_event) else { break };
            match event {
                ConnEvent::Ready(ready) => self.ready(now, conn, &ready),
                ConnEvent::Message(message) => {
                    pumped = club;
                    if let Err(why) = self.message(now, conn, club, stage, message) {
                        self.links.close(conn, "protocol", why);
                    }
                }
                ConnEvent::Payload { bytes, last } => {
                    pumped = club;
                    let Some((share, mut ctx)) = club.and_then(|root| self.share_ctx(now, root)) else {
                        break;
                    };
                    if let Err(why) = share.handle_payload(&mut ctx, conn, bytes, last) {
                        self.links.close(conn, "protocol", why);
                    }
                }
                ConnEvent::Closed(reason) => self.closed_by(now, conn, &reason),
            }
        }
        if let Some((share, mut ctx)) = pumped.and_then(|root| self.share_ctx(now, root)) {
            share.pump(&mut ctx);
        }
    }

    /// A connection ended by itself; the host closes the socket once what is left was sent.
    fn closed_by(&mut self, now: Now, conn: ConnId, reason: &CloseReason) {
        let Some(link) = self.links.all.get(&conn) else { return };
        let (addr, club) = (link.addr, link.club);
        let names = club.and_then(|root| self.shares.get(&root)).map(|share| &share.names);
        match link.peer.and_then(|peer| known_name(names?, peer)) {
            Some(name) => log::info!("{name} ({addr}): {reason}"),
            None => log::info!("{addr}: {reason}"),
        }
        if let (Some(root), true) = (club, link.dialed) {
            let refused =
                matches!(reason, CloseReason::Refused | CloseReason::WrongProof | CloseReason::Auth(_));
            if refused {
                self.dialer.refused_auth(root, addr, now.mono);
            }
            if let Some(share) = self.shares.get_mut(&root).filter(|_| refused) {
                share.refused_by = Some(addr);
            }
            if *reason == CloseReason::Loopback {
                self.dialer.reached_self(root, addr, now.mono);
            }
        }
        if let CloseReason::ByPeer { code, .. } = reason {
            self.closed_while_joining(conn, code);
        }
        let copied = match reason {
            CloseReason::CopiedHome { club, .. } => Some(*club),
            // A writer met both of them, who may never meet each other. What it could do else is worse than this.
            CloseReason::ByPeer { code, .. } if code == COPIED => {
                let link = club.and_then(|root| self.shares.get(&root)?.links.get(&conn));
                club.filter(|_| link.is_some_and(|link| link.writer))
            }
            _ => None,
        };
        if let Some((share, mut ctx)) = copied.and_then(|club| self.share_ctx(now, club)) {
            share.begin_renewal(Renewal::CopiedHome);
            share.pump(&mut ctx);
        }
        self.links.ended(conn);
    }

    /// The other side of a link over which somebody joins closed it.
    fn closed_while_joining(&mut self, conn: ConnId, word: &str) {
        let Some(link) = self.links.all.get(&conn) else { return };
        let (addr, stage) = (link.addr, link.stage);
        let (Some(root), Some(peer)) = (link.club, link.peer) else { return };
        let Some(share) = self.shares.get_mut(&root) else { return };
        if stage == Stage::AwaitingKeys && word == "auth" {
            share.refused_by = Some(addr);
        }
        if let Stage::AwaitingAcknowledgment(code) = stage
            && word == DECLINED
            && share.codes.unbind(&code, peer)
        {
            let write = put_fact(root, Fact::Codes, share.codes.encode().to_vec());
            self.commit([write].into(), Durability::Now);
        }
    }

    /// Both sides have proven themselves.
    fn ready(&mut self, now: Now, conn: ConnId, ready: &Ready) {
        let root = ready.club;
        let Some(link) = self.links.all.get_mut(&conn) else { return };
        link.club = Some(root);
        link.peer = Some(ready.peer);
        link.run = Some(ready.run);
        link.clock = Some(ClockSample { wall: ready.remote_time, at: now.mono });
        link.name.clone_from(&ready.name);
        link.rsync = ready.extensions.iter().any(|name| name == EXTENSION_RSYNC);
        let (addr, dialed) = (link.addr, link.dialed);
        if !self.shares.contains_key(&root) {
            return self.links.close(conn, "shutdown", "the share is gone");
        }
        if ready.remote_time.0.abs_diff(now.wall.0) > CLOCK_DIFFERENCE as u64 {
            let message = format!(
                "The clock of {} differs from this computer's by {} seconds; one of them should be set.",
                ready.name.as_deref().unwrap_or("a peer"),
                ready.remote_time.0.abs_diff(now.wall.0) / NANOS_PER_SECOND as u64
            );
            self.out.event(Event::Notice { share: None, message });
        }
        match (ready.method, ready.role, ready.code) {
            (Method::Key, ..) => self.open(now, conn, ready.peer, ready.writer),
            (Method::Code, Role::Joiner, _) => self.set_stage(conn, Stage::AwaitingKeys),
            (Method::Code, Role::Member, Some(code)) => self.bind(now, conn, root, code, ready.peer),
            (Method::Code, Role::Member, None) => self.links.close(conn, "auth", "no code"),
        }
        if dialed {
            self.dialer.connected(root, addr, ready.peer, now.mono);
        } else {
            self.dialer.accepted(root, ready.peer, now.mono);
        }
    }

    /// Keeps what a member calls its computer.
    fn remember_name(&mut self, root: RootId, peer: PeerId, name: &str) {
        let Some(share) = self.shares.get_mut(&root) else { return };
        let name: String = name.chars().filter(|c| !c.is_control()).take(NAME_BYTES_MAX / 4).collect();
        if share.names.get(&peer) != Some(&name) {
            share.names.insert(peer, name.clone());
            let key = layout::peer_fact_key(root, Fact::Name, peer);
            let value = name.into_bytes();
            self.commit([Write::Put { space: Space::Meta, key, value }].into(), Durability::Soon);
        }
    }

    fn set_stage(&mut self, conn: ConnId, stage: Stage) {
        if let Some(link) = self.links.all.get_mut(&conn) {
            link.stage = stage;
        }
    }

    /// Commits small facts of the engine's own.
    pub(super) fn commit(&mut self, writes: Vec<Write>, durability: Durability) -> Token {
        self.out.set_owner(None);
        self.out.store(StoreOp::Commit { writes, durability })
    }

    /// Stores the addresses that became known.
    fn remember_addresses(&mut self, now: Now) {
        while let Some(root) = self.dialer.poll_changed(now.mono) {
            if self.shares.contains_key(&root) {
                let value = self.dialer.encode(root);
                let token = self.commit([put_fact(root, Fact::Addresses, value)].into(), Durability::Soon);
                self.commits.insert(token, AfterCommit::Addresses(root));
            }
        }
    }

    /// A link is open for the club's messages. Of two between the same peers, the one that the smaller id opened stays
    /// (protocol §5); of two opened by the same side, or to another run of the peer, the newer.
    fn open(&mut self, now: Now, conn: ConnId, peer: PeerId, writer: bool) {
        let Some(link) = self.links.all.get_mut(&conn) else { return };
        let (Some(root), dialed, run) = (link.club, link.dialed, link.run.unwrap_or_default()) else {
            return;
        };
        link.member = true;
        if let Some(name) = link.name.take() {
            self.remember_name(root, peer, &name);
        }
        let Some(share) = self.shares.get(&root) else { return };
        let ours_is_smaller = share.id() < peer;
        let other = self.links.all.iter().find(|(other, link)| {
            **other != conn && link.club == Some(root) && link.peer == Some(peer) && link.stage == Stage::Open
        });
        let other = other.map(|(&other, old)| (other, old.dialed, old.run));
        let replaced = other.and_then(|(.., run)| run);
        if self.runs.returns(root, peer, run, replaced) {
            return self.links.close(conn, COPIED, "another node runs under the same identity");
        }
        if let Some((other, old_dialed, _)) = other {
            // Who has another run was started anew: the older link is dead, or its node is a copy.
            let keep_new = old_dialed == dialed || dialed == ours_is_smaller || replaced != Some(run);
            let goes = if keep_new { other } else { conn };
            self.links.close(goes, "shutdown", "another connection to the same peer stays");
            if !keep_new {
                return;
            }
            self.link_gone(now, root, other);
        }
        self.set_stage(conn, Stage::Open);
        if let Some((share, mut ctx)) = self.share_ctx(now, root) {
            share.link_opened(&mut ctx, conn, peer, writer);
            share.pump(&mut ctx);
        }
    }

    fn link_gone(&mut self, now: Now, root: RootId, conn: ConnId) {
        if let Some((share, mut ctx)) = self.share_ctx(now, root) {
            share.link_closed(&mut ctx, conn);
            share.pump(&mut ctx);
        }
    }

    /// A member binds a single-use code to the joiner before it gives the keys away (protocol §3).
    fn bind(&mut self, now: Now, conn: ConnId, root: RootId, code: AccessId, peer: PeerId) {
        let Some(share) = self.shares.get_mut(&root) else { return };
        if !share.codes.may_join(&code, peer, now.wall) {
            return self.links.close(conn, "auth", "the access code was used already, or its time is over");
        }
        share.codes.bind(&code, peer);
        let write = put_fact(root, Fact::Codes, share.codes.encode().to_vec());
        let token = self.commit([write].into(), Durability::Now);
        self.commits.insert(token, AfterCommit::SendKeys { conn, root, code });
        self.set_stage(conn, Stage::Binding(code));
    }

    /// The code is bound: the keys may go out.
    pub(super) fn send_keys(&mut self, conn: ConnId, root: RootId, code: AccessId, now: Now) {
        let Some(share) = self.shares.get(&root) else { return };
        let name = share.folder.path.rsplit('/').next().unwrap_or_default();
        let level = share.codes.get(&code, now.wall).map(|entry| entry.level());
        let keys = level.and_then(|level| share.club.as_ref()?.export(level, name));
        match keys {
            Some(keys) => {
                self.set_stage(conn, Stage::AwaitingAcknowledgment(code));
                self.links.send(conn, &Message::Keys(alloc::boxed::Box::new(keys)));
            }
            None => self.links.close(conn, "auth", "the access code is not valid any more"),
        }
    }

    fn message(
        &mut self,
        now: Now,
        conn: ConnId,
        club: Option<RootId>,
        stage: Stage,
        message: Message,
    ) -> Result<(), &'static str> {
        let Some(root) = club else { return Ok(()) };
        match (stage, message) {
            (Stage::AwaitingKeys, Message::Keys(keys)) => self.take_keys(conn, root, &keys),
            (Stage::AwaitingAcknowledgment(code), Message::KeysAcknowledgment) => {
                self.spend(now, conn, root, code);
                Ok(())
            }
            (_, Message::Keys(_) | Message::KeysAcknowledgment) => Err("keys at the wrong moment"),
            (Stage::Open, message) => {
                let Some((share, mut ctx)) = self.share_ctx(now, root) else { return Ok(()) };
                share.handle_message(&mut ctx, conn, message)
            }
            // What a member that already counts us in may send while we still store its keys is asked for again.
            _ => Ok(()),
        }
    }

    /// The joiner takes the club's keys: stored durably before they are acknowledged.
    fn take_keys(
        &mut self,
        conn: ConnId,
        root: RootId,
        keys: &crate::wire::keys::KeysMessage,
    ) -> Result<(), &'static str> {
        let held = |bytes: &[u8; 32]| {
            self.shares.values().filter_map(|share| share.club.as_ref()).any(|club| club.holds(bytes))
        };
        let Some(share) = self.shares.get(&root) else { return Ok(()) };
        if share.club.is_some() {
            // A member was reached over two addresses at once, and the other connection was faster.
            self.links.close(conn, "shutdown", "this peer joins over another connection");
            return Ok(());
        }
        let Membership::Joining(joining) = &share.membership else {
            return Err("keys at the wrong moment");
        };
        let club = match Club::import(keys, keys.access_level, joining.fingerprint, &held) {
            Ok(club) => club,
            Err(error) => {
                let public = |entry: &&LevelEntry| entry.level == Level::ReadWrite;
                let public = keys.keys.iter().find(public).map(|entry| entry.public);
                let other = self.share_of(|club| Some(*club.public_key(Level::ReadWrite)) == public);
                let why = match other {
                    Some(path) => setup::has_it_already(path),
                    None => format!("The keys that a peer sent for this share were refused: {error}"),
                };
                self.decline(conn, root, why);
                return Ok(());
            }
        };
        let marker = folder::new_marker(club.marker_id(), &mut self.rng);
        let Some(share) = self.shares.get_mut(&root) else { return Ok(()) };
        share.folder.marker.clone_from(&marker);
        share.club = Some(club);
        // The marker first: if the node stops between the two, the folder is one whose share is still joining.
        self.out.set_owner(None);
        let token = self.out.disk(DiskOp::WriteMarker { root, marker });
        self.commits.insert(token, AfterCommit::Marked { conn, root });
        Ok(())
    }

    /// The keys that came are not wanted: the code is given back, and the share waits for the user.
    fn decline(&mut self, conn: ConnId, root: RootId, why: String) {
        if let Some(share) = self.shares.get_mut(&root) {
            let message = why.clone();
            share.declined = Some(why);
            self.out.event(Event::Notice { share: Some(share.folder.path.clone()), message });
        }
        self.links.close(conn, DECLINED, "the keys are not wanted");
    }

    /// The path of the share whose club this holds of.
    pub(super) fn share_of(&self, is: impl Fn(&Club) -> bool) -> Option<&str> {
        let share = self.shares.values().find(|share| share.club.as_ref().is_some_and(&is));
        share.map(|share| share.folder.path.as_str())
    }

    /// The folder of a share that joins is marked: the keys may be stored.
    pub(super) fn marked(&mut self, conn: ConnId, root: RootId) {
        let Some(share) = self.shares.get(&root) else { return };
        let Some(club) = &share.club else { return };
        let writes = [
            put_fact(root, Fact::Share, ShareFact::new(&share.folder, None).encode()),
            put_fact(root, Fact::Club, club.encode().to_vec()),
            put_fact(root, Fact::Identity, share.keys.seed().to_vec()),
        ];
        let token = self.commit(writes.into(), Durability::Now);
        self.commits.insert(token, AfterCommit::Joined { conn, root });
    }

    /// The keys could not be kept: the share goes on joining.
    pub(super) fn not_joined(&mut self, conn: ConnId, root: RootId, why: &str) {
        if let Some(share) = self.shares.get_mut(&root) {
            share.club = None;
            share.folder.marker.clear();
            let message = format!("Joining failed. {why}");
            self.out.event(Event::Notice { share: Some(share.folder.path.clone()), message });
        }
        self.links.close(conn, "limit", "the keys cannot be stored");
    }

    /// The keys are stored: this peer is a member.
    pub(super) fn joined(&mut self, now: Now, conn: ConnId, root: RootId) {
        let Some(share) = self.shares.get_mut(&root) else { return };
        share.membership = Membership::Member;
        let path = share.folder.path.clone();
        let public = share.club.as_ref().map(|club| *club.public_key(Level::ReadWrite));
        let level = share.club.as_ref().map(Club::level);
        self.links.send(conn, &Message::KeysAcknowledgment);
        self.out.event(Event::Notice {
            share: Some(path),
            message: "Joined; the first peer was met.".to_string(),
        });
        let Some(link) = self.links.all.get_mut(&conn) else { return };
        let (Some(peer), Some(connection)) = (link.peer, link.connection.as_mut()) else { return };
        if let Some(level) = level {
            connection.set_level(level);
        }
        // On a read_write link every peer writes; below it the member's proof is checked with the key just learnt.
        let writer = level == Some(Level::ReadWrite)
            || public.is_some_and(|public| connection.confirm_writer(&public));
        self.open(now, conn, peer, writer);
    }

    /// The joiner has the keys: the code is spent.
    fn spend(&mut self, now: Now, conn: ConnId, root: RootId, code: AccessId) {
        let Some(share) = self.shares.get_mut(&root) else { return };
        let entry = share.codes.get(&code, now.wall);
        let level = entry.map(|entry| entry.level());
        if entry.is_some_and(|entry| matches!(entry.uses(), Uses::Single { .. })) {
            share.codes.spend(&code);
            let write = put_fact(root, Fact::Codes, share.codes.encode().to_vec());
            self.commit([write].into(), Durability::Now);
        }
        let Some(link) = self.links.all.get_mut(&conn) else { return };
        let (Some(peer), Some(connection)) = (link.peer, link.connection.as_mut()) else { return };
        let level = level.unwrap_or(connection.level());
        connection.set_level(level);
        self.open(now, conn, peer, level == Level::ReadWrite);
    }

    /// A connection is gone: by the host's word, or because it was closed here.
    pub(super) fn gone(&mut self, now: Now, conn: ConnId) {
        if let Some(connection) = self.links.all.get(&conn).and_then(|link| link.connection.as_ref())
            && connection.is_awaiting_proof()
        {
            self.closed_by(now, conn, &CloseReason::Refused);
        }
        self.forget(now, conn);
        self.links.left(conn);
    }

    pub(super) fn forget(&mut self, now: Now, conn: ConnId) {
        let Some(link) = self.links.all.remove(&conn) else { return };
        let Some(root) = link.club else { return };
        if let (true, Some(peer), Some(share)) = (link.member, link.peer, self.shares.get_mut(&root)) {
            let (received, sent) = share.traffic.entry(peer).or_default();
            *received = received.saturating_add(link.received);
            *sent = sent.saturating_add(link.sent);
        }
        match (link.dialed, link.peer) {
            (true, Some(peer)) => self.dialer.closed(root, Some(link.addr), peer, now.mono),
            (false, Some(peer)) => self.dialer.closed(root, None, peer, now.mono),
            (true, None) => {
                self.dialer.failed(root, link.addr, now.mono);
                if link.stage != Stage::Dialing {
                    self.seekers.refused(root, link.addr);
                }
            }
            (false, None) => {}
        }
        if let (true, false, Some(peer)) = (link.dialed, link.member, link.peer) {
            self.dialer.disown(root, link.addr, peer);
        }
        if self.shares.get(&root).is_some_and(|share| share.links.contains_key(&conn)) {
            self.link_gone(now, root, conn);
        }
    }

    pub(super) fn datagram(&mut self, now: Now, from: SocketAddr, bytes: &[u8]) {
        if !self.uses_lan() || self.paused {
            return;
        }
        if let Some(hint) = self.lan.handle_datagram(now, from, bytes)
            && !self.is_linked(hint.club, hint.addr)
        {
            let code = AccessId(hint.id);
            let invited =
                self.shares.get(&hint.club).is_some_and(|share| share.codes.get(&code, now.wall).is_some());
            self.seekers.note(hint.club, hint.addr, Some(code).filter(|_| invited));
            self.dialer.add(hint.club, hint.addr, crate::discovery::dialer::Source::Lan, now.mono);
        }
    }

    /// The machine's addresses became known, or changed.
    pub(super) fn interfaces(&mut self, now: Now, addrs: &[(IpAddr, u8)]) {
        let networks = Networks::new(addrs);
        self.dialer.set_networks(networks.clone(), now.mono);
        self.lan.set_networks(now, networks);
    }

    /// When somebody is to be dialled.
    pub(super) fn dial_timeout(&self) -> Option<Instant> {
        let may = !self.paused && !self.stopping && self.boot.is_done();
        self.dialer.poll_timeout().filter(|_| may)
    }

    fn is_linked(&self, root: RootId, addr: SocketAddr) -> bool {
        self.links.all.values().any(|link| link.club == Some(root) && link.addr == addr)
    }

    pub(super) fn announce(&mut self, now: Now) {
        if !self.uses_lan() || self.paused || !self.boot.is_done() {
            return;
        }
        let ids: Vec<LanId> = self.shares.values().flat_map(Share::lan_ids).collect();
        self.lan.set_ids(now, ids);
        while let Some((addr, bytes)) = self.lan.poll_datagram(now) {
            self.out.push(Output::Datagram { addr, bytes });
        }
    }

    pub(super) fn connection_timeouts(&mut self, now: Now) {
        let due = |link: &Link| {
            link.connection.as_ref().and_then(Connection::poll_timeout).is_some_and(|at| at <= now.mono)
        };
        let conns: Vec<ConnId> =
            self.links.all.iter().filter(|(_, link)| due(link)).map(|(&conn, _)| conn).collect();
        for conn in conns {
            if let Some(connection) = self.links.all.get_mut(&conn).and_then(|link| link.connection.as_mut())
            {
                connection.handle_timeout(now);
                self.links.mark_writable(conn);
            }
            self.take_events(now, conn);
        }
        if self.uses_lan() {
            self.lan.handle_timeout(now);
        }
    }
}
