//! Plays scripts of the simulator against real daemons on a real file system, with proxies on the lines between them;
//! in the end all heals, and the simulator's own checks look at the folders. Time is real here, and so is chance: a
//! script that fails may hold the next time.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::daemon::Node;
use crate::sim::check::{self, Broken, Checked, Machine};
use crate::sim::disk::count_temps;
use crate::sim::generate::{self, Shape};
use crate::sim::ledger::Ledger;
use crate::sim::script::{Script, Step, Verb};
use crate::sim::users::Tree;

pub mod proxy;
mod users;

use proxy::{Line, Proxy};

/// No pause of a script is longer here: what takes minutes in virtual time is no more telling than this.
const WAIT_MAX: Duration = Duration::from_millis(1200);
/// How often it is looked whether all is at rest.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// At rest means: so many looks in a row found the same.
const LOOKS_ALIKE: u32 = 5;
/// What went to the archive is looked at once more ten seconds later (sync.md, "Deletes").
const LATE_LOOK: Duration = Duration::from_secs(12);
/// How often held deletes are decided on the way to rest.
const DECIDE_EVERY: Duration = Duration::from_secs(3);
/// What may lie beside the share.
const OUTSIDE: &[&str] = &["home", "share", "stderr", ASIDE];
/// Where a folder lies whose place an empty one took.
const ASIDE: &str = "aside";
/// The longest pause of a path that failed, and some.
const DEADLINE: Duration = Duration::from_secs(400);
/// Size of a volume of its own, and room that is left on it when it is full; bytes.
const VOLUME: u64 = 64 << 20;
const SCRAPS: u64 = 16 << 10;
const PAGE: u64 = 4096;

/// How to play.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Everything must be at rest so long after it healed.
    pub deadline: Duration,
    /// Whether each share is a volume of its own, which needs leave to mount: only then are volumes full or read-only.
    pub volumes: bool,
}

impl Options {
    /// Folders as they are.
    pub const PLAIN: Options = Options { deadline: DEADLINE, volumes: false };
    /// Each share is a volume of its own.
    pub const VOLUMES: Options = Options { deadline: DEADLINE, volumes: true };
}

/// A history that broke something.
#[derive(Debug)]
pub struct Failure {
    /// What.
    pub broken: Broken,
    /// What was done, with times.
    pub acts: String,
    /// What the daemons wrote.
    pub logs: String,
}

#[derive(Debug)]
struct History {
    nodes: Vec<Node>,
    /// The line of each machine to the first one; none for that one itself.
    proxies: Vec<Option<Proxy>>,
    ledger: Ledger,
    acts: String,
    begun: Instant,
    vanished: BTreeSet<usize>,
    options: Options,
}

impl Drop for History {
    fn drop(&mut self) {
        if self.options.volumes {
            for node in &mut self.nodes {
                node.kill();
                // Whatever stays mounted goes with the namespace.
                mount(&["-l", &node.share()], "umount");
            }
        }
    }
}

/// Whether a script holds nothing but what can be done to real machines.
pub fn is_playable(script: &Script, options: Options) -> bool {
    script.steps.iter().all(|step| match step.verb {
        Verb::Errors | Verb::Full => options.volumes,
        // A mount point cannot be renamed.
        Verb::Vanish | Verb::Return => !options.volumes,
        verb => !ELSEWHERE.contains(&verb),
    })
}

/// What only a simulated machine can be made to suffer.
const ELSEWHERE: &[Verb] = &[
    Verb::Power,
    Verb::StoreFails,
    Verb::Hints,
    Verb::Closes,
    Verb::Prompt,
    Verb::Wrong,
    Verb::Unplug,
    Verb::Plug,
    Verb::Clock,
    Verb::Wipe,
    Verb::Backup,
    Verb::Rollback,
    Verb::Clone,
    Verb::Deaf,
    Verb::Half,
    Verb::Slow,
    Verb::Lie,
    // What is changed through one name is seen at the other within an hour.
    Verb::HardLink,
];

/// The history of a seed, as far as it can be played.
pub fn random(seed: u64, machines: usize, acts: Option<u64>, options: Options) -> Script {
    let instead: &[Verb] =
        if options.volumes { &[Verb::Vanish, Verb::Return] } else { &[Verb::Errors, Verb::Full] };
    let without = [ELSEWHERE, instead].concat().leak();
    generate::script(seed, Shape { machines: Some(machines), acts, without })
}

/// Plays a script to its end.
pub fn play(script: &Script, options: Options) -> Result<(), Box<Failure>> {
    let mut history = History::new(script, options);
    let lived = script.steps.iter().try_for_each(|step| history.take(step)).and_then(|()| history.rest());
    lived.map_err(|broken| {
        let logs = history.nodes.iter().enumerate().map(|(index, node)| format!("n{index}\n{}", node.log()));
        Box::new(Failure { broken, logs: logs.collect(), acts: history.acts.clone() })
    })
}

