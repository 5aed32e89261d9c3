//! What users ask: each command is carried out here, or handed to the part that it concerns, and is answered once
//! everything that its answer promises is stored.

mod archive;
mod queries;

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use crate::club::code::AccessCode;
use crate::club::codebook::{CODES_MAX, NewCode};
use crate::club::level::Level;
use crate::connection::Connection;
use crate::discovery::dialer::Source;
use crate::discovery::network::is_dialable;
use crate::engine::Engine;
use crate::engine::command::{Command, CommandError, HeldDeletions, NodeStatus, PeerStatus, Reply};
use crate::engine::event::Event;
use crate::engine::links::Stage;
use crate::engine::setup::not_shared;
use crate::files::path::RelPath;
use crate::ids::{AccessId, CommandId, ConnId, PeerId, RootId, Token};
use crate::io::Completion;
use crate::io::store::{Durability, Space, StoreDone, StoreError, Write};
use crate::share::layout::{self, Fact};
use crate::share::survey::GoneMode;
use crate::share::{Membership, STORE_PAUSE, Share, put_fact, status};
use crate::time::{Instant, Now};

pub(super) use archive::{ArchiveAsk, PRUNE_FIRST};

/// Written by the last commit of a run: once it is durable, so is all before it.
const STOPPED: &str = "stopped";
/// Held deletes that are told with their paths.
const HELD_PATHS_MAX: usize = 100;
/// How long a stop waits for work that is under way. What is not done by then is found again at the next start.
const QUIT_WAIT: Duration = Duration::from_secs(3);

/// What follows once something of the engine's own was stored.
#[derive(Debug)]
pub(super) enum AfterCommit {
    /// Nothing.
    Nothing,
    /// The addresses of a club were stored, or are to be stored again.
    Addresses(RootId),
    /// The marker of a folder that joins was written.
    Marked { conn: ConnId, root: RootId },
    /// A command is answered; then the share that was made, if any, comes to life.
    Reply(CommandId, Reply, Option<RootId>),
    /// A share was forgotten; its folder may have its mark.
    Forgotten { id: CommandId, root: RootId, marked: bool },
    /// Its folder lost the mark, or cannot lose it, and is closed.
    Unmarked { root: RootId, after: Box<AfterCommit> },
    /// A code was made.
    Invited { id: CommandId, root: RootId, code: AccessCode, fingerprint: [u8; 16] },
    /// A code is bound to a joiner, which may now be sent the keys.
    SendKeys { conn: ConnId, root: RootId, code: AccessId },
    /// The keys of a club were taken.
    Joined { conn: ConnId, root: RootId },
    /// Settings take effect.
    Set { id: CommandId, settings: Vec<(String, String)> },
    /// The engine's last commit.
    Stopped,
}

/// A stop on its way.
#[derive(Debug)]
pub(super) struct Quit {
    /// The commands that asked for it.
    ids: Vec<CommandId>,
    /// When it goes on, whatever is still under way.
    at: Instant,
    /// Whether the last commit was put out.
    marked: bool,
    /// Whether all who asked were told.
    over: bool,
}

fn refusal(code: &'static str, message: impl Into<String>) -> CommandError {
    CommandError { code, message: message.into() }
}

/// Why a command whose outcome could not be stored failed, and what to do.
fn store_refusal(error: StoreError) -> CommandError {
    let code = match error {
        StoreError::NoSpace => "disk_full",
        StoreError::Corrupt => "database_damaged",
        StoreError::Io => "database",
    };
    refusal(code, status::store_sentence(error))
}

