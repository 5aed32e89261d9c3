//! An engine of this test's own process, over real sockets toward real daemons: its disk and store are simulated, and
//! its wall clock says what the test wants. Nothing happens in it but while the test lets it ([`Foreign::turn`]).

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant as Began, SystemTime};

use clearskies_core::club::level::Level;
use clearskies_core::config::{Config, RunToken};
use clearskies_core::engine::Engine;
use clearskies_core::engine::command::{Command, CommandError, Existing, Reply, ShareStatus};
use clearskies_core::engine::event::Event;
use clearskies_core::ids::{CommandId, ConnId};
use clearskies_core::io::{Completion, DiskError, Output};
use clearskies_core::time::{Instant, Now, WallTime};

use crate::daemon::{DEADLINE, Node};
use crate::sim::disk::Hint;
use crate::sim::share::{SHARE, at};
use crate::sim::{SimDisk, SimStore};

/// What is read off a socket at once, and what is sealed for one.
const STEP_BYTES: usize = 256 << 10;
/// How long a turn without anything to do waits.
const IDLE: Duration = Duration::from_millis(2);

/// A year of 365 days.
pub const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The true wall clock, in nanoseconds since 1970.
pub fn true_wall_ns() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("the clock is past 1970");
    i64::try_from(since.as_nanos()).expect("the clock is before 2262")
}

/// Which way a clock is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Off {
    /// It says a later time.
    Ahead(Duration),
    /// It says an earlier time.
    Behind(Duration),
}

impl Off {
    /// Nanoseconds to add to the true time.
    pub fn nanos(self) -> i64 {
        let (sign, by) = match self {
            Off::Ahead(by) => (1, by),
            Off::Behind(by) => (-1, by),
        };
        sign * i64::try_from(by.as_nanos()).expect("less than 292 years")
    }
}

#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    /// Sealed bytes that the system has not taken yet.
    unsent: Vec<u8>,
    reading: bool,
}

/// The engine and what it runs on.
#[derive(Debug)]
pub struct Foreign {
    engine: Engine,
    /// Its disk.
    pub disk: SimDisk,
    store: SimStore,
    listener: TcpListener,
    sockets: BTreeMap<ConnId, Socket>,
    began: Began,
    off_ns: i64,
    replies: BTreeMap<CommandId, Result<Reply, CommandError>>,
    /// What it told its user, oldest first.
    pub notices: Vec<String>,
}

