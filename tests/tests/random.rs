//! Random histories, and the scripts that once failed. `SIM_SEEDS=0..5000` plays other seeds; the example `soak` plays
//! them for a time, and with all faults.

use std::ops::Range;
use std::path::PathBuf;

use clearskies_tests::sim::generate::{self, OPEN, Shape};
use clearskies_tests::sim::history::{Options, play};
use clearskies_tests::sim::script::Script;
use clearskies_tests::sim::share::seeds;
use clearskies_tests::sim::shrink::shrink;

/// Seeds of an ordinary run.
const SEEDS: Range<u64> = 0..150;
/// Plays that shrinking a failure may take.
const ATTEMPTS_MAX: u32 = 300;
/// So many failures are shrunk and told.
const STORIES: usize = 3;

#[test]
fn random_histories_hold_every_property() {
    let mut failed = Vec::new();
    for seed in seeds(SEEDS) {
        let script = generate::script(seed, Shape { without: OPEN, ..Shape::default() });
        let options = Options { idle: seed.is_multiple_of(8), ..Options::default() };
        let Err(failure) = play(&script, options) else { continue };
        failed.push(seed);
        if failed.len() <= STORIES {
            let fails = |script: &Script| play(script, options).err().map(|failure| failure.broken);
            let (small, broken) = shrink(&script, &failure.broken, ATTEMPTS_MAX, fails);
            println!("seed {seed} breaks property {}: {}\n{}", broken.property, broken.word, broken.text);
            println!("--- script\n{small}---");
        }
    }
    assert!(failed.is_empty(), "{} seeds failed: {failed:?}", failed.len());
}

/// The scripts of a folder beside the tests, by name.
fn scripts(folder: &str) -> Vec<(String, Script)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder of scripts") {
        let path = entry.expect("a script").path();
        if path.extension().is_none_or(|ext| ext != "script") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a script is text");
        let script = text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        found.push((
            path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default(),
            script,
        ));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

#[test]
fn what_once_failed_holds() {
    let mut scripts = scripts("scripts");
    assert!(!scripts.is_empty());
    // Those that show planted bugs hold without them.
    scripts.extend(self::scripts("mutants"));
    for (name, script) in scripts {
        if let Err(failure) = play(&script, Options { log: true, idle: true }) {
            panic!("{name}: {:?}\n{}\n{}", failure.broken, failure.acts, failure.log);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_log() {
    let log = |seed| {
        let script = generate::script(seed, Shape { acts: Some(40), ..Shape::default() });
        match play(&script, Options { log: true, ..Options::default() }) {
            Ok(outcome) => format!("{outcome:?}"),
            Err(failure) => format!("{failure:?}"),
        }
    };
    let mut logs = std::collections::BTreeSet::new();
    for seed in 0..8 {
        let first = log(seed);
        assert_eq!(first, log(seed), "seed {seed}");
        logs.insert(first);
    }
    assert_eq!(logs.len(), 8);
}