impl Engine {
    /// Carries out a command, or begins to.
    pub(super) fn command(&mut self, now: Now, id: CommandId, command: Command) {
        if let Some(why) = self.boot.failed()
            && !matches!(command, Command::Stop | Command::Status)
        {
            let error = refusal("database", why.clone());
            return self.reply(id, Err(error));
        }
        if self.stopping && !matches!(command, Command::Stop | Command::Status) {
            return self.reply(id, Err(refusal("stopping", "The node is stopping; start it again first.")));
        }
        self.out.set_owner(None);
        match command {
            Command::CreateShare { path } => self.create_share(id, path),
            Command::Invite { path, level, valid_for, multi_use } => {
                let new = NewCode { level, multi_use, valid_for };
                self.invite(now, id, &path, new);
            }
            Command::Attach { code, path, existing, peers } => self.attach(id, &code, path, existing, peers),
            Command::Detach { path } => self.detach(now, id, &path),
            Command::Connect { addr } => self.connect(now, id, addr),
            Command::Pause => self.pause(now, id),
            Command::Resume => self.resume(now, id),
            Command::Status => {
                let status = self.node_status(now);
                self.reply(id, Ok(Reply::Status(status)));
            }
            Command::Peers => {
                let peers =
                    self.shares.iter().flat_map(|(&root, share)| self.peers_of(root, share)).collect();
                self.reply(id, Ok(Reply::Peers(peers)));
            }
            Command::Conflicts { path } => self.list_conflicts(id, path.as_deref()),
            Command::Resolve { path, keep } => self.resolve(now, id, &path, keep),
            Command::Deletions { path } => {
                let held = self.roots_at(path.as_deref()).map(|roots| self.held_deletions(&roots));
                self.reply(id, held.map(Reply::Deletions));
            }
            Command::DecideDeletions { path, confirm } => {
                let decided = self.decide_deletions(now, &path, confirm);
                self.reply(id, decided);
            }
            Command::Archive { path } => self.list_archive(id, &path),
            Command::Restore { path, folder } => self.restore(id, &path, folder),
            Command::Why { path } => self.why(now, id, &path),
            Command::ReadSettings { key } => {
                let settings = match key {
                    None => Ok(self.settings.list()),
                    Some(key) => self.settings.value(&key).map(|value| [(key, value)].into()),
                };
                let result = settings.map(Reply::Settings).map_err(|why| refusal("no_such_setting", why));
                self.reply(id, result);
            }
            Command::WriteSetting { key, value } => self.write_settings(id, [(key, value)].into()),
            Command::WriteSettings { settings } => self.write_settings(id, settings),
            Command::Stop => self.stop(now, id),
        }
    }

    fn write_settings(&mut self, id: CommandId, settings: Vec<(String, String)>) {
        let writes: Result<Vec<Write>, String> =
            settings.iter().map(|(key, value)| self.settings.set(key, value)).collect();
        match writes {
            Ok(writes) => {
                let token = self.commit(writes, Durability::Now);
                self.commits.insert(token, AfterCommit::Set { id, settings });
            }
            Err(why) => self.reply(id, Err(refusal("bad_setting", why))),
        }
    }

    /// Answers a command.
    pub(super) fn reply(&mut self, id: CommandId, result: Result<Reply, CommandError>) {
        self.out.event(Event::Done { id, result });
    }

    /// Takes the end of work that is no share's.
    pub(super) fn own_completion(&mut self, now: Now, token: Token, mut completion: Completion) {
        if self.boot_completion(now, token, &mut completion) {
            return;
        }
        let Some(completion) = self.setup_completion(now, token, completion) else { return };
        if let Some(after) = self.commits.remove(&token) {
            return self.committed(now, after, completion);
        }
        if let Some(ask) = self.archives.remove(&token) {
            return self.answered(now, ask, completion);
        }
        match completion {
            Completion::Disk(Err(error)) => log::warn!("disk: {error:?}"),
            Completion::Store(Err(error)) => log::error!("store: {error:?}"),
            Completion::Disk(Ok(_)) | Completion::Store(Ok(_)) => {}
        }
    }

