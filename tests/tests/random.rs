//! Random users on two or three machines whose line breaks, who crash and lose power; then everything heals, and what
//! the simulator must hold is checked (sync.md, "What the simulator must hold", 1, 2 and 7).
//!
//! `SIM_SEED=7` runs one seed with its log of acts, `SIM_SEEDS=0..5000` many.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use clearskies_core::engine::command::{Command, Existing, Reply};
use clearskies_core::files::row::PathRow;
use clearskies_core::index::codec::PeerTable;
use clearskies_core::io::store::Space;
use clearskies_core::share::layout::path_of_key;
use clearskies_tests::sim::World;
use clearskies_tests::sim::net::Conditions;
use clearskies_tests::sim::rng::Rng;
use clearskies_tests::sim::users::{Item, Tree};

const SHARE: &str = "/share";
/// Seeds of an ordinary run.
const SEEDS: Range<u64> = 0..200;
/// Seeds that showed bugs that were mended since: a folder made by the engine that nobody watched or walked, a file
/// where others have a folder, a folder that stood only for others and was forgotten, a lost conflict file's record,
/// a chmod during a rename, a parent that was missing, a file deleted while its record moved, a late version that
/// ended a download, a folder with a file's permissions, a folder that got the inode of one that was removed.
const FOUND: [u64; 15] = [57, 30, 51, 399, 616, 345, 369, 212, 331, 433, 1900, 2337, 2518, 2988, 3998];
const NOT_AVAILABLE: &str = "no connected peer has its content";
/// Long enough for every back-off of the dialer and of what failed.
const REST: Duration = Duration::from_secs(3600);
/// So many failures are told in full.
const STORIES: usize = 5;
/// The few places that everybody works at, so that they meet.
const PATHS: [&str; 10] = ["a", "b", "c", "d", "d/a", "d/b", "e", "e/a", "e/d", "e/d/x"];

/// What may go wrong in a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    /// Nothing.
    Fair,
    /// The line breaks, and machines lose sight of each other.
    Lines,
    /// As well, programs are killed.
    Kills,
    /// As well, power fails.
    Power,
}

