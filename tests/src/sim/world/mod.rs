//! Machines, network and users under one virtual clock. A step takes the earliest thing that is due, hands it to its
//! engine, and carries away what the engine wants done, by the rules of `core/src/engine/mod.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clearskies_core::engine::Engine;
use clearskies_core::files::path::RelPath;
use clearskies_core::ids::{ConnId, Token};
use clearskies_core::io::{Completion, DiskOp, StoreOp};
use clearskies_core::time::{Instant, Now, WallTime};

use super::disk::{Hint, op_name};
use super::net::{Cargo, LinkId, Net};
use super::node::SimNode;
use super::rng::Rng;
use super::signed::Signed;
use super::trace::Trace;

mod at;
mod lies;
mod outputs;
mod power;
mod rest;
mod traffic;

pub use at::At;
pub use lies::{LIARS_MAX, Manner, Seat};

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

/// The latest that a strange hint comes.
const HINT_LATE_MAX: Duration = Duration::from_secs(5);

/// When an engine dies, at one of its outputs to disk or store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Killed before anything of it is carried out.
    Before,
    /// Killed when all of it is carried out, and the engine does not know.
    After,
    /// The power goes when a part of it is carried out.
    Torn,
}

/// An engine that is to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ambush {
    /// Whose.
    pub node: usize,
    /// At which of its outputs to disk or store from now on; 0 is the next.
    pub output: u64,
    /// When.
    pub moment: Moment,
}

/// Something that will happen.
#[derive(Debug)]
enum Due {
    Die { node: usize, run: u32, moment: Moment },
    Disk { node: usize, run: u32, token: Token, op: DiskOp },
    Store { node: usize, run: u32, token: Token, op: StoreOp },
    NameRun { node: usize, run: u32 },
    Complete { node: usize, run: u32, token: Token, completion: Completion },
    Poll { node: usize, run: u32 },
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
    /// Of hints that something was closed or renamed, so many in a thousand say so.
    pub hints_done_per_mille: u32,
    /// Of what happens to a folder so many steps in a thousand are read by the watcher at once.
    pub hints_prompt_per_mille: u32,
    /// How many in a thousand come up to `HINT_LATE_MAX` late, and how many come twice.
    pub hints_strange_per_mille: u32,
    /// Kills an engine at one of its outputs.
    pub ambush: Option<Ambush>,
    /// Told before an engine is called and when it has returned, by who counts what engines take.
    pub calls: fn(bool),
    /// The longest that a disk operation waits before it is carried out.
    pub disk_delay_max: Duration,
    /// The longest that a store operation waits before it is carried out.
    pub store_delay_max: Duration,
    /// How long it takes at most until what the watcher saw is read.
    pub poll_delay_max: Duration,
    /// Files that take this long to be read for their hash, by their path in the share.
    pub slow_to_hash: BTreeMap<RelPath, Duration>,
    /// Members that lie, once they were let in.
    liars: Vec<Seat>,
    /// What the ends of links signed.
    signed: Arc<Signed>,
    now: Instant,
    /// Boxed, because the map moves what it holds about each time.
    due: BTreeMap<(Instant, u64), Box<Due>>,
    next: u64,
    rng: Rng,
    steps_at_once: u32,
    steps: u64,
    /// Steps after which the world is said never to rest.
    pub steps_max: u64,
}

impl World {
    /// `count` machines, switched on, that know nothing of each other.
    pub fn new(seed: u64, count: usize) -> World {
        let mut world = World::asleep(seed, count);
        for index in 0..count {
            world.start(index);
        }
        world
    }

