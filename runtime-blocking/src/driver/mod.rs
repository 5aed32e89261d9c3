//! The loop: one thread that carries bytes, datagrams, completions, hints and time to the engine, and does what the
//! engine asks for. Owns the sockets and the poll; holds no protocol logic.
//!
//! The rule for hosts (architecture, "The engine") is [`Driver::settle`]: drain the outputs, flush what can be
//! written, and only then sleep until the engine's time-out.

mod conns;
mod inbox;
mod start;

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use clearskies_core::engine::Engine;
use clearskies_core::engine::command::{Command, CommandError, Reply};
use clearskies_core::engine::event::Event;
use clearskies_core::ids::CommandId;
use clearskies_core::io::{Completion, Output, StoreError};
use clearskies_core::time::Instant;
use clearskies_host::clock::Clock;
use clearskies_host::disk::DiskPool;
use clearskies_host::interfaces::{self, InterfaceWatch};
use clearskies_host::lock::HomeLock;
use clearskies_host::net::{self, Lan};
use clearskies_host::run_token::RunFile;
use clearskies_host::store::StoreThread;
use clearskies_host::watch::{self, Inotify, WatchEvent, Watcher};
use mio::net::TcpListener;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::control::server::{Here, Served, Server};
use crate::daemon::home::Home;
use crate::options::EventSink;
use conns::Conns;
pub(crate) use inbox::Inbox;
use inbox::Mail;

/// Mio's names of all that is no connection and no control client.
mod token {
    use mio::Token;
    pub(super) const WAKER: Token = Token(0);
    pub(super) const LISTENER: Token = Token(1);
    pub(super) const LAN: Token = Token(2);
    pub(super) const INTERFACES: Token = Token(3);
    pub(super) const WATCH: Token = Token(4);
    /// The control socket; its clients follow, up to the connections.
    pub(super) const CONTROL: Token = Token(16);
}

/// Readiness events taken at once.
const EVENTS_MAX: usize = 256;
/// Connections accepted before others have their turn.
const ACCEPTS_MAX: usize = 64;
/// Datagrams taken from each socket before others have their turn.
const DATAGRAMS_MAX: usize = 64;
/// After an accept failed (no descriptors are left, mostly), the next try is this much later.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);
/// How often the interface addresses are compared with those last seen, where the system does not tell of changes.
const INTERFACES_EVERY: Duration = Duration::from_secs(15);
/// How long a stop may take before the process ends regardless.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The loop and all that it drives. Fields are dropped in their order: the lock on the home goes last.
pub struct Driver {
    poll: Poll,
    clock: Clock,
    engine: Engine,
    inbox: Arc<Inbox>,
    conns: Conns,
    listener: TcpListener,
    /// When to try to accept again; `None` while nothing waits to be accepted.
    accept_at: Option<Instant>,
    port: u16,
    lan: Option<Lan>,
    /// Whether a datagram may be waiting.
    lan_readable: bool,
    addrs: Vec<(IpAddr, u8)>,
    /// When the addresses are to be looked at again; `None` where that is told.
    addrs_at: Option<Instant>,
    interfaces: Option<InterfaceWatch>,
    watch: Option<Arc<Inotify>>,
    askers: HashMap<CommandId, Sender<Result<Reply, CommandError>>>,
    events: EventSink,
    stop: Stop,
    disk: DiskPool,
    store: StoreThread,
    control: Option<Server>,
    home: Home,
    run: RunFile,
    /// Held, never read: a second node on this home is refused while it lives.
    _lock: HomeLock,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("home", &self.home).field("port", &self.port).finish_non_exhaustive()
    }
}

/// How far stopping has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    No,
    /// The engine was asked; it is given until then.
    Asked(Instant),
    /// The engine has stored everything; goodbyes are still sent until then.
    Stored(Instant),
}

impl Driver {
    /// The TCP port on which the node listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where other threads put what is for this driver.
    pub(crate) fn inbox(&self) -> Arc<Inbox> {
        self.inbox.clone()
    }

