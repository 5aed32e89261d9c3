//! Plays a script: a club of machines lives through it, everything heals, and what must hold is checked. The same
//! script gives the same history, byte for byte.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::Duration;

use clearskies_core::engine::command::{Command, Reply};
use clearskies_core::io::disk::DiskError;
use clearskies_core::time::Instant;

use super::World;
use super::check::{self, Broken, Checked};
use super::disk::Chaos;
use super::ledger::Ledger;
use super::net::Conditions;
use super::node::SimNode;
use super::rng::Rng;
use super::script::{Script, Step, Verb};
use super::share::SHARE;
use super::store::Image;
use super::world::{LIARS_MAX, Manner};

mod club;
mod faults;
mod look;
mod users;

pub use users::content;

/// Everything must be at rest so long after it healed: every back-off, and the hour for which missing changes are
/// waited for, twice.
const DEADLINE: Duration = Duration::from_secs(3 * 3600);
/// What waits for nothing but lost contents is looked at first after so long: if all else holds by then, only the
/// histories with an idle hour wait until [`DEADLINE`].
const PATIENCE: Duration = Duration::from_secs(1200);
/// What is not at rest after so long is looked at by the checks, and its deletes are confirmed: at first,
const QUIET_FIRST: Duration = Duration::from_secs(60);
/// and at last.
const QUIET_MAX: Duration = Duration::from_secs(300);
/// A node tries its database again within this.
const DATABASE_PAUSE: Duration = Duration::from_secs(300);
/// What was too young is looked at once more within this.
const SETTLED: Duration = Duration::from_secs(900);
/// Hours of rest in which nothing may happen. Each has a periodic scan.
const IDLE_HOURS: u64 = 1;
/// How often folders are looked through at rest where files have several names: what sync does at one of them as it
/// takes over what is found may change another one.
const LOOKS: u32 = 3;
/// How often held deletes are confirmed before rest is given up.
const DECISIONS_MAX: u32 = 5;
/// How long a machine may take a connection for alive of which only the other side has heard that it ended: it sends
/// away whoever calls meanwhile (protocol §5).
const HALF_OPEN: Duration = Duration::from_secs(90);
/// A machine whose death has begun is dead after so long: more than a flush of a slow disk takes.
const DEATH_MAX: Duration = Duration::from_secs(10);
/// Room on a volume that is not full.
const ROOM: u64 = 1 << 40;
/// Where a folder lies whose place an empty one took.
const ASIDE: &str = "/aside";
/// What may lie beside the share.
const OUTSIDE: &[&str] = &["share", "aside"];
/// Steps of the world that a history may take, setup and rest included: what takes more works without end.
const STEPS_MAX: u64 = 3_000_000;
/// Lines of the log that a failure tells.
const LINES_TOLD: usize = 60;

/// How to play.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Whether the world keeps its log (slow).
    pub log: bool,
    /// Whether it goes on for an idle hour, in which nothing may happen (slow).
    pub idle: bool,
}

/// A history that ended well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// A digest of the log, if there was one, and its lines.
    pub digest: (u64, u64),
    /// Outputs of each engine to disk and store, while steps were taken and until rest.
    pub outputs: Vec<u64>,
}

/// A history that broke something.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What.
    pub broken: Broken,
    /// What was done, with times.
    pub acts: String,
    /// The newest lines of the log, if there was one.
    pub log: String,
}

