//! The engine: routes inputs to clubs, connections and shares, and collects what they want done.

pub mod boot;
pub mod command;
pub mod commands;
pub mod event;
mod flow;
pub mod links;
pub mod outbox;
pub mod peers;
pub mod rates;
pub mod runs;
pub mod seekers;
pub mod settings;
pub mod setup;

use alloc::collections::{BTreeMap, VecDeque};
#[cfg(any(test, feature = "simulator"))]
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

#[cfg(any(test, feature = "simulator"))]
use crate::channel::Transport;
#[cfg(any(test, feature = "simulator"))]
use crate::channel::plain::Signatures;
use crate::channel::tls::LazyIdentity;
use crate::config::Config;
use crate::discovery::dialer::Dialer;
use crate::discovery::lan::{self, Lan};
use crate::engine::boot::Boot;
use crate::engine::command::Command;
use crate::engine::links::{Links, Stage};
use crate::engine::outbox::Outbox;
use crate::engine::seekers::Seekers;
use crate::engine::settings::Settings;
use crate::engine::setup::Setup;
use crate::files::path::RelPath;
use crate::ids::{CommandId, ConnId, RootId, Token};
use crate::io::{Completion, Noticed, Output};
use crate::rng::Rng;
use crate::share::{Ctx, Share};
use crate::time::{Instant, Now};

/// The engine of one process: all shares, all connections.
///
/// Hosts may call anything in any order. Before sleeping they drain [`Engine::poll_output`], flush writable sockets
/// with [`Engine::poll_transmit`], and re-read [`Engine::poll_timeout`].
#[derive(Debug)]
pub struct Engine {
    config: Config,
    rng: Rng,
    out: Outbox,
    links: Links,
    shares: BTreeMap<RootId, Share>,
    next_root: u32,
    setups: BTreeMap<RootId, Setup>,
    dialer: Dialer,
    lan: Lan,
    settings: Settings,
    boot: Boot,
    /// Commands that came before the store was read.
    early: VecDeque<(CommandId, Command)>,
    next_command: u64,
    commits: BTreeMap<Token, commands::AfterCommit>,
    seekers: Seekers,
    archives: BTreeMap<Token, commands::ArchiveAsk>,
    tls: LazyIdentity,
    tls_day: u32,
    paused: bool,
    stopping: bool,
    /// Who waits for the end, once it was asked for.
    quit: Option<commands::Quit>,
    /// When the archives are looked through for what may go.
    prune_at: Instant,
    rates: rates::Rates,
    /// When a share was last called.
    called: Option<Now>,
    /// Runs of peers that a later one replaced.
    runs: runs::Runs,
    /// How links are protected instead, in simulators.
    #[cfg(any(test, feature = "simulator"))]
    plain: Option<Transport>,
}

impl Engine {
    /// Makes an engine, which first of all reads its store. `seed` is 32 bytes of the system's generator, drawn at
    /// each start.
    pub fn new(config: Config, seed: [u8; 32], now: Now) -> Engine {
        let mut rng = Rng::from_seed(seed);
        let tls = LazyIdentity::draw(&mut rng);
        let mut out = Outbox::default();
        let boot = Boot::begin(&mut out);
        Engine {
            lan: Lan::new(config.listen_port),
            dialer: Dialer::default(),
            config,
            rng,
            out,
            links: Links::default(),
            shares: BTreeMap::new(),
            next_root: 1,
            setups: BTreeMap::new(),
            settings: Settings::default(),
            boot,
            early: VecDeque::new(),
            next_command: 0,
            commits: BTreeMap::new(),
            seekers: Seekers::default(),
            archives: BTreeMap::new(),
            tls,
            tls_day: lan::day(now.wall),
            paused: false,
            stopping: false,
            quit: None,
            prune_at: now.mono.plus(commands::PRUNE_FIRST),
            rates: rates::Rates::default(),
            called: None,
            runs: runs::Runs::default(),
            #[cfg(any(test, feature = "simulator"))]
            plain: None,
        }
    }

    /// Makes an engine whose links are not protected, for simulators.
    #[cfg(any(test, feature = "simulator"))]
    pub fn new_plain(config: Config, seed: [u8; 32], now: Now) -> Engine {
        Engine { plain: Some(Transport::Plain), ..Engine::new(config, seed, now) }
    }

    /// As [`Engine::new_plain`], in a simulator that remembers what the ends of its links sign.
    #[cfg(any(test, feature = "simulator"))]
    pub fn new_plain_here(
        config: Config,
        seed: [u8; 32],
        now: Now,
        signatures: Arc<dyn Signatures>,
    ) -> Engine {
        Engine { plain: Some(Transport::PlainHere(signatures)), ..Engine::new(config, seed, now) }
    }

