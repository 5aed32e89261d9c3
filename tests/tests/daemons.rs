//! Two real daemons over loopback, driven through the program `clearskies` as a user drives it, on real folders: the
//! main job, and what it must withstand.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::time::Duration;

use clearskies_tests::daemon::{
    Apart, Control, DEADLINE, Node, binary, conflict_files, eventually, in_step, in_step_within, is_apart,
    noise, pair, received, run_apart,
};
use serde_json::{Value, json};

/// For transfers of many megabytes in a build without optimisation.
const LONG: Duration = Duration::from_secs(120);

#[test]
fn two_folders_stay_the_same() {
    let (a, b) = (Node::running(), Node::running());
    a.write("dir/deep/file", "from a");
    a.write("empty", "");
    a.write("large", noise(3_000_000));
    symlink("dir/deep", a.path("link")).unwrap();
    std::fs::create_dir(a.path("nothing in it")).unwrap();
    std::fs::set_permissions(a.path("empty"), PermissionsExt::from_mode(0o750)).unwrap();
    let code = a.invite();
    assert!(code.starts_with("SYNC") && code.len() == 33, "{code}");
    b.attach(&code, &a, &[]).ok();
    in_step(&[&a, &b]);
    assert_eq!(b.names().len(), 7);

    b.write("dir/deep/file", "from b");
    std::fs::rename(b.path("large"), b.path("renamed")).unwrap();
    std::fs::remove_file(b.path("empty")).unwrap();
    std::fs::rename(b.path("dir"), b.path("moved")).unwrap();
    let arrived = || a.read("moved/deep/file").as_deref() == Some("from b") && !a.path("empty").exists();
    eventually(DEADLINE, "b's changes are on a", arrived);
    in_step(&[&a, &b]);
    assert!(a.path("renamed").exists() && !a.path("large").exists() && !a.path("dir").exists());

    std::fs::remove_dir_all(a.path("moved")).unwrap();
    eventually(DEADLINE, "the folder goes on b too", || !b.path("moved").exists());
    assert!(b.archive().contains(&b"from b".to_vec()), "what sync deletes is in the archive");
    b.run(&["restore", b.path("moved/deep/file").to_str().unwrap()]).ok();
    eventually(DEADLINE, "what was restored is on a", || a.read("moved/deep/file").is_some());
}

#[test]
fn a_link_needs_no_other_address() {
    let (a, b) = (Node::running(), Node::running());
    a.write("file", "1");
    let link = a.run(&["share", &a.share(), "--link"]).ok();
    let link = link.lines().last().unwrap().to_owned();
    assert!(link.starts_with("clearskies://directory/SYNC") && link.contains("k="), "{link}");
    // Whatever addresses the machine has, and be it none: this one is added by hand.
    b.attach(&link, &a, &[]).ok();
    in_step(&[&a, &b]);
    assert_eq!(b.read("file").as_deref(), Some("1"));
}

/// Two homes of one machine, with nothing but the code.
#[test]
fn nodes_of_one_machine_find_each_other_without_a_network() {
    if !is_apart() {
        run_apart("nodes_of_one_machine_find_each_other_without_a_network", Apart::Network);
    }
    let (mut a, b, c) = (Node::running_on_lan(), Node::running_on_lan(), Node::running_on_lan());
    a.write("file", "1");
    let attach = |node: &Node, code: &str| node.run(&["attach", code, &node.share()]).ok();
    attach(&b, &a.invite());
    in_step(&[&a, &b]);
    attach(&c, &b.invite());
    in_step(&[&a, &b, &c]);
    let peers = b.ask(&json!({ "type": "peers" })).unwrap();
    let peers = peers["peers"].as_array().unwrap();
    assert!(
        peers.iter().all(|peer| peer["address"].as_str().unwrap().starts_with("127.0.0.1:")),
        "{peers:?}"
    );
    a.kill();
    c.write("later", "2");
    a.start();
    in_step(&[&a, &b, &c]);
    assert_eq!(a.names(), ["file", "later"]);
}