fn mount(args: &[&str], program: &str) -> bool {
    Command::new(program).args(args).output().is_ok_and(|out| out.status.success())
}

impl History {
    fn new(script: &Script, options: Options) -> History {
        let nodes: Vec<Node> = (0..script.machines).map(|_| Node::new()).collect();
        let first = nodes[0].addr();
        let line = |index| (index > 0).then(|| Proxy::new(first.clone(), script.seed ^ index as u64));
        let proxies = (0..script.machines).map(line).collect();
        let mut history = History {
            nodes,
            proxies,
            ledger: Ledger::default(),
            acts: String::new(),
            begun: Instant::now(),
            vanished: BTreeSet::new(),
            options,
        };
        for index in 0..history.nodes.len() {
            let size = format!("size={VOLUME}");
            let share = history.nodes[index].share();
            if options.volumes {
                assert!(mount(&["-t", "tmpfs", "-o", &size, "none", &share], "mount"), "no volume");
            }
            history.nodes[index].start();
            if let Some(proxy) = &history.proxies[index] {
                let code = history.nodes[0].invite();
                let args = ["attach", &code, &share, "--peer", &proxy.addr()];
                history.nodes[index].run(&args).ok();
            } else {
                history.nodes[index].invite();
            }
        }
        history
    }

    fn say(&mut self, what: impl std::fmt::Display) {
        let _ = writeln!(self.acts, "{:8.3} {what}", self.begun.elapsed().as_secs_f64());
    }

    fn take(&mut self, step: &Step) -> Checked {
        self.say(step);
        match step.verb {
            Verb::Wait => std::thread::sleep(Duration::from_millis(step.number).min(WAIT_MAX)),
            Verb::Rest => return self.rest(),
            verb if verb.is_users() => self.user(step),
            _ => self.fault(step),
        }
        Ok(())
    }

    fn fault(&mut self, step: &Step) {
        let index = step.node;
        match step.verb {
            Verb::Kill => self.nodes[index].kill(),
            Verb::Stop if self.nodes[index].runs() => self.nodes[index].stop(),
            Verb::Start if !self.nodes[index].runs() => self.nodes[index].start(),
            Verb::Die => {
                // Not at a certain output, but at any.
                self.nodes[index].kill();
                self.nodes[index].start();
            }
            Verb::Part => self.lines_of(index).for_each(|line| line.set_open(false)),
            Verb::Mend => self.lines_of(0).for_each(|line| line.set_open(true)),
            Verb::Reset => self.lines_of(0).for_each(Proxy::cut),
            Verb::Line => self.lines_of(0).for_each(|line| line.set_line(Line::named(step.number))),
            Verb::Errors => self.remount(index, if step.number > 0 { "ro" } else { "rw" }),
            Verb::Full => {
                let used = self.used(index);
                let size = if step.number == 0 { VOLUME } else { (used + SCRAPS).next_multiple_of(PAGE) };
                self.remount(index, &format!("size={size}"));
            }
            Verb::Vanish if self.vanished.insert(index) => {
                let (share, aside) = (self.nodes[index].path(""), self.nodes[index].beside(ASIDE));
                std::fs::rename(&share, aside)
                    .and_then(|()| std::fs::create_dir(share))
                    .expect("a folder moves");
            }
            Verb::Return => self.give_back(index),
            _ => {}
        }
    }

    /// The lines of a machine; the first one has all of them.
    fn lines_of(&self, index: usize) -> impl Iterator<Item = &Proxy> {
        let lines = self.proxies.iter().enumerate().filter(move |(other, _)| index == 0 || index == *other);
        lines.filter_map(|(_, line)| line.as_ref())
    }

    fn remount(&mut self, index: usize, how: &str) {
        let share = self.nodes[index].share();
        // A volume that is just being written to cannot be made read-only.
        let done = mount(&["-o", &format!("remount,{how}"), &share], "mount");
        self.say(format_args!("n{index} is mounted {how}: {done}"));
    }

    fn used(&self, index: usize) -> u64 {
        let out = Command::new("df").args(["--output=used", "-B1", &self.nodes[index].share()]).output();
        let text = out.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
        text.lines().last().and_then(|line| line.trim().parse().ok()).unwrap_or(VOLUME)
    }

