//! What each command answers, in virtual time.

use std::time::Duration;

use clearskies_core::club::code::Invitation;
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
fn the_home_is_never_shared() {
    let mut world = World::new(11, 2);
    world.node(1).share(SHARE);
    let code = world.node(1).invite(SHARE);
    let home = "/home/ada/.local/share/clearskies";
    for place in [home, "/home/ada/.local/share/clearskies/zz", "/home/ada", "/", "/srv/.clearskies/x"] {
        world.node(0).mkdir(place);
        let create = Command::CreateShare { path: place.into() };
        assert_eq!(refused(world.ask(0, create)), "misplaced", "{place}");
        let attach = Command::Attach {
            code: code.clone(),
            path: place.into(),
            existing: Existing::Merge,
            peers: Vec::new(),
        };
        assert_eq!(refused(world.ask(0, attach)), "misplaced", "{place}");
    }
    assert!(world.status(0).shares.is_empty());
}

/// A home may come to lie in a share while the node is off.
#[test]
fn a_share_that_holds_the_home_at_a_start_stops() {
    let mut world = alone();
    world.stop(0);
    world.nodes[0].home = "/home/ada/Documents/clearskies";
    world.restart(0);
    world.node(0).mkdir(&path("clearskies"));
    world.node(0).write(&path("clearskies/store"), b"keys");
    world.run_for(Duration::from_secs(120));
    let status = world.status(0).shares.remove(0);
    assert_eq!((status.state, status.files), (ShareState::Stopped, 1), "{status:?}");
    assert!(status.problems.concat().contains("--home"), "{status:?}");
    world.stop(0);
    world.nodes[0].home = "/home/ada/clearskies";
    world.restart(0);
    world.node(0).remove(&path("clearskies/store"));
    world.run_until_quiet(Duration::from_secs(120));
    assert_eq!(world.status(0).shares[0].state, ShareState::Alone);
}

#[test]
fn the_mark_of_another_share_is_not_replaced_unasked() {
    let mark = "/home/ada/Documents/.clearskies/share";
    let mut world = World::new(14, 2);
    world.node(1).share(SHARE);
    let code = world.node(1).invite(SHARE);
    world.node(0).mkdir("/home/ada/Documents/.clearskies");
    world.node(0).write(mark, b"another's");
    let create = || Command::CreateShare { path: SHARE.into() };
    assert_eq!(refused(world.ask(0, create())), "marked");
    assert_eq!(refused(world.node(0).attach(&code, SHARE, Existing::Refuse, 1)), "marked");
    assert_eq!(world.node(0).read(mark).as_deref(), Some(b"another's".as_slice()));
    // As the sentence says.
    world.node(0).remove(mark);
    world.ask(0, create()).unwrap();
    // A share that was left has none, from the moment on that it is said.
    world.ask(0, Command::Detach { path: SHARE.into() }).unwrap();
    assert_eq!(world.node(0).read(mark), None);
    world.ask(0, create()).unwrap();
    world.ask(0, Command::Detach { path: SHARE.into() }).unwrap();
    // Who lost a home attaches with a word about what the folder holds.
    world.node(0).write(mark, b"another's");
    world.node(0).attach(&code, SHARE, Existing::Merge, 1).unwrap();
    world.run_until_quiet(Duration::from_secs(300));
    assert_eq!(world.status(0).shares[0].state, ShareState::InSync);
}