/// The machine comes into a network, or changes it, while the daemon runs.
#[test]
fn a_new_network_is_seen_at_once() {
    let test = "a_new_network_is_seen_at_once";
    if !is_apart() {
        return run_apart(test, Apart::Network);
    }
    let node = Node::running_on_lan();
    let has = |addr: &str| {
        let said = node.ask(&json!({ "type": "address" })).unwrap()["addresses"].to_string();
        said.contains(addr)
    };
    assert!(!has("10.99.0.1"));
    let ip = |words: &[&str]| Command::new("ip").args(words).status().is_ok_and(|status| status.success());
    if !ip(&["addr", "add", "10.99.0.1/24", "dev", "lo"]) {
        println!("{test}: not tried, since the program ip does not set addresses here.");
        return;
    }
    eventually(Duration::from_secs(5), "the new address is known", || has("10.99.0.1"));
    assert!(ip(&["addr", "del", "10.99.0.1/24", "dev", "lo"]));
    eventually(Duration::from_secs(5), "it is gone again", || !has("10.99.0.1"));
}

#[test]
fn a_mistyped_code_is_refused_before_anything_happens() {
    let node = Node::new();
    let other = Node::running();
    let code = other.invite();
    let mut typo = code.into_bytes();
    let last = typo.len() - 1;
    typo[last] = if typo[last] == b'A' { b'C' } else { b'A' };
    let typo = String::from_utf8(typo).unwrap();
    for wrong in [typo.as_str(), "SYNC", "", "clearskies://directory/", "not a code at all"] {
        node.attach(wrong, &other, &[]).refused();
    }
    assert!(!node.control().exists(), "no daemon was needed to see it");
}

#[test]
fn wrong_usage_is_told_from_refusal() {
    let node = Node::new();
    for args in [&["dance"][..], &["share"], &["attach", "x"], &["start", "--listen-port", "x"], &[]] {
        assert_eq!(node.run(args).code, 2, "{args:?}");
    }
    assert_eq!(node.run(&["--version"]).code, 0);
    assert_eq!(node.run(&["help"]).code, 0);
    assert!(!node.home().exists());
}

#[test]
fn folders_that_cannot_be_shared_are_refused() {
    let node = Node::running();
    let none = node.beside("none");
    assert!(node.run(&["share", &none]).refused().contains("none"));
    let file = node.beside("a file");
    std::fs::write(&file, "x").unwrap();
    assert!(node.run(&["share", &file]).refused().contains("is not a folder"));
    node.invite();
    std::fs::create_dir(node.path("inner")).unwrap();
    node.run(&["share", node.path("inner").to_str().unwrap()]).refused();
    node.run(&["create", &node.beside("")]).refused();
    // The same once more is no mistake: it gives another code.
    assert_ne!(node.invite(), node.invite());
    assert_eq!(node.run(&["list"]).ok().lines().filter(|line| line.contains("share")).count(), 1);
}

#[test]
fn the_home_is_never_shared() {
    let node = Node::running();
    let other = Node::running();
    let code = other.invite();
    let link = node.beside("link");
    symlink(node.beside(""), &link).unwrap();
    let around = [node.beside(""), link.clone(), format!("{link}/share/..")];
    let inside = [node.beside("home"), node.beside("home/zz"), format!("{link}/home/zz")];
    std::fs::create_dir(node.beside("home/zz")).unwrap();
    for place in around.iter().chain(&inside) {
        let said = node.run(&["share", place]).refused();
        assert!(said.contains("home"), "{said}");
        assert!(!around.contains(place) || said.contains("--home"), "{said}");
        node.run(&["attach", &code, place, "--merge", "--peer", &other.addr()]).refused();
    }
    node.invite();
    let own = node.path(".clearskies/archive");
    node.run(&["detach", &node.share()]).ok();
    let said = node.run(&["share", own.to_str().unwrap()]).refused();
    assert!(said.contains(".clearskies"), "{said}");
    assert_eq!(other.names(), [""; 0]);
}

#[test]
fn a_folder_that_another_node_shares_is_refused() {
    let (node, other) = (Node::running(), Node::running());
    node.invite();
    let said = other.run(&["share", &node.share()]).refused();
    assert!(said.contains("another share") && said.contains(".clearskies/share"), "{said}");
    assert_eq!(node.problems(), "[]");
    for _ in 0..20 {
        node.run(&["detach", &node.share()]).ok();
        node.invite();
    }
}

