//! Makes scripts from seeds. Each seed turns whole kinds of acts and faults on or off, so that each history is about a
//! few of them (a swarm): what always happens together hides what happens alone.

use super::rng::Rng;
use super::script::{CLOCK_TURN, Script, Step, Verb};

/// The few places that everybody works at, so that they meet.
pub const PATHS: [&str; 10] = ["a", "b", "c", "d", "d/a", "d/b", "e", "e/a", "e/d", "e/d/x"];

/// So many of them where one machine's users act alone.
const ALONE_PATHS: usize = 3;

/// What is asked of a script, beside what its seed says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shape {
    /// How many machines.
    pub machines: Option<usize>,
    /// How many acts of users.
    pub acts: Option<u64>,
    /// What must not be in it.
    pub without: &'static [Verb],
}

/// What users do, and how often.
const ACTS: &[(Verb, u64)] = &[
    (Verb::Write, 8),
    (Verb::Save, 4),
    (Verb::Rename, 6),
    (Verb::Remove, 4),
    (Verb::Mkdir, 2),
    (Verb::Chmod, 2),
    (Verb::Append, 2),
    (Verb::Truncate, 1),
    (Verb::Rewrite, 1),
    (Verb::Touch, 1),
    (Verb::Swap, 2),
    (Verb::Link, 1),
    (Verb::HardLink, 2),
    (Verb::Restore, 1),
    (Verb::Resolve, 1),
    (Verb::Decide, 1),
];

/// Faults that go together, each with what mends it.
const FAULTS: &[&[Verb]] = &[
    &[Verb::Part, Verb::Deaf, Verb::Mend, Verb::Mend],
    &[Verb::Reset, Verb::Line, Verb::Line],
    &[Verb::Half],
    &[Verb::Kill, Verb::Start, Verb::Start],
    &[Verb::Stop, Verb::Start, Verb::Start],
    &[Verb::Power, Verb::Start, Verb::Start],
    &[Verb::Die, Verb::Start],
    // What a crash between two flushes breaks shows where they take long.
    &[Verb::Slow, Verb::Slow, Verb::Kill, Verb::Start, Verb::Start],
    &[Verb::Slow, Verb::Slow, Verb::Power, Verb::Start, Verb::Start],
    &[Verb::Errors, Verb::Errors],
    &[Verb::StoreFails],
    &[Verb::Full, Verb::Full],
    &[Verb::Hints, Verb::Closes, Verb::Wrong],
    &[Verb::Unplug, Verb::Plug, Verb::Plug],
    &[Verb::Vanish, Verb::Return, Verb::Return],
    &[Verb::Clock],
    &[Verb::Wipe],
    &[Verb::Backup, Verb::Rollback],
    &[Verb::Clone],
    &[Verb::Lie, Verb::Lie],
];

/// What shows defects that are known and not mended yet (docs/testing.md): left out where a run must pass.
pub const OPEN: &[Verb] = &[];

/// Seconds in a year.
const YEAR: u64 = 31_557_600;

/// The history of a seed.
pub fn script(seed: u64, shape: Shape) -> Script {
    let mut rng = Rng::new(seed ^ 0x7363_7269_7074);
    let machines = shape.machines.unwrap_or_else(|| *rng.pick(&[2, 2, 2, 3, 3, 3, 3, 4, 5, 6]).expect("ten"));
    let acts = match rng.below(4) {
        0 => rng.between(60, 130),
        _ => rng.between(4, 30),
    };
    let acts = shape.acts.unwrap_or(acts);
    let mut maker = Maker::new(rng, machines, shape.without);
    let mut steps = maker.watchers();
    for _ in 0..acts {
        if maker.rng.per_mille(maker.faults_per_mille) {
            steps.extend(maker.fault());
            steps.extend(maker.pause());
        }
        if maker.rng.per_mille(maker.habits_per_mille) {
            steps.extend(maker.habit());
        } else {
            steps.push(maker.act());
        }
        steps.extend(maker.pause());
    }
    // What takes several steps may need one that must not be.
    steps.retain(|step| !shape.without.contains(&step.verb));
    Script { seed, machines, steps }
}