    fn committed(&mut self, now: Now, after: AfterCommit, completion: Completion) {
        let result = match completion {
            Completion::Store(Ok(StoreDone::Committed | StoreDone::Loaded(_))) | Completion::Disk(Ok(_)) => {
                Ok(())
            }
            Completion::Store(Err(error)) => Err(error),
            Completion::Disk(Err(error)) => {
                log::warn!("disk: {error:?} before {after:?}");
                match after {
                    AfterCommit::Marked { conn, root } => {
                        let why = status::disk_sentence(error);
                        let why = format!(".clearskies/share cannot be written: {why}");
                        self.not_joined(conn, root, &why);
                    }
                    // The folder of a share that is none any more; it is forgotten all the same.
                    AfterCommit::Unmarked { root, after } => self.let_go(root, false, *after),
                    AfterCommit::Reply(id, reply, None) => self.reply(id, Ok(reply)),
                    _ => {}
                }
                return;
            }
        };
        match result {
            Ok(()) => self.stored(now, after),
            Err(error) => self.not_stored(now, after, error),
        }
    }

    fn stored(&mut self, now: Now, after: AfterCommit) {
        match after {
            AfterCommit::Nothing | AfterCommit::Addresses(_) => {}
            AfterCommit::Marked { conn, root } => self.marked(conn, root),
            AfterCommit::Reply(id, reply, root) => {
                self.reply(id, Ok(reply));
                if let Some(root) = root {
                    self.share_stored(now, root);
                }
            }
            AfterCommit::Forgotten { id, root, marked } => {
                self.let_go(root, marked, AfterCommit::Reply(id, Reply::Done, None));
            }
            AfterCommit::Unmarked { root, after } => self.let_go(root, false, *after),
            AfterCommit::Invited { id, code, fingerprint, .. } => {
                self.reply(id, Ok(Reply::Code { code, fingerprint }));
            }
            AfterCommit::SendKeys { conn, root, code } => self.send_keys(conn, root, code, now),
            AfterCommit::Joined { conn, root } => self.joined(now, conn, root),
            AfterCommit::Set { id, settings } => {
                for (key, value) in &settings {
                    self.settings.restore(key, value);
                }
                // What the archives may hold may be less now.
                self.prune_at = now.mono;
                self.heed_clocks(now);
                self.reply(id, Ok(Reply::Done));
            }
            AfterCommit::Stopped => self.stopped(),
        }
    }

    /// What was to be stored is not: nothing that it promised may happen.
    fn not_stored(&mut self, now: Now, after: AfterCommit, error: StoreError) {
        log::error!("store: {error:?} before {after:?}");
        match after {
            AfterCommit::Nothing | AfterCommit::Marked { .. } | AfterCommit::Unmarked { .. } => {}
            AfterCommit::Addresses(root) => self.dialer.not_stored(root, now.mono.plus(STORE_PAUSE)),
            AfterCommit::Reply(id, _, root) => {
                if let Some(root) = root {
                    self.unmake(root);
                }
                self.reply(id, Err(store_refusal(error)));
            }
            AfterCommit::Forgotten { id, root, .. } => {
                self.let_go(root, false, AfterCommit::Nothing);
                self.reply(id, Err(store_refusal(error)));
            }
            AfterCommit::Invited { id, root, code, .. } => {
                if let Some(share) = self.shares.get_mut(&root) {
                    share.codes.revoke(&code.access_id());
                }
                self.reply(id, Err(store_refusal(error)));
            }
            AfterCommit::SendKeys { conn, .. } => {
                self.links.close(
                    conn,
                    "limit",
                    "the access code cannot be bound: the node's database takes nothing",
                );
            }
            AfterCommit::Joined { conn, root } => {
                self.not_joined(conn, root, status::store_sentence(error));
            }
            AfterCommit::Set { id, .. } => self.reply(id, Err(store_refusal(error))),
            AfterCommit::Stopped => {
                let message = format!(
                    "What was done last may not be on disk, and is found again at the next start. {}",
                    status::store_sentence(error)
                );
                self.out.event(Event::Notice { share: None, message });
                self.stopped();
            }
        }
    }

