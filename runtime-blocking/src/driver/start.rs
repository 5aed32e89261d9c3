//! Putting a driver together: home, lock, store, disk pool, sockets, engine. Never runs anything.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use clearskies_core::engine::Engine;
use clearskies_core::io::Completion;
use clearskies_host::clock::Clock;
use clearskies_host::disk::DiskPool;
use clearskies_host::entropy;
use clearskies_host::interfaces::InterfaceWatch;
use clearskies_host::net::Lan;
use clearskies_host::run_token::RunFile;
use clearskies_host::store::{Store, StoreThread};
use clearskies_host::watch::{Inotify, Watcher};
use mio::net::TcpListener;
use mio::unix::SourceFd;
use mio::{Interest, Poll, Registry};

use super::conns::Conns;
use super::inbox::Inbox;
use super::{Driver, Stop, token};
use crate::control::server::Server;
use crate::daemon::home::Home;
use crate::options::{EventSink, Options, StartError};

impl Driver {
    /// Opens everything that a node needs. Nothing happens on the network before [`Driver::run`].
    pub fn open(options: Options, events: EventSink) -> Result<Driver, StartError> {
        let home = Home::prepare(&options.home).map_err(StartError::Home)?;
        let lock = home.lock().map_err(StartError::Home)?;
        let io = |what| move |error| StartError::Io(what, error);
        let no_wait = io("cannot wait for sockets");
        let poll = Poll::new().map_err(no_wait)?;
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

        let (listener, port) =
            home.listen(options.listen_port).map_err(|(port, error)| StartError::Listen(port, error))?;
        let mut listener = TcpListener::from_std(listener);
        registry.register(&mut listener, token::LISTENER, Interest::READABLE).map_err(no_wait)?;
        let lan = options.lan.then(Lan::open);
        for fd in lan.iter().flat_map(Lan::poll_fds) {
            watch_fd(registry, fd, token::LAN).map_err(no_wait)?;
        }
        let interfaces = open_interfaces(registry);
        let no_entropy = |error: entropy::NoEntropy| StartError::Home(format!("Cannot start: {error}."));
        let mut token = [0; 16];
        entropy::fill(&mut token).map_err(no_entropy)?;
        let (run, run_token) =
            RunFile::open(&home.run(), token).map_err(io("cannot read the home folder"))?;
        let config = options.config(&home, port, run_token);
        let clock = Clock::start();
        let engine = Engine::new(config, entropy::seed().map_err(no_entropy)?, clock.now());
        // Last, so that whoever finds the socket finds a node behind it.
        let control = options.control.then(|| Server::open(registry, &home, token::CONTROL));
        let control = control.transpose().map_err(StartError::Home)?;
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
            lan_readable: lan.is_some(),
            lan,
            addrs: Vec::new(),
            addrs_at: None,
            interfaces,
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

/// Without word of their changes the interfaces are looked at now and then.
fn open_interfaces(registry: &Registry) -> Option<InterfaceWatch> {
    let opened = InterfaceWatch::open()
        .and_then(|watch| watch_fd(registry, watch.as_fd(), token::INTERFACES).map(|()| watch));
    opened.map_err(|error| log::info!("changes of the network are not told: {error}")).ok()
}

/// Without a watcher changes are found by looking through the folders now and then.
fn open_watch(registry: &Registry) -> Option<Arc<Inotify>> {
    let opened = Inotify::new()
        .and_then(|watcher| watch_fd(registry, watcher.as_fd(), token::WATCH).map(|()| watcher));
    opened.map(Arc::new).map_err(|error| log::warn!("folders cannot be watched: {error}")).ok()
}

fn watch_fd(registry: &Registry, fd: BorrowedFd<'_>, token: mio::Token) -> io::Result<()> {
    registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)
}