struct Maker {
    rng: Rng,
    machines: usize,
    acts: Vec<(Verb, u64)>,
    faults: Vec<&'static [Verb]>,
    faults_per_mille: u32,
    /// How often users do several things at once, as people and their programs do.
    habits_per_mille: u32,
    /// How much haste users are in: of ten pauses so many are none.
    haste: u64,
    large: bool,
    /// Whether liars say nonsense as well.
    nonsense: bool,
    /// How many liars there are, if any.
    liars: u64,
    /// The machine of which the users alone act, at the few first of all paths: what must not be is easily told then.
    alone: Option<usize>,
    contents: u64,
}

impl Maker {
    fn new(mut rng: Rng, machines: usize, without: &[Verb]) -> Maker {
        let mut acts: Vec<_> = ACTS.iter().copied().filter(|_| rng.per_mille(600)).collect();
        acts.retain(|(verb, _)| !without.contains(verb));
        acts.push((Verb::Write, 4));
        let calm = rng.per_mille(200);
        let mut faults: Vec<_> = FAULTS.iter().copied().filter(|_| !calm && rng.per_mille(200)).collect();
        faults.retain(|kind| kind.iter().all(|verb| !without.contains(verb)));
        let faults_per_mille = *rng.pick(&[50, 200, 500]).expect("three");
        let (haste, large) = (rng.below(9), rng.per_mille(50));
        let nonsense = rng.per_mille(500);
        let liars = *rng.pick(&[1, 1, 2, 3]).expect("four");
        let alone = rng.per_mille(150).then(|| usize::try_from(rng.below(machines as u64)).expect("few"));
        let contents = 0;
        let habits_per_mille = *rng.pick(&[0, 0, 100, 400]).expect("four");
        Maker {
            rng,
            machines,
            acts,
            faults,
            faults_per_mille,
            habits_per_mille,
            haste,
            large,
            nonsense,
            liars,
            alone,
            contents,
        }
    }

    fn machine(&mut self) -> usize {
        usize::try_from(self.rng.below(self.machines as u64)).expect("few")
    }

    fn path(&mut self) -> String {
        if self.rng.per_mille(400) {
            return format!("*{}", self.rng.below(20));
        }
        self.place()
    }

    /// One of the places where everybody, or the one who acts alone, works.
    fn place(&mut self) -> String {
        let paths = if self.alone.is_some() { &PATHS[..ALONE_PATHS] } else { &PATHS };
        (*self.rng.pick(paths).expect("there are some")).to_owned()
    }

    /// A content: mostly a new one, now and then one that somebody has written before.
    fn content(&mut self) -> u64 {
        if self.contents > 0 && self.rng.per_mille(30) {
            return 1 + self.rng.below(self.contents);
        }
        self.contents += 1;
        self.contents
    }

    fn step(&mut self, verb: Verb) -> Step {
        let uses = |field| verb.fields().contains(field);
        let mut step = Step { verb, ..Step::default() };
        step.node = self.machine();
        if uses('o') {
            step.other = self.machine();
        }
        if uses('p') {
            step.path = self.path();
        }
        if uses('t') {
            step.to = self.path();
        }
        step
    }

    /// Watchers of half of all clubs are as quick and as exact as inotify is where a machine has nothing else to do.
    fn watchers(&mut self) -> Vec<Step> {
        let quick = self.rng.per_mille(500);
        let step = |verb| Step { verb, number: 1000, ..Step::default() };
        if quick { [Verb::Closes, Verb::Prompt].map(step).into() } else { Vec::new() }
    }