/// Another node's home would be sent with the share that it lies in.
#[test]
fn no_home_begins_in_a_share() {
    let node = Node::running();
    node.invite();
    let home = node.path("inner home");
    let other = Command::new(binary()).arg("--home").arg(&home).arg("list").output().unwrap();
    assert_eq!(other.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&other.stderr).contains("is shared"), "{other:?}");
    assert!(!home.exists());
}

#[test]
fn a_second_daemon_on_one_home_is_refused() {
    let node = Node::running();
    let said = node.run(&["start", "--no-fork", "--no-lan", "--listen-port", "0"]).refused();
    assert!(!said.is_empty());
    assert!(node.ask(&json!({ "type": "status" })).is_some(), "the first one goes on");
}

#[test]
fn a_stale_socket_is_cleaned_up() {
    let mut node = Node::running();
    node.kill();
    assert!(node.control().exists(), "a kill leaves it");
    assert_eq!(node.run(&["status", "--json"]).code, 1);
    node.start();
    node.stop();
    assert!(!node.control().exists(), "an end in good order does not");
    // Somebody else's socket of that name, with nobody behind it.
    drop(UnixListener::bind(node.control()).unwrap());
    node.start();
}

#[test]
fn signals_end_it_in_good_order() {
    for signal in ["TERM", "INT"] {
        let mut node = Node::running();
        let pid = node.pid().to_string();
        let kill = format!("kill -s {signal} {pid}");
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        assert_eq!(node.wait_end(), Some(0), "{signal}\n{}", node.log());
        assert!(!node.control().exists());
    }
}

#[test]
fn a_command_starts_the_daemon_that_it_needs() {
    let node = Node::new();
    assert_eq!(node.run(&["stop"]).code, 0, "nothing to stop is no failure");
    let code = node.invite();
    assert!(code.starts_with("SYNC"), "{code}");
    assert!(node.ask(&json!({ "type": "status" })).is_some());
    node.run(&["stop"]).ok();
    assert!(!node.control().exists());
    let mode = std::fs::metadata(node.home()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "nobody else looks into the home");
}

#[test]
fn a_single_use_code_lets_one_in() {
    let (a, b, c) = (Node::running(), Node::running(), Node::running());
    a.write("file", "1");
    let code = a.invite();
    b.attach(&code, &a, &[]).ok();
    in_step(&[&a, &b]);
    // Whether it says so at once or keeps looking: nothing reaches it.
    let _ = c.attach(&code, &a, &[]);
    std::thread::sleep(Duration::from_secs(3));
    assert!(c.names().is_empty());
    assert_ne!(c.status()["in_sync"], true);
    in_step(&[&a, &b]);
}

#[test]
fn a_third_computer_joins() {
    let (a, b) = pair();
    let c = Node::running();
    a.write("from a", "1");
    b.write("from b", "2");
    // Invited by the one that was invited itself.
    let code = b.invite();
    c.attach(&code, &b, &[]).ok();
    in_step(&[&a, &b, &c]);
    c.write("from c", "3");
    eventually(DEADLINE, "c's file is on a", || a.read("from c").is_some());
    in_step(&[&a, &b, &c]);
    assert_eq!(a.names(), ["from a", "from b", "from c"]);
}

#[test]
fn a_folder_with_contents_needs_a_word() {
    let (a, b) = (Node::running(), Node::running());
    for (node, who) in [(&a, "a's"), (&b, "b's")] {
        node.write("both", who);
        node.write("equal", "the same");
    }
    b.write("only b", "b's own");
    let code = a.invite();
    let said = b.attach(&code, &a, &[]).refused();
    assert!(said.contains("--merge") && said.contains("--replace"), "{said}");
    assert_eq!(b.names(), ["both", "equal", "only b"]);
    assert_eq!(b.attach(&code, &a, &["--merge", "--replace"]).code, 2);
    b.attach(&code, &a, &["--merge"]).ok();
    eventually(DEADLINE, "both hold everything", || a.names().len() == 4 && b.names().len() == 4);
    in_step(&[&a, &b]);
    let conflicts = conflict_files(&a);
    assert_eq!(conflicts.len(), 1);
    let mut both = [a.read("both").unwrap(), a.read(&conflicts[0]).unwrap()];
    both.sort();
    assert_eq!(both, ["a's", "b's"]);
    assert_eq!(b.read(&conflicts[0]), a.read(&conflicts[0]));
}

