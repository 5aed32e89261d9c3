//! How a folder becomes part of a share.

use clearskies_core::engine::command::{Command, Existing, Reply};
use clearskies_tests::sim::World;
use clearskies_tests::sim::share::{SHARE, at, conflict_files, names, rest_running as rest, text};
use clearskies_tests::sim::users::Item;

use crate::{SECOND, tree};

#[test]
fn a_folder_with_contents_needs_a_decision() {
    for existing in [Existing::Refuse, Existing::Merge, Existing::Replace] {
        let mut world = World::new(7, 2);
        for (index, name, content) in [
            (0, "both", "zero's"),
            (0, "equal", "="),
            (0, "only 0", "0"),
            (1, "both", "one's"),
            (1, "equal", "="),
            (1, "only 1", "1"),
        ] {
            world.node(index).mkdir(SHARE);
            world.node(index).write(&at(name), content.as_bytes());
        }
        world.node(0).share(SHARE);
        let code = world.node(0).invite(SHARE);
        let done = world.node(1).attach(&code, SHARE, existing, 0);
        if existing == Existing::Refuse {
            assert!(done.is_err(), "{done:?}");
            assert_eq!(names(&world, 1), ["both", "equal", "only 1"]);
            continue;
        }
        assert!(done.is_ok(), "{done:?}");
        rest(&mut world);
        if existing == Existing::Merge {
            assert_eq!(names(&world, 0).len(), 5, "{:?}", names(&world, 0));
            assert_eq!(conflict_files(&world, 0).len(), 1);
            let all: Vec<Item> = tree(&world, 0).into_values().collect();
            for content in ["zero's", "one's", "=", "0", "1"] {
                let count =
                    all.iter().filter(|i| matches!(i, Item::File(_, d) if d == content.as_bytes())).count();
                assert_eq!(count, 1, "{content}");
            }
        } else {
            assert_eq!(names(&world, 0), ["both", "equal", "only 0"]);
            assert_eq!(text(&world, 1, "both").as_deref(), Some("zero's"));
            let kept = world.nodes[1].disk.archive(SHARE);
            assert!(kept.contains(&("both".into(), b"one's".to_vec())), "{kept:?}");
            assert!(kept.contains(&("only 1".into(), b"1".to_vec())), "{kept:?}");
        }
    }
}

#[test]
fn codes_are_checked_and_spent() {
    let mut world = World::new(8, 3);
    world.node(0).share(SHARE);
    let code = world.node(0).invite(SHARE);
    let mut typo: Vec<char> = code.chars().collect();
    let last = typo.len() - 1;
    typo[last] = if typo[last] == 'A' { 'C' } else { 'A' };
    let typo: String = typo.into_iter().collect();
    let sent = world.net.bytes_sent;
    assert!(world.node(1).attach(&typo, SHARE, Existing::Refuse, 0).is_err());
    assert_eq!(world.net.bytes_sent, sent, "before any network use");

    let relaxed = code.to_lowercase().replace('o', "0").replace('l', "1");
    assert!(world.node(1).attach(&relaxed, SHARE, Existing::Refuse, 0).is_ok());
    world.node(0).write(&at("a"), b"1");
    world.run_for(300 * SECOND);
    assert_eq!(text(&world, 1, "a").as_deref(), Some("1"));
    // Spent: it lets nobody else in, and says nothing.
    let _ = world.node(2).attach(&code, SHARE, Existing::Refuse, 0);
    world.run_for(600 * SECOND);
    assert_eq!(names(&world, 2), [] as [String; 0]);
}

#[test]
fn a_code_lasts_a_day() {
    for (hours, joins) in [(23, true), (25, false)] {
        let mut world = World::new(81, 2);
        world.node(0).share(SHARE);
        world.node(0).write(&at("a"), b"1");
        let code = world.node(0).invite(SHARE);
        world.run_for(hours * 3600 * SECOND);
        let _ = world.node(1).attach(&code, SHARE, Existing::Refuse, 0);
        world.run_for(300 * SECOND);
        assert_eq!(text(&world, 1, "a").is_some(), joins, "{hours} hours");
        let problems = world.status(1).shares[0].problems.join("\n");
        assert_eq!(problems.contains("does not take the access code"), !joins, "{hours} hours: {problems}");
    }
}

#[test]
fn nested_shares_and_missing_folders_are_refused() {
    let mut world = World::new(9, 1);
    world.node(0).share(SHARE);
    world.node(0).mkdir(&at("inner"));
    world.node(0).write("/file", b"x");
    world.node(0).mkdir("/above/below");
    for path in ["/none", "/file", "/share/inner", "/", "relative"] {
        let done = world.node(0).ask(Command::CreateShare { path: path.into() });
        let error = done.expect_err(path);
        assert!(error.message.len() > 10 && error.code != "no_answer", "{path}: {error:?}");
    }
    let again = world.node(0).ask(Command::CreateShare { path: SHARE.into() });
    assert!(matches!(again, Ok(Reply::Share { new: false, .. })), "{again:?}");
    world.node(0).share("/above/below");
    assert!(world.node(0).ask(Command::CreateShare { path: "/above".into() }).is_err());
    assert_eq!(world.node(0).ask(Command::Detach { path: "/above/below".into() }), Ok(Reply::Done));
    assert_eq!(world.status(0).shares.len(), 1);
}

/// The first machine lets two others in, and is gone before it has told either of them anything.
#[test]
fn who_knows_of_nothing_is_no_measure_for_another_for_an_hour() {
    for comes_back in [true, false] {
        let mut world = World::new(82, 3);
        world.node(0).share(SHARE);
        world.node(0).write(&at("known"), b"0");
        world.run_for(10 * SECOND);
        for index in [1, 2] {
            world.node(index).mkdir(SHARE);
            world.node(index).write(&at(&format!("of {index}")), b"1");
            let code = world.node(0).invite(SHARE);
            let peers = [0, 3 - index].map(|known| world.nodes[known].addr()).to_vec();
            let attach = Command::Attach { code, path: SHARE.into(), existing: Existing::Merge, peers };
            assert!(world.node(index).ask(attach).is_ok());
            let joined = format!("n{index} says: Joined");
            let has_joined = |world: &World| world.trace.tail(20).contains(&joined);
            assert!((0..1000).any(|_| has_joined(&world) || !world.step()) && has_joined(&world));
            world.partition(&[index]);
        }
        world.crash(0);
        world.heal();
        world.run_for(3500 * SECOND);
        let own = |index: usize| vec![format!("of {index}")];
        assert_eq!([1, 2].map(|index| names(&world, index)), [1, 2].map(own));
        let status = world.status(1).shares.remove(0);
        assert_eq!(status.peers_connected, 1, "they have met");
        assert!(status.problems.iter().any(|why| why.contains("in 3 minutes")), "{status:?}");
        if comes_back {
            world.start(0);
        }
        world.run_for(200 * SECOND);
        let all = if comes_back { vec!["known", "of 1", "of 2"] } else { vec!["of 1", "of 2"] };
        assert_eq!([1, 2].map(|index| names(&world, index)), [&all, &all].map(Clone::clone), "{comes_back}");
    }
}
