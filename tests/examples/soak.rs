//! Plays random histories for a time, and prints how many a second: `cargo run --release -p clearskies-tests --example
//! soak -- --seconds 60 --seed 1`. A history that fails is shrunk and printed as a script; the exit status says whether
//! any did. `--machines 3 --acts 100` fixes the shape of all histories; `--stop 1` ends at so many failures,
//! `--count 99` after so many histories;
//! `--rough` shrinks nothing; `--without clone,wipe` leaves kinds of steps out;
//! `--print` prints the script of a seed; `--script FILE` plays one script with its log, and shrinks nothing.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clearskies_tests::sim::generate::{self, Shape};
use clearskies_tests::sim::history::{Options, play};
use clearskies_tests::sim::script::{Script, Verb};
use clearskies_tests::sim::shrink::shrink;

/// The allocator of the program itself: a history makes and drops millions of small things.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// So many failures of one kind are shrunk and told in full.
const SHRUNK_MAX: usize = 4;
/// Plays that shrinking one failure may take.
const ATTEMPTS_MAX: u32 = 600;

/// One history of so many ends with an idle hour.
const IDLE_EVERY: u64 = 8;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| words.iter().position(|word| word == name).and_then(|at| words.get(at + 1));
    let number = |name: &str| option(name).and_then(|text| text.parse::<u64>().ok());
    if let Some(path) = option("--script") {
        return play_file(path);
    }
    let shape = Shape {
        machines: number("--machines").and_then(|count| usize::try_from(count).ok()),
        acts: number("--acts"),
        without: without(option("--without").map_or("", String::as_str)),
    };
    let (first, stop) = (number("--seed").unwrap_or(0), number("--stop").unwrap_or(5));
    let count = number("--count").unwrap_or(u64::MAX);
    let (begun, span) = (Instant::now(), Duration::from_secs(number("--seconds").unwrap_or(60)));
    if words.iter().any(|word| word == "--print") {
        print!("{}", generate::script(first, shape));
        return ExitCode::SUCCESS;
    }
    let (mut played, mut acts) = (0u64, 0);
    let mut failures: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    while begun.elapsed() < span && played < count {
        let seed = first + played;
        let script = generate::script(seed, shape);
        played += 1;
        acts += script.user_steps();
        // An idle hour takes as long as all the rest: one history of eight lives through it.
        let options = Options { idle: seed % IDLE_EVERY == 0, ..Options::default() };
        let Err(failure) = play(&script, options) else { continue };
        let known = failures.entry(failure.broken.word).or_default();
        known.push(seed);
        if words.iter().any(|word| word == "--rough") {
            println!("seed {seed}: {}", failure.broken.word);
        } else if known.len() <= SHRUNK_MAX {
            let fails = |script: &Script| play(script, options).err().map(|failure| failure.broken);
            let (small, broken) = shrink(&script, &failure.broken, ATTEMPTS_MAX, fails);
            println!("seed {seed} breaks property {}: {}\n{}", broken.property, broken.word, broken.text);
            println!("--- script\n{small}---");
        }
        if failures.values().map(Vec::len).sum::<usize>() as u64 >= stop {
            break;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{played} histories from seed {first} in {seconds:.1} s: {:.1} a second, {} acts of users each",
        played as f64 / seconds,
        acts as u64 / played.max(1),
    );
    for (word, seeds) in &failures {
        println!("{word}: {} seeds: {seeds:?}", seeds.len());
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The verbs of a list like `clone,wipe`; `open` names those of findings that are not mended yet.
fn without(list: &str) -> &'static [Verb] {
    if list == "open" {
        return generate::OPEN;
    }
    let known = Verb::ALL.iter().filter(|(_, word, _)| list.split(',').any(|listed| listed == *word));
    known.map(|(verb, _, _)| *verb).collect::<Vec<_>>().leak()
}

fn play_file(path: &str) -> ExitCode {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let script: Script = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
    match play(&script, Options { log: true, idle: true }) {
        Ok(outcome) => {
            println!("all well; {} lines, digest {:016x}", outcome.digest.1, outcome.digest.0);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{}\n{}", failure.acts, failure.log);
            println!(
                "property {}: {}\n{}",
                failure.broken.property, failure.broken.word, failure.broken.text
            );
            ExitCode::FAILURE
        }
    }
}