/// A world that lives through a script.
#[derive(Debug)]
struct History {
    world: World,
    ledger: Ledger,
    acts: String,
    rng: Rng,
    backups: BTreeMap<usize, (Image, Option<[u8; 16]>)>,
    vanished: BTreeSet<usize>,
    /// Machines that lost their home and have not joined again.
    outsiders: BTreeSet<usize>,
    /// Machines whose program began anew with a folder that it had not seen, until all is at rest.
    anew: BTreeSet<usize>,
    /// Contents that a home had as it was copied, until all is at rest.
    made_again: BTreeSet<Vec<u8>>,
    /// The machine whose engine is to die at an output, and how, as the step `die` has it.
    dying: Option<(usize, u64)>,
    /// Whether a home was copied, and with it whom that machine knows.
    copied: bool,
    /// Whether something still waits for a content that is lost.
    waits: bool,
    /// Acts of users so far, if nothing but users' doing is in the script.
    acted: Option<u64>,
    /// When it began, and the bytes that had been sent by then.
    began: (Instant, u64),
    /// Whether connections ended for one side alone, until all is at rest.
    halved: bool,
    /// Whether users gave a file a second name: what is changed through one is seen at the other by a look alone.
    linked: bool,
    /// Whether a clock was ever set.
    misdated: bool,
    /// Whether the power of a machine was cut, of which no other one heard, until all is at rest.
    cut: bool,
    /// How a member lied, if one did.
    lied: Option<Manner>,
    options: Options,
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// While a history is played a panic is an outcome like others, to be told by whoever asked.
fn catch_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let text = format!("{info}");
            let playing = PANIC.with_borrow_mut(|place| place.as_mut().map(|place| *place = text).is_some());
            if !playing {
                told(info);
            }
        }));
    });
}

/// Plays a script to its end.
pub fn play(script: &Script, options: Options) -> Result<Outcome, Box<Failure>> {
    catch_panics();
    PANIC.set(Some(String::new()));
    let mut history = None;
    let lived = catch_unwind(AssertUnwindSafe(|| {
        let history = history.insert(History::new(script, options));
        history.live(&script.steps)
    }));
    let panic = PANIC.take().unwrap_or_default();
    let broken = match lived {
        Ok(Ok(())) => None,
        Ok(Err(broken)) => Some(broken),
        Err(_) => Some(Broken::new(0, "panic", panic)),
    };
    let world = history.as_ref().map(|history| &history.world);
    match broken {
        None => Ok(Outcome {
            digest: world.map_or((0, 0), |world| (world.trace.digest(), world.trace.count())),
            outputs: world.map_or(Vec::new(), |world| world.nodes.iter().map(|node| node.outputs).collect()),
        }),
        Some(broken) => Err(Box::new(Failure {
            broken,
            log: world.map_or(String::new(), |world| world.trace.tail(LINES_TOLD)),
            acts: history.map_or(String::new(), |history| history.acts),
        })),
    }
}

/// Which liar it is that a step has speak.
fn liar_of(step: &Step) -> usize {
    usize::try_from(step.size).unwrap_or_default() % LIARS_MAX
}

impl History {
    fn new(script: &Script, options: Options) -> History {
        let mut world = club::joined(script.seed, script.machines);
        world.trace.on = options.log;
        world.steps_max = STEPS_MAX;
        world.run_for(Duration::from_secs(5));
        let liars = script.steps.iter().filter(|step| step.verb == Verb::Lie).map(liar_of);
        world.admit_liars(SHARE, liars.max().map_or(0, |last| last + 1));
        for node in &mut world.nodes {
            node.outputs = 0;
        }
        let faultless =
            |step: &Step| step.verb.is_users() || matches!(step.verb, Verb::Wait | Verb::Rest | Verb::Why);
        let began = (world.now(), world.net.bytes_sent);
        History {
            acted: script.steps.iter().all(faultless).then_some(0),
            began,
            world,
            ledger: Ledger::default(),
            acts: String::new(),
            rng: Rng::new(script.seed ^ 0x7374_6570),
            backups: BTreeMap::new(),
            vanished: BTreeSet::new(),
            outsiders: BTreeSet::new(),
            anew: BTreeSet::new(),
            made_again: BTreeSet::new(),
            dying: None,
            copied: false,
            waits: false,
            halved: false,
            linked: false,
            misdated: false,
            cut: false,
            lied: None,
            options,
        }
    }

    fn live(&mut self, steps: &[Step]) -> Checked {
        for step in steps {
            self.take(step)?;
            self.each_step()?;
        }
        self.rest()?;
        if self.options.idle && !self.waits {
            self.idle()?;
        }
        Ok(())
    }

    fn say(&mut self, what: impl std::fmt::Display) {
        if self.world.trace.print {
            println!("           {what}");
        }
        let _ = writeln!(self.acts, "{:10.3} {what}", self.world.now().0 as f64 / 1e9);
    }

    fn runs(&self, node: usize) -> bool {
        self.world.nodes[node].engine.is_some()
    }