    /// Sets when links are compressed, as the stored setting does.
    #[cfg(any(test, feature = "simulator"))]
    pub fn compress(&mut self, compression: &str) {
        self.settings.restore(settings::COMPRESSION, compression);
    }

    /// A connection was accepted; the engine names it, or refuses it (then the host closes the socket).
    pub fn handle_accepted(&mut self, now: Now, from: SocketAddr) -> Option<ConnId> {
        self.accept(now, from)
    }

    /// A dial that the engine asked for succeeded.
    pub fn handle_dialed(&mut self, now: Now, conn: ConnId) {
        self.dialed(now, conn);
        self.settle(now);
    }

    /// A dial that the engine asked for failed; the connection's name is done with.
    pub fn handle_dial_failed(&mut self, now: Now, conn: ConnId) {
        self.gone(now, conn);
        self.settle(now);
    }

    /// The host has put this run's token beside the store as [`Output::NameRun`] asks, or could not; then the start is
    /// tried again after a while.
    pub fn handle_run_named(&mut self, now: Now, done: bool) {
        self.run_named(now, done);
        self.settle(now);
    }

    /// The connection is gone, by whatever cause; its name is done with.
    pub fn handle_closed(&mut self, now: Now, conn: ConnId) {
        self.gone(now, conn);
        self.settle(now);
    }

    /// Bytes came off the wire. All of them are taken.
    pub fn handle_received(&mut self, now: Now, conn: ConnId, bytes: &[u8]) {
        self.received(now, conn, bytes);
        self.settle(now);
    }

    /// A datagram came in on the LAN-discovery socket.
    pub fn handle_datagram(&mut self, now: Now, from: SocketAddr, bytes: &[u8]) {
        self.datagram(now, from, bytes);
        self.settle(now);
    }

    /// An output with a token ended.
    pub fn handle_completion(&mut self, now: Now, token: Token, completion: Completion) {
        match self.out.take_owner(token) {
            Some(Some(root)) => {
                if let Some((share, mut ctx)) = self.share_ctx(now, root) {
                    share.handle_completion(&mut ctx, token, completion);
                    share.pump(&mut ctx);
                }
            }
            Some(None) => self.own_completion(now, token, completion),
            None => {}
        }
        self.settle(now);
    }

    /// The watcher has a hint; one too many is harmless.
    pub fn handle_fs_event(&mut self, now: Now, root: RootId, path: &RelPath, seen: Noticed) {
        if let Some(share) = self.shares.get_mut(&root) {
            share.handle_fs_event(now, path, seen);
        }
    }

    /// In a directory a name came (`there`) or went that cannot be synced.
    pub fn handle_fs_unusable(&mut self, root: RootId, dir: RelPath, name: &str, there: bool) {
        if let Some(share) = self.shares.get_mut(&root) {
            share.survey.note_unusable(dir, name, there);
        }
    }

    /// Hints of this root were lost: all of it is looked through.
    pub fn handle_fs_overflow(&mut self, now: Now, root: RootId) {
        if let Some((share, mut ctx)) = self.share_ctx(now, root) {
            share.survey.look_through();
            share.pump(&mut ctx);
        }
        self.settle(now);
    }

    /// The addresses of this machine's interfaces with their prefix lengths, at start and whenever they changed.
    pub fn handle_interfaces(&mut self, now: Now, addrs: &[(IpAddr, u8)]) {
        self.interfaces(now, addrs);
        self.settle(now);
    }

    /// Time has passed; early calls do nothing.
    pub fn handle_timeout(&mut self, now: Now) {
        self.boot_timeout(now);
        let roots: Vec<RootId> = self.shares.keys().copied().collect();
        for root in roots {
            let Some((share, mut ctx)) = self.share_ctx(now, root) else { continue };
            if share.poll_timeout().is_some_and(|at| at <= now.mono) {
                share.handle_timeout(&mut ctx);
                share.pump(&mut ctx);
            }
        }
        self.connection_timeouts(now);
        self.prune_archives(now);
        self.settle(now);
    }

    /// Takes a request of the user; its outcome is an event with the id that this returns.
    pub fn handle_command(&mut self, now: Now, command: Command) -> CommandId {
        self.next_command += 1;
        let id = CommandId(self.next_command);
        if self.boot.is_done() {
            self.command(now, id, command);
        } else {
            self.early.push_back((id, command));
        }
        self.settle(now);
        id
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop()
    }