#[test]
fn settings_outlive_a_restart() {
    let mut world = alone();
    let write = |key: &str, value: &str| Command::WriteSetting { key: key.into(), value: value.into() };
    assert_eq!(world.ask(0, write("archive_days", "7")), Ok(Reply::Done));
    assert_eq!(refused(world.ask(0, write("archive_days", "0"))), "bad_setting");
    assert_eq!(refused(world.ask(0, write("paused", "true"))), "bad_setting");
    let several = |list: [(&str, &str); 2]| Command::WriteSettings {
        settings: list.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
    };
    assert_eq!(refused(world.ask(0, several([("archive_days", "5"), ("foo", "x")]))), "bad_setting");
    assert_eq!(world.ask(0, several([("archive_percent", "5"), ("lan", "false")])), Ok(Reply::Done));
    assert_eq!(world.ask(0, Command::WriteSettings { settings: Vec::new() }), Ok(Reply::Done));
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

fn peers(world: &mut World, index: usize) -> usize {
    match world.ask(index, Command::Peers) {
        Ok(Reply::Peers(peers)) => peers.len(),
        other => panic!("no list: {other:?}"),
    }
}

fn problems(world: &mut World, index: usize, path: &str) -> String {
    let status = world.status(index);
    status.shares.into_iter().find(|share| share.path == path).expect("it is a share").problems.concat()
}

#[test]
fn a_link_that_names_another_club_costs_no_code() {
    for lan in [false, true] {
        let mut world = World::new(12, 2);
        world.nodes.iter_mut().for_each(|node| node.lan = lan);
        world.node(0).share(SHARE);
        world.node(0).write(&path("a.txt"), b"one");
        let code = world.node(0).invite(SHARE);
        let wrong = format!("clearskies://directory/{code}?k={}", "0".repeat(32));
        world.node(1).attach(&wrong, SHARE, Existing::Refuse, 0).unwrap();
        world.run_for(Duration::from_secs(120));
        let said = problems(&mut world, 1, SHARE);
        assert!(said.contains("another club than the link names") && said.contains("Detach"), "{said}");
        let Ok(Reply::Why(why)) = world.ask(1, Command::Why { path: SHARE.into() }) else {
            panic!("no answer")
        };
        assert!(!why.concat().contains("No member that knows"), "{why:?}");
        assert_eq!((peers(&mut world, 0), peers(&mut world, 1)), (0, 0), "none of them is a member");
        assert_eq!(world.status(0).shares[0].peers_known, 0);
        world.ask(1, Command::Detach { path: SHARE.into() }).unwrap();
        // The same code, from what is another joiner now.
        world.node(1).attach(&code, SHARE, Existing::Refuse, 0).unwrap();
        world.run_until_quiet(Duration::from_secs(600));
        world.assert_same_trees(&[0, 1], SHARE);
        assert_eq!((peers(&mut world, 0), peers(&mut world, 1)), (1, 1));
        let Ok(Reply::Peers(list)) = world.ask(0, Command::Peers) else { panic!("no list") };
        assert_eq!(list[0].name, "n1");
    }
}

#[test]
fn a_share_is_joined_once_by_a_node() {
    const OTHER: &str = "/home/ada/Other";
    let mut world = World::new(13, 3);
    world.node(0).share(SHARE);
    let code = world.node(0).invite(SHARE);
    world.node(1).attach(&code, SHARE, Existing::Refuse, 0).unwrap();
    assert_eq!(refused(world.node(1).attach(&code, OTHER, Existing::Refuse, 0)), "joined_already");
    world.run_until_quiet(Duration::from_secs(300));
    let invite =
        Command::Invite { path: SHARE.into(), level: Level::ReadWrite, valid_for: None, multi_use: false };
    let Ok(Reply::Code { code, fingerprint }) = world.ask(0, invite) else { panic!("no code") };
    let link = Invitation { code: code.clone(), addrs: Vec::new(), fingerprint: Some(fingerprint) }.to_url();
    assert_eq!(refused(world.node(1).attach(&link, OTHER, Existing::Refuse, 0)), "joined_already");
    // The code alone does not say whose it is.
    world.node(1).attach(&code.to_text(), OTHER, Existing::Refuse, 0).unwrap();
    world.run_for(Duration::from_secs(60));
    let said = problems(&mut world, 1, OTHER);
    assert!(said.contains("has that share already") && said.contains(SHARE), "{said}");
    assert_eq!(peers(&mut world, 0), 1);
    world.node(2).attach(&code.to_text(), SHARE, Existing::Refuse, 0).unwrap();
    world.run_for(Duration::from_secs(120));
    assert_eq!(peers(&mut world, 0), 2, "the code is still good");
    assert_eq!(world.status(2).shares[0].state, ShareState::InSync);
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
