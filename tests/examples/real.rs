//! Plays random histories against real daemons for a time: `cargo run --release -p clearskies-tests --example real --
//! --seconds 300 --seed 1`. Kills, cut and spoilt lines, folders that vanish; with `--volumes`, as root in a namespace
//! (`unshare --mount --map-root-user`), full and read-only volumes too. `--script FILE` plays one script. A script
//! that fails is printed as it is: in real time it cannot be shrunk.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clearskies_tests::real::{Options, is_playable, play, random};
use clearskies_tests::sim::script::Script;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| words.iter().position(|word| word == name).and_then(|at| words.get(at + 1));
    let number = |name: &str| option(name).and_then(|text| text.parse::<u64>().ok());
    let options =
        if words.iter().any(|word| word == "--volumes") { Options::VOLUMES } else { Options::PLAIN };
    if let Some(path) = option("--script") {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let script: Script = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(is_playable(&script, options), "{path} has steps for the simulator alone");
        return if holds(&script, options) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let (first, begun) = (number("--seed").unwrap_or(0), Instant::now());
    let span = Duration::from_secs(number("--seconds").unwrap_or(300));
    let (mut played, mut failed) = (0, Vec::new());
    while begun.elapsed() < span {
        let seed = first + played;
        played += 1;
        if !holds(&random(seed, 2 + usize::from(seed % 3 == 0), number("--acts"), options), options) {
            failed.push(seed);
        }
    }
    println!(
        "{played} histories from seed {first} in {:.0} s; failed: {failed:?}",
        begun.elapsed().as_secs_f64()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn holds(script: &Script, options: Options) -> bool {
    let begun = Instant::now();
    let played = play(script, options);
    println!("seed {}: {} steps in {:.0} s", script.seed, script.steps.len(), begun.elapsed().as_secs_f64());
    let Err(failure) = played else { return true };
    let broken = &failure.broken;
    println!("seed {} breaks property {}: {}\n{}", script.seed, broken.property, broken.word, broken.text);
    println!("--- what was done\n{}--- logs\n{}--- script\n{script}---", failure.acts, failure.logs);
    false
}