#[test]
fn replacing_keeps_what_differs_in_the_archive() {
    let (a, b) = (Node::running(), Node::running());
    a.write("both", "a's");
    a.write("equal", "the same");
    b.write("both", "b's");
    b.write("equal", "the same");
    b.write("only b", "b's own");
    let code = a.invite();
    b.attach(&code, &a, &["--replace"]).ok();
    in_step(&[&a, &b]);
    eventually(DEADLINE, "the club's contents win", || b.names() == ["both", "equal"]);
    assert_eq!(b.read("both").as_deref(), Some("a's"));
    let mut kept = b.archive();
    kept.retain(|content| !content.is_empty());
    kept.sort();
    assert_eq!(kept, [b"b's".to_vec(), b"b's own".to_vec()]);
    assert_eq!(a.names(), ["both", "equal"]);
}

#[test]
fn edits_of_both_become_a_conflict_file_on_both() {
    let (mut a, mut b) = pair();
    a.write("note.txt", "base");
    eventually(DEADLINE, "the base is on b", || b.read("note.txt").is_some());
    in_step(&[&a, &b]);
    a.stop();
    b.kill();
    a.write("note.txt", "a's edit");
    std::thread::sleep(Duration::from_millis(50));
    b.write("note.txt", "b's later edit");
    a.start();
    b.start();
    eventually(DEADLINE, "both see the conflict", || {
        conflict_files(&a).len() == 1 && conflict_files(&b).len() == 1
    });
    in_step(&[&a, &b]);
    let conflict = conflict_files(&a).remove(0);
    assert!(conflict.starts_with("note.CONFLICT.") && conflict.ends_with(".txt"), "{conflict}");
    assert_eq!(a.read("note.txt").as_deref(), Some("b's later edit"));
    assert_eq!(b.read(&conflict).as_deref(), Some("a's edit"));
    assert!(b.run(&["conflicts"]).ok().contains(&conflict));
    b.run(&["conflicts", "--keep", b.path(&conflict).to_str().unwrap()]).ok();
    eventually(DEADLINE, "one is left", || a.names() == ["note.txt"]);
    assert_eq!(a.read("note.txt").as_deref(), Some("a's edit"));
}

#[test]
fn what_is_written_through_an_open_handle_is_kept() {
    let (a, b) = pair();
    a.write("report.txt", "first");
    eventually(DEADLINE, "it is on b", || b.read("report.txt").as_deref() == Some("first"));
    in_step(&[&a, &b]);
    let mut open = std::fs::File::options().write(true).open(b.path("report.txt")).unwrap();
    a.write("report.txt", "second");
    eventually(DEADLINE, "the new version is on b", || b.read("report.txt").as_deref() == Some("second"));
    open.write_all(b"written late").unwrap();
    let arrived =
        || conflict_files(&a).first().is_some_and(|name| a.read(name).as_deref() == Some("written late"));
    eventually(LONG, "what the program wrote is a conflict file on a", arrived);
    in_step(&[&a, &b]);
    assert_eq!((conflict_files(&a).len(), a.read("report.txt").as_deref()), (1, Some("second")));
    open.write_all(b" and on").unwrap();
    let name = conflict_files(&b).remove(0);
    eventually(DEADLINE, "it goes on being seen", || a.read(&name).as_deref() == Some("written late and on"));
}

#[test]
fn a_kill_at_any_moment_loses_nothing() {
    let (mut a, mut b) = pair();
    let large = noise(24_000_000);
    a.write("large", &large);
    for index in 0..300 {
        a.write(&format!("dir {}/{index}", index % 7), format!("small {index}"));
    }
    for (round, wait) in [60, 150, 300, 30, 500, 100].into_iter().enumerate() {
        std::thread::sleep(Duration::from_millis(wait));
        let victim = if round % 2 == 0 { &mut b } else { &mut a };
        victim.kill();
        victim.start();
        a.write("large", &large);
        b.write(&format!("from b {round}"), "x");
    }
    in_step_within(LONG, &[&a, &b]);
    assert_eq!(std::fs::read(b.path("large")).unwrap(), large);
    assert_eq!(conflict_files(&a), [] as [String; 0]);
    assert_eq!(a.names().len(), 1 + 300 + 7 + 6);
}