    fn take(&mut self, step: &Step) -> Checked {
        self.say(step);
        match step.verb {
            Verb::Wait => self.world.run_for(Duration::from_millis(step.number)),
            Verb::Rest => return self.rest(),
            Verb::Why => return self.why(step.node),
            verb if verb.is_users() => {
                self.acted = self.acted.map(|acts| acts + 1);
                self.user(step);
            }
            _ => self.fault(step),
        }
        if self.world.trace.print {
            self.show_trees();
        }
        Ok(())
    }

    /// Prints what each machine holds, for who reads a log.
    fn show_trees(&self) {
        for (index, node) in self.world.nodes.iter().enumerate() {
            println!("           n{index} holds {:?}", node.disk.tree(SHARE));
        }
    }

    /// What must hold at any time.
    fn each_step(&mut self) -> Checked {
        let died = |(node, _): &(usize, u64)| self.world.ambush.is_none() && !self.runs(*node);
        if let Some((node, how)) = self.dying.filter(died) {
            self.dying = None;
            self.ledger.ended(node);
            let (torn, stays) = (how % 3 == 2, how >= 3);
            self.say(format_args!(
                "n{node} died at its output, and {}",
                if stays { "stays" } else { "starts" }
            ));
            if torn {
                self.ledger.forgot(node);
                self.cut = true;
            }
            self.whole_tree(node)?;
            if !stays {
                self.world.start(node);
            }
        }
        let mut shown = Vec::new();
        for node in &mut self.world.nodes {
            shown.append(&mut node.disk.shown);
        }
        self.whole(shown.iter().map(|(path, data)| (path, data.as_ref())))?;
        let mut most = self.world.nodes.iter().map(|node| node.orders_most).enumerate();
        most.try_for_each(|(index, most)| check::orders_within_limits(index, most))
    }

