//! Computers whose clocks are wrong, changes whose author is gone, and stores that were put back from a backup, in
//! virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clearskies_core::config::RELEASED;
use clearskies_core::engine::command::{Command, Existing, Reply};
use clearskies_core::ids::{RootId, Uuid};
use clearskies_core::index::author::{WALL_MAX, WALL_SKEW_MAX_NANOS};
use clearskies_core::index::codec::PeerTable;
use clearskies_core::index::record::Record;
use clearskies_core::io::store::Space;
use clearskies_core::share::layout::{self, Fact};
use clearskies_core::share::txn::decode_stored_record;
use clearskies_tests::sim::World;
use clearskies_tests::sim::net::Conditions;
use clearskies_tests::sim::share::{SHARE, at, attach, conflict_files, names, rest_running as rest, text};

const SEEDS: std::ops::Range<u64> = 0..3;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const SECOND_NS: i64 = 1_000_000_000;
const DAY_NS: i64 = WALL_SKEW_MAX_NANOS as i64;
const YEAR_NS: i64 = 31_557_600 * SECOND_NS;

/// One machine for each clock, all joined and in step, over a line that breaks.
fn joined(seed: u64, offsets_ns: &[i64]) -> World {
    let mut world = World::new(seed, offsets_ns.len());
    world.net.conditions = Conditions::lossy();
    for (index, offset_ns) in offsets_ns.iter().enumerate() {
        world.nodes[index].clock_offset_ns = *offset_ns;
        world.restart(index);
    }
    world.node(0).share(SHARE);
    for index in 1..offsets_ns.len() {
        attach(&mut world, index, Existing::Refuse);
        rest(&mut world);
    }
    world
}

fn problems(world: &mut World, index: usize) -> String {
    world.status(index).shares[0].problems.join("\n")
}

fn doubts(world: &mut World, index: usize) -> bool {
    problems(world, index).contains("clock is not believed")
}

fn config(world: &mut World, index: usize, value: &str) {
    let write = Command::WriteSetting { key: "clock".into(), value: value.into() };
    assert_eq!(world.node(index).ask(write), Ok(Reply::Done));
}

#[test]
fn clocks_a_year_apart_lose_nothing_and_are_told() {
    for offset_ns in [-YEAR_NS, YEAR_NS] {
        let mut world = joined(1, &[0, offset_ns]);
        for (index, content) in [(0, "one"), (1, "two"), (0, "three"), (1, "four"), (0, "five")] {
            world.node(index).write(&at("a"), content.as_bytes());
            rest(&mut world);
            assert_eq!(text(&world, 1 - index, "a").as_deref(), Some(content));
        }
        assert_eq!(names(&world, 0), ["a"]);
        // Which of two is wrong nobody can tell, so both say it, and how to go on.
        for index in 0..2 {
            assert!(doubts(&mut world, index), "n{index}");
            let told = |notice: &&String| notice.contains("clearskies config clock trusted");
            assert_eq!(world.nodes[index].notices.iter().filter(told).count(), 1);
        }
        config(&mut world, 0, "trusted");
        assert!(!doubts(&mut world, 0) && doubts(&mut world, 1));
        world.restart(0);
        rest(&mut world);
        assert!(!doubts(&mut world, 0), "it is remembered");
        config(&mut world, 0, "checked");
        assert!(doubts(&mut world, 0));
        // Apart, both edit: one is kept beside the other.
        world.partition(&[0]);
        world.node(0).write(&at("a"), b"by zero");
        world.node(1).write(&at("a"), b"by one");
        world.run_for(60 * SECOND);
        world.heal();
        world.reset_all();
        rest(&mut world);
        let conflicts = conflict_files(&world, 0);
        assert_eq!(conflicts.len(), 1, "{:?}", names(&world, 0));
        let mut both = [text(&world, 0, "a"), text(&world, 0, &conflicts[0])];
        both.sort();
        assert_eq!(both, [Some("by one".to_owned()), Some("by zero".to_owned())]);
    }
}