    /// Runs until the node has stopped.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut mail = Mail::default();
        self.check_interfaces();
        loop {
            self.settle();
            if self.ended() {
                break;
            }
            let timeout = self.sleep();
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in events.iter() {
                self.ready(event);
            }
            self.read_mail(&mut mail);
            self.accept();
            self.receive_datagrams();
            self.read_connections();
            self.pass_time();
        }
        if let Some(control) = &mut self.control {
            control.flush_all();
        }
        // Both finish what was begun; only then may the mark say that nothing is missing.
        self.disk.shutdown();
        self.store.shutdown();
        if matches!(self.stop, Stop::Stored(_)) {
            self.run.end()?;
        } else {
            log::warn!("stopping took too long; the next start looks through all folders again");
        }
        log::info!("stopped");
        Ok(())
    }

    /// Does all that the engine asks for, until it asks for nothing more.
    fn settle(&mut self) {
        self.conns.begin_turn();
        loop {
            let mut quiet = true;
            while let Some(output) = self.engine.poll_output() {
                quiet = false;
                self.act(output);
            }
            while let Some(conn) = self.engine.poll_writable() {
                self.conns.queue_write(conn);
            }
            while self.conns.write_next(&mut self.engine, self.clock.now()) {
                quiet = false;
            }
            quiet &= !self.take_requests();
            if quiet {
                break;
            }
        }
    }

    fn act(&mut self, output: Output) {
        let now = self.clock.now();
        match output {
            Output::Dial { conn, addr } => {
                if let Err(error) = self.conns.dial(self.poll.registry(), now, conn, addr) {
                    log::debug!("cannot dial {addr}: {error}");
                    self.engine.handle_dial_failed(now, conn);
                }
            }
            Output::Close { conn } => self.conns.close(now, conn),
            Output::Interest { conn, read } => self.conns.want(conn, read),
            Output::Datagram { addr, bytes } => {
                if let Some(lan) = &self.lan {
                    lan.send(addr, &bytes);
                }
            }
            Output::Disk { token, op } => self.disk.submit(token, op),
            Output::Store { token, op } => {
                if self.store.submit(token, op).is_err() {
                    // Its thread is gone, which is a bug of ours and logged as one; the token still gets its answer.
                    self.inbox.complete(token, Completion::Store(Err(StoreError::Io)));
                }
            }
            Output::NameRun => self.engine.handle_run_named(now, self.run.begin()),
            Output::Event(Event::Done { id, result }) => self.done(id, result),
            Output::Event(Event::Stopped) => {
                self.stop = Stop::Stored(now.mono.plus(Duration::from_secs(1)));
                (self.events)(Event::Stopped);
            }
            Output::Event(event) => (self.events)(event),
        }
    }

    fn done(&mut self, id: CommandId, result: Result<Reply, CommandError>) {
        if let Some(sender) = self.askers.remove(&id) {
            // Whoever asked may have gone.
            let _ = sender.send(result);
        } else if let Some(control) = &mut self.control {
            control.done(id, result);
        }
    }

    /// How long to sleep; zero while something can go on.
    fn sleep(&mut self) -> Option<Duration> {
        if self.conns.busy() || self.lan_readable {
            return Some(Duration::ZERO);
        }
        let stop = match self.stop {
            Stop::No => None,
            Stop::Asked(at) | Stop::Stored(at) => Some(at),
        };
        [self.engine.poll_timeout(), self.conns.deadline(), self.accept_at, stop, self.addrs_at]
            .into_iter()
            .flatten()
            .min()
            .map(|at| self.clock.until(at))
    }

    fn ready(&mut self, event: &mio::event::Event) {
        let now = self.clock.now();
        match event.token() {
            token::WAKER => {}
            token::LISTENER => self.accept_at = Some(now.mono),
            token::LAN => self.lan_readable = true,
            token::INTERFACES => {
                if self.interfaces.as_ref().is_some_and(InterfaceWatch::changed) {
                    self.check_interfaces();
                }
            }
            token::WATCH => self.read_hints(),
            Token(number) if number >= conns::FIRST_TOKEN => {
                self.conns.ready(&mut self.engine, now, Conns::named(event.token()), event);
            }
            Token(number) => {
                if let (Some(control), Some(number)) =
                    (&mut self.control, number.checked_sub(token::CONTROL.0))
                {
                    control.ready(self.poll.registry(), number, event);
                }
            }
        }
    }

    fn read_mail(&mut self, mail: &mut Mail) {
        self.inbox.take(mail);
        let now = self.clock.now();
        for (token, completion) in mail.completions.drain(..) {
            self.engine.handle_completion(now, token, completion);
        }
        for (command, sender) in mail.asks.drain(..) {
            let id = self.engine.handle_command(now, command);
            self.askers.insert(id, sender);
        }
        if std::mem::take(&mut mail.stop) {
            self.begin_stop("asked to stop");
        }
    }

    fn accept(&mut self) {
        let now = self.clock.now();
        if self.accept_at.is_none_or(|at| at > now.mono) {
            return;
        }
        for _ in 0..ACCEPTS_MAX {
            match self.listener.accept() {
                Ok((stream, from)) => {
                    let Some(conn) = self.engine.handle_accepted(now, net::plain(from)) else { continue };
                    if let Err(error) = self.conns.accept(self.poll.registry(), conn, stream) {
                        log::warn!("a connection cannot be taken: {error}");
                        self.engine.handle_closed(now, conn);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return self.accept_at = None,
                Err(error)
                    if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                Err(error) => {
                    log::warn!("no connection can be accepted now: {error}");
                    return self.accept_at = Some(now.mono.plus(ACCEPT_RETRY));
                }
            }
        }
    }

    fn receive_datagrams(&mut self) {
        if let (Some(lan), true) = (&self.lan, self.lan_readable) {
            let take = |from, bytes: &[u8]| self.engine.handle_datagram(self.clock.now(), from, bytes);
            self.lan_readable = lan.receive(DATAGRAMS_MAX, take);
        }
    }

    /// Reads once from each connection that has something, heeding at once what the engine says to it.
    fn read_connections(&mut self) {
        for _ in 0..self.conns.reads_waiting() {
            self.conns.read_next(&mut self.engine, self.clock.now());
            while let Some(output) = self.engine.poll_output() {
                self.act(output);
            }
        }
    }

    fn pass_time(&mut self) {
        let now = self.clock.now();
        self.conns.expire(&mut self.engine, now);
        if self.addrs_at.is_some_and(|at| at <= now.mono) {
            self.check_interfaces();
        }
        if self.engine.poll_timeout().is_some_and(|at| at <= now.mono) {
            self.engine.handle_timeout(now);
        }
    }

    fn check_interfaces(&mut self) {
        let now = self.clock.now();
        self.addrs_at = self.interfaces.is_none().then(|| now.mono.plus(INTERFACES_EVERY));
        let mut addrs = interfaces::interfaces();
        addrs.sort_unstable();
        if addrs != self.addrs {
            if let Some(lan) = &mut self.lan {
                lan.set_interfaces(&interfaces::lan_interfaces());
            }
            self.engine.handle_interfaces(now, &addrs);
            self.addrs = addrs;
        }
    }

    fn read_hints(&mut self) {
        let Some(watch) = &self.watch else { return };
        let now = self.clock.now();
        let (engine, events) = (&mut self.engine, &mut self.events);
        watch.poll(&mut |event| match event {
            WatchEvent::Hint { root, path, seen } => engine.handle_fs_event(now, root, &path, seen),
            WatchEvent::Unusable { root, dir, name, there } => {
                engine.handle_fs_unusable(root, dir, &name, there);
            }
            WatchEvent::Overflow(root) => engine.handle_fs_overflow(now, root),
            WatchEvent::Limit => events(Event::Notice { share: None, message: watch::LIMIT_REACHED.into() }),
        });
        // There may be more than one poll takes: the system says so again if it is asked again.
        let (fd, registry) = (watch.as_fd().as_raw_fd(), self.poll.registry());
        if let Err(error) = registry.reregister(&mut SourceFd(&fd), token::WATCH, Interest::READABLE) {
            log::warn!("folders are no longer watched: {error}");
        }
    }

    fn begin_stop(&mut self, why: &str) {
        if self.stop != Stop::No {
            return;
        }
        log::info!("stopping: {why}");
        let now = self.clock.now();
        self.stop = Stop::Asked(now.mono.plus(STOP_TIMEOUT));
        self.engine.handle_command(now, Command::Stop);
    }

    fn ended(&self) -> bool {
        let now = self.clock.mono();
        match self.stop {
            Stop::No => false,
            Stop::Asked(until) => now >= until,
            Stop::Stored(until) => now >= until || !self.conns.closing(),
        }
    }

    /// Carries out what control clients ask for; whether there was anything.
    fn take_requests(&mut self) -> bool {
        let now = self.clock.now();
        let Some(control) = &mut self.control else { return false };
        let here = Here { port: self.port, addrs: &self.addrs, lan: self.lan.is_some() };
        let served = control.carry_out(&mut self.engine, now, &here);
        if served == Served::Stop {
            self.begin_stop("a control client asked for it");
        }
        served != Served::Nothing
    }
}