    /// A share that could not be stored is none.
    fn unmake(&mut self, root: RootId) {
        let Some(share) = self.shares.remove(&root) else { return };
        self.dialer.remove(root);
        self.let_go(root, !share.folder.marker.is_empty(), AfterCommit::Nothing);
    }

    fn invite(&mut self, now: Now, id: CommandId, path: &str, new: NewCode) {
        let made = self.make_code(now, path, new);
        match made {
            Ok((root, code, fingerprint, write)) => {
                let token = self.commit([write].into(), Durability::Now);
                self.commits.insert(token, AfterCommit::Invited { id, root, code, fingerprint });
            }
            Err(error) => self.reply(id, Err(error)),
        }
    }

    fn make_code(
        &mut self,
        now: Now,
        path: &str,
        new: NewCode,
    ) -> Result<(RootId, AccessCode, [u8; 16], Write), CommandError> {
        let root = self.share_at(path).ok_or_else(|| not_shared(path))?;
        let share = self.shares.get_mut(&root).ok_or_else(|| not_shared(path))?;
        let Some(club) = share.club.as_ref().filter(|_| share.membership == Membership::Member) else {
            let message =
                format!("{path} has not met a member yet; codes can be made once the first one was reached.");
            return Err(refusal("joining", message));
        };
        if club.level() < Level::ReadWrite {
            let message = format!(
                "{path} is held with less than read_write here; ask a member who may write for a code."
            );
            return Err(refusal("level", message));
        }
        if new.level != Level::ReadWrite {
            let level = new.level.name();
            let message =
                format!("Codes for {level} cannot be made by this version; make one for read_write.");
            return Err(refusal("not_there_yet", message));
        }
        let fingerprint = club.fingerprint();
        let Some(code) = share.codes.create(new, now.wall, &mut self.rng) else {
            let message =
                format!("{path} has {CODES_MAX} open codes, the most there can be; wait until some expire.");
            return Err(refusal("limit", message));
        };
        let write = put_fact(root, Fact::Codes, share.codes.encode().to_vec());
        Ok((root, code, fingerprint, write))
    }

    fn connect(&mut self, now: Now, id: CommandId, addr: SocketAddr) {
        if !is_dialable(addr) {
            let message =
                format!("{addr} names no computer that could be reached; give its address and port.");
            return self.reply(id, Err(refusal("bad_address", message)));
        }
        if self.shares.is_empty() {
            let message = "There is no share to connect for; make or attach one first.";
            return self.reply(id, Err(refusal("no_share", message)));
        }
        let roots: Vec<RootId> = self.shares.keys().copied().collect();
        let mut writes = Vec::with_capacity(roots.len());
        for root in roots {
            if self.dialer.add(root, addr, Source::Manual, now.mono) {
                writes.push(put_fact(root, Fact::Addresses, self.dialer.encode(root)));
            }
        }
        if writes.is_empty() {
            let message = format!("{addr} is not taken: too many addresses are known already.");
            return self.reply(id, Err(refusal("limit", message)));
        }
        self.dialer.reset(now.mono);
        let token = self.commit(writes, Durability::Now);
        self.commits.insert(token, AfterCommit::Reply(id, Reply::Done, None));
    }

    fn pause(&mut self, now: Now, id: CommandId) {
        self.paused = true;
        for share in self.shares.values_mut() {
            share.paused = true;
        }
        self.close_all("paused", "the node was paused");
        self.pump_all(now);
        self.store_paused(id);
    }

    fn resume(&mut self, now: Now, id: CommandId) {
        self.paused = false;
        for share in self.shares.values_mut() {
            share.paused = false;
            // What happened meanwhile happened when the disk says.
            share.survey.abandon();
            share.work.retry_all();
        }
        self.dialer.reset(now.mono);
        self.pump_all(now);
        self.store_paused(id);
    }

    fn store_paused(&mut self, id: CommandId) {
        let write = self.settings.set_paused(self.paused);
        let token = self.commit([write].into(), Durability::Now);
        self.commits.insert(token, AfterCommit::Reply(id, Reply::Done, None));
    }

