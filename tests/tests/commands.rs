//! What each command answers, in virtual time.

use std::time::Duration;

use clearskies_core::club::level::Level;
use clearskies_core::engine::command::{Command, CommandError, Existing, Reply, ShareState};
use clearskies_tests::sim::world::World;

const SHARE: &str = "/home/ada/Documents";

/// One machine with a share that was looked through.
fn alone() -> World {
    let mut world = World::new(7, 1);
    world.node(0).share(SHARE);
    world.node(0).write("/home/ada/Documents/a.txt", b"one");
    world.run_until_quiet(Duration::from_secs(120));
    world
}

fn refused(result: Result<Reply, CommandError>) -> &'static str {
    let error = result.expect_err("this is refused");
    assert!(error.message.ends_with('.'), "{}", error.message);
    error.code
}

fn path(name: &str) -> String {
    if name.is_empty() { SHARE.into() } else { format!("{SHARE}/{name}") }
}

#[test]
fn settings_outlive_a_restart() {
    let mut world = alone();
    let write = |key: &str, value: &str| Command::WriteSetting { key: key.into(), value: value.into() };
    assert_eq!(world.ask(0, write("archive_days", "7")), Ok(Reply::Done));
    assert_eq!(refused(world.ask(0, write("archive_days", "0"))), "bad_setting");
    assert_eq!(refused(world.ask(0, write("paused", "true"))), "bad_setting");
    assert_eq!(refused(world.ask(0, Command::ReadSettings { key: Some("no".into()) })), "no_such_setting");
    assert_eq!(world.ask(0, Command::Pause), Ok(Reply::Done));
    assert_eq!(world.status(0).shares[0].state, ShareState::Paused);
    world.crash(0);
    world.restart(0);
    let days = Command::ReadSettings { key: Some("archive_days".into()) };
    assert_eq!(world.ask(0, days), Ok(Reply::Settings(vec![("archive_days".into(), "7".into())])));
    assert!(world.status(0).paused);
    assert_eq!(world.ask(0, Command::Resume), Ok(Reply::Done));
    world.run_until_quiet(Duration::from_secs(120));
    let status = world.status(0);
    assert!(!status.paused);
    assert_eq!((status.shares[0].state, status.shares[0].files), (ShareState::Alone, 1));
}

#[test]
fn codes_are_made_by_members_who_may_write() {
    let mut world = alone();
    let invite =
        |path: &str, level| Command::Invite { path: path.into(), level, valid_for: None, multi_use: true };
    assert!(matches!(world.ask(0, invite(SHARE, Level::ReadWrite)), Ok(Reply::Code { .. })));
    assert_eq!(refused(world.ask(0, invite(SHARE, Level::ReadOnly))), "not_there_yet");
    assert_eq!(refused(world.ask(0, invite("/home", Level::ReadWrite))), "no_such_share");
    let code = world.node(0).invite(SHARE);
    let attach = Command::Attach {
        code: code.clone(),
        path: "/home/ada/Other".into(),
        existing: Existing::Refuse,
        peers: Vec::new(),
    };
    assert_eq!(refused(world.ask(0, attach)), "own_code");
}

#[test]
fn addresses_must_be_dialable() {
    let mut world = World::new(8, 1);
    let connect = |addr: &str| Command::Connect { addr: addr.parse().unwrap() };
    assert_eq!(refused(world.ask(0, connect("192.0.2.1:0"))), "bad_address");
    assert_eq!(refused(world.ask(0, connect("192.0.2.1:4000"))), "no_share");
    world.node(0).share(SHARE);
    assert_eq!(world.ask(0, connect("192.0.2.1:4000")), Ok(Reply::Done));
    assert_eq!(world.ask(0, Command::Peers), Ok(Reply::Peers(Vec::new())));
}

