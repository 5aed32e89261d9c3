//! Machines, network and users under one virtual clock. A step takes the earliest thing that is due, hands it to its
//! engine, and carries away what the engine wants done, by the rules of `core/src/engine/mod.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clearskies_core::club::level::Level;
use clearskies_core::engine::Engine;
use clearskies_core::engine::command::{
    Command, CommandError, Existing, NodeStatus, Reply, ShareState, ShareStatus,
};
use clearskies_core::engine::event::Event;
use clearskies_core::files::path::RelPath;
use clearskies_core::ids::{CommandId, ConnId, Token};
use clearskies_core::io::{Completion, DiskOp, Output, StoreOp};
use clearskies_core::time::{Instant, Now, WallTime};

use super::disk::{Hint, SimDisk, op_name, root_of, temp_of};
use super::net::{Cargo, LinkId, Net};
use super::node::{LAN_PORT, SimNode};
use super::rng::Rng;
use super::trace::Trace;
use super::users::Tree;

/// The true wall clock when a world begins: 2027-01-15.
const BEGIN_NS: i64 = 1_800_000_000_000_000_000;
/// Steps at one instant after which an engine is said to spin.
const STEPS_AT_ONCE_MAX: u32 = 200_000;
/// How long a command may take.
const ANSWER_MAX: Duration = Duration::from_secs(120);
/// A world is quiet when nothing was written for so long.
const QUIET: Duration = Duration::from_secs(15);
/// A dial into nowhere fails after this.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Something that will happen.
#[derive(Debug)]
enum Due {
    Disk { node: usize, run: u32, token: Token, op: DiskOp },
    Store { node: usize, run: u32, token: Token, op: StoreOp },
    Complete { node: usize, run: u32, token: Token, completion: Completion },
    Hint { node: usize, run: u32, hint: Hint },
    Dial { node: usize, run: u32, conn: ConnId, addr: SocketAddr, waited: bool },
    Arrive { link: LinkId, side: usize, cargo: Cargo },
    Datagram { node: usize, from: SocketAddr, bytes: Vec<u8> },
}

/// A world of machines.
#[derive(Debug)]
pub struct World {
    /// The machines.
    pub nodes: Vec<SimNode>,
    /// What lies between them.
    pub net: Net,
    /// What happened.
    pub trace: Trace,
    /// How many hints of the watcher in a thousand are lost; an overflow is told in their place.
    pub hints_lost_per_mille: u32,
    /// The longest that a disk operation waits before it is carried out.
    pub disk_delay_max: Duration,
    /// The longest that a store operation waits before it is carried out.
    pub store_delay_max: Duration,
    /// Files that take this long to be read for their hash, by their path in the share.
    pub slow_to_hash: BTreeMap<RelPath, Duration>,
    now: Instant,
    due: BTreeMap<(Instant, u64), Due>,
    next: u64,
    rng: Rng,
    steps_at_once: u32,
}

impl World {
    /// `count` machines, switched on, that know nothing of each other.
    pub fn new(seed: u64, count: usize) -> World {
        let mut rng = Rng::new(seed);
        let net = Net::new(rng.fork());
        let mut world = World {
            nodes: (0..count).map(SimNode::new).collect(),
            net,
            trace: Trace::default(),
            hints_lost_per_mille: 0,
            disk_delay_max: Duration::from_millis(2),
            store_delay_max: Duration::from_micros(500),
            slow_to_hash: BTreeMap::new(),
            now: Instant(1_000_000_000),
            due: BTreeMap::new(),
            next: 0,
            rng,
            steps_at_once: 0,
        };
        for index in 0..count {
            world.start(index);
        }
        world
    }

    /// The virtual time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The time as a machine sees it.
    pub fn now_at(&self, index: usize) -> Now {
        Now { mono: self.now, wall: WallTime(self.wall_ns(index)) }
    }

    /// A machine's wall clock.
    pub fn wall_ns(&self, index: usize) -> i64 {
        let elapsed = i64::try_from(self.now.0).unwrap_or(i64::MAX);
        BEGIN_NS.saturating_add(elapsed).saturating_add(self.nodes[index].clock_offset_ns)
    }