/// One random world.
struct Run {
    world: World,
    rng: Rng,
    weather: Weather,
    acts: String,
    /// Contents that users wrote and nobody who had them before him replaced or deleted: they must be somewhere.
    alive: BTreeSet<Vec<u8>>,
    written: u32,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut rng = Rng::new(seed ^ 0x7261_6e64);
        let count = if rng.per_mille(300) { 3 } else { 2 };
        let weathers = [Weather::Fair, Weather::Lines, Weather::Kills, Weather::Power];
        let weather = *rng.pick(&weathers).expect("there are four");
        let mut world = World::new(seed, count);
        world.node(0).share(SHARE);
        for index in 1..count {
            let code = world.node(0).invite(SHARE);
            let done = world.node(index).attach(&code, SHARE, Existing::Refuse, 0);
            assert!(matches!(done, Ok(Reply::Share { .. })), "{done:?}");
        }
        world.run_for(Duration::from_secs(5));
        if weather != Weather::Fair {
            world.net.conditions =
                Conditions { resets_per_million: 20_000, piece_bytes_max: 3000, ..Conditions::lossy() };
        }
        if rng.per_mille(200) {
            world.hints_lost_per_mille = 200;
        }
        let acts = format!("seed {seed}: {count} machines, {weather:?}\n");
        Run { world, rng, weather, acts, alive: BTreeSet::new(), written: 0 }
    }

    fn log(&mut self, what: &str) {
        let _ = writeln!(self.acts, "| {:.3} {what}", self.world.now().0 as f64 / 1e9);
    }

    fn machine(&mut self) -> usize {
        usize::try_from(self.rng.below(self.world.nodes.len() as u64)).expect("few")
    }

    /// A place on this machine: one of the usual ones, or one where something is.
    fn place(&mut self, index: usize) -> String {
        let tree = self.world.nodes[index].disk.tree(SHARE);
        let names: Vec<&String> = tree.keys().collect();
        if self.rng.per_mille(400)
            && let Some(name) = self.rng.pick(&names)
        {
            return (*name).clone();
        }
        (*self.rng.pick(&PATHS).expect("there are some")).to_owned()
    }

    /// What would be lost if this path went away, as far as this user can see.
    fn files_at(&self, index: usize, path: &str) -> Vec<Vec<u8>> {
        let tree = self.world.nodes[index].disk.tree(SHARE);
        let beneath = format!("{path}/");
        tree.into_iter()
            .filter(|(name, _)| name == path || name.starts_with(&beneath))
            .filter_map(|(_, item)| if let Item::File(_, data) = item { Some(data) } else { None })
            .collect()
    }

    fn content(&mut self, index: usize) -> Vec<u8> {
        self.written += 1;
        let mut content = format!("{} by n{index}", self.written).into_bytes();
        if self.rng.per_mille(50) {
            content.resize(20_000 + content.len(), b'.');
        }
        content
    }

    /// One act of one user.
    fn act(&mut self) {
        let index = self.machine();
        let path = self.place(index);
        let at = format!("{SHARE}/{path}");
        match self.rng.below(10) {
            kind @ 0..=4 => {
                let gone = self.files_at(index, &path);
                let content = self.content(index);
                let is_dir =
                    matches!(self.world.nodes[index].disk.tree(SHARE).get(&path), Some(Item::Dir(_)));
                if is_dir {
                    return;
                }
                let save = kind == 4;
                let above = at.rsplit_once('/').map(|(above, _)| above.to_owned()).unwrap_or_default();
                let done = self.world.node(index).disk(|disk, now| {
                    disk.mkdir(now, &above)?;
                    if save { disk.save(now, &at, &content) } else { disk.write(now, &at, &content) }
                });
                if done.is_ok() {
                    for content in &gone {
                        self.alive.remove(content);
                    }
                    let text = String::from_utf8_lossy(&content[..content.len().min(20)]).into_owned();
                    self.alive.insert(content);
                    let word = if save { "saves" } else { "writes" };
                    self.log(&format!("n{index} {word} {path} ({text})"));
                }
            }
            5 | 6 => {
                let to = self.place(index);
                let from = at;
                let done = self
                    .world
                    .node(index)
                    .disk(|disk, now| disk.rename_path(now, &from, &format!("{SHARE}/{to}")));
                if done.is_ok() {
                    self.log(&format!("n{index} renames {path} to {to}"));
                }
            }
            7 => {
                let gone = self.files_at(index, &path);
                if self.world.node(index).disk(|disk, now| disk.remove_path(now, &at)).is_ok() {
                    for content in &gone {
                        self.alive.remove(content);
                    }
                    self.log(&format!("n{index} removes {path}"));
                }
            }
            8 => {
                let mode = if self.rng.per_mille(500) { 0o755 } else { 0o700 };
                if self.world.node(index).disk(|disk, now| disk.chmod(now, &at, mode)).is_ok() {
                    self.log(&format!("n{index} chmods {path} {mode:o}"));
                }
            }
            _ => {
                if self.world.node(index).disk(|disk, now| disk.mkdir(now, &at)).is_ok() {
                    self.log(&format!("n{index} makes {path}"));
                }
            }
        }
    }

    /// Something that is nobody's wish.
    fn mishap(&mut self) {
        let index = self.machine();
        let running = self.world.nodes[index].engine.is_some();
        let power = self.weather == Weather::Power && self.rng.per_mille(500);
        let kill = matches!(self.weather, Weather::Kills | Weather::Power);
        match self.rng.below(5) {
            _ if self.weather == Weather::Fair => {}
            0 => {
                self.log(&format!("n{index} is parted"));
                self.world.partition(&[index]);
            }
            1 => {
                self.log("lines are mended");
                self.world.heal();
            }
            2 => {
                self.log("all connections break");
                self.world.reset_all();
            }
            3 if kill && running => {
                self.log(&format!("n{index} {}", if power { "loses power" } else { "is killed" }));
                if power { self.world.power_cut(index) } else { self.world.crash(index) }
            }
            _ if !running => {
                self.log(&format!("n{index} starts"));
                self.world.start(index);
            }
            _ => {}
        }
    }

    fn pass_time(&mut self) {
        let span = match self.rng.below(10) {
            0..=2 => return,
            3..=5 => Duration::from_millis(self.rng.below(300)),
            6..=8 => Duration::from_millis(self.rng.below(5000)),
            _ => Duration::from_secs(self.rng.below(60)),
        };
        self.world.run_for(span);
    }

    fn live(&mut self) {
        let rounds = 5 + self.rng.below(25);
        for _ in 0..rounds {
            if self.rng.per_mille(250) {
                self.mishap();
            } else {
                self.act();
            }
            self.pass_time();
        }
        self.log("all heals");
        self.world.net.conditions = Conditions::default();
        self.world.heal();
        for index in 0..self.world.nodes.len() {
            if self.world.nodes[index].engine.is_none() {
                self.world.start(index);
            }
        }
    }

    /// A machine's tree. A directory that stands only for what lies beneath has no record, so that nobody agreed on its
    /// permissions.
    fn tree(&self, index: usize) -> Tree {
        let node = &self.world.nodes[index];
        let mut tree = node.disk.tree(SHARE);
        for (key, value) in node.store.live().iter(Space::Path) {
            // Such a row has no base, so that it names no peers.
            let row = PathRow::decode(value, &PeerTable::default());
            if let (Some(path), true) =
                (path_of_key(key), row.is_ok_and(|row| row.implied || row.is_left_dir()))
                && let Some(item) = tree.get_mut(path.as_str())
            {
                *item = Item::Dir(0);
            }
        }
        tree
    }

    /// Whether nothing but contents is missing that no machine has any more, and that each machine says so: after power
    /// failed, a record comes back whose content its only holder deleted before the store knew it again.
    fn only_lost_contents(&self, unquiet: &str) -> bool {
        let mut shares = unquiet.lines().filter(|line| line.contains("ShareStatus"));
        let told = |line: &str| {
            let problems = line.split("problems: [").nth(1).and_then(|rest| rest.split(']').next());
            problems.is_some_and(|problems| {
                !problems.is_empty()
                    && problems.split("\", \"").all(|problem| problem.contains(NOT_AVAILABLE))
            })
        };
        self.weather == Weather::Power && shares.all(told)
    }

    /// What every machine says of every path, where it is not in step.
    fn whys(&mut self) -> String {
        let mut all = String::new();
        let trees: Vec<_> = self.world.nodes.iter().map(|node| node.disk.tree(SHARE)).collect();
        let mut names: BTreeSet<String> = PATHS.iter().map(|path| (*path).to_owned()).collect();
        names.extend(trees.iter().flat_map(|tree| tree.keys().cloned()));
        for node in &self.world.nodes {
            let pending = node.store.live().iter(Space::Pending).filter_map(|(key, _)| path_of_key(key));
            names.extend(pending.map(|path| path.as_str().to_owned()));
        }
        for (index, tree) in trees.iter().enumerate() {
            for name in &names {
                let why = self.world.ask(index, Command::Why { path: format!("{SHARE}/{name}") });
                let item = tree.get(name).map_or_else(String::new, |item| format!("{item:?}"));
                let _ = writeln!(all, "n{index} {name}: {item} {why:?}");
            }
        }
        all
    }

    fn check(&mut self) {
        if let Err(unquiet) = self.world.try_quiet(REST)
            && !self.only_lost_contents(&unquiet)
        {
            panic!("not quiet:\n{unquiet}\n{}\n{}", self.whys(), self.world.trace.tail(60));
        }
        let all: Vec<usize> = (0..self.world.nodes.len()).collect();
        let trees: Vec<Tree> = all.iter().map(|index| self.tree(*index)).collect();
        let names: BTreeSet<&String> = trees.iter().flat_map(Tree::keys).collect();
        let at = |name: &String| trees.iter().map(|tree| tree.get(name)).collect::<Vec<_>>();
        let differ = |name: &&&String| at(name).windows(2).any(|pair| pair[0] != pair[1]);
        let differ: Vec<String> =
            names.iter().filter(differ).map(|name| format!("{name}: {:?}", at(name))).collect();
        if !differ.is_empty() {
            panic!("trees differ:\n{}\n{}\n{}", differ.join("\n"), self.whys(), self.world.trace.tail(60));
        }
        let mut kept: BTreeSet<Vec<u8>> = BTreeSet::new();
        for node in &self.world.nodes {
            let files = node.disk.tree(SHARE).into_values();
            kept.extend(
                files.filter_map(|item| if let Item::File(_, data) = item { Some(data) } else { None }),
            );
            kept.extend(node.disk.archive(SHARE).into_iter().map(|(_, data)| data));
        }
        let lost: Vec<_> = self.alive.difference(&kept).map(|data| String::from_utf8_lossy(data)).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        // Rest: what was too young is looked at once more, late dials end, and then nothing is written.
        self.world.run_for(Duration::from_secs(900));
        let writes = |world: &World| -> Vec<(u64, u64)> {
            world.nodes.iter().map(|node| (node.disk.changes, node.store.commits)).collect()
        };
        let before = writes(&self.world);
        self.world.run_for(Duration::from_secs(1800));
        assert_eq!(writes(&self.world), before, "writes at rest");
    }
}

