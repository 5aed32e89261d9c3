//! Holds the architecture: which crate may depend on which, and where the replaceable libraries are named. Reads
//! manifests and sources; runs nothing of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use clearskies_tests::sources;

/// Who may depend on whom: `core <- host <- { blocking, async } <- ffi`, and `tests` sees all.
const EDGES: &[(&str, &[&str])] = &[
    ("clearskies-core", &[]),
    ("clearskies-host", &["clearskies-core"]),
    ("clearskies-blocking", &["clearskies-core", "clearskies-host"]),
    ("clearskies-async", &["clearskies-core", "clearskies-host"]),
    ("clearskies-ffi", &["clearskies-core", "clearskies-host", "clearskies-blocking", "clearskies-async"]),
    (
        "clearskies-tests",
        &["clearskies-core", "clearskies-host", "clearskies-blocking", "clearskies-async", "clearskies-ffi"],
    ),
];

/// A library, its name in code, and how many files may name it.
const CONFINED: &[(&str, usize)] = &[
    ("async_std", 1),
    ("fast_rsync", 1),
    ("flate2", 1),
    ("rustls", 1),
    ("rusqlite", 2),
    ("serde_cbor", 1),
    ("simd_adler32", 1),
];

/// A driver has fewer lines.
const DRIVER_LINES: usize = 1000;

/// The one file that may ask for `std` in the engine: rustls needs it.
const STD_IN_CORE: &str = "core/src/channel/tls.rs";

fn metadata() -> Metadata {
    let mut command = MetadataCommand::new();
    command.manifest_path(sources::root().join("Cargo.toml")).no_deps();
    command.exec().expect("cargo metadata runs")
}

#[test]
fn crates_depend_one_way() {
    let metadata = metadata();
    let ours: BTreeSet<&str> = metadata.packages.iter().map(|p| p.name.as_str()).collect();
    let known: BTreeSet<&str> = EDGES.iter().map(|(name, _)| *name).collect();
    assert_eq!(ours, known, "the workspace has exactly these crates");

    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let allowed = EDGES.iter().find(|(name, _)| *name == package.name.as_str()).expect("checked above").1;
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            if ours.contains(name) && !allowed.contains(&name) {
                wrong.push(format!("{} -> {name} ({})", package.name, dependency.kind));
            }
        }
    }
    assert!(wrong.is_empty(), "edges against the architecture: {wrong:?}");
}

#[test]
fn only_tests_may_choose_the_seed() {
    for package in &metadata().packages {
        for dependency in &package.dependencies {
            let simulates = dependency.features.iter().any(|feature| feature == "simulator");
            let shipped =
                package.name.as_str() != "clearskies-tests" && dependency.kind == DependencyKind::Normal;
            assert!(!(simulates && shipped), "{} would ship the simulator's doors", package.name);
        }
        let default = package.features.get("default").map(Vec::as_slice).unwrap_or_default();
        assert!(!default.iter().any(|feature| feature.contains("simulator")), "{}", package.name);
    }
}

#[test]
fn every_crate_takes_the_workspace_lints() {
    for package in &metadata().packages {
        let manifest = std::fs::read_to_string(&package.manifest_path).expect("a manifest is readable");
        assert!(manifest.contains("[lints]\nworkspace = true"), "{} lacks the shared lints", package.name);
    }
}

#[test]
fn replaceable_libraries_are_named_in_few_files() {
    for (library, files_max) in CONFINED {
        let files: Vec<PathBuf> = sources::rust_files()
            .into_iter()
            .filter(|path| !path.ends_with("tests/tests/layering.rs"))
            .filter(|path| names_library(&sources::read(path), library))
            .collect();
        assert!(files.len() <= *files_max, "{library} is named in {files:?}, {files_max} at most");
    }
}

/// A driver carries things to and fro and decides nothing: when it grows, something in it belongs elsewhere.
#[test]
fn the_driver_stays_small() {
    let files = sources::rust_files();
    let driver = files.iter().filter(|path| path.starts_with("runtime-blocking/src/driver"));
    let lines: usize = driver.map(|path| sources::read(path).lines().count()).sum();
    assert!(lines > 0 && lines < DRIVER_LINES, "the driver has {lines} lines");
}

/// Whether code, not a comment, names the library as a word of its own.
fn names_library(source: &str, library: &str) -> bool {
    source.lines().filter(|line| !line.trim_start().starts_with("//")).any(|line| {
        line.match_indices(library).any(|(at, _)| {
            let word = |c: char| c.is_alphanumeric() || c == '_';
            let before = line[..at].chars().next_back();
            let after = line[at + library.len()..].chars().next();
            !before.is_some_and(word) && !after.is_some_and(word)
        })
    })
}

/// The engine's sources, without those for tests.
fn engine_files() -> Vec<PathBuf> {
    let mut files = sources::rust_files();
    files.retain(|path| path.starts_with("core/src") && !sources::is_test_file(path));
    files
}

#[test]
fn the_engine_has_no_std_and_no_unsafe() {
    let lib = sources::read(&PathBuf::from("core/src/lib.rs"));
    assert!(lib.lines().any(|line| line == "#![no_std]"), "core is no_std");
    assert!(lib.lines().any(|line| line == "#![forbid(unsafe_code)]"), "core forbids unsafe code");

    for path in engine_files() {
        let text = sources::read(&path);
        for (number, line) in sources::shipped_lines(&text) {
            let named = line.contains("extern crate std") || line.contains("std::");
            let allowed = path.as_path() == Path::new(STD_IN_CORE);
            assert!(!named || allowed, "{}:{number}: the engine names std", path.display());
        }
    }
}

#[test]
fn the_engine_asks_nobody_for_time_or_chance() {
    // A world of its own must give the same outputs for the same inputs: these names would be a way around it.
    const FORBIDDEN: &[&str] =
        &["SystemTime", "SystemRandom", "getrandom", "OsRng", "thread_rng", "HashMap", "HashSet"];
    for path in engine_files() {
        if path.as_path() == Path::new(STD_IN_CORE) {
            continue;
        }
        let text = sources::read(&path);
        for (number, line) in sources::shipped_lines(&text) {
            for name in FORBIDDEN {
                assert!(!line.contains(name), "{}:{number}: {name}", path.display());
            }
        }
    }
}