impl Foreign {
    /// An engine that knows nothing yet, whose clock is wrong by so much.
    pub fn new(off: Off) -> Foreign {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        listener.set_nonblocking(true).expect("a socket can be set so");
        let addr = listener.local_addr().expect("it is bound");
        let mut rng = crate::sim::Rng::new(addr.port().into());
        let (seed, new) = (rng.array(), rng.array());
        let config = Config {
            software: "clearskies-foreign/0".into(),
            name: "foreign".into(),
            listen_port: addr.port(),
            lan: false,
            home: Vec::new(),
            run_token: RunToken { found: None, new, tail_may_be_lost: false },
        };
        let began = Began::now();
        let off_ns = off.nanos();
        let now = Now { mono: Instant(1), wall: WallTime(true_wall_ns() + off_ns) };
        let mut engine = Engine::new(config, seed, now);
        engine.handle_interfaces(now, &[(addr.ip(), 8)]);
        Foreign {
            engine,
            disk: SimDisk::default(),
            store: SimStore::default(),
            listener,
            sockets: BTreeMap::new(),
            began,
            off_ns,
            replies: BTreeMap::new(),
            notices: Vec::new(),
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.listener.local_addr().expect("it is bound")
    }

    /// Sets its wall clock, as a user does while the program runs.
    pub fn set_clock(&mut self, off: Off) {
        self.off_ns = off.nanos();
    }

    /// What its clocks say.
    pub fn now(&self) -> Now {
        let passed = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Now { mono: Instant(1 + passed), wall: WallTime(true_wall_ns() + self.off_ns) }
    }

    /// Lets what is due happen; whether anything did.
    pub fn turn(&mut self) -> bool {
        let mut busy = self.accept();
        let conns: Vec<ConnId> = self.sockets.keys().copied().collect();
        for conn in conns {
            busy |= self.receive(conn);
        }
        for hint in self.disk.take_hints() {
            busy = true;
            let now = self.now();
            match &hint {
                Hint::Seen(root, path, seen) => self.engine.handle_fs_event(now, *root, path, *seen),
                Hint::Overflow(root) => self.engine.handle_fs_overflow(now, *root),
            }
        }
        let now = self.now();
        if self.engine.poll_timeout().is_some_and(|at| at <= now.mono) {
            self.engine.handle_timeout(now);
        }
        self.drain() || busy
    }

    /// Lets it run until something holds, and fails with `what` if it does not come to hold.
    pub fn until(&mut self, at_most: Duration, what: &str, mut holds: impl FnMut(&mut Foreign) -> bool) {
        let begun = Began::now();
        let mut looked = None;
        loop {
            let busy = self.turn();
            // Looking may cost a run of the program.
            if looked.is_none_or(|at: Began| at.elapsed() > Duration::from_millis(50)) {
                if holds(self) {
                    return;
                }
                looked = Some(Began::now());
            }
            assert!(begun.elapsed() < at_most, "not within {at_most:?}: {what}\n{:?}", self.notices);
            if !busy {
                std::thread::sleep(IDLE);
            }
        }
    }

    /// Gives a command and waits for its outcome.
    pub fn ask(&mut self, command: Command) -> Result<Reply, CommandError> {
        let now = self.now();
        let id = self.engine.handle_command(now, command);
        let begun = Began::now();
        loop {
            let busy = self.turn();
            if let Some(result) = self.replies.remove(&id) {
                return result;
            }
            assert!(begun.elapsed() < DEADLINE, "a command is never answered");
            if !busy {
                std::thread::sleep(IDLE);
            }
        }
    }

    /// Makes a share of the folder.
    pub fn share(&mut self) {
        self.user(|disk, wall| disk.mkdir(wall, SHARE));
        let done = self.ask(Command::CreateShare { path: SHARE.into() });
        assert!(matches!(done, Ok(Reply::Share { .. })), "{done:?}");
    }

    /// Makes a code that is valid for a day.
    pub fn invite(&mut self) -> String {
        let valid_for = Some(Duration::from_secs(86_400));
        let invite =
            Command::Invite { path: SHARE.into(), level: Level::ReadWrite, valid_for, multi_use: false };
        match self.ask(invite) {
            Ok(Reply::Code { code, .. }) => code.to_text(),
            other => panic!("no code: {other:?}"),
        }
    }

    /// Joins a daemon's share.
    pub fn attach(&mut self, code: &str, to: &Node) {
        let peers = vec![to.addr().parse().expect("a node's address is one")];
        let (path, existing) = (SHARE.into(), Existing::Merge);
        let done = self.ask(Command::Attach { code: code.into(), path, existing, peers });
        assert!(matches!(done, Ok(Reply::Share { new: true, .. })), "{done:?}");
    }

    /// The state of its share.
    pub fn status(&mut self) -> ShareStatus {
        match self.ask(Command::Status) {
            Ok(Reply::Status(status)) => status.shares.into_iter().next().expect("there is a share"),
            other => panic!("no status: {other:?}"),
        }
    }

    /// Changes the disk as a user does.
    pub fn user(&mut self, change: impl FnOnce(&mut SimDisk, i64) -> Result<(), DiskError>) {
        let wall = self.now().wall.0;
        change(&mut self.disk, wall).expect("a user can do this");
    }

    /// Writes a file of the share.
    pub fn write(&mut self, path: &str, content: &[u8]) {
        self.user(|disk, wall| disk.write(wall, &at(path), content));
    }

    /// A file of the share as text.
    pub fn read(&self, path: &str) -> Option<String> {
        self.disk.read_file(&at(path)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The paths of the share.
    pub fn names(&self) -> Vec<String> {
        self.disk.tree(SHARE).into_keys().collect()
    }

    fn accept(&mut self) -> bool {
        let Ok((stream, from)) = self.listener.accept() else { return false };
        let now = self.now();
        if let Some(conn) = self.engine.handle_accepted(now, from) {
            self.keep(conn, stream);
        }
        true
    }

    fn keep(&mut self, conn: ConnId, stream: TcpStream) {
        stream.set_nonblocking(true).expect("a socket can be set so");
        self.sockets.insert(conn, Socket { stream, unsent: Vec::new(), reading: true });
    }

    fn receive(&mut self, conn: ConnId) -> bool {
        let Some(socket) = self.sockets.get_mut(&conn).filter(|socket| socket.reading) else { return false };
        let mut bytes = vec![0; STEP_BYTES];
        let read = socket.stream.read(&mut bytes);
        let now = self.now();
        match read {
            Ok(length) if length > 0 => {
                self.engine.handle_received(now, conn, &bytes[..length]);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            _ => {
                self.sockets.remove(&conn);
                self.engine.handle_closed(now, conn);
            }
        }
        true
    }

    /// Does what the engine wants done.
    fn drain(&mut self) -> bool {
        let mut any = false;
        loop {
            let mut busy = false;
            while let Some(output) = self.engine.poll_output() {
                busy = true;
                self.carry_out(output);
            }
            while self.engine.poll_writable().is_some() {}
            let conns: Vec<ConnId> = self.sockets.keys().copied().collect();
            for conn in conns {
                busy |= self.send(conn);
            }
            if !busy {
                return any;
            }
            any = true;
        }
    }

    /// Sends what a connection has to say, as far as the system takes it; whether it took any.
    fn send(&mut self, conn: ConnId) -> bool {
        let now = self.now();
        let Some(socket) = self.sockets.get_mut(&conn) else { return false };
        if socket.unsent.is_empty() {
            self.engine.poll_transmit(now, conn, &mut socket.unsent, STEP_BYTES);
        }
        match socket.stream.write(&socket.unsent) {
            Ok(written) if written > 0 => {
                socket.unsent.drain(..written);
                true
            }
            // An end shows when it is read.
            _ => false,
        }
    }

    fn carry_out(&mut self, output: Output) {
        let now = self.now();
        match output {
            Output::Disk { token, op } => {
                let done = self.disk.execute(now.wall.0, op);
                self.engine.handle_completion(now, token, Completion::Disk(done));
            }
            Output::Store { token, op } => {
                let done = self.store.execute(now.mono, op);
                self.engine.handle_completion(now, token, Completion::Store(done));
            }
            // It never starts again.
            Output::NameRun => self.engine.handle_run_named(now, true),
            Output::Dial { conn, addr } => match TcpStream::connect_timeout(&addr, Duration::from_secs(2)) {
                Ok(stream) => {
                    self.keep(conn, stream);
                    self.engine.handle_dialed(now, conn);
                }
                Err(_) => self.engine.handle_dial_failed(now, conn),
            },
            Output::Close { conn } => {
                while self.send(conn) {}
                self.sockets.remove(&conn);
            }
            Output::Interest { conn, read } => {
                if let Some(socket) = self.sockets.get_mut(&conn) {
                    socket.reading = read;
                }
            }
            Output::Datagram { .. } => {}
            Output::Event(Event::Done { id, result }) => drop(self.replies.insert(id, result)),
            Output::Event(Event::Notice { message, .. }) => self.notices.push(message),
            Output::Event(Event::Stopped) => {}
        }
    }
}