#[test]
fn a_clock_a_year_ahead_does_not_win_even_when_alone() {
    for seed in SEEDS {
        let mut world = joined(seed, &[0, YEAR_NS, 0]);
        world.node(0).write(&at("a"), b"base");
        rest(&mut world);
        assert_eq!([0, 1, 2].map(|index| doubts(&mut world, index)), [false, true, false]);
        world.partition(&[1]);
        world.run_for(300 * SECOND);
        assert!(doubts(&mut world, 1), "a doubt outlasts the links that brought it");
        world.node(1).write(&at("a"), b"earlier");
        world.run_for(10 * SECOND);
        world.node(2).write(&at("a"), b"later");
        world.run_for(60 * SECOND);
        world.heal();
        world.reset_all();
        rest(&mut world);
        assert_eq!(text(&world, 1, "a").as_deref(), Some("later"));
        let conflicts = conflict_files(&world, 0);
        assert_eq!(conflicts.len(), 1, "{:?}", names(&world, 0));
        assert_eq!(text(&world, 0, &conflicts[0]).as_deref(), Some("earlier"));
    }
}

#[test]
fn a_day_is_the_limit() {
    // What a clock said is as old as the way that it took, so the last second is left to the unit tests.
    for (offset_ns, doubted) in [
        (DAY_NS - SECOND_NS, false),
        (DAY_NS + SECOND_NS, true),
        (SECOND_NS - DAY_NS, false),
        (-DAY_NS - SECOND_NS, true),
    ] {
        let mut world = joined(2, &[0, offset_ns]);
        assert_eq!([0, 1].map(|index| doubts(&mut world, index)), [doubted; 2], "{offset_ns}");
    }
}

#[test]
fn a_clock_that_is_set_is_believed_again() {
    let mut world = joined(3, &[0, -YEAR_NS]);
    assert!(doubts(&mut world, 0) && doubts(&mut world, 1));
    // The other side hears of it as well.
    world.nodes[1].clock_offset_ns = 0;
    world.run_for(600 * SECOND);
    assert!(!doubts(&mut world, 0) && !doubts(&mut world, 1));
    assert!(world.nodes[0].notices.iter().any(|notice| notice.contains("believed again")));
    world.node(0).write(&at("a"), b"1");
    rest(&mut world);
    assert_eq!(text(&world, 1, "a").as_deref(), Some("1"));
}

#[test]
fn a_clock_outside_the_century_is_doubted_alone_and_loses_nothing() {
    for wall_ns in [RELEASED.0 - YEAR_NS, WALL_MAX.0 + SECOND_NS] {
        let mut world = joined(4, &[0, 0]);
        world.node(0).write(&at("a"), b"base");
        rest(&mut world);
        world.crash(0);
        world.crash(1);
        world.nodes[1].clock_offset_ns = wall_ns - world.wall_ns(0);
        world.restart(1);
        world.run_for(10 * SECOND);
        assert!(doubts(&mut world, 1));
        // Nobody is connected: what it changes is dated after all that it knows, and before what comes later.
        world.node(1).write(&at("a"), b"earlier");
        world.run_for(10 * SECOND);
        world.crash(1);
        world.node(0).write(&at("a"), b"later");
        world.restart(0);
        world.run_for(10 * SECOND);
        world.nodes[1].clock_offset_ns = 0;
        world.restart(1);
        rest(&mut world);
        assert!(!doubts(&mut world, 1));
        assert_eq!(text(&world, 1, "a").as_deref(), Some("later"));
        assert_eq!(conflict_files(&world, 0).len(), 1, "{:?}", names(&world, 0));
    }
}

/// Three machines of which the last has deleted 30 files and was switched off before it could say that this was all:
/// the others hold some of it, and do not know what is missing.
fn cut_off(seed: u64) -> World {
    let mut world = joined(seed, &[0, 0, 0]);
    for index in 0..30 {
        world.node(0).write(&at(&format!("{index:02}")), b"x");
    }
    // A folder that is emptied is another matter.
    world.node(0).write(&at("stays"), b"x");
    rest(&mut world);
    go_in_the_middle(&mut world, |world| {
        for index in 0..30 {
            world.node(2).remove(&at(&format!("{index:02}")));
        }
    });
    world
}

