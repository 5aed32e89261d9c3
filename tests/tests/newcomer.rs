//! What a newcomer types: the README's commands as they stand, and commands that no other test gives to real daemons.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clearskies_tests::daemon::{DEADLINE, binary, conflict_files, eventually, in_step, pair};
use clearskies_tests::sources;

/// The lines of the README's block of commands that has this text.
fn readme_block(text: &str) -> String {
    let readme = fs::read_to_string(sources::root().join("README.md")).expect("there is a README");
    let mut blocks = readme.split("```").skip(1).step_by(2);
    let block = blocks.find(|block| block.contains(text)).expect("the README has such a block");
    block.trim_start_matches("sh").to_owned()
}

#[test]
fn the_readme_leads_to_two_folders_in_step_within_a_minute() {
    let place = tempfile::tempdir().expect("there is room for a temporary folder");
    let top = place.path().to_str().expect("a temporary folder's path is UTF-8");
    let block = readme_block("mkdir -p /tmp/a/docs").replace("/tmp/", &format!("{top}/"));
    let program = binary().to_str().expect("the target folder's path is UTF-8");
    let script = format!("set -e\nclearskies() {{ '{program}' \"$@\"; }}\n{block}");
    let begun = Instant::now();
    let out =
        Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).output().expect("there is a shell");
    let said = String::from_utf8_lossy(&out.stdout);
    // Whatever went wrong, no daemon goes on.
    for home in ["a", "b"] {
        let home: PathBuf = place.path().join(home).join("home");
        if home.join("control").exists() {
            let _ = Command::new(binary()).arg("--home").arg(home).arg("stop").output();
        }
    }
    assert!(out.status.success(), "{said}\n{}", String::from_utf8_lossy(&out.stderr));
    assert!(said.contains("\nhello\n"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[test]
fn the_log_can_be_followed() {
    let (a, b) = pair();
    let mut tail = Command::new(binary());
    tail.arg("--home").arg(a.home()).arg("logtail").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut tail = tail.spawn().expect("the program can be run");
    let lines = BufReader::new(tail.stdout.take().expect("it was asked for")).lines();
    let (tell, told) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        lines
            .map_while(Result::ok)
            .filter(|line| line.contains("was paused"))
            .for_each(|line| drop(tell.send(line)));
    });
    eventually(DEADLINE, "what happens now is told", || {
        b.run(&["pause"]).ok();
        b.run(&["resume"]).ok();
        told.recv_timeout(Duration::from_secs(1)).is_ok()
    });
    tail.kill().expect("it goes on until it is ended");
    tail.wait().expect("it is a child");
    reader.join().expect("it reads to the end");
}

#[test]
fn a_conflict_is_dropped_or_kept_by_command() {
    let (a, b) = pair();
    a.write("kept", "first");
    a.write("dropped", "first");
    in_step(&[&a, &b]);
    b.run(&["pause"]).ok();
    eventually(DEADLINE, "the other side knows", || !a.in_sync());
    for name in ["kept", "dropped"] {
        a.write(name, "of a");
        b.write(name, "of b");
    }
    b.run(&["resume"]).ok();
    eventually(DEADLINE, "both conflicts are there", || {
        [&a, &b].iter().all(|node| conflict_files(node).len() == 2 && node.in_sync())
    });
    let files = conflict_files(&a);
    let of = |name: &str| files.iter().find(|file| file.starts_with(name)).expect("there is one of each");
    let lost = a.read(of("kept")).expect("it is a file");
    let won = a.read("dropped").expect("it is a file");
    a.run(&["conflicts", "--keep", a.path(of("kept")).to_str().unwrap()]).ok();
    a.run(&["conflicts", "--drop", a.path(of("dropped")).to_str().unwrap()]).ok();
    eventually(DEADLINE, "no conflict is left", || {
        [&a, &b].iter().all(|node| conflict_files(node).is_empty() && node.in_sync())
    });
    in_step(&[&a, &b]);
    assert_eq!((b.read("kept"), b.read("dropped")), (Some(lost), Some(won)));
}

#[test]
fn a_mode_may_be_short() {
    let (a, _b) = pair();
    for mode in ["rw", "read-write", "read_write"] {
        let said = a.run(&["share", &a.share(), &format!("--mode={mode}")]).ok();
        assert!(said.lines().last().is_some_and(|code| code.starts_with("SYNC")), "{mode}: {said}");
    }
    let said = a.run(&["share", &a.share(), "--mode=ro"]);
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.err.contains("not there yet") || said.err.contains("read"), "{said:?}");
}