    pub(super) fn close_all(&mut self, code: &'static str, why: &str) {
        let conns: Vec<ConnId> = self.links.all.keys().copied().collect();
        for conn in conns {
            self.links.close(conn, code, why);
        }
    }

    fn pump_all(&mut self, now: Now) {
        let roots: Vec<RootId> = self.shares.keys().copied().collect();
        for root in roots {
            if let Some((share, mut ctx)) = self.share_ctx(now, root) {
                share.pump(&mut ctx);
            }
        }
        self.out.set_owner(None);
    }

    /// Begins to end everything: nothing new is begun, and what is under way gets a moment.
    fn stop(&mut self, now: Now, id: CommandId) {
        if let Some(quit) = &mut self.quit {
            quit.ids.push(id);
            if quit.over {
                self.stopped();
            }
            return;
        }
        let at = now.mono.plus(QUIT_WAIT);
        self.quit = Some(Quit { ids: [id].into(), at, marked: false, over: false });
        self.stopping = true;
        for share in self.shares.values_mut() {
            share.paused = true;
        }
        self.close_all("shutdown", "the node stops");
        if self.boot.failed().is_some() {
            self.stopped();
        }
    }

    /// When a stop goes on at the latest.
    pub(super) fn quit_timeout(&self) -> Option<Instant> {
        self.quit.as_ref().filter(|quit| !quit.marked).map(|quit| quit.at)
    }

    /// Puts out the last commit once nothing else is under way, or the wait for it is over. Installs that still are
    /// have their intents stored; a file that was not received in full goes on at the next start.
    pub(super) fn quit_when_quiet(&mut self, now: Now) {
        let quiet = self.out.outstanding() == 0;
        match &mut self.quit {
            Some(quit) if !quit.marked && (quiet || quit.at <= now.mono) => quit.marked = true,
            _ => return,
        }
        let key = layout::node_key(STOPPED);
        let write = Write::Put { space: Space::Meta, key, value: Vec::new() };
        let token = self.commit([write].into(), Durability::Now);
        self.commits.insert(token, AfterCommit::Stopped);
    }

    fn stopped(&mut self) {
        let ids = self.quit.as_mut().map(|quit| {
            (quit.marked, quit.over) = (true, true);
            core::mem::take(&mut quit.ids)
        });
        for id in ids.into_iter().flatten() {
            self.reply(id, Ok(Reply::Done));
        }
        self.out.event(Event::Stopped);
    }

    /// What this computer is called toward members.
    pub(super) fn node_name(&self) -> &str {
        self.settings.name().unwrap_or(&self.config.name)
    }

    /// Whether peers are looked for on the local network.
    pub(super) fn uses_lan(&self) -> bool {
        self.config.lan && self.settings.lan()
    }

    fn node_status(&mut self, now: Now) -> NodeStatus {
        self.heed_clocks(now);
        let status = |(&root, share): (&RootId, &Share)| share.status(self.dialed_peers(root), now.mono);
        let shares = self.shares.iter().map(status).collect();
        NodeStatus {
            paused: self.paused,
            upload_rate: self.rates.sent.per_second(now.mono),
            download_rate: self.rates.received.per_second(now.mono),
            shares,
        }
    }

    /// Peers of a share whose address is remembered.
    fn dialed_peers(&self, root: RootId) -> impl Iterator<Item = PeerId> {
        self.dialer.addresses(root).filter_map(|(_, _, peer)| peer)
    }

    fn peers_of(&self, root: RootId, share: &Share) -> Vec<PeerStatus> {
        let known: BTreeSet<PeerId> = share.known_peers(self.dialed_peers(root));
        known.into_iter().map(|peer| self.peer_status(root, share, peer)).collect()
    }