/// Has the last of three machines, which hears the second alone, go for good while it tells of what `act` does.
fn go_in_the_middle(world: &mut World, act: impl FnOnce(&mut World)) {
    // Compressed, all of it would come at once.
    for node in &mut world.nodes {
        node.engine.as_mut().expect("it runs").compress("never");
    }
    world.net.block(0, 2);
    world.net.block(2, 0);
    world.reset_all();
    world.run_for(120 * SECOND);
    world.net.conditions =
        Conditions { bytes_per_second: 4000, piece_bytes_max: 400, ..Conditions::default() };
    act(world);
    while world.nodes[1].store.live().rows(Space::Pending) == 0 {
        assert!(world.step());
    }
    world.crash(2);
    // What was on its way is lost as well.
    world.reset_all();
    world.net.conditions = Conditions::default();
    world.heal();
}

fn why(world: &mut World, index: usize, path: &str) -> String {
    match world.node(index).ask(Command::Why { path: at(path) }) {
        Ok(Reply::Why(reasons)) => reasons.join("\n"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn half_of_what_an_absent_author_did_waits_for_an_hour() {
    for seed in SEEDS {
        let mut world = cut_off(seed);
        world.run_for(59 * MINUTE);
        for index in 0..2 {
            assert_eq!(names(&world, index).len(), 31, "n{index} waits");
            let told = problems(&mut world, index);
            assert!(told.contains("Changes of n2") && told.contains("minute"), "{told}");
            let reasons: Vec<String> =
                (0..30).map(|path| why(&mut world, index, &format!("{path:02}"))).collect();
            let waiting = reasons.iter().filter(|why| why.contains("n2 is not connected")).count();
            assert!(waiting > 0, "{reasons:?}");
        }
        world.run_for(2 * MINUTE);
        for index in 0..2 {
            assert!(names(&world, index).len() < 31, "n{index} goes on");
            assert_eq!(problems(&mut world, index), "");
        }
        world.assert_same_trees(&[0, 1], SHARE);
        world.restart(2);
        rest(&mut world);
        assert_eq!(names(&world, 0), ["stays"]);
    }
}

#[test]
fn two_equal_files_of_one_name_say_what_they_wait_for() {
    for seed in SEEDS {
        let mut world = joined(seed, &[0, 0, 0]);
        world.node(0).write(&at("stays"), b"x");
        rest(&mut world);
        go_in_the_middle(&mut world, |world| {
            for index in 0..30 {
                world.node(1).write(&at(&format!("{index:02}")), b"same");
                world.node(2).write(&at(&format!("{index:02}")), b"same");
            }
        });
        world.run_for(30 * MINUTE);
        let store = world.nodes[1].store.live();
        let pending: Vec<_> =
            store.iter(Space::Pending).filter_map(|(key, _)| layout::path_of_key(key)).collect();
        assert!(!pending.is_empty());
        for path in pending {
            let told = why(&mut world, 1, path.as_str());
            assert!(told.contains("n2 is not connected") && !told.contains("in step"), "{told}");
        }
        world.run_for(31 * MINUTE);
        assert_eq!(world.nodes[1].store.live().rows(Space::Pending), 0);
        world.restart(2);
        rest(&mut world);
        assert_eq!(names(&world, 2).len(), 31);
    }
}

#[test]
fn what_was_waited_for_goes_on_as_soon_as_it_comes() {
    let mut world = cut_off(7);
    world.run_for(30 * MINUTE);
    assert_eq!(names(&world, 0).len(), 31);
    world.restart(2);
    rest(&mut world);
    assert_eq!(names(&world, 0), ["stays"]);
}

/// A machine whose whole home was put back from a backup, beside the folder as it was then; `between` is what happens
/// after the backup, `meanwhile` what the users do before the machine meets anybody again.
fn restored(
    seed: u64,
    between: impl FnOnce(&mut World),
    folder: impl FnOnce(&mut World),
    meanwhile: impl FnOnce(&mut World),
) -> World {
    let mut world = joined(seed, &[0, 0, 0]);
    for name in ["both", "deleted", "kept", "moved", "theirs"] {
        world.node(1).write(&at(name), b"base");
    }
    rest(&mut world);
    let yesterday = world.nodes[1].home_backup();
    between(&mut world);
    rest(&mut world);
    world.crash(1);
    world.nodes[1].put_home_back(yesterday);
    folder(&mut world);
    world.partition(&[1]);
    world.restart(1);
    world.run_for(60 * SECOND);
    meanwhile(&mut world);
    world.run_for(60 * SECOND);
    world.heal();
    world.reset_all();
    rest(&mut world);
    // All have what there is, perhaps by way of others: those that were sent away dial again.
    world.run_for(60 * SECOND);
    world
}

/// The contents of all files of the share.
fn contents(world: &World, index: usize) -> Vec<String> {
    let mut all: Vec<String> =
        names(world, index).iter().filter_map(|name| text(world, index, name)).collect();
    all.sort();
    all
}

/// What a machine's database holds, by record.
fn records(world: &World, index: usize) -> BTreeMap<Uuid, Record> {
    let store = world.nodes[index].store.live();
    let key = layout::fact_key(RootId(1), Fact::Peers);
    let (_, table) = store.iter(Space::Meta).find(|(found, _)| **found == key).expect("it has met peers");
    let peers = PeerTable::decode(table).expect("it wrote the table itself");
    let rows = store.iter(Space::Record).map(|(_, row)| decode_stored_record(row, &peers).expect("whole").0);
    rows.map(|record| (record.uuid, record)).collect()
}

/// Fails unless all databases are the same, and no number of a change names two of them.
fn assert_same_records(world: &World, indexes: &[usize]) {
    let all: Vec<_> = indexes.iter().map(|index| records(world, *index)).collect();
    for pair in all.windows(2) {
        for (uuid, record) in &pair[0] {
            assert_eq!(Some(record), pair[1].get(uuid));
        }
        assert_eq!(pair[0].len(), pair[1].len());
    }
    let dots: BTreeSet<_> = all[0].values().map(|record| (record.update.peer, record.update.rev)).collect();
    assert_eq!(dots.len(), all[0].len());
}

fn own_ids(world: &mut World, index: usize, of: &str) -> usize {
    match world.node(index).ask(Command::Peers) {
        Ok(Reply::Peers(peers)) => peers.iter().filter(|peer| peer.name == of).count(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_home_of_yesterday_takes_a_new_identity_and_nothing_is_lost() {
    for seed in SEEDS {
        let mut world = restored(
            seed,
            |world| {
                world.node(1).write(&at("both"), b"lost edit");
                world.node(1).write(&at("deleted"), b"lost edit of what is deleted");
                world.node(1).write(&at("new"), b"lost file");
                world.node(1).write(&at("more"), b"lost too");
                world.node(1).write(&at("most"), b"lost three");
            },
            |world| {
                for name in ["new", "more", "most"] {
                    world.node(1).remove(&at(name));
                }
                for name in ["both", "deleted"] {
                    world.node(1).write(&at(name), b"base");
                }
            },
            |world| {
                world.node(1).write(&at("both"), b"new edit");
                world.node(1).remove(&at("deleted"));
                world.node(0).write(&at("theirs"), b"their edit");
            },
        );
        assert!(world.nodes[1].notices.iter().any(|notice| notice.contains("new identity")));
        assert_eq!(own_ids(&mut world, 0, "n1"), 2, "the old and the new one");
        world.assert_same_trees(&[0, 1, 2], SHARE);
        assert_same_records(&world, &[0, 1, 2]);
        let all = contents(&world, 2);
        for content in [
            "base",
            "lost edit",
            "new edit",
            "lost edit of what is deleted",
            "lost file",
            "lost too",
            "lost three",
            "their edit",
        ] {
            assert!(all.iter().any(|kept| kept == content), "{content}: {:?} {all:?}", names(&world, 2));
        }
        assert_eq!(conflict_files(&world, 0).len(), 1, "{:?}", names(&world, 0));
        // It goes on as any other, in both directions, also after a start.
        world.restart(1);
        rest(&mut world);
        assert_eq!(own_ids(&mut world, 0, "n1"), 2, "once");
        world.node(1).write(&at("both"), b"after");
        world.node(2).rename(&at("kept"), &at("kept on"));
        rest(&mut world);
        world.node(1).remove(&at("new"));
        rest(&mut world);
        assert_eq!(text(&world, 0, "both").as_deref(), Some("after"));
        assert!(!names(&world, 2).iter().any(|name| name == "new" || name == "kept"));
        assert!(names(&world, 1).iter().any(|name| name == "kept on"));
    }
}

#[test]
fn a_home_of_yesterday_that_wrote_as_much_again_takes_a_new_identity() {
    // What it writes alone takes the very numbers of what it lost, or goes beyond them.
    for (seed, count) in (0..3).flat_map(|seed| [(seed, 1), (seed, 2), (seed, 5)]) {
        let mut world = restored(
            seed,
            |world| {
                world.node(1).write(&at("both"), b"lost edit");
                world.node(1).write(&at("new"), b"lost file");
            },
            |world| {
                world.node(1).remove(&at("new"));
                world.node(1).write(&at("both"), b"base");
            },
            |world| (0..count).for_each(|n| world.node(1).write(&at(&format!("again {n}")), b"new")),
        );
        assert!(world.nodes[1].notices.iter().any(|notice| notice.contains("new identity")), "{count}");
        world.assert_same_trees(&[0, 1, 2], SHARE);
        assert_same_records(&world, &[0, 1, 2]);
        let all = contents(&world, 1);
        for content in ["lost edit", "lost file", "new"] {
            assert!(all.iter().any(|kept| kept == content), "{count} {content}: {:?}", names(&world, 1));
        }
        assert_eq!(names(&world, 0).iter().filter(|name| name.starts_with("again")).count(), count);
        assert_eq!(own_ids(&mut world, 0, "n1"), 2, "once");
    }
}

#[test]
fn a_home_of_yesterday_beside_the_folder_of_today_changes_nothing() {
    for seed in SEEDS {
        let edits = |world: &mut World| {
            for name in ["both", "new", "more", "most"] {
                world.node(1).write(&at(name), name.as_bytes());
            }
            world.node(1).rename(&at("moved"), &at("moved on"));
            world.node(1).remove(&at("deleted"));
        };
        let world = restored(seed, edits, |_| {}, |_| {});
        assert_eq!(names(&world, 0), ["both", "kept", "more", "most", "moved on", "new", "theirs"]);
        assert_eq!(text(&world, 0, "both").as_deref(), Some("both"));
    }
}

#[test]
fn what_a_restored_home_told_before_reaches_everybody() {
    // The others are apart from each other: the one that is met first knows little and is told more under numbers that
    // were used, and only then the one comes that knows what was lost.
    for seed in SEEDS {
        let mut world = joined(seed, &[0, 0, 0]);
        world.node(1).write(&at("both"), b"base");
        rest(&mut world);
        let yesterday = world.nodes[1].home_backup();
        world.partition(&[2]);
        for name in ["both", "x", "y", "z"] {
            world.node(1).write(&at(name), format!("lost {name}").as_bytes());
        }
        world.run_for(120 * SECOND);
        world.crash(1);
        world.nodes[1].put_home_back(yesterday);
        for name in ["x", "y", "z"] {
            world.node(1).remove(&at(name));
        }
        world.node(1).write(&at("both"), b"base");
        world.heal();
        world.crash(0);
        world.restart(1);
        world.run_for(120 * SECOND);
        world.node(1).write(&at("both"), b"told to two");
        world.node(1).write(&at("w"), b"told to two as well");
        world.run_for(300 * SECOND);
        assert_eq!(text(&world, 2, "both").as_deref(), Some("told to two"));
        world.restart(0);
        rest(&mut world);
        world.assert_same_trees(&[0, 1, 2], SHARE);
        assert_same_records(&world, &[0, 1, 2]);
        let all = contents(&world, 0);
        for content in ["lost both", "lost x", "lost y", "lost z", "told to two", "told to two as well"] {
            assert!(all.iter().any(|kept| kept == content), "{content}: {:?} {all:?}", names(&world, 0));
        }
    }
}

#[test]
fn a_new_identity_goes_on_after_a_kill_where_it_was() {
    const LOST: u32 = 320;
    const MADE: u32 = 300;
    for (seed, wait) in [(0, 0), (1, 1), (2, 3), (3, 10)] {
        let mut world = joined(seed, &[0, 0]);
        world.net.conditions = Conditions::default();
        world.node(1).write(&at("base"), b"base");
        rest(&mut world);
        let yesterday = world.nodes[1].home_backup();
        for index in 0..LOST {
            world.node(1).write(&at(&format!("lost {index}")), format!("lost {index}").as_bytes());
        }
        rest(&mut world);
        world.crash(1);
        world.nodes[1].put_home_back(yesterday);
        for index in 0..LOST {
            world.node(1).remove(&at(&format!("lost {index}")));
        }
        world.partition(&[1]);
        world.restart(1);
        world.run_for(60 * SECOND);
        for index in 0..MADE {
            world.node(1).write(&at(&format!("made {index}")), format!("made {index}").as_bytes());
        }
        world.run_for(60 * SECOND);
        // It has met nobody, so this start is no new beginning.
        world.restart(1);
        world.run_for(10 * SECOND);
        world.heal();
        world.reset_all();
        while !world.nodes[1].notices.iter().any(|notice| notice.contains("new identity")) {
            assert!(world.step());
        }
        world.run_for(Duration::from_millis(wait));
        world.crash(1);
        world.restart(1);
        rest(&mut world);
        assert_same_records(&world, &[0, 1]);
        assert_eq!(names(&world, 0).len(), (LOST + MADE + 1) as usize);
        assert_eq!(own_ids(&mut world, 0, "n1"), 2, "once");
    }
}

#[test]
fn a_copied_home_loses_nothing() {
    for seed in SEEDS {
        let mut world = World::new(seed, 3);
        world.net.conditions = Conditions::lossy();
        world.crash(2);
        world.node(0).share(SHARE);
        let code = world.node(0).invite(SHARE);
        assert!(world.node(1).attach(&code, SHARE, Existing::Refuse, 0).is_ok());
        world.node(1).write(&at("both"), b"base");
        rest(&mut world);
        world.crash(1);
        let home = world.nodes[1].home_backup();
        world.nodes[2].put_home_back(home);
        for path in ["both", ".clearskies/share"] {
            let content = world.nodes[1].disk.read_file(&at(path)).unwrap();
            world.node(2).mkdir(&at(".clearskies/tmp"));
            world.node(2).write(&at(path), &content);
        }
        for index in 0..3 {
            world.partition(&[index]);
        }
        for index in 1..3 {
            world.restart(index);
            world.run_for(60 * SECOND);
            world.node(index).write(&at("both"), format!("by {index}").as_bytes());
            world.node(index).write(&at(&format!("new {index}")), b"new");
            world.run_for(60 * SECOND);
        }
        // The copies meet before they tell anybody else.
        world.heal();
        world.partition(&[0]);
        let addr = world.nodes[1].addr();
        assert_eq!(world.node(2).ask(Command::Connect { addr }), Ok(Reply::Done));
        world.run_for(300 * SECOND);
        for index in 1..3 {
            let told = |notice: &String| notice.contains("was copied to another one");
            assert!(world.nodes[index].notices.iter().any(told), "n{index}");
        }
        world.heal();
        world.reset_all();
        rest(&mut world);
        assert_same_records(&world, &[0, 1, 2]);
        let all = contents(&world, 0);
        assert_eq!(all, ["by 1", "by 2", "new", "new"], "{:?}", names(&world, 0));
    }
}

#[test]
fn no_kill_and_no_cut_line_takes_the_identity() {
    for seed in 0..12 {
        let mut world = joined(seed, &[0, 0]);
        for round in 0..12u32 {
            let index = usize::from(world.below(2) == 0);
            world.crash(index);
            world.start(index);
            for file in 0..40 {
                world.node(index).write(&at(&format!("{file}")), format!("{round}").as_bytes());
            }
            // The line is cut while the first words are said, or what changed is told.
            for _ in 0..3 {
                let wait = Duration::from_millis(world.below(900));
                world.run_for(wait);
                world.reset_all();
            }
        }
        rest(&mut world);
        for node in &world.nodes {
            let renewed = node.notices.iter().find(|notice| notice.contains("new identity"));
            assert_eq!(renewed, None, "seed {seed}\n{}", world.trace.tail(4000));
        }
    }
}