#[test]
fn a_restart_without_changes_transfers_nothing() {
    let (mut a, mut b) = pair();
    a.write("large", noise(4_000_000));
    for index in 0..100 {
        b.write(&format!("{index}"), format!("{index}"));
    }
    eventually(DEADLINE, "all of it arrives", || b.path("large").exists() && a.names().len() == 101);
    in_step(&[&a, &b]);
    let before = b.tree();
    a.stop();
    b.stop();
    b.start();
    a.start();
    in_step(&[&a, &b]);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(b.tree(), before);
    let bytes = received(&a) + received(&b);
    assert!(bytes < 100_000, "{bytes} bytes for nothing");
    assert!(a.archive().iter().all(Vec::is_empty) && b.archive().iter().all(Vec::is_empty));
}

#[test]
fn names_that_are_not_utf8_are_reported_and_others_go_on() {
    let (a, b) = pair();
    std::fs::write(a.path("").join(std::ffi::OsStr::from_bytes(b"bad\xffname")), "x").unwrap();
    a.write("good", "1");
    eventually(DEADLINE, "the other file arrives", || b.read("good").is_some());
    assert_eq!(b.names(), ["good"]);
    eventually(DEADLINE, "the name is reported", || a.problems().contains("bad"));
}

#[test]
fn a_folder_that_is_gone_deletes_nothing() {
    let (mut a, b) = pair();
    for index in 0..5 {
        a.write(&format!("{index}"), "x");
    }
    eventually(DEADLINE, "all arrive", || b.names().len() == 5);
    in_step(&[&a, &b]);
    // As if its volume were pulled out, then as if it were mounted elsewhere: an empty folder in its place.
    let aside = a.beside("aside");
    std::fs::rename(a.path(""), &aside).unwrap();
    eventually(DEADLINE, "it says that the folder is gone", || a.status()["state"] == "stopped");
    assert_ne!(a.problems(), "[]");
    std::fs::create_dir(a.path("")).unwrap();
    a.kill();
    a.start();
    eventually(DEADLINE, "it says that this is another folder", || a.status()["state"] == "stopped");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(b.names().len(), 5);
    assert!(a.names().is_empty(), "nothing is put there");
    std::fs::remove_dir(a.path("")).unwrap();
    std::fs::rename(&aside, a.path("")).unwrap();
    in_step(&[&a, &b]);
    assert_eq!(a.names().len(), 5);
}

#[test]
fn many_deletions_wait_for_a_word() {
    let (a, b) = pair();
    for index in 0..80 {
        a.write(&format!("{index}"), "x");
    }
    eventually(DEADLINE, "all arrive", || b.names().len() == 80);
    in_step(&[&a, &b]);
    for index in 0..70 {
        std::fs::remove_file(a.path(&index.to_string())).unwrap();
    }
    eventually(DEADLINE, "they are held", || a.run(&["deletions"]).ok().contains("70"));
    assert_eq!(b.names().len(), 80);
    a.run(&["deletions", "--confirm"]).ok();
    eventually(DEADLINE, "they are sent", || b.names().len() == 10);
}

#[test]
fn a_file_that_changes_while_it_is_sent_arrives_in_the_end() {
    let (a, b) = pair();
    let mut file = std::fs::File::create(a.path("growing")).unwrap();
    for piece in noise(4_000_000).chunks(100_000) {
        file.write_all(piece).unwrap();
        std::thread::sleep(Duration::from_millis(30));
    }
    drop(file);
    in_step(&[&a, &b]);
    assert_eq!(std::fs::metadata(b.path("growing")).unwrap().len(), 4_000_000);
    assert_eq!(conflict_files(&b), [] as [String; 0]);
}

