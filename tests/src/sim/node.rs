//! One simulated machine: an engine, its disk, its store, its clock, and what survives when the engine dies.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use clearskies_core::config::{Config, RunToken};
use clearskies_core::engine::Engine;
use clearskies_core::engine::command::{CommandError, Reply};
use clearskies_core::ids::{CommandId, ConnId, RootId, TempId, Token};
use clearskies_core::time::Instant;

use super::disk::SimDisk;
use super::net::LinkId;
use super::rng::Rng;
use super::store::{Image, SimStore};

/// The port on which every simulated machine listens.
pub const PORT: u16 = 60_100;
/// The port of LAN discovery (protocol §11).
pub const LAN_PORT: u16 = 60_106;
/// What its engine is told of its home; nothing is there.
pub const HOME: &str = "/home/ada/.local/share/clearskies";

/// A machine.
#[derive(Debug)]
pub struct SimNode {
    /// The running engine; `None` while it is down.
    pub engine: Option<Engine>,
    /// Its disk.
    pub disk: SimDisk,
    /// Its store.
    pub store: SimStore,
    /// Its address.
    pub ip: IpAddr,
    /// Whether it uses LAN discovery, from its next start on.
    pub lan: bool,
    /// What the setting `compression` is from its next start on; by chance if none.
    pub compression: Option<&'static str>,
    /// What its engine is told of its home, from its next start on.
    pub home: &'static str,
    /// How far its wall clock is from the true time, in nanoseconds.
    pub clock_offset_ns: i64,
    /// How much longer a flush of its disk takes.
    pub flush_delay: Duration,
    /// When its engine wants to be called, if it was asked since its last call.
    pub(super) wakes: Option<Option<Instant>>,
    /// The run in which what its watcher saw is about to be read.
    pub(super) polled: Option<u32>,
    /// Counts starts; what an earlier one had ordered is dropped.
    pub run: u32,
    /// Outcomes of commands that nobody has taken.
    pub replies: BTreeMap<CommandId, Result<Reply, CommandError>>,
    /// What it told its user, oldest first.
    pub notices: Vec<String>,
    /// Outputs of its engines to disk and store.
    pub outputs: u64,
    /// Orders that its engine waits for, with the bytes of contents in them.
    orders: BTreeMap<Token, usize>,
    /// The most of them, and the most bytes, since the start.
    pub orders_most: (usize, usize),
    /// Whether the engine said that it may end.
    pub stopped: bool,
    /// The file beside the store.
    pub(super) token: Option<[u8; 16]>,
    /// What is to take its place, until it does.
    new_token: Option<[u8; 16]>,
    pub(super) clean: bool,
    pub(super) machine_restarted: bool,
    pub(super) conns: BTreeMap<ConnId, (LinkId, usize)>,
    pub(super) dialing: BTreeSet<ConnId>,
    /// Until then its store is busy.
    pub store_free: Instant,
    pub(super) temps_free: BTreeMap<(RootId, TempId), Instant>,
}

impl SimNode {
    /// A machine that is switched off.
    pub fn new(index: usize) -> SimNode {
        let last = u8::try_from(index + 1).expect("a world has few machines");
        SimNode {
            engine: None,
            disk: SimDisk::default(),
            store: SimStore::default(),
            ip: IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)),
            lan: true,
            compression: None,
            home: HOME,
            clock_offset_ns: 0,
            flush_delay: Duration::ZERO,
            wakes: None,
            polled: None,
            run: 0,
            replies: BTreeMap::new(),
            notices: Vec::new(),
            outputs: 0,
            orders: BTreeMap::new(),
            orders_most: (0, 0),
            stopped: false,
            token: None,
            new_token: None,
            clean: true,
            machine_restarted: false,
            conns: BTreeMap::new(),
            dialing: BTreeSet::new(),
            store_free: Instant(0),
            temps_free: BTreeMap::new(),
        }
    }

    /// Its engine has given an order.
    pub(super) fn ordered(&mut self, token: Token, bytes: usize) {
        self.orders.insert(token, bytes);
        let (most, bytes_most) = &mut self.orders_most;
        *most = self.orders.len().max(*most);
        if bytes > 0 {
            *bytes_most = self.orders.values().sum::<usize>().max(*bytes_most);
        }
    }

    /// Its engine hears of an order.
    pub(super) fn completed(&mut self, token: Token) {
        self.orders.remove(&token);
    }

    /// Its engine is gone, with all that it waited for.
    pub(super) fn forget_orders(&mut self) {
        self.orders.clear();
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::new(self.ip, PORT)
    }

    /// What a backup of the program's whole home holds: the store, and the file beside it.
    pub fn home_backup(&self) -> (Image, Option<[u8; 16]>) {
        (self.store.backup(), self.token)
    }

    /// Puts a backup in the place of the home, so that nothing shows it.
    pub fn put_home_back(&mut self, (image, token): (Image, Option<[u8; 16]>)) {
        self.store.put_back(image);
        self.token = token;
    }

    /// Makes the file beside the store that of the run that just started; false if that fails, as the store would.
    pub(super) fn name_run(&mut self) -> bool {
        let fails = self.store.next_fault().is_some();
        if !fails {
            self.token = self.new_token.take();
            (self.clean, self.machine_restarted) = (false, false);
        }
        !fails
    }

    /// The run has ended in good order, and the file says so if it is its own.
    pub(super) fn end_run(&mut self) {
        self.clean |= self.new_token.is_none();
    }

    /// What its engine is made from at the next start; draws a new token.
    pub(super) fn config(&mut self, index: usize, rng: &mut Rng) -> Config {
        let found = self.token;
        let new = rng.array();
        self.new_token = Some(new);
        let tail_may_be_lost = self.machine_restarted && !self.clean;
        Config {
            software: "clearskies-sim/0".into(),
            name: format!("n{index}"),
            listen_port: PORT,
            lan: self.lan,
            home: self.home.into(),
            run_token: RunToken { found, new, tail_may_be_lost },
        }
    }
}