    /// A machine, to act on it.
    pub fn node(&mut self, index: usize) -> At<'_> {
        At { world: self, index }
    }

    /// A number below `end`, from the world's own generator.
    pub fn below(&mut self, end: u64) -> u64 {
        self.rng.below(end)
    }

    fn note(&mut self, line: fmt::Arguments<'_>) {
        self.trace.note(self.now, line);
    }

    // Starting and ending.

    /// Starts the engine of a machine that is down.
    pub fn start(&mut self, index: usize) {
        let seed = self.rng.array();
        let now = self.now_at(index);
        let node = &mut self.nodes[index];
        assert!(node.engine.is_none(), "n{index} runs already");
        let config = node.config(index, &mut self.rng);
        node.run += 1;
        node.stopped = false;
        let mut engine = Engine::new_plain(config, seed, now);
        engine.handle_interfaces(now, &[(node.ip, 24)]);
        node.engine = Some(engine);
        self.note(format_args!("n{index} starts"));
        self.drain(index);
    }

    /// Kills the engine (`kill -9`): what it held in memory is gone, what it wrote stays.
    pub fn crash(&mut self, index: usize) {
        self.note(format_args!("n{index} is killed"));
        self.down(index);
        for (link, side) in std::mem::take(&mut self.nodes[index].conns).into_values() {
            self.hang_up(link, side);
        }
    }

    /// Cuts a machine's power: what was not flushed may be lost, and its peers hear nothing of it.
    pub fn power_cut(&mut self, index: usize) {
        self.down(index);
        let now = self.now;
        let node = &mut self.nodes[index];
        let lost = node.store.power_cut(now, &mut self.rng);
        node.disk.power_cut(&mut self.rng);
        node.machine_restarted = true;
        for (link, side) in std::mem::take(&mut node.conns).into_values() {
            if let Some(end) = self.net.end(link, side) {
                end.open = false;
            }
            self.net.sweep(link);
        }
        self.note(format_args!("n{index} loses power, store tail lost: {lost}"));
    }

    fn down(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.engine = None;
        node.run += 1;
        node.disk.close_all();
        node.dialing.clear();
        node.temps_free.clear();
        node.replies.clear();
    }

    /// Ends the engine in good order.
    pub fn stop(&mut self, index: usize) {
        self.command(index, Command::Stop);
        let until = self.now.plus(Duration::from_secs(10));
        while !self.nodes[index].stopped && self.now < until && self.step() {}
        assert!(self.nodes[index].stopped, "n{index} did not stop\n{}", self.trace.tail(40));
        self.crash(index);
        let node = &mut self.nodes[index];
        node.store.close();
        node.clean = true;
    }

    /// Starts a machine again, after [`World::crash`], [`World::power_cut`] or [`World::stop`]; kills it first if it
    /// runs.
    pub fn restart(&mut self, index: usize) {
        if self.nodes[index].engine.is_some() {
            self.crash(index);
        }
        self.start(index);
    }

    // Time.

    /// Lets the earliest thing happen; false if nothing will ever happen.
    pub fn step(&mut self) -> bool {
        let timer = self.nodes.iter_mut().enumerate().filter_map(|(index, node)| {
            let at = node.engine.as_mut()?.poll_timeout()?;
            Some((at, index))
        });
        let timer = timer.min().map(|(at, index)| (at.max(self.now), index));
        let event = self.due.first_key_value().map(|((at, _), _)| (*at).max(self.now));
        let at = match (event, timer) {
            (None, None) => return false,
            (Some(event), None) => event,
            (None, Some((timer, _))) => timer,
            (Some(event), Some((timer, _))) => event.min(timer),
        };
        self.steps_at_once = if at > self.now { 0 } else { self.steps_at_once + 1 };
        assert!(self.steps_at_once < STEPS_AT_ONCE_MAX, "time stands still\n{}", self.trace.tail(60));
        self.now = at;
        if event == Some(at) {
            if let Some((_, due)) = self.due.pop_first() {
                self.happen(due);
            }
        } else if let Some((_, index)) = timer {
            let now = self.now_at(index);
            self.note(format_args!("n{index} timeout"));
            self.with(index, |engine| engine.handle_timeout(now));
        }
        true
    }

    /// Lets a span of virtual time pass.
    pub fn run_for(&mut self, span: Duration) {
        let end = self.now.plus(span);
        loop {
            let next_timer =
                self.nodes.iter_mut().filter_map(|node| node.engine.as_mut()?.poll_timeout()).min();
            let next_event = self.due.keys().next().map(|(at, _)| *at);
            match next_timer.into_iter().chain(next_event).min() {
                Some(at) if at <= end => self.step(),
                _ => break,
            };
        }
        self.now = self.now.max(end);
    }

    fn at(&mut self, at: Instant, due: Due) {
        self.next += 1;
        self.due.insert((at, self.next), due);
    }

    fn soon(&mut self, max: Duration) -> Instant {
        let max = u64::try_from(max.as_nanos()).unwrap_or(u64::MAX);
        self.now.plus(Duration::from_nanos(20_000 + self.rng.below(max)))
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Disk { node, run, token, op } if self.nodes[node].run == run => {
                let wall_ns = self.wall_ns(node);
                let name = op_name(&op);
                let result = self.nodes[node].disk.execute(wall_ns, op);
                if let Err(error) = &result {
                    self.note(format_args!("n{node} disk {} {name} fails: {error:?}", token.0));
                }
                self.gather_hints(node);
                let at = self.soon(Duration::from_micros(200));
                self.at(at, Due::Complete { node, run, token, completion: Completion::Disk(result) });
            }
            Due::Store { node, run, token, op } if self.nodes[node].run == run => {
                let result = self.nodes[node].store.execute(self.now, op);
                // In the order of the operations: completions must not overtake each other here either.
                let at = self.now.plus(Duration::from_micros(10));
                self.at(at, Due::Complete { node, run, token, completion: Completion::Store(result) });
            }
            Due::Complete { node, run, token, completion } if self.nodes[node].run == run => {
                self.note(format_args!("n{node} done {}", token.0));
                let now = self.now_at(node);
                self.with(node, |engine| engine.handle_completion(now, token, completion));
            }
            Due::Hint { node, run, hint } if self.nodes[node].run == run => {
                self.note(format_args!("n{node} hint {hint:?}"));
                let now = self.now_at(node);
                self.with(node, |engine| match &hint {
                    Hint::Changed(root, path) => engine.handle_fs_event(now, *root, path),
                    Hint::Overflow(root) => engine.handle_fs_overflow(now, *root),
                });
            }
            Due::Dial { node, run, conn, addr, waited } if self.nodes[node].run == run => {
                self.dial(node, conn, addr, waited);
            }
            Due::Arrive { link, side, cargo } => self.arrive(link, side, cargo),
            Due::Datagram { node, from, bytes } => {
                let now = self.now_at(node);
                self.with(node, |engine| engine.handle_datagram(now, from, &bytes));
            }
            // Ordered by an engine that is gone.
            Due::Disk { .. }
            | Due::Store { .. }
            | Due::Complete { .. }
            | Due::Hint { .. }
            | Due::Dial { .. } => {}
        }
    }

    /// Calls an engine, if it runs, and carries away what it wants done.
    fn with(&mut self, index: usize, call: impl FnOnce(&mut Engine)) {
        if let Some(engine) = self.nodes[index].engine.as_mut() {
            call(engine);
            self.drain(index);
        }
    }

    // What engines want done.

    fn drain(&mut self, index: usize) {
        loop {
            let mut busy = false;
            while let Some(output) = self.nodes[index].engine.as_mut().and_then(Engine::poll_output) {
                busy = true;
                self.carry_out(index, output);
            }
            while let Some(conn) = self.nodes[index].engine.as_mut().and_then(Engine::poll_writable) {
                busy |= self.pump(index, conn);
            }
            if !busy {
                break;
            }
        }
    }

    fn carry_out(&mut self, index: usize, output: Output) {
        let run = self.nodes[index].run;
        match output {
            Output::Disk { token, op } => {
                self.note(format_args!("n{index} disk {} {}", token.0, op_name(&op)));
                let mut at = self.soon(self.disk_delay_max);
                if let DiskOp::Hash { paths, .. } = &op {
                    let slow = paths.iter().filter_map(|path| self.slow_to_hash.get(path));
                    at = at.plus(slow.sum());
                }
                if let Some(temp) = temp_of(&op) {
                    let free = self.nodes[index].temps_free.entry((root_of(&op), temp)).or_default();
                    at = at.max(*free);
                    *free = at;
                }
                self.at(at, Due::Disk { node: index, run, token, op });
            }
            Output::Store { token, op } => {
                let writes = match &op {
                    StoreOp::Load { .. } => 0,
                    StoreOp::Commit { writes, .. } => writes.len(),
                };
                self.note(format_args!("n{index} store {} writes {writes}", token.0));
                let at = self.soon(self.store_delay_max).max(self.nodes[index].store_free);
                self.nodes[index].store_free = at;
                self.at(at, Due::Store { node: index, run, token, op });
            }
            Output::Dial { conn, addr } => {
                self.note(format_args!("n{index} dials {addr}"));
                self.nodes[index].dialing.insert(conn);
                let at = self.now.plus(self.net.delay() * 2);
                self.at(at, Due::Dial { node: index, run, conn, addr, waited: false });
            }
            Output::Close { conn } => {
                self.note(format_args!("n{index} closes {}", conn.0));
                self.nodes[index].dialing.remove(&conn);
                if self.nodes[index].conns.contains_key(&conn) {
                    self.flush(index, conn);
                }
                if let Some((link, side)) = self.nodes[index].conns.remove(&conn) {
                    self.hang_up(link, side);
                }
            }
            Output::Interest { conn, read } => {
                if let Some((link, side)) = self.nodes[index].conns.get(&conn).copied() {
                    let Some(end) = self.net.end(link, side) else { return };
                    let resumes = read && !end.reading;
                    end.reading = read;
                    if resumes {
                        // Not from here, where the engine is being drained: as an arrival of nothing.
                        self.at(self.now, Due::Arrive { link, side, cargo: Cargo::Bytes(Vec::new()) });
                    }
                }
            }
            Output::Datagram { addr, bytes } => self.datagram(index, addr, &bytes),
            Output::Event(event) => self.event(index, event),
        }
    }

    fn event(&mut self, index: usize, event: Event) {
        match event {
            Event::Done { id, result } => {
                let word = result.as_ref().err().map_or("ok", |error| error.code);
                self.note(format_args!("n{index} command {} {word}", id.0));
                self.nodes[index].replies.insert(id, result);
            }
            Event::Notice { message, .. } => {
                self.note(format_args!("n{index} says: {message}"));
                self.nodes[index].notices.push(message);
            }
            Event::Stopped => self.nodes[index].stopped = true,
        }
    }

    fn gather_hints(&mut self, index: usize) {
        let run = self.nodes[index].run;
        for hint in self.nodes[index].disk.take_hints() {
            let lost = self.rng.per_mille(self.hints_lost_per_mille);
            let hint = match hint {
                Hint::Changed(root, _) if lost => Hint::Overflow(root),
                hint => hint,
            };
            let at = self.soon(Duration::from_millis(20));
            self.at(at, Due::Hint { node: index, run, hint });
        }
    }

    // The network.

    fn node_at(&self, addr: IpAddr) -> Option<usize> {
        self.nodes.iter().position(|node| node.ip == addr)
    }

    fn dial(&mut self, index: usize, conn: ConnId, addr: SocketAddr, waited: bool) {
        if !self.nodes[index].dialing.contains(&conn) {
            return;
        }
        let target = self.node_at(addr.ip()).filter(|target| self.nodes[*target].addr() == addr);
        let reached = target.is_none_or(|target| self.net.joined(index, target));
        if !reached && !waited {
            let (run, at) = (self.nodes[index].run, self.now.plus(DIAL_TIMEOUT));
            return self.at(at, Due::Dial { node: index, run, conn, addr, waited: true });
        }
        self.nodes[index].dialing.remove(&conn);
        let now = self.now_at(index);
        let target = target.filter(|target| reached && self.nodes[*target].engine.is_some());
        let Some(target) = target else {
            self.note(format_args!("n{index} fails to dial {addr}"));
            return self.with(index, |engine| engine.handle_dial_failed(now, conn));
        };
        let from = SocketAddr::new(
            self.nodes[index].ip,
            u16::try_from(40_000 + self.rng.below(20_000)).unwrap_or(1),
        );
        let then = self.now_at(target);
        let accepted =
            self.nodes[target].engine.as_mut().and_then(|engine| engine.handle_accepted(then, from));
        self.note(format_args!("n{index} reaches n{target}, accepted: {}", accepted.is_some()));
        match accepted {
            Some(other) => {
                let link = self.net.connect((index, conn), (target, other));
                self.nodes[index].conns.insert(conn, (link, 0));
                self.nodes[target].conns.insert(other, (link, 1));
                self.with(index, |engine| engine.handle_dialed(now, conn));
            }
            None => {
                self.with(index, |engine| engine.handle_dialed(now, conn));
                self.with(index, |engine| engine.handle_closed(now, conn));
            }
        }
        self.drain(target);
    }

    /// Takes what an engine wants to send, as far as the window allows; whether anything was taken.
    fn pump(&mut self, index: usize, conn: ConnId) -> bool {
        let Some((link, side)) = self.nodes[index].conns.get(&conn).copied() else { return false };
        let window = self.net.conditions.window_bytes;
        let mut any = false;
        loop {
            let Some(end) = self.net.end(link, side) else { return any };
            end.writing = true;
            let room = window.saturating_sub(end.unread);
            if room == 0 {
                return any;
            }
            let limit = self.net.piece(room);
            let taken = self.transmit(index, conn, link, side, limit);
            any |= taken > 0;
            if taken == 0 {
                if let Some(end) = self.net.end(link, side) {
                    end.writing = false;
                }
                return any;
            }
        }
    }

    /// Sends everything that is left before a connection is closed.
    fn flush(&mut self, index: usize, conn: ConnId) {
        const LAST_BYTES_MAX: usize = 1 << 20;
        let Some((link, side)) = self.nodes[index].conns.get(&conn).copied() else { return };
        let mut sent = 0;
        while sent < LAST_BYTES_MAX {
            match self.transmit(index, conn, link, side, 64 * 1024) {
                0 => break,
                taken => sent += taken,
            }
        }
    }

    fn transmit(&mut self, index: usize, conn: ConnId, link: LinkId, side: usize, limit: usize) -> usize {
        let now = self.now_at(index);
        let mut bytes = Vec::new();
        let Some(engine) = self.nodes[index].engine.as_mut() else { return 0 };
        engine.poll_transmit(now, conn, &mut bytes, limit);
        let len = bytes.len();
        if len > 0 {
            if let Some(end) = self.net.end(link, side) {
                end.unread += len;
            }
            self.note(format_args!("n{index} sends {len} on {}", conn.0));
            let at = self.net.arrival(link, side, self.now, len);
            self.at(at, Due::Arrive { link, side: 1 - side, cargo: Cargo::Bytes(bytes) });
        }
        len
    }

    /// One end is done: the other hears of it behind all bytes.
    fn hang_up(&mut self, link: LinkId, side: usize) {
        if let Some(end) = self.net.end(link, side) {
            end.open = false;
            let at = self.net.arrival(link, side, self.now, 0);
            self.at(at, Due::Arrive { link, side: 1 - side, cargo: Cargo::End });
        }
        self.net.sweep(link);
    }

    /// Cuts a connection on both sides at once; what was under way is lost.
    pub fn reset(&mut self, link: LinkId) {
        for side in 0..2 {
            let Some(end) = self.net.end(link, side) else { continue };
            let (index, conn, was_open) = (end.node, end.conn, end.open);
            end.open = false;
            if was_open && self.nodes[index].conns.remove(&conn).is_some() {
                self.note(format_args!("n{index} loses {}", conn.0));
                let now = self.now_at(index);
                self.with(index, |engine| engine.handle_closed(now, conn));
            }
        }
        self.net.sweep(link);
    }

    /// Cuts every connection.
    pub fn reset_all(&mut self) {
        for link in self.net.links() {
            self.reset(link);
        }
    }

    /// Parts machines into two groups that do not hear each other.
    pub fn partition(&mut self, group: &[usize]) {
        for a in 0..self.nodes.len() {
            for b in (0..self.nodes.len()).filter(|b| group.contains(&a) != group.contains(b)) {
                self.net.block(a, b);
            }
        }
        self.note(format_args!("partition of {group:?}"));
    }

    /// Mends the network; what waited arrives.
    pub fn heal(&mut self) {
        self.net.unblock_all();
        self.note(format_args!("the network heals"));
        for link in self.net.links() {
            for side in 0..2 {
                let held =
                    self.net.end(link, side).map(|end| std::mem::take(&mut end.held)).unwrap_or_default();
                for cargo in held {
                    self.at(self.now, Due::Arrive { link, side, cargo });
                }
            }
        }
    }

    fn arrive(&mut self, link: LinkId, side: usize, cargo: Cargo) {
        let Some(from) = self.net.end(link, 1 - side).map(|end| end.node) else { return };
        let Some(to) = self.net.end(link, side).map(|end| end.node) else { return };
        let reached = self.net.reaches(from, to);
        let carries = matches!(&cargo, Cargo::Bytes(bytes) if !bytes.is_empty());
        if carries && reached && self.net.resets() {
            self.note(format_args!("reset between n{from} and n{to}"));
            return self.reset(link);
        }
        let Some(end) = self.net.end(link, side) else { return };
        match cargo {
            cargo if !reached || !end.held.is_empty() => end.held.push_back(cargo),
            Cargo::Bytes(bytes) => end.inbox.extend(bytes),
            Cargo::End => end.ended = true,
        }
        self.deliver(link, side);
    }

    /// Gives an engine what has arrived, as long as it takes it.
    fn deliver(&mut self, link: LinkId, side: usize) {
        loop {
            let Some(end) = self.net.end(link, side) else { return };
            let (index, conn) = (end.node, end.conn);
            if !end.open || !end.reading {
                return;
            }
            let now = self.now_at(index);
            let waiting = self.net.end(link, side).map_or(0, |end| end.inbox.len());
            if waiting == 0 {
                let ended = self.net.end(link, side).is_some_and(|end| end.ended);
                if ended {
                    if let Some(end) = self.net.end(link, side) {
                        end.open = false;
                    }
                    self.nodes[index].conns.remove(&conn);
                    self.note(format_args!("n{index} hears the end of {}", conn.0));
                    self.with(index, |engine| engine.handle_closed(now, conn));
                    self.net.sweep(link);
                }
                return;
            }
            let piece = self.net.piece(waiting);
            let Some(end) = self.net.end(link, side) else { return };
            let bytes: Vec<u8> = end.inbox.drain(..piece).collect();
            self.note(format_args!("n{index} receives {piece} on {}", conn.0));
            self.with(index, |engine| engine.handle_received(now, conn, &bytes));
            let Some(sender) = self.net.end(link, 1 - side) else { return };
            sender.unread = sender.unread.saturating_sub(piece);
            let (other, other_conn, wants) = (sender.node, sender.conn, sender.writing && sender.open);
            if wants && self.pump(other, other_conn) {
                self.drain(other);
            }
        }
    }

    fn datagram(&mut self, index: usize, addr: SocketAddr, bytes: &[u8]) {
        assert!(bytes.len() <= 512, "a datagram of {} bytes", bytes.len());
        let to_all = match addr.ip() {
            IpAddr::V4(ip) => ip.is_broadcast() || ip.is_multicast() || ip.octets()[3] == 255,
            IpAddr::V6(ip) => ip.is_multicast(),
        };
        let from = SocketAddr::new(self.nodes[index].ip, LAN_PORT);
        for node in 0..self.nodes.len() {
            let meant = to_all || self.nodes[node].ip == addr.ip();
            if node == index || !meant || !self.net.reaches(index, node) || self.net.loses_datagram() {
                continue;
            }
            let at = self.now.plus(self.net.delay());
            self.at(at, Due::Datagram { node, from, bytes: bytes.to_vec() });
        }
    }

    // What tests ask.

    /// Gives a command; its outcome will be in [`SimNode::replies`].
    pub fn command(&mut self, index: usize, command: Command) -> CommandId {
        let now = self.now_at(index);
        let engine = self.nodes[index].engine.as_mut().expect("the machine runs");
        let id = engine.handle_command(now, command);
        self.drain(index);
        id
    }

    /// Gives a command and waits for its outcome.
    pub fn ask(&mut self, index: usize, command: Command) -> Result<Reply, CommandError> {
        let id = self.command(index, command);
        let until = self.now.plus(ANSWER_MAX);
        loop {
            if let Some(result) = self.nodes[index].replies.remove(&id) {
                return result;
            }
            if self.now >= until || !self.step() {
                let message = format!("n{index} never answered command {}", id.0);
                return Err(CommandError { code: "no_answer", message });
            }
        }
    }

    /// The state of a machine.
    pub fn status(&mut self, index: usize) -> NodeStatus {
        match self.ask(index, Command::Status) {
            Ok(Reply::Status(status)) => status,
            other => panic!("n{index} gives no status: {other:?}\n{}", self.trace.tail(40)),
        }
    }

    /// Writes so far, of all machines: stored rows, changed files.
    fn activity(&self) -> Vec<(u64, u64)> {
        self.nodes.iter().map(|node| (node.store.commits, node.disk.changes)).collect()
    }

    /// Runs until every share is in step with its peers and nothing was written for some time; at `deadline` says
    /// what is not.
    pub fn try_quiet(&mut self, deadline: Duration) -> Result<(), String> {
        let end = self.now.plus(deadline);
        let mut last = self.activity();
        let mut quiet_since = self.now;
        loop {
            self.run_for(Duration::from_secs(1));
            if self.activity() != last {
                last = self.activity();
                quiet_since = self.now;
            }
            let mut unquiet = Vec::new();
            for index in 0..self.nodes.len() {
                if self.nodes[index].engine.is_none() {
                    continue;
                }
                let id = self.command(index, Command::Status);
                self.run_for(Duration::from_millis(50));
                match self.nodes[index].replies.remove(&id) {
                    Some(Ok(Reply::Status(status))) => {
                        let shares = status.shares.iter().filter(|share| !self.at_rest(index, share));
                        unquiet.extend(shares.map(|share| format!("n{index} {share:?}")));
                    }
                    other => unquiet.push(format!("n{index} gives no status: {other:?}")),
                }
            }
            if unquiet.is_empty() && self.now.since(quiet_since) >= QUIET {
                return Ok(());
            }
            if self.now >= end {
                unquiet.push(format!("last write {:?} ago", self.now.since(quiet_since)));
                return Err(unquiet.join("\n"));
            }
        }
    }

    fn at_rest(&self, index: usize, share: &ShareStatus) -> bool {
        let others = (0..self.nodes.len()).filter(|other| *other != index);
        let reachable = others
            .into_iter()
            .any(|other| self.nodes[other].engine.is_some() && self.net.joined(index, other));
        match share.state {
            ShareState::InSync => true,
            ShareState::Alone => !reachable,
            ShareState::Stopped | ShareState::Paused => true,
            ShareState::Attention => share.pending_files == 0,
            ShareState::Scanning | ShareState::Joining | ShareState::Syncing => false,
        }
    }

    /// Like [`World::try_quiet`], and fails the test with the newest lines of the log.
    pub fn run_until_quiet(&mut self, deadline: Duration) {
        if let Err(unquiet) = self.try_quiet(deadline) {
            panic!("not quiet after {deadline:?}:\n{unquiet}\nlast lines:\n{}", self.trace.tail(60));
        }
    }

    /// Fails unless the folder holds the same on all these machines.
    pub fn assert_same_trees(&self, indexes: &[usize], path: &str) {
        let trees: Vec<(usize, Tree)> =
            indexes.iter().map(|i| (*i, self.nodes[*i].disk.tree(path))).collect();
        for pair in trees.windows(2) {
            let ((a, left), (b, right)) = (&pair[0], &pair[1]);
            let keys: std::collections::BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            let differ: Vec<String> = keys
                .into_iter()
                .filter(|key| left.get(*key) != right.get(*key))
                .map(|key| format!("{key}: n{a} {:?}, n{b} {:?}", left.get(key), right.get(key)))
                .collect();
            assert!(differ.is_empty(), "trees differ:\n{}\n{}", differ.join("\n"), self.trace.tail(60));
        }
    }
}