#[test]
fn why_says_what_is_known() {
    let mut world = alone();
    let mut why = |name: &str| match world.ask(0, Command::Why { path: path(name) }) {
        Ok(Reply::Why(sentences)) => sentences.join(" "),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(why("a.txt"), "It is in step.");
    assert_eq!(why(""), "It is in step.");
    assert!(why("b.txt").starts_with("Nothing is known of it"));
    assert!(why("a//b").ends_with('.'));
    assert_eq!(
        refused(world.ask(0, Command::Why { path: "/home/ada/Documents2/a".into() })),
        "no_such_share"
    );
    world.ask(0, Command::Pause).unwrap();
    world.node(0).write("/home/ada/Documents/c.txt", b"three");
    world.run_for(Duration::from_secs(5));
    let Ok(Reply::Why(sentences)) = world.ask(0, Command::Why { path: path("") }) else {
        panic!("no answer")
    };
    assert!(sentences.concat().contains("paused"), "{sentences:?}");
}

#[test]
fn restored_files_lie_at_their_old_path_or_beside_it() {
    let mut world = alone();
    // What sync takes away goes to the archive; here it is put there by hand.
    world.node(0).mkdir("/home/ada/Documents/.clearskies/archive/20261121T231500.123456789Z");
    let old = "/home/ada/Documents/.clearskies/archive/20261121T231500.123456789Z/a.txt";
    world.node(0).write(old, b"old");
    let restore = |name: &str| Command::Restore { path: path(name), folder: None };
    assert_eq!(world.ask(0, restore("a.txt")), Ok(Reply::Restored { path: path("a.RESTORED.txt") }));
    assert_eq!(world.ask(0, restore("a.txt")), Ok(Reply::Restored { path: path("a.RESTORED-2.txt") }));
    assert_eq!(refused(world.ask(0, restore("b.txt"))), "not_archived");
    assert_eq!(refused(world.ask(0, restore(""))), "path");
    world.node(0).remove("/home/ada/Documents/a.txt");
    world.run_until_quiet(Duration::from_secs(120));
    assert_eq!(world.ask(0, restore("a.txt")), Ok(Reply::Restored { path: path("a.txt") }));
    world.run_until_quiet(Duration::from_secs(120));
    assert_eq!(world.status(0).shares[0].files, 3);
    let Ok(Reply::Archive(files)) = world.ask(0, Command::Archive { path: SHARE.into() }) else {
        panic!("no list")
    };
    assert_eq!(files.len(), 1);
}

#[test]
fn archives_are_pruned_by_age() {
    let mut world = alone();
    world.node(0).mkdir("/home/ada/Documents/.clearskies/archive/20010101T000000.000000000Z");
    world.node(0).write("/home/ada/Documents/.clearskies/archive/20010101T000000.000000000Z/a", b"old");
    assert_eq!(world.node(0).archive(SHARE).len(), 1);
    world.run_for(Duration::from_secs(3600));
    assert_eq!(world.node(0).archive(SHARE).len(), 0);
}

#[test]
fn no_conflicts_and_no_held_deletes() {
    let mut world = alone();
    assert_eq!(world.ask(0, Command::Conflicts { path: None }), Ok(Reply::Conflicts(Vec::new())));
    assert_eq!(refused(world.ask(0, Command::Conflicts { path: Some("/x".into()) })), "no_such_share");
    let resolve = Command::Resolve { path: path("a.txt"), keep: true };
    assert_eq!(refused(world.ask(0, resolve)), "no_conflict");
    assert_eq!(world.ask(0, Command::Deletions { path: None }), Ok(Reply::Deletions(Vec::new())));
    let decide = Command::DecideDeletions { path: SHARE.into(), confirm: true };
    assert_eq!(refused(world.ask(0, decide)), "nothing_held");
}

#[test]
fn mass_deletes_are_held_until_confirmed() {
    let mut world = alone();
    for number in 0..100 {
        world.node(0).write(&path(&format!("{number}")), b"x");
    }
    world.run_until_quiet(Duration::from_secs(120));
    for number in 0..100 {
        world.node(0).remove(&path(&format!("{number}")));
    }
    world.run_for(Duration::from_secs(30));
    let Ok(Reply::Deletions(held)) = world.ask(0, Command::Deletions { path: None }) else {
        panic!("no list")
    };
    // Those that were seen first, too few to be held, were sent.
    assert!(held.len() == 1 && (50..=100).contains(&held[0].count), "{held:?}");
    assert!(!world.status(0).shares[0].problems.is_empty());
    let decide = Command::DecideDeletions { path: SHARE.into(), confirm: true };
    assert_eq!(world.ask(0, decide), Ok(Reply::Done));
    world.run_until_quiet(Duration::from_secs(120));
    assert_eq!(world.status(0).shares[0].files, 1);
    assert_eq!(world.ask(0, Command::Deletions { path: None }), Ok(Reply::Deletions(Vec::new())));
}

#[test]
fn conflicts_are_listed_and_resolved() {
    for keep in [true, false] {
        let mut world = World::new(9, 2);
        world.node(0).share(SHARE);
        let code = world.node(0).invite(SHARE);
        world.node(1).attach(&code, SHARE, Existing::Refuse, 0).unwrap();
        world.node(0).write(&path("a.txt"), b"one");
        world.run_until_quiet(Duration::from_secs(300));
        world.partition(&[0]);
        world.run_for(Duration::from_secs(60));
        world.node(0).write(&path("a.txt"), b"from n0");
        world.run_for(Duration::from_secs(10));
        world.node(1).write(&path("a.txt"), b"from n1");
        world.run_for(Duration::from_secs(10));
        world.heal();
        world.run_until_quiet(Duration::from_secs(900));
        let Ok(Reply::Conflicts(conflicts)) = world.ask(0, Command::Conflicts { path: None }) else {
            panic!("no list")
        };
        assert_eq!(conflicts.len(), 1, "{conflicts:?}");
        assert_eq!(conflicts[0].original, path("a.txt"));
        assert_eq!(world.node(0).read(&conflicts[0].path).as_deref(), Some(b"from n0".as_slice()));
        let resolve = Command::Resolve { path: conflicts[0].path.clone(), keep };
        assert_eq!(world.ask(1, resolve), Ok(Reply::Done));
        world.run_until_quiet(Duration::from_secs(300));
        world.assert_same_trees(&[0, 1], SHARE);
        let kept: &[u8] = if keep { b"from n0" } else { b"from n1" };
        assert_eq!(world.node(0).read(&path("a.txt")).as_deref(), Some(kept));
        assert_eq!(world.node(0).read(&conflicts[0].path), None);
        assert_eq!(world.ask(0, Command::Conflicts { path: None }), Ok(Reply::Conflicts(Vec::new())));
        let Ok(Reply::Peers(peers)) = world.ask(0, Command::Peers) else { panic!("no list") };
        assert_eq!(peers.iter().filter(|peer| peer.connected).count(), 1);
    }
}

#[test]
fn a_stopped_node_keeps_everything() {
    let mut world = alone();
    world.stop(0);
    world.restart(0);
    world.run_until_quiet(Duration::from_secs(120));
    assert_eq!(world.status(0).shares[0].files, 1);
}
