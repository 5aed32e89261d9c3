//! Fuzzing without a fuzzer's tools: `cargo run --release -p clearskies-tests --example fuzz -- TARGET SECONDS [SEED]`
//! changes files of a target's corpus at random for a time. `-- --seeds` writes the files that corpora begin with;
//! `-- --file TARGET FILE` plays one file;
//! `-- --shrink TARGET FILE TO` writes what is left of a failing one when all that may go is gone.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clearskies_tests::fuzz::{TARGETS, Target, mutate::mutate, seeds::seeds};
use clearskies_tests::sim::Rng;

/// Files that are kept in memory to be changed.
const FILES_MAX: usize = 4096;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let known = |name: &str| TARGETS.into_iter().find(|target| target.0 == name);
    match words.as_slice() {
        ["--seeds"] => write_seeds(),
        ["--file", name, file] if known(name).is_some() => {
            let bytes = std::fs::read(file).unwrap_or_else(|error| panic!("{file}: {error}"));
            known(name).into_iter().for_each(|target| target.1(&bytes));
        }
        ["--shrink", name, file, to] if known(name).is_some() => {
            let bytes = std::fs::read(file).unwrap_or_else(|error| panic!("{file}: {error}"));
            known(name).into_iter().for_each(|target| shrink(target, bytes.clone(), Path::new(to)));
        }
        [name, seconds, seed @ ..] if known(name).is_some() => {
            let seconds = Duration::from_secs(seconds.parse().expect("a number of seconds"));
            let seed = seed.first().map_or(0, |seed| seed.parse().expect("a seed is a number"));
            known(name).into_iter().for_each(|target| play(target, seconds, seed));
        }
        _ => {
            eprintln!("TARGET SECONDS [SEED], or --seeds, or --file TARGET FILE");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name)
}

fn write_seeds() {
    for (name, _) in TARGETS {
        let folder = corpus(name);
        std::fs::create_dir_all(&folder).expect("the folder of a corpus");
        for (number, bytes) in seeds(name).iter().enumerate() {
            std::fs::write(folder.join(format!("seed_{number:02}")), bytes).expect("a file of a corpus");
        }
    }
}

/// How a target fails on these bytes: the first word of what it says.
fn failure(target: fn(&[u8]), bytes: &[u8]) -> Option<String> {
    let caught = std::panic::catch_unwind(|| target(bytes)).err()?;
    let said = caught.downcast_ref::<String>().cloned();
    let said = said.or_else(|| caught.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    said.unwrap_or_default().split(' ').next().map(str::to_owned)
}

/// Leaves out runs of bytes, and makes bytes zero, for as long as the target fails in the same way.
fn shrink((_, target): Target, mut bytes: Vec<u8>, to: &Path) {
    std::panic::set_hook(Box::new(|_| {}));
    let Some(first) = failure(target, &bytes) else { return println!("it holds") };
    let fails = |bytes: &[u8]| failure(target, bytes).as_ref() == Some(&first);
    let mut changed = true;
    while changed {
        changed = false;
        let mut length = bytes.len().div_ceil(2);
        while length > 0 {
            let mut at = 0;
            while at < bytes.len() {
                let mut less = bytes.clone();
                less.drain(at..(at + length).min(bytes.len()));
                if fails(&less) {
                    bytes = less;
                    changed = true;
                } else {
                    at += length;
                }
            }
            length /= 2;
        }
        for at in 0..bytes.len() {
            let mut less = bytes.clone();
            less[at] = 0;
            if bytes[at] != 0 && fails(&less) {
                bytes = less;
                changed = true;
            }
        }
        println!("{} bytes", bytes.len());
    }
    std::fs::write(to, &bytes).expect("the file to write");
    println!("{first}: {bytes:?}");
}

fn play((name, target): Target, span: Duration, seed: u64) {
    let read = |entry: std::io::Result<std::fs::DirEntry>| std::fs::read(entry.expect("a file").path());
    let listed = std::fs::read_dir(corpus(name)).expect("the folder of a corpus");
    let mut files: Vec<Vec<u8>> = listed.map(|entry| read(entry).expect("a file of a corpus")).collect();
    files.sort();
    let mut rng = Rng::new(seed);
    let (begun, mut played) = (Instant::now(), 0u64);
    let now = std::env::temp_dir().join(format!("fuzz-{name}-{}", std::process::id()));
    while begun.elapsed() < span {
        let one = rng.pick(&files).cloned().unwrap_or_default();
        let other = rng.pick(&files).cloned().unwrap_or_default();
        let bytes = mutate(&mut rng, &one, &other);
        // What is played when it dies is found here.
        std::fs::write(&now, &bytes).expect("the folder for temporary files takes one");
        target(&bytes);
        played += 1;
        // Nothing tells which are worth keeping: some are, by chance.
        if files.len() < FILES_MAX && rng.per_mille(20) {
            files.push(bytes);
        }
    }
    let _ = std::fs::remove_file(&now);
    println!("{name}: {played} inputs in {:.1} s", begun.elapsed().as_secs_f64());
}
