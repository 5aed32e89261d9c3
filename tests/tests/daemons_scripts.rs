//! Scripts of the simulator against real daemons: on a real file system, with lines that break and spoil, kills, and
//! full and read-only volumes. The example `real` plays more of them.

use std::path::PathBuf;
use std::sync::Mutex;

use clearskies_tests::daemon::{Apart, is_apart, run_apart};
use clearskies_tests::real::{Options, is_playable, play, random};
use clearskies_tests::sim::script::Script;

/// Scripts that are played at once: most of the time they wait.
const AT_ONCE: usize = 8;
/// Scripts that show a known gap, which the simulator's checker allows for by what it saw happen in the engine.
const GAPS: [&str; 1] = ["stopped_after_it_was_kept.script"];
/// Acts of a random history.
const ACTS: Option<u64> = Some(20);

#[track_caller]
fn hold(script: &Script, options: Options) {
    assert!(is_playable(script, options), "{script}");
    if let Err(failure) = play(script, options) {
        let broken = &failure.broken;
        panic!(
            "property {}: {}\n{}\n{}\n{}",
            broken.property, broken.word, broken.text, failure.acts, failure.logs
        );
    }
}

#[test]
fn two_daemons_live_through_random_histories() {
    for seed in [106, 113] {
        hold(&random(seed, 2, ACTS, Options::PLAIN), Options::PLAIN);
    }
}

#[test]
fn three_daemons_live_through_a_random_history() {
    hold(&random(112, 3, ACTS, Options::PLAIN), Options::PLAIN);
}

#[test]
fn two_daemons_live_through_volumes_that_are_full_or_read_only() {
    if !is_apart() {
        return run_apart("two_daemons_live_through_volumes_that_are_full_or_read_only", Apart::Mounts);
    }
    let script = "
        seed 1
        machines 2
        write n0 d/a 1
        write n1 b 2 300000
        wait 700
        full n1 1
        write n0 large 3 600000
        write n0 small 4
        rename n1 b d/b
        wait 1200
        errors n0 200
        write n1 c 5
        remove n1 d/a
        wait 1200
        write n0 never 6
        full n1 0
        errors n0 0
        write n0 d/b 7
    ";
    hold(&script.parse().expect("a script"), Options::VOLUMES);
}

/// What the simulator found on simulated machines holds on real ones.
#[test]
fn what_once_failed_in_the_simulator_holds_here() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let files = std::fs::read_dir(folder).expect("the folder of scripts").flatten();
    let files = files.filter(|file| GAPS.iter().all(|gap| file.file_name() != *gap));
    let texts = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
    let scripts = texts.map(|text| text.parse::<Script>().expect("a script"));
    let queue: Vec<Script> = scripts.filter(|script| is_playable(script, Options::PLAIN)).collect();
    assert!(queue.len() >= 10, "{}", queue.len());
    let queue = Mutex::new(queue);
    let next = || queue.lock().expect("no thread fails while it looks").pop();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(script) = next() {
                    hold(&script, Options::PLAIN);
                }
            });
        }
    });
}
