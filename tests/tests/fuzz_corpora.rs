//! Replays the corpora of the fuzz targets, each file as it is and changed in many ways. `FUZZ_CHANGES=5000` changes
//! each more often.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clearskies_tests::fuzz::{TARGETS, engine, mutate::mutate, seeds::seeds};
use clearskies_tests::sim::Rng;

/// Changes of each file in an ordinary run.
const CHANGES: u64 = 200;
/// An ordinary run changes no more files of a target after so long; every file was played as it is by then.
const TIME_MAX: Duration = Duration::from_secs(3);
/// All corpora together, in bytes.
const BYTES_MAX: u64 = 1 << 20;

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let listed = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<(PathBuf, Vec<u8>)> = listed
        .map(|entry| entry.expect("a file of a corpus").path())
        .map(|path| (path.clone(), std::fs::read(&path).expect("a file of a corpus")))
        .collect();
    files.sort();
    files
}

/// Says which bytes a target was given when it failed.
struct Given<'a>(&'a Path, &'a [u8]);

impl Drop for Given<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("from {}: {:?}", self.0.display(), self.1);
        }
    }
}

fn replay(name: &str) {
    let asked = std::env::var("FUZZ_CHANGES").ok().map(|text| text.parse().expect("a number"));
    let (_, target) = TARGETS.into_iter().find(|(known, _)| *known == name).expect("a target");
    let files = corpus(name);
    assert!(!files.is_empty(), "{name} has no corpus");
    for (path, bytes) in &files {
        let _given = Given(path, bytes);
        target(bytes);
    }
    let begun = Instant::now();
    // All files are changed once, then all once more: time that runs short takes from all alike.
    for round in 0..asked.unwrap_or(CHANGES) {
        for (number, (path, bytes)) in files.iter().enumerate() {
            if asked.is_none() && begun.elapsed() > TIME_MAX {
                println!("{name}: {round} rounds");
                return;
            }
            let mut rng = Rng::new(round << 16 | number as u64);
            let other = rng.pick(&files).map_or(&[][..], |(_, bytes)| bytes);
            let changed = mutate(&mut rng, bytes, other);
            let _given = Given(path, &changed);
            target(&changed);
        }
    }
}

#[test]
fn the_script_knows_all_targets() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/run");
    let script = std::fs::read_to_string(&script).expect("the script");
    let listed = script.lines().find_map(|line| line.strip_prefix("targets=(")?.strip_suffix(')'));
    let mut listed: Vec<&str> = listed.expect("a list of targets").split(' ').collect();
    let mut known = TARGETS.map(|(name, _)| name);
    listed.sort_unstable();
    known.sort_unstable();
    assert_eq!(listed, known);
}

#[test]
fn frames() {
    replay("frames");
}

#[test]
fn hello() {
    replay("hello");
}

#[test]
fn codes() {
    replay("codes");
}

#[test]
fn records() {
    replay("records");
}

#[test]
fn control() {
    replay("control");
}

#[test]
fn names() {
    replay("names");
}

#[test]
fn units() {
    replay("units");
}

#[test]
fn an_engine_and_a_member_that_lies() {
    replay("engine");
}

#[test]
fn the_same_bytes_give_the_same_orders() {
    let mut outcomes = std::collections::BTreeSet::new();
    for (path, bytes) in corpus("engine").iter().take(6) {
        let first = engine::outcome(bytes);
        assert_eq!(first, engine::outcome(bytes), "{}", path.display());
        outcomes.insert(first.end);
    }
    assert!(outcomes.len() > 1);
}

#[test]
fn corpora_are_small_and_hold_the_seeds() {
    let mut bytes = 0;
    for (name, _) in TARGETS {
        let files = corpus(name);
        bytes += files.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
        for seed in seeds(name) {
            assert!(files.iter().any(|(_, bytes)| *bytes == seed), "{name}: write the seeds anew");
        }
    }
    assert!(bytes <= BYTES_MAX, "{bytes} bytes");
}