    /// What takes several steps, with hardly a pause between them: one kind of thing takes the place of another.
    fn habit(&mut self) -> Vec<Step> {
        let node = self.machine();
        let node = self.alone.unwrap_or(node);
        let (at, other) = (self.place(), self.place());
        let within = |name: &str| format!("{at}/{name}");
        let aside = "aside".to_owned();
        let on = |verb, path: &str| Step { verb, node, path: path.to_owned(), ..Step::default() };
        let write = |path: &str, number| Step { number, ..on(Verb::Write, path) };
        let rename = |from: &str, to: &str| Step { to: to.to_owned(), ..on(Verb::Rename, from) };
        let (first, second) = (self.content(), self.content());
        let steps = match self.rng.below(9) {
            0 => vec![on(Verb::Remove, &at), write(&at, first)],
            1 => vec![on(Verb::Remove, &at), write(&within("a"), first), write(&within("b"), second)],
            2 => vec![on(Verb::Remove, &at), on(Verb::Link, &at)],
            3 => vec![on(Verb::Remove, &at), on(Verb::Mkdir, &at), rename(&other, &within("d"))],
            // A folder gives way to what was in it.
            4 => vec![rename(&within("a"), &aside), on(Verb::Remove, &at), rename(&aside, &at)],
            // What was there is within it now.
            5 => vec![rename(&at, &aside), on(Verb::Mkdir, &at), rename(&aside, &within("a"))],
            // Aside, made anew, and what was in the old one taken over.
            6 => vec![
                rename(&at, &aside),
                write(&within("b"), first),
                rename(&format!("{aside}/a"), &within("a")),
                on(Verb::Remove, &aside),
            ],
            // Out of the way of another, which comes back.
            7 => vec![rename(&at, &aside), rename(&other, &at), on(Verb::Remove, &aside)],
            _ => vec![write(&aside, first), on(Verb::Remove, &at), rename(&aside, &at)],
        };
        let mut slowly = Vec::new();
        for step in steps {
            if !slowly.is_empty() && self.rng.per_mille(300) {
                slowly.push(Step { number: self.rng.below(150), ..Step::default() });
            }
            slowly.push(step);
        }
        slowly
    }

    fn act(&mut self) -> Step {
        let sum = self.acts.iter().map(|(_, weight)| weight).sum();
        let mut point = self.rng.below(sum);
        let mut verb = Verb::Write;
        for (this, weight) in &self.acts {
            verb = *this;
            match point.checked_sub(*weight) {
                Some(left) => point = left,
                None => break,
            }
        }
        let mut step = self.step(verb);
        step.node = self.alone.unwrap_or(step.node);
        step.number = match verb {
            Verb::Write | Verb::Save | Verb::Append => self.content(),
            Verb::Touch => self.rng.below(2 * YEAR),
            Verb::Chmod => *self.rng.pick(&[0o755, 0o700, 0o644, 0o600]).expect("four"),
            Verb::Decide => self.rng.below(2),
            _ => self.rng.below(8),
        };
        if matches!(verb, Verb::Write | Verb::Save) && self.rng.per_mille(50) {
            // By its number, so that one number is one content.
            step.size = 0;
            step.number += LARGE * if self.large { 2 } else { 1 };
        }
        step
    }

    fn fault(&mut self) -> Option<Step> {
        let kind = *self.rng.pick(&self.faults)?;
        let verb = *self.rng.pick(kind)?;
        let mut step = self.step(verb);
        step.number = match verb {
            Verb::Line => self.rng.below(4),
            Verb::Errors => *self.rng.pick(&[0, 30, 200]).expect("three"),
            Verb::StoreFails => 1 + self.rng.below(3),
            // Of one kind in a history: what nonsense breaks would hide what wrong contents break.
            Verb::Lie => 2 * self.rng.below(1 << 20) + u64::from(self.nonsense),
            Verb::Slow => *self.rng.pick(&[0, 300, 3000]).expect("three"),
            Verb::Full => self.rng.below(2),
            Verb::Closes => *self.rng.pick(&[0, 500, 1000]).expect("three"),
            Verb::Hints => *self.rng.pick(&[0, 200, 900]).expect("three"),
            Verb::Clock => self.clock(),
            Verb::Die => self.rng.below(60),
            _ => 0,
        };
        step.size = match verb {
            Verb::Die => self.rng.below(6),
            Verb::Lie => self.rng.below(self.liars),
            _ => 0,
        };
        Some(step)
    }

    /// An offset of a clock: none, seconds, days, years; forwards or back.
    fn clock(&mut self) -> u64 {
        let most = *self.rng.pick(&[1, 100, 3 * 86_400, 3 * YEAR]).expect("four");
        let turn = if self.rng.per_mille(500) { CLOCK_TURN } else { 0 };
        turn + self.rng.below(most)
    }

    fn pause(&mut self) -> Option<Step> {
        if self.rng.below(10) < self.haste {
            return None;
        }
        let number = match self.rng.below(20) {
            0..=2 => self.rng.below(40),
            3..=9 => self.rng.below(300),
            10..=18 => self.rng.below(5000),
            _ => self.rng.below(60_000),
        };
        let why = self.rng.per_mille(20);
        let step = if why { self.step(Verb::Why) } else { Step { number, ..Step::default() } };
        Some(step)
    }
}

/// Contents with a number from here on are long, and from twice this on longer.
pub const LARGE: u64 = 1_000_000;