    /// Appends at most about `limit` bytes for this connection's socket to `out`; returns whether it appended any.
    /// To be called whenever the socket can take bytes, until it returns false; then again after
    /// [`Engine::poll_writable`] names it.
    pub fn poll_transmit(&mut self, now: Now, conn: ConnId, out: &mut Vec<u8>, limit: usize) -> bool {
        let before = out.len();
        let Some(link) = self.links.all.get_mut(&conn) else {
            let said = self.links.last_words(conn, out, limit);
            self.rates.sent.note((out.len() - before) as u64, now.mono);
            return said;
        };
        let Some(connection) = &mut link.connection else { return false };
        let full = connection.queued_bytes() >= links::SEND_QUEUE_BYTES / 2;
        connection.poll_transmit(out, limit);
        let sent = (out.len() - before) as u64;
        link.sent += sent;
        self.rates.sent.note(sent, now.mono);
        let room = full && self.links.queued_bytes(conn) < links::SEND_QUEUE_BYTES / 2;
        let club = self.links.all.get(&conn).filter(|link| link.stage == Stage::Open).and_then(|l| l.club);
        if let (true, Some(root)) = (room || sent == 0, club)
            && let Some((share, mut ctx)) = self.share_ctx(now, root)
            && (room || share.has_more_for(conn))
        {
            share.pump(&mut ctx);
            self.settle(now);
        }
        sent > 0
    }

    /// The socket of this connection did not take all that [`Engine::poll_transmit`] gave. A host that never says so
    /// loses nothing but compression on slow links.
    pub fn handle_full(&mut self, now: Now, conn: ConnId) {
        self.full(now, conn);
    }

    /// The connections that may have bytes to send since the last call; each is named once.
    pub fn poll_writable(&mut self) -> Option<ConnId> {
        self.links.pop_writable()
    }

    /// When [`Engine::handle_timeout`] wants to be called.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let shares = self.shares.values().filter_map(Share::poll_timeout);
        let links = self.links.all.values().filter_map(|l| l.connection.as_ref()?.poll_timeout());
        let lan = self.lan.poll_timeout().filter(|_| self.uses_lan() && !self.paused);
        let own =
            [self.boot.poll_timeout(), self.dial_timeout(), lan, self.prune_timeout(), self.quit_timeout()];
        shares.chain(links).chain(own.into_iter().flatten()).min()
    }

    /// A share together with what it may use.
    fn share_ctx(&mut self, now: Now, root: RootId) -> Option<(&mut Share, Ctx<'_>)> {
        self.heed_clock(now);
        let share = self.shares.get_mut(&root)?;
        self.out.set_owner(Some(root));
        #[cfg(any(test, feature = "simulator"))]
        if self.plain.is_some() {
            share.survey.gather_few();
        }
        let ctx = Ctx {
            now,
            out: &mut self.out,
            links: &mut self.links,
            rng: &mut self.rng,
            clock_trusted: self.settings.clock_trusted(),
            home: &self.config.home,
        };
        Some((share, ctx))
    }

    /// Where the wall clock ran otherwise than time did it was set, or the machine slept: then the links are opened
    /// anew, because peers say what their clocks show only when they introduce themselves.
    fn heed_clock(&mut self, now: Now) {
        let Some(last) = self.called.replace(now) else { return };
        let passed = i128::try_from(now.mono.since(last.mono).as_nanos()).unwrap_or(i128::MAX);
        let ran = i128::from(now.wall.0) - i128::from(last.wall.0);
        if ran.abs_diff(passed) <= u128::from(peers::CLOCK_DIFFERENCE.unsigned_abs()) {
            return;
        }
        log::info!("the clock was set, or this machine slept: all links are opened anew");
        self.shares.values_mut().for_each(Share::forget_clocks);
        self.close_all("shutdown", "this computer's clock was set, or it slept");
        self.dialer.reset(now.mono);
    }

    /// Lets every share judge the clock.
    fn heed_clocks(&mut self, now: Now) {
        let roots: Vec<RootId> = self.shares.keys().copied().collect();
        for root in roots {
            if let Some((share, mut ctx)) = self.share_ctx(now, root) {
                share.heed_clock(&mut ctx);
            }
        }
        self.out.set_owner(None);
    }

    /// Ends every input: dials, discovery, closes and read interests follow from what the parts have become.
    fn settle(&mut self, now: Now) {
        self.take_held(now);
        self.out.set_owner(None);
        self.dial(now);
        self.announce(now);
        for conn in self.links.put_out_closes(&mut self.out) {
            self.links.leave(conn);
            self.forget(now, conn);
        }
        self.update_interests(now);
        self.quit_when_quiet(now);
    }
}