    /// What shows was written by a user, or is what a liar announced.
    fn whole<'a>(&self, shown: impl Iterator<Item = (&'a String, &'a Vec<u8>)>) -> Checked {
        let users = |(_, data): &(&String, &Vec<u8>)| {
            self.lied.is_none() || self.ledger.knows(data) || !self.world.was_announced(data)
        };
        check::whole(shown.filter(users), &self.ledger)
    }

    /// What a machine shows, all of it: after its power failed.
    fn whole_tree(&self, node: usize) -> Checked {
        let files = self.files(node);
        self.whole(files.iter().map(|(path, data)| (path, data)))
    }

    /// Mends everything that was broken, and starts what is down.
    fn heal(&mut self) {
        if let Some((node, _)) = self.dying.filter(|_| self.world.ambush.is_none()) {
            // Its death has begun, and comes when that output is carried out, which takes a while on a slow disk.
            let until = self.world.now().plus(DEATH_MAX);
            self.world.run_for(Duration::from_secs(1));
            while self.runs(node) && self.world.now() < until {
                self.world.run_for(Duration::from_secs(1));
            }
        }
        self.world.ambush = None;
        self.world.silence_liars();
        if let Some((node, _)) = self.dying.take().filter(|(node, how)| how % 3 == 2 && !self.runs(*node)) {
            self.ledger.forgot(node);
            self.cut = true;
        }
        self.world.net.conditions = Conditions::default();
        self.world.hints_lost_per_mille = 0;
        self.world.hints_done_per_mille = 0;
        self.world.hints_prompt_per_mille = 0;
        self.world.hints_strange_per_mille = 0;
        for index in 0..self.world.nodes.len() {
            self.give_back(index);
            let node = &mut self.world.nodes[index];
            node.disk.chaos = None;
            node.disk.faults.clear();
            node.disk.fs.capacity = ROOM;
            node.flush_delay = Duration::ZERO;
            node.disk.unplugged.clear();
            node.store.faults.clear();
            node.notices.clear();
            if node.engine.is_none() {
                self.world.restart(index);
            }
        }
        self.world.heal();
        // Who lets them in may be about to use its database again.
        let until = self.world.now().plus(DATABASE_PAUSE);
        self.join();
        while !self.outsiders.is_empty() && self.world.now() < until {
            self.world.run_for(Duration::from_secs(10));
            self.join();
        }
        if self.copied {
            self.introduce();
        }
        // A machine that is back dials those that it knows, which tells them. A copy may know nobody.
        let cut = std::mem::take(&mut self.cut) && self.copied;
        if std::mem::take(&mut self.halved) || cut {
            self.world.run_for(HALF_OPEN);
        }
    }

    /// Where copied homes left machines of which no other one knows, and that know no other, their users say where the
    /// first machine is.
    fn introduce(&mut self) {
        let addrs: Vec<_> = self.world.nodes.iter().map(SimNode::addr).collect();
        let known: Vec<_> = (0..addrs.len()).map(|index| self.addresses(index)).collect();
        let knows = |a: usize, b: usize| known[a].contains(&addrs[b]) || known[b].contains(&addrs[a]);
        let mut met = BTreeSet::from([0]);
        while let Some(next) =
            (0..addrs.len()).find(|b| !met.contains(b) && met.iter().any(|a| knows(*a, *b)))
        {
            met.insert(next);
        }
        for index in (0..addrs.len()).filter(|index| !met.contains(index)) {
            let _ = self.world.ask(index, Command::Connect { addr: addrs[0] });
        }
        // A copy of a home that knew this machine alone knows nobody but itself, and who knows its address may take
        // another one for it.
        for index in 0..addrs.len() {
            let (own, other) = (addrs[index], addrs[usize::from(index == 0)]);
            if known[index].iter().all(|addr| *addr == own) {
                let _ = self.world.ask(index, Command::Connect { addr: other });
            }
        }
    }

    /// Everything heals and comes to rest; then all is checked.
    fn rest(&mut self) -> Checked {
        self.heal();
        self.say("all heals");
        if !self.outsiders.is_empty() {
            return Err(Broken::new(0, "cannot join", format!("{:?}", self.outsiders)));
        }
        let patience = if self.options.idle { DEADLINE } else { PATIENCE };
        self.come_to_rest(patience)?;
        if let Err(broken) = self.all_holds() {
            if !self.waits || patience == DEADLINE {
                return Err(broken);
            }
            // It may hold once the waiting has its pauses behind it.
            self.come_to_rest(DEADLINE)?;
            self.all_holds()?;
        }
        let kept_back = self.lied.is_some() && self.waits;
        if kept_back && self.options.idle {
            let before = self.counts();
            self.world.run_for(Duration::from_secs(3600));
            check::calm(&before, &self.counts())?;
        }
        self.ledger.rested();
        self.anew.clear();
        self.made_again.clear();
        Ok(())
    }

    /// Waits until all is at rest, or, from `patience` on, nothing is waited for but lost contents.
    fn come_to_rest(&mut self, patience: Duration) -> Checked {
        self.settle(patience)?;
        let looks = if self.linked { LOOKS } else { 0 };
        for _ in 0..looks {
            self.look_through();
            self.settle(patience)?;
        }
        self.each_step()
    }

    /// What must hold at rest.
    fn all_holds(&mut self) -> Checked {
        if self.lied.is_some() {
            self.ledger.shared(|content| self.world.was_announced(content));
        }
        let machines = self.machines();
        let mut settled = if self.waits { Self::without_waiting(machines.clone()) } else { machines.clone() };
        // Who may write may replace and delete as well: what was done so in his name is not the machines' fault.
        let wronged = self.lied == Some(Manner::Records);
        if wronged {
            settled = self.without_lies(settled);
        }
        check::same_trees(&settled)?;
        check::nothing_lost(&machines, &self.ledger)?;
        if !wronged {
            check::deleted_stays_deleted(&settled, &self.ledger)?;
        }
        if !self.ledger.confused && !wronged {
            check::edits_stand(&machines, &self.ledger)?;
        }
        check::inside(&machines, OUTSIDE)?;
        if !self.ledger.forgetful && !wronged {
            check::one_conflict_file(&machines, &self.ledger)?;
            // A liar makes conflicts with itself.
            if self.lied.is_none() {
                check::conflicts_need_two(&machines, &self.ledger)?;
            }
            check::one_place_each(&machines, &self.ledger)?;
        }
        if let Some(acts) = self.acted {
            let (began, sent) = self.began;
            let hours = 1 + self.world.now().since(began).as_secs() / 3600;
            let sent = self.world.net.bytes_sent - sent;
            check::talk_is_bounded(sent, machines.len() as u64, acts, self.ledger.written(), hours)?;
        }
        if !(self.lied.is_some() && self.waits) {
            // What waits for a lost content is asked for from time to time, and has a temp for so long.
            let mut machines = machines;
            for machine in machines.iter_mut().filter(|_| self.waits) {
                machine.temps = machine.temps.saturating_sub(machine.pending.len());
            }
            check::nothing_left_over(&machines)?;
        }
        Ok(())
    }

    fn settle(&mut self, patience: Duration) -> Checked {
        for _ in 0..DECISIONS_MAX {
            self.quiet(patience)?;
            if !self.confirm_held() {
                break;
            }
        }
        Ok(())
    }

    fn quiet(&mut self, patience: Duration) -> Checked {
        let mut step = QUIET_FIRST;
        let (patient, end) = (self.world.now().plus(patience), self.world.now().plus(DEADLINE));
        self.waits = false;
        while self.world.now() < end {
            let mut result = self.world.try_quiet(true, step.min(end.since(self.world.now())));
            step = (step * 2).min(QUIET_MAX);
            self.each_step()?;
            if result.is_ok() {
                result = self.all_read();
            }
            let Err(unquiet) = result else { return Ok(()) };
            // What another waits for may be gone here for good, once it is confirmed.
            self.confirm_held();
            if self.world.now() < patient {
                continue;
            }
            self.waits = self.only_lost_contents(&unquiet) || self.only_lies_wait();
            if self.waits {
                return Ok(());
            }
            if self.world.now() >= end {
                let whys = self.whys();
                return Err(Broken::new(1, "not at rest", format!("{unquiet}\n{whys}")));
            }
        }
        Ok(())
    }

    /// What a look could not read is tried again at growing intervals: until then it is at rest only by its looks.
    fn all_read(&mut self) -> Result<(), String> {
        for index in 0..self.world.nodes.len() {
            let status = self.world.status(index);
            if let Some(share) = status.shares.iter().find(|share| share.unreadable_files > 0) {
                return Err(format!("n{index} {share:?}"));
            }
        }
        Ok(())
    }

    /// Confirms deletes that are held; whether there were any.
    fn confirm_held(&mut self) -> bool {
        let mut any = false;
        for index in 0..self.world.nodes.len() {
            let held = self.world.ask(index, Command::Deletions { path: None });
            if matches!(held, Ok(Reply::Deletions(held)) if held.iter().any(|held| held.count > 0)) {
                any = true;
                self.say(format_args!("n{index} confirms its deletes"));
                let path = SHARE.into();
                let _ = self.world.ask(index, Command::DecideDeletions { path, confirm: true });
            }
        }
        any
    }

    /// An hour in which nothing is to be done, and then a look at everything, which finds nothing.
    fn idle(&mut self) -> Checked {
        self.world.run_for(SETTLED);
        // Also for what has changed just now: a file that came out of the archive, whose other names bear a new time.
        self.look_through();
        let mut before = self.counts();
        let mut idle = || {
            self.world.run_for(Duration::from_secs(3600 * IDLE_HOURS));
            self.counts()
        };
        let mut after = idle();
        if before.work != after.work {
            // What comes once and late, as a member's next announcement, comes in the first hour and not in the second.
            before = core::mem::replace(&mut after, idle());
        }
        check::still(&before, &after, IDLE_HOURS)?;
        self.look_through();
        check::rescan_is_free(&after, &self.counts())
    }

    /// Has every machine look through its folder, as the watcher lost its hints.
    fn look_through(&mut self) {
        for index in 0..self.world.nodes.len() {
            self.world.node(index).disk(|disk, _| disk.overflow());
        }
        self.world.run_for(Duration::from_secs(60));
    }

    fn errors(&mut self, node: usize, per_mille: u64) {
        let errors = vec![DiskError::Io, DiskError::Denied, DiskError::NoSpace, DiskError::Changed];
        let chaos =
            Chaos { rng: self.rng.fork(), per_mille: u32::try_from(per_mille).unwrap_or(1000), errors };
        self.world.nodes[node].disk.chaos = (per_mille > 0).then_some(chaos);
    }
}