/// Runs one seed; what went wrong, with what had happened.
fn run(seed: u64) -> Result<(), String> {
    let mut acts = String::new();
    let done = catch_unwind(AssertUnwindSafe(|| {
        let mut run = Run::new(seed);
        let lived = catch_unwind(AssertUnwindSafe(|| {
            run.live();
            run.check();
        }));
        acts = std::mem::take(&mut run.acts);
        lived
    }));
    let error = match done {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) | Err(error) => error,
    };
    let text = error.downcast_ref::<String>().cloned();
    let text = text.or_else(|| error.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    Err(format!("{acts}{}", text.unwrap_or_default()))
}

fn seeds() -> Vec<u64> {
    let number = |text: &str| text.parse::<u64>().expect("a number");
    if let Ok(seed) = std::env::var("SIM_SEED") {
        let seed = number(&seed);
        return vec![seed];
    }
    match std::env::var("SIM_SEEDS") {
        Ok(range) => {
            let (start, end) = range.split_once("..").expect("a range like 0..100");
            (number(start)..number(end)).collect()
        }
        Err(_) => SEEDS.chain(FOUND).collect(),
    }
}

#[test]
fn random_worlds_agree_and_lose_nothing() {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut failed: BTreeMap<u64, String> = BTreeMap::new();
    for seed in seeds() {
        if let Err(why) = run(seed) {
            failed.insert(seed, why);
        }
    }
    std::panic::set_hook(told);
    let list: Vec<&u64> = failed.keys().collect();
    // The shortest stories first; the log's lines, which are indented, only where they are asked for.
    let mut stories: Vec<String> = failed.values().cloned().collect();
    if std::env::var_os("SIM_TRACE").is_none() {
        for why in &mut stories {
            *why = why
                .lines()
                .filter(|line| !line.starts_with("  "))
                .fold(String::new(), |all, line| all + line + "\n");
        }
    }
    stories.sort_by_key(|why| why.lines().count());
    for why in stories.iter().take(STORIES) {
        println!("{why}");
    }
    assert!(failed.is_empty(), "{} seeds failed: {list:?}", failed.len());
}