#[test]
fn links_that_point_outside_stay_links() {
    let (a, b) = pair();
    let outside = b.beside("outside");
    std::fs::create_dir(&outside).unwrap();
    symlink(&outside, a.path("dir")).unwrap();
    eventually(DEADLINE, "the link arrives", || b.path("dir").is_symlink());
    std::fs::remove_file(a.path("dir")).unwrap();
    a.write("dir/file", "1");
    eventually(DEADLINE, "a folder takes its place", || b.read("dir/file").is_some());
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "nothing is written through the link");
    in_step(&[&a, &b]);
}

#[test]
fn a_store_that_is_lost_loses_no_file() {
    let (a, mut b) = pair();
    a.write("file", "1");
    eventually(DEADLINE, "it arrives", || b.read("file").is_some());
    in_step(&[&a, &b]);
    b.stop();
    for entry in std::fs::read_dir(b.home()).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("store") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    b.write("meanwhile", "2");
    b.start();
    assert!(b.log().contains("database is gone"), "{}", b.log());
    let code = a.invite();
    b.attach(&code, &a, &["--merge"]).ok();
    eventually(DEADLINE, "both hold both", || a.names() == ["file", "meanwhile"]);
    in_step(&[&a, &b]);
}

#[test]
fn strangers_are_sent_away() {
    let (a, b) = pair();
    let garbage: [&[u8]; 4] =
        [b"GET / HTTP/1.1\r\n\r\n", &[0; 70_000], &[0xff; 70_000], b"m99999999999999999999{\"type\":\"x\"}"];
    for bytes in garbage {
        let mut stranger = TcpStream::connect(a.addr()).unwrap();
        stranger.set_read_timeout(Some(DEADLINE)).unwrap();
        // It may hang up at any moment: then the rest cannot be written.
        let _ = stranger.write_all(bytes);
        let _ = stranger.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stranger.read_to_end(&mut answer);
        assert!(answer.len() < 1000, "{} bytes for a stranger", answer.len());
    }
    let silent: Vec<TcpStream> = (0..100).filter_map(|_| TcpStream::connect(a.addr()).ok()).collect();
    a.write("after", "1");
    eventually(DEADLINE, "friends still talk", || b.read("after").is_some());
    drop(silent);
}

#[test]
fn pausing_outlives_a_restart() {
    let (a, mut b) = pair();
    b.run(&["pause"]).ok();
    a.write("file", "1");
    b.stop();
    b.start();
    std::thread::sleep(Duration::from_secs(2));
    assert!(b.names().is_empty());
    b.run(&["resume"]).ok();
    eventually(DEADLINE, "it goes on", || b.read("file").is_some());
}

#[test]
fn leaving_keeps_the_files() {
    let (a, b) = pair();
    a.write("file", "1");
    eventually(DEADLINE, "it arrives", || b.read("file").is_some());
    in_step(&[&a, &b]);
    b.run(&["detach", &b.share()]).ok();
    assert_eq!(b.read("file").as_deref(), Some("1"));
    std::fs::remove_file(b.path("file")).unwrap();
    a.write("later", "2");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(a.names(), ["file", "later"]);
    assert!(b.names().is_empty());
}

#[test]
fn requests_sent_at_once_take_effect_in_order() {
    let node = Node::running();
    let mut client = Control::connect(&node.control()).unwrap();
    for days in 1..40 {
        let set = json!({ "type": "set_config", "config": { "archive_days": days } });
        let bad = json!({ "type": "set_config", "config": { "archive_days": 99, "foo": "x" } });
        let get = json!({ "type": "get_config_value", "key": "archive_days" });
        client.send(&format!("{set}\n{bad}\n{get}\n"));
        assert_eq!(client.line().unwrap(), json!({}));
        assert!(client.line().unwrap()["message"].as_str().unwrap().contains("foo"));
        assert_eq!(client.line().unwrap(), json!({ "value": days.to_string() }));
    }
}

#[test]
fn every_path_can_say_why() {
    let (a, _b) = pair();
    a.write("file", "1");
    let why = a.run(&["why", a.path("file").to_str().unwrap()]).ok();
    assert!(why.len() > 10, "{why}");
    a.run(&["why", &a.beside("elsewhere")]).refused();
}

