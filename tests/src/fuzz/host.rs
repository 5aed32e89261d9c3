//! The host of one engine whose orders a fuzzer completes when and how it likes. Looks at every order: none leads
//! out of the share, and what is ordered at once is bounded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use clearskies_core::config::{Config, RunToken};
use clearskies_core::engine::Engine;
use clearskies_core::engine::command::{Command, CommandError, Reply};
use clearskies_core::engine::event::Event;
use clearskies_core::files::archive_name::parse_archive_folder;
use clearskies_core::ids::{CommandId, ConnId, Token};
use clearskies_core::io::disk::DiskOp;
use clearskies_core::io::{Completion, DiskError, Output, StoreError, StoreOp};
use clearskies_core::time::{Instant, Now, WallTime};

use crate::sim::check::{ORDERED_BYTES_MAX, ORDERS_MAX};
use crate::sim::disk::{Hint, carried_bytes};
use crate::sim::{Rng, SimDisk, SimStore};

/// When a run begins, in nanoseconds since 1970: in 2027.
pub const BEGIN_NS: i64 = 1_800_000_000_000_000_000;
/// Where the engine listens.
pub const PORT: u16 = 60_100;

/// Outputs of one call and what follows from it.
const OUTPUTS_MAX: usize = 100_000;
/// Calls that a timer may ask for at one moment.
const CALLS_MAX: usize = 1000;

/// An order that was not carried out yet.
#[derive(Debug)]
pub enum Order {
    /// For the disk.
    Disk(DiskOp),
    /// For the store.
    Store(StoreOp),
}

/// The host.
#[derive(Debug)]
pub struct Host {
    /// The engine.
    pub engine: Engine,
    /// Its disk.
    pub disk: SimDisk,
    /// Its store.
    pub store: SimStore,
    /// Its clocks.
    pub now: Now,
    /// Orders that were not carried out yet, oldest first.
    pub orders: VecDeque<(Token, Order)>,
    /// Commands whose outcome is still to come.
    pub asked: BTreeSet<CommandId>,
    /// Outcomes that nobody took.
    pub replies: BTreeMap<CommandId, Result<Reply, CommandError>>,
    /// Connections that the engine opens or has closed.
    pub dials: Vec<ConnId>,
    /// Connections that the engine has closed.
    pub closed: Vec<ConnId>,
    /// Folders that may be opened.
    shares: Vec<String>,
}

impl Host {
    /// Starts an engine on what a disk and a store hold; `token` is the file beside the store. It may open these
    /// folders.
    pub fn boot(disk: SimDisk, store: SimStore, now: Now, token: Option<[u8; 16]>, shares: &[&str]) -> Host {
        let mut rng = Rng::new(now.mono.0);
        let (seed, new) = (rng.array(), Self::token());
        let config = Config {
            software: "clearskies-fuzz/0".into(),
            name: "fuzzed".into(),
            listen_port: PORT,
            lan: true,
            home: "/home/ada/.clearskies".into(),
            run_token: RunToken { found: token, new, tail_may_be_lost: false },
        };
        let mut engine = Engine::new_plain(config, seed, now);
        engine.handle_interfaces(now, &[(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 8)]);
        let shares = shares.iter().map(|path| (*path).to_owned()).collect();
        Host {
            engine,
            disk,
            store,
            now,
            orders: VecDeque::new(),
            asked: BTreeSet::new(),
            replies: BTreeMap::new(),
            dials: Vec::new(),
            closed: Vec::new(),
            shares,
        }
    }

    /// The token of all runs.
    pub fn token() -> [u8; 16] {
        [0x5c; 16]
    }

    /// When a run begins.
    pub fn begin() -> Now {
        Now { mono: Instant(1), wall: WallTime(BEGIN_NS) }
    }

    /// Kills the engine, and starts it on what it left.
    pub fn restart(mut self) -> Host {
        self.disk.close_all();
        let shares: Vec<&str> = self.shares.iter().map(String::as_str).collect();
        Host::boot(self.disk, self.store, self.now, Some(Self::token()), &shares)
    }

    /// Collects what the engine wants done.
    pub fn drain(&mut self) {
        let mut outputs = 0;
        while let Some(output) = self.engine.poll_output() {
            outputs += 1;
            assert!(outputs < OUTPUTS_MAX, "outputs without end");
            match output {
                Output::Disk { token, op } => {
                    self.look_at(&op);
                    self.orders.push_back((token, Order::Disk(op)));
                }
                Output::Store { token, op } => self.orders.push_back((token, Order::Store(op))),
                Output::NameRun => self.engine.handle_run_named(self.now, true),
                Output::Dial { conn, .. } => self.dials.push(conn),
                Output::Close { conn } => self.closed.push(conn),
                Output::Interest { .. } | Output::Datagram { .. } => {}
                Output::Event(Event::Done { id, result }) => {
                    assert!(self.asked.remove(&id), "answered twice, or never asked");
                    self.replies.insert(id, result);
                }
                Output::Event(Event::Notice { .. } | Event::Stopped) => {}
            }
        }
        while self.engine.poll_writable().is_some() {}
        self.bounded();
    }

