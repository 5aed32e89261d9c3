//! Putting a driver together: home, lock, store, disk pool, sockets, engine. Never runs anything.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use clearskies_core::config::Config;
use clearskies_core::engine::Engine;
use clearskies_core::io::Completion;
use clearskies_core::time::Instant;
use clearskies_host::clock::Clock;
use clearskies_host::disk::DiskPool;
use clearskies_host::entropy;
use clearskies_host::lock::{HomeLock, LockError};
use clearskies_host::run_token::RunFile;
use clearskies_host::store::{Store, StoreThread};
use clearskies_host::watch::{Inotify, Watcher};
use mio::net::UnixStream;
use mio::unix::SourceFd;
use mio::{Interest, Poll, Registry};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::conns::Conns;
use super::inbox::Inbox;
use super::net::{self, Lan};
use super::{Driver, EventSink, Options, StartError, Stop, token};
use crate::control::server::Server;
use crate::daemon::home::Home;

/// How long a holder of the home that does not answer is waited for,
const HOLDER_TIMEOUT: Duration = Duration::from_secs(5);
/// and how often the lock is tried meanwhile.
const LOCK_EVERY: Duration = Duration::from_millis(50);

/// Locks a home. A process that was killed may hold it for a moment more, until the system has done with it; only one
/// that answers is refused at once.
fn lock(home: &Home) -> Result<HomeLock, LockError> {
    let begun = std::time::Instant::now();
    loop {
        match HomeLock::acquire(home.dir()) {
            Err(LockError::Held { .. })
                if begun.elapsed() < HOLDER_TIMEOUT
                    && std::os::unix::net::UnixStream::connect(home.control()).is_err() =>
            {
                std::thread::sleep(LOCK_EVERY);
            }
            result => return result,
        }
    }
}

impl Driver {
    /// Opens everything that a node needs. Nothing happens on the network before [`Driver::run`].
    pub fn open(options: Options, events: EventSink) -> Result<Driver, StartError> {
        let home = Home::prepare(&options.home).map_err(StartError::Home)?;
        let lock =
            lock(&home).map_err(|error| StartError::Home(format!("{}: {error}", home.dir().display())))?;
        let io = |what| move |error| StartError::Io(what, error);
        let poll = Poll::new().map_err(io("cannot wait for sockets"))?;
        let registry = poll.registry();
        let waker = mio::Waker::new(registry, token::WAKER).map_err(io("cannot wait for threads"))?;
        let inbox = Arc::new(Inbox::new(waker));

        let store = Store::open(&home.store())
            .map_err(|error| StartError::Home(format!("{}: {error}", home.store().display())))?;
        let to = inbox.clone();
        let store = StoreThread::spawn(store, move |token, done| to.complete(token, Completion::Store(done)))
            .map_err(io("cannot start threads"))?;
        let watcher = open_watch(registry);
        let shared = watcher.clone().map(|watcher| watcher as Arc<dyn Watcher>);
        let to = inbox.clone();
        let disk = DiskPool::with_watcher(DiskPool::default_threads(), shared, move |token, done| {
            to.complete(token, Completion::Disk(done));
        })
        .map_err(io("cannot start threads"))?;

        let (listener, port) = listen(registry, &home, options.listen_port)?;
        let lan = options.lan.then(|| open_lan(registry));
        let signals = if options.signals {
            Some(catch_signals(registry).map_err(io("cannot catch signals"))?)
        } else {
            None
        };
        let no_entropy = |error: entropy::NoEntropy| StartError::Home(format!("Cannot start: {error}."));
        let mut token = [0; 16];
        entropy::fill(&mut token).map_err(no_entropy)?;
        let (run, run_token) =
            RunFile::begin(&home.run(), token).map_err(io("cannot write into the home folder"))?;
        let name = if options.name.is_empty() { host_name() } else { options.name };
        let config =
            Config { software: crate::SOFTWARE.into(), name, listen_port: port, lan: options.lan, run_token };
        let clock = Clock::start();
        let engine = Engine::new(config, entropy::seed().map_err(no_entropy)?, clock.now());
        // Last, so that whoever finds the socket finds a node behind it.
        let control = if options.control {
            let server = Server::open(registry, &home, token::CONTROL).map_err(StartError::Home)?;
            Some(server)
        } else {
            None
        };
        log::info!("{} listens on port {port}, home {}", crate::SOFTWARE, home.dir().display());
        Ok(Driver {
            poll,
            clock,
            engine,
            inbox,
            conns: Conns::new(),
            listener,
            accept_at: None,
            port,
            lan,
            addrs: Vec::new(),
            addrs_at: Instant(0),
            signals,
            watch: watcher,
            askers: HashMap::new(),
            events,
            stop: Stop::No,
            disk,
            store,
            control,
            home,
            run,
            _lock: lock,
        })
    }
}

/// Listens on the port that was asked for; where none was, on the last run's, so that addresses given to friends stay
/// true, or on any.
fn listen(
    registry: &Registry,
    home: &Home,
    asked: Option<u16>,
) -> Result<(mio::net::TcpListener, u16), StartError> {
    let wanted = asked.or_else(|| home.read_port()).unwrap_or(0);
    let listener = match net::listen(registry, wanted, token::LISTENER) {
        Err(error) if asked.is_none() && wanted != 0 => {
            log::warn!("port {wanted}, that of the last run, cannot be listened on: {error}; taking another");
            net::listen(registry, 0, token::LISTENER)
        }
        listener => listener,
    };
    let listener = listener.map_err(|error| StartError::Listen(wanted, error))?;
    let port = listener.local_addr().map_err(|error| StartError::Listen(wanted, error))?.port();
    if home.read_port() != Some(port)
        && let Err(error) = home.write_port(port)
    {
        log::warn!("the port cannot be remembered: {error}");
    }
    Ok((listener, port))
}

fn open_lan(registry: &Registry) -> Lan {
    let (lan, errors) = Lan::open(registry, token::LAN_V4, token::LAN_V6);
    for error in errors {
        log::warn!("peers on the local network may not be found: UDP port {}: {error}", net::LAN_PORT);
    }
    lan
}

fn catch_signals(registry: &Registry) -> io::Result<UnixStream> {
    let (mut ours, theirs) = UnixStream::pair()?;
    for signal in [SIGTERM, SIGINT] {
        let end: std::os::fd::OwnedFd = theirs.as_fd().try_clone_to_owned()?;
        signal_hook::low_level::pipe::register(signal, end)?;
    }
    registry.register(&mut ours, token::SIGNALS, Interest::READABLE)?;
    Ok(ours)
}

/// Without a watcher changes are found by looking through the folders now and then.
fn open_watch(registry: &Registry) -> Option<Arc<Inotify>> {
    let opened = Inotify::new().and_then(|watcher| watch(registry, &watcher, false).map(|()| watcher));
    opened.map(Arc::new).map_err(|error| log::warn!("folders cannot be watched: {error}")).ok()
}

/// Has the poll tell of hints; `again` if it did so before.
pub(super) fn watch(registry: &Registry, watcher: &Inotify, again: bool) -> io::Result<()> {
    let Some(fd) = watcher.poll_fd().map(|fd| fd.as_raw_fd()) else { return Ok(()) };
    if again {
        registry.reregister(&mut SourceFd(&fd), token::WATCH, Interest::READABLE)
    } else {
        registry.register(&mut SourceFd(&fd), token::WATCH, Interest::READABLE)
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