#[test]
fn known_clients_read_the_control_protocol() {
    let node = Node::running();
    node.invite();
    let mode = std::fs::metadata(node.control()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // As a small script does it: connect, take what comes at once, send a line, take what comes.
    let mut script = UnixStream::connect(node.control()).unwrap();
    script.set_read_timeout(Some(DEADLINE)).unwrap();
    let take = |script: &mut UnixStream| -> Value {
        let mut buffer = [0; 1024];
        let len = script.read(&mut buffer).unwrap();
        serde_json::from_slice(&buffer[..len]).expect("one reply, whole, in one read")
    };
    let greeting = take(&mut script);
    assert_eq!((&greeting["service"], &greeting["protocol"]), (&json!("ClearSkies Control"), &json!(1)));
    assert!(greeting["software"].is_string());
    script.write_all(b"{\"type\": \"list_shares\"}\n").unwrap();
    let shares = take(&mut script);
    let list = shares["shares"].as_array().expect("a list");
    assert_eq!(list.len(), 1);
    assert!(
        list[0]["path"].as_str().unwrap().ends_with("/share") && list[0]["status"].is_string(),
        "{shares}"
    );
    script.write_all(b"{\"type\": \"status\"}\n").unwrap();
    let status = take(&mut script);
    for member in ["paused", "tracking", "nat_punctured", "upload_rate", "download_rate"] {
        assert!(!status[member].is_null(), "{member}: {status}");
    }

    // Pipelined, in any pieces, with errors in between: the replies come in order.
    let mut client = Control::connect(&node.control()).unwrap();
    client.send("{\"type\":\"dance\"}\n{\"type\":\"status\"}\nnot json\n{\"type\":");
    assert_eq!(client.line().unwrap()["error"], "not_understood");
    assert_eq!(client.line().unwrap()["paused"], false);
    assert!(client.line().unwrap()["error"].is_string());
    client.send("\"get_config\"}\n");
    assert!(client.line().unwrap()["config"].is_object());
    let request = json!({ "type": "create_access_code", "path": node.share(), "mode": "read_write" });
    client.send(&format!("{request}\n"));
    assert!(client.line().unwrap()["access_code"].as_str().unwrap().starts_with("SYNC"));
    for kind in ["pause", "resume"] {
        client.send(&format!("{}\n", json!({ "type": kind })));
        assert!(client.line().unwrap()["error"].is_null());
    }
}

#[test]
fn a_daemon_at_rest_takes_no_processor_time() {
    // Without a network as well as with one: each has its own ways to be woken for nothing.
    let (alone, lan) = (Node::running(), Node::running_on_lan());
    for node in [&alone, &lan] {
        node.run(&["share", &node.share()]).ok();
        eventually(DEADLINE, "the folder is looked through", || {
            !node.status().to_string().contains("scanning")
        });
    }
    std::thread::sleep(Duration::from_millis(500));
    let before = [&alone, &lan].map(processor_ticks);
    std::thread::sleep(Duration::from_secs(3));
    let after = [&alone, &lan].map(processor_ticks);
    // Of 300 ticks.
    for (before, after) in before.into_iter().zip(after) {
        assert!(after - before < 30, "{before} {after}");
    }
}

/// Hundredths of a second that a node's daemon has spent.
fn processor_ticks(node: &Node) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_daemon_that_talks_to_as_many_programs_as_it_may_says_so() {
    let node = Node::running();
    let clients: Vec<UnixStream> = (0..256).map(|_| UnixStream::connect(node.control()).unwrap()).collect();
    let said = node.run(&["status"]).refused();
    assert!(said.contains("256 programs"), "{said}");
    drop(clients);
    eventually(DEADLINE, "there is room again", || node.run(&["status"]).code == 0);
}

#[test]
fn many_names_of_one_file_cost_no_look_each() {
    let (a, b) = pair();
    a.write("first", "one file");
    in_step(&[&a, &b]);
    // At a look each, these take half a minute.
    for name in 0..300 {
        std::fs::hard_link(a.path("first"), a.path(&format!("name {name}"))).unwrap();
    }
    in_step_within(Duration::from_secs(15), &[&a, &b]);
    assert_eq!(b.names().len(), 301);
}