    fn peer_status(&self, root: RootId, share: &Share, peer: PeerId) -> PeerStatus {
        let links = self.links.all.values().filter(|link| link.club == Some(root) && link.peer == Some(peer));
        let link = links.clone().find(|link| link.stage == Stage::Open);
        let past = share.traffic.get(&peer).copied().unwrap_or_default();
        let (received, sent) = links.filter(|link| link.member).fold(past, |(received, sent), link| {
            (received.saturating_add(link.received), sent.saturating_add(link.sent))
        });
        let dialed = self.dialer.addresses(root).find(|(_, _, proven)| *proven == Some(peer));
        PeerStatus {
            share: share.folder.path.clone(),
            id: peer.to_string(),
            name: share.names.get(&peer).cloned().unwrap_or_default(),
            connected: link.is_some(),
            addr: link.map(|link| link.addr).or(dialed.map(|(addr, ..)| addr)),
            level: link.and_then(|link| link.connection.as_ref()).map(Connection::level),
            received,
            sent,
        }
    }

    /// The share at a path, or all.
    fn roots_at(&self, path: Option<&str>) -> Result<Vec<RootId>, CommandError> {
        match path {
            None => Ok(self.shares.keys().copied().collect()),
            Some(path) => self.share_at(path).map(|root| [root].into()).ok_or_else(|| not_shared(path)),
        }
    }

    fn held_deletions(&self, roots: &[RootId]) -> Vec<HeldDeletions> {
        let shares = roots.iter().filter_map(|root| self.shares.get(root));
        let held = shares.filter(|share| !share.survey.held.is_empty()).map(|share| HeldDeletions {
            share: share.folder.path.clone(),
            count: share.survey.held.count(),
            paths: share
                .survey
                .held
                .paths()
                .take(HELD_PATHS_MAX)
                .map(|path| path.as_str().to_owned())
                .collect(),
        });
        held.collect()
    }

    fn decide_deletions(&mut self, now: Now, path: &str, confirm: bool) -> Result<Reply, CommandError> {
        let root = self.share_at(path).ok_or_else(|| not_shared(path))?;
        let (share, mut ctx) = self.share_ctx(now, root).ok_or_else(|| not_shared(path))?;
        if share.survey.held.is_empty() {
            return Err(refusal("nothing_held", format!("No deletes are held back in {path}.")));
        }
        share.survey.decide(if confirm { GoneMode::Confirmed } else { GoneMode::Restored });
        share.pump(&mut ctx);
        Ok(Reply::Done)
    }

    /// The share in which an absolute path lies, and the path there.
    fn locate<'p>(&self, path: &'p str) -> Result<(RootId, &'p str), CommandError> {
        let inside = |share: &Share| {
            let rest = path.strip_prefix(share.folder.path.as_str())?;
            if share.folder.path.ends_with('/') || rest.is_empty() {
                Some(rest)
            } else {
                rest.strip_prefix('/')
            }
        };
        let found = self.shares.iter().filter_map(|(&root, share)| Some((root, inside(share)?)));
        found.min_by_key(|(_, rest)| rest.len()).ok_or_else(|| {
            let message =
                format!("{path} lies in no share of this node; `clearskies list` shows what is shared.");
            refusal("no_such_share", message)
        })
    }

    /// As [`Engine::locate`], of a path that can exist in a share and is not its folder.
    fn locate_file(&self, path: &str) -> Result<(RootId, RelPath), CommandError> {
        let (root, rest) = self.locate(path)?;
        if rest.is_empty() {
            return Err(refusal("path", format!("{path} is the share itself; name a file in it.")));
        }
        RelPath::check(rest).map_err(|why| refusal("path", format!("{path}: {}", why.sentence())))?;
        let path =
            RelPath::new(rest).ok_or_else(|| refusal("path", format!("{path} is no path of a file.")))?;
        Ok((root, path))
    }

    /// The absolute form of a share's path.
    fn absolute(&self, root: RootId, path: &RelPath) -> String {
        let folder = self.shares.get(&root).map_or("", |share| share.folder.path.as_str());
        let slash = if folder.ends_with('/') { "" } else { "/" };
        format!("{folder}{slash}{}", path.as_str())
    }
}