    fn bounded(&self) {
        assert!(self.orders.len() <= ORDERS_MAX, "{} orders at once", self.orders.len());
        let bytes = |(_, order): &(Token, Order)| match order {
            Order::Disk(op) => carried_bytes(op),
            Order::Store(_) => 0,
        };
        let bytes: usize = self.orders.iter().map(bytes).sum();
        assert!(bytes <= ORDERED_BYTES_MAX, "{bytes} bytes in orders");
    }

    /// No order opens another folder, and none puts anything beside the archive's folders.
    fn look_at(&self, op: &DiskOp) {
        let named = |folder: &Option<String>| {
            assert!(folder.as_deref().is_none_or(|name| parse_archive_folder(name).is_some()), "{op:?}");
        };
        match op {
            DiskOp::OpenRoot { path, .. } => assert!(self.shares.contains(path), "{path} is opened"),
            DiskOp::Install { items, .. } => {
                items.iter().for_each(|item| {
                    named(&item.archive);
                    assert!(!item.path.is_root(), "{op:?}");
                });
            }
            DiskOp::Remove { items, .. } => {
                items.iter().for_each(|item| {
                    named(&item.archive);
                    assert!(!item.path.is_root(), "{op:?}");
                });
            }
            DiskOp::Rename { from, to, .. } => assert!(!from.is_root() && !to.is_root(), "{op:?}"),
            DiskOp::PruneArchive { before, .. } => named(&Some(before.clone())),
            _ => {}
        }
    }

    /// Carries out an order: the one at this place, or the oldest for the store, whose orders are kept in order.
    pub fn complete(&mut self, at: usize, fail: Option<(DiskError, StoreError)>) {
        if self.orders.is_empty() {
            return;
        }
        let mut at = at % self.orders.len();
        if matches!(self.orders[at].1, Order::Store(_)) {
            at = self.orders.iter().position(|(_, order)| matches!(order, Order::Store(_))).unwrap_or(at);
        } else if let Order::Disk(op) = &self.orders[at].1
            && let Some(temp) = crate::sim::disk::temp_of(op)
        {
            // Those of one temp are kept in order too.
            let same = |order: &Order| matches!(order, Order::Disk(op) if crate::sim::disk::temp_of(op) == Some(temp));
            at = self.orders.iter().position(|(_, order)| same(order)).unwrap_or(at);
        }
        let Some((token, order)) = self.orders.remove(at) else { return };
        let completion = match (order, fail) {
            (Order::Disk(_), Some((error, _))) => Completion::Disk(Err(error)),
            (Order::Store(_), Some((_, error))) => Completion::Store(Err(error)),
            (Order::Disk(op), None) => Completion::Disk(self.disk.execute(self.now.wall.0, op)),
            (Order::Store(op), None) => Completion::Store(self.store.execute(self.now.mono, op)),
        };
        self.engine.handle_completion(self.now, token, completion);
        self.drain();
    }

    /// Carries out all orders and what follows from them, at most so many.
    pub fn complete_all(&mut self, at_most: usize) {
        self.drain();
        for _ in 0..at_most {
            if self.orders.is_empty() {
                return;
            }
            self.complete(0, None);
        }
    }

    /// Tells the engine what the watcher saw.
    pub fn hints(&mut self) {
        for hint in self.disk.take_hints() {
            match &hint {
                Hint::Seen(root, path, seen) => self.engine.handle_fs_event(self.now, *root, path, *seen),
                Hint::Overflow(root) => self.engine.handle_fs_overflow(self.now, *root),
            }
        }
        self.drain();
    }

    /// Lets time pass and calls the engine where it asked for it.
    pub fn pass(&mut self, time: Duration) {
        self.now.mono = self.now.mono.plus(time);
        let nanos = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        self.now.wall = WallTime(self.now.wall.0.saturating_add(nanos));
        let mut calls = 0;
        while self.engine.poll_timeout().is_some_and(|at| at <= self.now.mono) {
            calls += 1;
            assert!(calls < CALLS_MAX, "a timer that does nothing");
            self.engine.handle_timeout(self.now);
            self.drain();
        }
    }

    /// Gives a command.
    pub fn ask(&mut self, command: Command) -> CommandId {
        let id = self.engine.handle_command(self.now, command);
        self.asked.insert(id);
        self.drain();
        id
    }

    /// Gives a command and carries out what it needs.
    pub fn answer(&mut self, command: Command) -> Result<Reply, CommandError> {
        let id = self.ask(command);
        for _ in 0..CALLS_MAX {
            self.complete_all(OUTPUTS_MAX);
            if let Some(result) = self.replies.remove(&id) {
                return result;
            }
            self.pass(Duration::from_millis(100));
        }
        panic!("a command is never answered");
    }
}