/// One machine of a world, for tests to act on; what cannot be done fails the test.
#[derive(Debug)]
pub struct At<'a> {
    world: &'a mut World,
    index: usize,
}

impl At<'_> {
    /// Gives a command and waits for its outcome.
    pub fn ask(&mut self, command: Command) -> Result<Reply, CommandError> {
        self.world.ask(self.index, command)
    }

    /// Makes a share of a folder, which is made first where it is missing.
    pub fn share(&mut self, path: &str) {
        self.mkdir(path);
        match self.ask(Command::CreateShare { path: path.into() }) {
            Ok(Reply::Share { .. }) => {}
            other => panic!("n{} cannot share {path}: {other:?}\n{}", self.index, self.world.trace.tail(40)),
        }
    }

    /// Makes a code for read_write.
    pub fn invite(&mut self, path: &str) -> String {
        let valid_for = Some(Duration::from_secs(86_400));
        let invite =
            Command::Invite { path: path.into(), level: Level::ReadWrite, valid_for, multi_use: false };
        match self.ask(invite) {
            Ok(Reply::Code { code, .. }) => code.to_text(),
            other => panic!("n{} makes no code: {other:?}", self.index),
        }
    }

    /// Joins with a code, dialling a machine of the world.
    pub fn attach(
        &mut self,
        code: &str,
        path: &str,
        existing: Existing,
        peer: usize,
    ) -> Result<Reply, CommandError> {
        let peers = vec![self.world.nodes[peer].addr()];
        self.ask(Command::Attach { code: code.into(), path: path.into(), existing, peers })
    }

    /// Changes the disk as a user does, and lets the watcher hear of it.
    pub fn disk<T>(&mut self, change: impl FnOnce(&mut SimDisk, i64) -> T) -> T {
        let wall_ns = self.world.wall_ns(self.index);
        let done = change(&mut self.world.nodes[self.index].disk, wall_ns);
        self.world.gather_hints(self.index);
        done
    }

    fn user(
        &mut self,
        what: &str,
        change: impl FnOnce(&mut SimDisk, i64) -> Result<(), clearskies_core::io::DiskError>,
    ) {
        self.world.note(format_args!("n{} user: {what}", self.index));
        if let Err(error) = self.disk(change) {
            panic!("n{} user: {what}: {error:?}", self.index);
        }
    }

    /// Writes a file.
    pub fn write(&mut self, path: &str, content: &[u8]) {
        self.user(&format!("writes {path}"), |disk, at| disk.write(at, path, content));
    }

    /// Opens a file, as [`SimDisk::open_file`].
    pub fn open_file(&mut self, path: &str) -> u64 {
        let index = self.index;
        self.disk(|disk, _| disk.open_file(path))
            .unwrap_or_else(|error| panic!("n{index} opens {path}: {error:?}"))
    }

    /// Writes to a file that was opened.
    pub fn write_open(&mut self, inode: u64, content: &[u8]) {
        self.user(&format!("writes to open file {inode}"), |disk, at| disk.write_open(at, inode, content));
    }

    /// Saves a file as editors do.
    pub fn save(&mut self, path: &str, content: &[u8]) {
        self.user(&format!("saves {path}"), |disk, at| disk.save(at, path, content));
    }

    /// Appends to a file.
    pub fn append(&mut self, path: &str, content: &[u8]) {
        self.user(&format!("appends to {path}"), |disk, at| disk.append(at, path, content));
    }

    /// Makes a directory with its parents.
    pub fn mkdir(&mut self, path: &str) {
        self.user(&format!("makes {path}"), |disk, at| disk.mkdir(at, path));
    }

    /// Removes whatever is there.
    pub fn remove(&mut self, path: &str) {
        self.user(&format!("removes {path}"), |disk, at| disk.remove_path(at, path));
    }

    /// Renames.
    pub fn rename(&mut self, from: &str, to: &str) {
        self.user(&format!("renames {from} to {to}"), |disk, at| disk.rename_path(at, from, to));
    }

    /// Sets permission bits.
    pub fn chmod(&mut self, path: &str, mode: u32) {
        self.user(&format!("chmods {path} {mode:o}"), |disk, at| disk.chmod(at, path, mode));
    }

    /// Makes a link.
    pub fn symlink(&mut self, path: &str, target: &str) {
        self.user(&format!("links {path}"), |disk, at| disk.symlink(at, path, target));
    }

    /// A folder's tree.
    pub fn tree(&self, path: &str) -> Tree {
        self.world.nodes[self.index].disk.tree(path)
    }

    /// A file's bytes.
    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.world.nodes[self.index].disk.read_file(path)
    }

    /// What the archive of a share keeps.
    pub fn archive(&self, path: &str) -> Vec<(String, Vec<u8>)> {
        self.world.nodes[self.index].disk.archive(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(seed: u64) -> u64 {
        let mut world = World::new(seed, 2);
        for round in 0..20u8 {
            let node = usize::from(round % 2);
            world.node(node).mkdir("/share");
            world.node(node).write(&format!("/share/{round}"), &[round; 9]);
            world.run_for(Duration::from_millis(300));
        }
        world.crash(0);
        world.restart(0);
        world.run_for(Duration::from_secs(3600));
        world.trace.digest()
    }

    #[test]
    fn the_same_seed_gives_the_same_log() {
        assert_eq!(history(5), history(5));
    }

    #[test]
    fn time_passes_without_anything_to_do() {
        let mut world = World::new(1, 1);
        let before = world.now();
        world.run_for(Duration::from_secs(86_400));
        assert_eq!(world.now().since(before), Duration::from_secs(86_400));
    }
}