    /// `count` machines that are switched off.
    pub fn asleep(seed: u64, count: usize) -> World {
        let mut rng = Rng::new(seed);
        let net = Net::new(rng.fork());
        World {
            nodes: (0..count).map(SimNode::new).collect(),
            net,
            trace: Trace::default(),
            hints_lost_per_mille: 0,
            hints_done_per_mille: 0,
            hints_prompt_per_mille: 0,
            hints_strange_per_mille: 0,
            ambush: None,
            calls: |_| {},
            disk_delay_max: Duration::from_millis(2),
            store_delay_max: Duration::from_micros(500),
            poll_delay_max: Duration::from_millis(20),
            slow_to_hash: BTreeMap::new(),
            liars: Vec::new(),
            signed: Arc::default(),
            now: Instant(1_000_000_000),
            due: BTreeMap::new(),
            next: 0,
            rng,
            steps_at_once: 0,
            steps: 0,
            steps_max: u64::MAX,
        }
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

    /// Lets the earliest thing happen; false if nothing will ever happen.
    pub fn step(&mut self) -> bool {
        self.step_until(Instant(u64::MAX))
    }

    /// Lets the earliest thing happen; false if nothing will happen by then.
    fn step_until(&mut self, end: Instant) -> bool {
        let timer = self.next_timer().map(|(at, index)| (at.max(self.now), index));
        let event = self.due.first_key_value().map(|((at, _), _)| (*at).max(self.now));
        let at = match (event, timer) {
            (None, None) => return false,
            (Some(event), None) => event,
            (None, Some((timer, _))) => timer,
            (Some(event), Some((timer, _))) => event.min(timer),
        };
        if at > end {
            return false;
        }
        self.steps_at_once = if at > self.now { 0 } else { self.steps_at_once + 1 };
        assert!(self.steps_at_once < STEPS_AT_ONCE_MAX, "time stands still\n{}", self.trace.tail(60));
        self.steps += 1;
        assert!(self.steps < self.steps_max, "too many steps\n{}", self.trace.tail(60));
        self.now = at;
        if event == Some(at) {
            if let Some((_, due)) = self.due.pop_first() {
                self.happen(*due);
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
        while self.step_until(end) {}
        self.now = self.now.max(end);
    }

    /// The next time at which an engine wants to be called. Asking engines is dear, so each is asked once a call.
    fn next_timer(&mut self) -> Option<(Instant, usize)> {
        let timers = self.nodes.iter_mut().enumerate().filter_map(|(index, node)| {
            let engine = node.engine.as_mut()?;
            let at = *node.wakes.get_or_insert_with(|| engine.poll_timeout());
            Some((at?, index))
        });
        timers.min()
    }

    fn at(&mut self, at: Instant, due: Due) {
        self.next += 1;
        self.due.insert((at, self.next), Box::new(due));
    }

    fn soon(&mut self, max: Duration) -> Instant {
        let max = u64::try_from(max.as_nanos()).unwrap_or(u64::MAX);
        self.now.plus(Duration::from_nanos(20_000 + self.rng.below(max)))
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Die { node, run, moment } if self.nodes[node].run == run => match moment {
                Moment::Before | Moment::After => self.crash(node),
                Moment::Torn => self.power_cut(node),
            },
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
            Due::NameRun { node, run } if self.nodes[node].run == run => {
                let named = self.nodes[node].name_run();
                let now = self.now_at(node);
                self.with(node, |engine| engine.handle_run_named(now, named));
            }
            Due::Complete { node, run, token, completion } if self.nodes[node].run == run => {
                self.note(format_args!("n{node} done {}", token.0));
                self.nodes[node].completed(token);
                let now = self.now_at(node);
                self.with(node, |engine| engine.handle_completion(now, token, completion));
            }
            Due::Poll { node, run } if self.nodes[node].run == run => self.tell_hints(node),
            Due::Hint { node, run, hint } if self.nodes[node].run == run => {
                self.note(format_args!("n{node} hint {hint:?}"));
                let now = self.now_at(node);
                self.with(node, |engine| match &hint {
                    Hint::Seen(root, path, seen) => engine.handle_fs_event(now, *root, path, *seen),
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
            Due::Die { .. }
            | Due::Disk { .. }
            | Due::Store { .. }
            | Due::Complete { .. }
            | Due::Poll { .. }
            | Due::Hint { .. }
            | Due::NameRun { .. }
            | Due::Dial { .. } => {}
        }
    }

    /// Calls an engine, if it runs, and carries away what it wants done.
    fn with(&mut self, index: usize, call: impl FnOnce(&mut Engine)) {
        if let Some(engine) = self.nodes[index].engine.as_mut() {
            (self.calls)(true);
            call(engine);
            (self.calls)(false);
            self.nodes[index].wakes = None;
            self.drain(index);
        }
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
