//! The program's exit codes and sentences, as far as they need no peer.

use std::path::Path;
use std::process::{Command, Output};

fn clearskies(home: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_clearskies")).arg("--home").arg(home).args(words).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn wrong_usage_is_2() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let wrong: [&[&str]; 7] = [
        &[],
        &["dance"],
        &["share"],
        &["share", "/d", "--mode=owner"],
        &["attach", "SYNC", "/d", "--merge", "--replace"],
        &["start", "--listen-port", "70000"],
        &["connect"],
    ];
    for words in wrong {
        let output = clearskies(&home, words);
        assert_eq!(code(&output), 2, "{words:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{words:?}");
    }
    assert!(!home.exists(), "nothing was begun");
}

#[test]
fn help_and_version_are_0() {
    let dir = tempfile::tempdir().unwrap();
    for words in [["--help"], ["--version"]] {
        assert_eq!(code(&clearskies(dir.path(), &words)), 0);
    }
    let version = clearskies(dir.path(), &["--version"]);
    let expected = concat!("clearskies ", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8_lossy(&version.stdout).trim(), expected);
}

#[test]
fn a_mistyped_code_is_refused_before_anything_is_begun() {
    let dir = tempfile::tempdir().unwrap();
    let (home, target) = (dir.path().join("home"), dir.path().join("target"));
    for given in ["SYNC", "hello", "SYNCAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", ""] {
        let output = clearskies(&home, &["attach", given, target.to_str().unwrap()]);
        assert_eq!(code(&output), 1, "{given:?}");
        assert!(complaint(&output).contains("access code"), "{}", complaint(&output));
    }
    assert!(!home.exists() && !target.exists(), "nothing was begun");
}

#[test]
fn other_modes_are_refused_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    for mode in ["--mode=ro", "--mode=read-only", "--mode=un", "--mode=untrusted"] {
        let output = clearskies(&home, &["share", dir.path().to_str().unwrap(), mode]);
        assert_eq!(code(&output), 1);
        assert!(complaint(&output).contains("not there yet"), "{}", complaint(&output));
    }
    assert!(!home.exists());
}

#[test]
fn status_without_a_daemon_is_1_and_starts_none() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    for words in [&["status"][..], &["status", "--json"]] {
        let output = clearskies(&home, words);
        assert_eq!(code(&output), 1);
        assert!(complaint(&output).contains("not running"));
    }
    assert_eq!(code(&clearskies(&home, &["stop"])), 0, "what is wanted is so");
    assert_eq!(code(&clearskies(&home, &["logcat"])), 1);
    assert!(!home.exists());
}