    /// Puts the share's folder back in its place, and throws away what stood there meanwhile.
    fn give_back(&mut self, index: usize) {
        if !self.vanished.remove(&index) {
            return;
        }
        let (share, aside) = (self.nodes[index].path(""), self.nodes[index].beside(ASIDE));
        for (_, data) in users::files(&share, "") {
            // Its user threw it away, having seen it.
            self.ledger.replaced(&[data]);
        }
        let back = std::fs::remove_dir_all(&share).and_then(|()| std::fs::rename(aside, share));
        back.expect("a folder moves");
    }

    /// Everything heals and comes to rest; then all is checked.
    fn rest(&mut self) -> Checked {
        self.say("all heals");
        for line in self.lines_of(0) {
            line.set_line(Line::GOOD);
            line.set_open(true);
        }
        for index in 0..self.nodes.len() {
            if self.options.volumes {
                self.remount(index, &format!("rw,size={VOLUME}"));
            }
            self.give_back(index);
            if !self.nodes[index].runs() {
                self.nodes[index].start();
            }
        }
        self.quiet()?;
        let machines = match self.look() {
            Ok(machines) => machines,
            Err(_) => {
                // What was written through a handle as sync took the file away is brought back by then.
                std::thread::sleep(LATE_LOOK);
                self.quiet()?;
                self.look()?
            }
        };
        self.ledger.rested();
        check::whole(machines.iter().flat_map(|machine| check::files(&machine.tree)), &self.ledger)
    }

    /// What all hold, checked.
    fn look(&mut self) -> Result<Vec<Machine>, Broken> {
        let machines = self.machines();
        for (index, machine) in machines.iter().enumerate() {
            let archived: Vec<&String> = machine.archive.iter().map(|(path, _)| path).collect();
            self.say(format_args!("n{index} holds {:?}, its archive {archived:?}", machine.tree));
        }
        check::same_trees(&machines)?;
        check::nothing_lost(&machines, &self.ledger)?;
        check::deleted_stays_deleted(&machines, &self.ledger)?;
        check::edits_stand(&machines, &self.ledger)?;
        check::inside(&machines, OUTSIDE)?;
        check::one_conflict_file(&machines, &self.ledger)?;
        check::one_place_each(&machines, &self.ledger)?;
        check::nothing_left_over(&machines)?;
        Ok(machines)
    }

    /// Waits until all say that they are in step and hold the same.
    fn quiet(&mut self) -> Checked {
        let begun = Instant::now();
        let (mut alike, mut decided) = (0, Instant::now());
        while alike < LOOKS_ALIKE {
            let statuses: Vec<Value> = self.nodes.iter().map(share_status).collect();
            let trees: Vec<Tree> = (0..self.nodes.len()).map(|index| self.tree(index)).collect();
            let same = trees.windows(2).all(|pair| pair[0] == pair[1]);
            let idle = self.nodes.iter().all(|node| temps(node) == 0);
            let rests = same && idle && statuses.iter().all(|status| status["in_sync"] == true);
            alike = if rests { alike + 1 } else { 0 };
            if begun.elapsed() > self.options.deadline {
                let told: Vec<String> = statuses.iter().map(Value::to_string).collect();
                let differ =
                    check::same_trees(&self.machines()).err().map_or_else(String::new, |broken| broken.text);
                let text = format!("{}\n{differ}", told.join("\n"));
                return Err(Broken::new(1, "not at rest", text));
            }
            if decided.elapsed() > DECIDE_EVERY {
                decided = Instant::now();
                for (index, status) in statuses.iter().enumerate() {
                    if status["held_deletions"].as_u64().unwrap_or(0) > 0 {
                        self.say(format_args!("n{index} confirms its deletes"));
                        let path = self.nodes[index].share();
                        let ask = json!({ "type": "decide_deletions", "path": path, "confirm": true });
                        self.nodes[index].ask(&ask);
                    }
                }
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    fn machines(&self) -> Vec<Machine> {
        let machine = |index: usize| {
            let node = &self.nodes[index];
            Machine {
                tree: self.tree(index),
                archive: users::files(&node.path(".clearskies/archive"), ""),
                outside: users::names(Path::new(&node.beside(""))),
                temps: temps(node),
                ..Machine::default()
            }
        };
        (0..self.nodes.len()).map(machine).collect()
    }

    /// A machine's tree. Nobody may have agreed on the permissions of a directory: they do not count here.
    fn tree(&self, index: usize) -> Tree {
        let items = self.nodes[index].tree().into_iter();
        items.map(|(path, (mode, data))| (path, users::item(mode, data))).collect()
    }
}

/// How many temps a machine keeps.
fn temps(node: &Node) -> usize {
    count_temps(&users::names(&node.path(".clearskies/tmp")))
}

/// The one share's status; null while there is none.
fn share_status(node: &Node) -> Value {
    node.ask(&json!({ "type": "node_status" })).map_or(Value::Null, |status| status["shares"][0].clone())
}
