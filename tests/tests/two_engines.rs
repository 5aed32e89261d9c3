//! What two and three computers do with a folder, in virtual time over a slow line that breaks: the main job, and
//! what it must withstand. Each case runs for a few seeds; `SIM_TRACE=1` prints the log.

use std::time::Duration;

use clearskies_core::engine::command::{Command, Existing, Reply, ShareState};
use clearskies_core::io::DiskError;
use clearskies_tests::sim::World;
use clearskies_tests::sim::disk::Fault;
use clearskies_tests::sim::fs::Body;
use clearskies_tests::sim::net::Conditions;
use clearskies_tests::sim::share::{self, SHARE, at, conflict_files, names, rest_running as rest, text};
use clearskies_tests::sim::store::Image;
use clearskies_tests::sim::users::{Item, Tree};

const SEEDS: std::ops::Range<u64> = 0..3;
const SECOND: Duration = Duration::from_secs(1);
const YEAR_NS: i64 = 31_557_600 * 1_000_000_000;

/// `count` machines with one share, all joined and in step, over a line that breaks.
fn joined(seed: u64, count: usize) -> World {
    let mut world = World::new(seed, count);
    world.net.conditions = Conditions::lossy();
    world.node(0).share(SHARE);
    for index in 1..count {
        attach(&mut world, index, Existing::Refuse);
    }
    world
}

fn attach(world: &mut World, index: usize, existing: Existing) {
    share::attach(world, index, existing);
    rest(world);
}

fn tree(world: &World, index: usize) -> Tree {
    world.nodes[index].disk.tree(SHARE)
}

/// Takes one machine down, lets the other and then it change things, and brings both together again.
fn apart(world: &mut World, here: impl FnOnce(&mut World), there: impl FnOnce(&mut World)) {
    world.crash(1);
    here(world);
    world.run_for(10 * SECOND);
    there(world);
    world.run_for(10 * SECOND);
    world.restart(1);
    rest(world);
}

#[test]
fn what_one_side_makes_is_on_the_other() {
    for seed in SEEDS {
        let mut world = joined(seed, 2);
        let large: Vec<u8> = (0..600_000u32).flat_map(u32::to_le_bytes).collect();
        world.node(0).write(&at("a"), b"from 0");
        world.node(0).write(&at("empty"), b"");
        world.node(1).mkdir(&at("dir/deep/none"));
        world.node(1).write(&at("dir/deep/b"), b"from 1");
        world.node(1).write(&at("large"), &large);
        world.node(0).symlink(&at("link"), "dir/deep");
        world.node(0).write(&at("naïve ☂ name"), b"umbrella");
        rest(&mut world);
        assert_eq!(text(&world, 1, "a").as_deref(), Some("from 0"));
        assert_eq!(text(&world, 0, "dir/deep/b").as_deref(), Some("from 1"));
        assert_eq!(world.nodes[0].disk.read_file(&at("large")), Some(large));
        assert_eq!(tree(&world, 1).get("link"), Some(&Item::Link("dir/deep".into())));
        assert_eq!(names(&world, 0).len(), 9);
    }
}

#[test]
fn what_was_there_before_is_shared_too() {
    for seed in SEEDS {
        let mut world = World::new(seed, 2);
        world.node(0).mkdir(&at("old"));
        for index in 0..200 {
            world.node(0).write(&at(&format!("old/{index}")), format!("content {index}").as_bytes());
        }
        world.node(0).share(SHARE);
        attach(&mut world, 1, Existing::Refuse);
        assert_eq!(names(&world, 1).len(), 201);
    }
}

#[test]
fn a_change_is_on_the_other_side_within_seconds() {
    let mut world = joined(1, 2);
    world.net.conditions = Conditions::default();
    world.node(0).write(&at("a"), b"1");
    rest(&mut world);
    for (side, other, content) in [(0, 1, "two"), (1, 0, "three"), (0, 1, "four")] {
        world.node(side).save(&at("a"), content.as_bytes());
        world.run_for(2 * SECOND);
        assert_eq!(text(&world, other, "a").as_deref(), Some(content));
    }
}

#[test]
fn edits_deletes_renames_and_modes_follow() {
    for seed in SEEDS {
        let mut world = joined(seed, 2);
        for name in ["edited", "saved", "deleted", "renamed", "mode", "grown"] {
            world.node(0).write(&at(name), name.as_bytes());
        }
        world.node(0).mkdir(&at("dir"));
        world.node(0).write(&at("dir/child"), b"child");
        rest(&mut world);
        world.node(1).write(&at("edited"), b"edited by 1");
        world.node(0).save(&at("saved"), b"saved by 0");
        world.node(1).remove(&at("deleted"));
        world.node(0).rename(&at("renamed"), &at("new name"));
        world.node(1).chmod(&at("mode"), 0o755);
        world.node(0).append(&at("grown"), b" and more");
        world.node(1).rename(&at("dir"), &at("moved"));
        rest(&mut world);
        let expected = ["edited", "grown", "mode", "moved", "moved/child", "new name", "saved"];
        assert_eq!(names(&world, 0), expected);
        assert_eq!(text(&world, 0, "edited").as_deref(), Some("edited by 1"));
        assert_eq!(text(&world, 1, "saved").as_deref(), Some("saved by 0"));
        assert_eq!(text(&world, 1, "grown").as_deref(), Some("grown and more"));
        assert!(matches!(tree(&world, 0).get("mode"), Some(Item::File(0o755, _))));
        world.node(0).remove(&at("moved"));
        rest(&mut world);
        assert!(!names(&world, 1).iter().any(|name| name.starts_with("moved")));
    }
}

#[test]
fn what_is_replaced_or_deleted_is_in_the_archive() {
    let mut world = joined(2, 2);
    world.node(0).write(&at("a"), b"first");
    world.node(0).write(&at("b"), b"deleted later");
    rest(&mut world);
    world.node(0).write(&at("a"), b"second");
    world.node(0).remove(&at("b"));
    rest(&mut world);
    let kept = world.nodes[1].disk.archive(SHARE);
    assert!(kept.contains(&("a".into(), b"first".to_vec())), "{kept:?}");
    assert!(kept.contains(&("b".into(), b"deleted later".to_vec())), "{kept:?}");
    let back = world.node(1).ask(Command::Restore { path: at("b"), folder: None });
    assert!(matches!(back, Ok(Reply::Restored { .. })), "{back:?}");
    rest(&mut world);
    assert_eq!(text(&world, 0, "b").as_deref(), Some("deleted later"));
}

#[test]
fn a_renamed_folder_sends_no_content() {
    let mut world = joined(3, 2);
    world.net.conditions = Conditions::default();
    world.node(0).mkdir(&at("dir"));
    for index in 0..30u8 {
        world.node(0).write(&at(&format!("dir/{index}")), &[index; 100_000]);
    }
    rest(&mut world);
    let before = world.net.bytes_sent;
    world.node(0).rename(&at("dir"), &at("other"));
    rest(&mut world);
    assert_eq!(names(&world, 1).len(), 31);
    assert!(text(&world, 1, "other/7").is_some());
    let sent = world.net.bytes_sent - before;
    assert!(sent < 200_000, "{sent} bytes for a rename of 3 MB");
}

#[test]
fn at_rest_nothing_is_written_and_little_is_sent() {
    let mut world = joined(4, 2);
    world.net.conditions = Conditions::default();
    for index in 0..50 {
        world.node(index % 2).write(&at(&format!("{index}")), b"x");
    }
    rest(&mut world);
    let changes = |world: &World| -> Vec<(u64, u64)> {
        world.nodes.iter().map(|node| (node.disk.changes, node.disk.hashes)).collect()
    };
    // Stamps that were too young are looked at once more, by the next scan.
    world.run_for(3 * 3600 * SECOND);
    let (before, sent) = (changes(&world), world.net.bytes_sent);
    world.run_for(6 * 3600 * SECOND);
    assert_eq!(changes(&world), before, "no disk write and no hash in six hours");
    assert!(world.net.bytes_sent - sent < 600_000, "{} bytes in six hours", world.net.bytes_sent - sent);
}

#[test]
fn edits_of_both_make_one_conflict_file() {
    for seed in SEEDS {
        let mut world = joined(seed, 2);
        world.node(0).write(&at("note.txt"), b"base");
        rest(&mut world);
        apart(
            &mut world,
            |world| world.node(0).write(&at("note.txt"), b"by zero"),
            |world| world.node(1).write(&at("note.txt"), b"by one, and later"),
        );
        let conflicts = conflict_files(&world, 0);
        assert_eq!(conflicts.len(), 1, "{:?}", names(&world, 0));
        assert!(
            conflicts[0].starts_with("note.CONFLICT.") && conflicts[0].ends_with(".txt"),
            "{conflicts:?}"
        );
        assert_eq!(conflicts, conflict_files(&world, 1));
        assert_eq!(text(&world, 0, "note.txt").as_deref(), Some("by one, and later"));
        assert_eq!(text(&world, 0, &conflicts[0]).as_deref(), Some("by zero"));
        for index in 0..2 {
            match world.node(index).ask(Command::Conflicts { path: None }) {
                Ok(Reply::Conflicts(listed)) => {
                    assert_eq!(listed.len(), 1);
                    assert_eq!(
                        (listed[0].path.as_str(), listed[0].original.as_str()),
                        (at(&conflicts[0]).as_str(), at("note.txt").as_str(),)
                    );
                }
                other => panic!("{other:?}"),
            }
        }
        let keep = Command::Resolve { path: at(&conflicts[0]), keep: true };
        assert_eq!(world.node(1).ask(keep), Ok(Reply::Done));
        rest(&mut world);
        assert_eq!(names(&world, 0), ["note.txt"]);
        assert_eq!(text(&world, 0, "note.txt").as_deref(), Some("by zero"));
    }
}

#[test]
fn the_same_content_is_no_conflict() {
    for seed in SEEDS {
        let mut world = joined(seed, 2);
        world.node(0).write(&at("a"), b"base");
        rest(&mut world);
        apart(
            &mut world,
            |world| {
                world.node(0).write(&at("a"), b"equal");
                world.node(0).write(&at("new"), b"equal too");
            },
            |world| {
                world.node(1).write(&at("a"), b"equal");
                world.node(1).write(&at("new"), b"equal too");
            },
        );
        assert_eq!(names(&world, 1), ["a", "new"]);
    }
}

#[test]
fn two_new_files_of_one_name_are_both_kept() {
    for seed in SEEDS {
        let mut world = joined(seed, 2);
        apart(
            &mut world,
            |world| world.node(0).write(&at("a"), b"zero's"),
            |world| world.node(1).write(&at("a"), b"one's"),
        );
        let conflicts = conflict_files(&world, 0);
        assert_eq!(conflicts.len(), 1, "{:?}", names(&world, 0));
        let mut both = vec![text(&world, 0, "a"), text(&world, 0, &conflicts[0])];
        both.sort();
        assert_eq!(both, [Some("one's".to_owned()), Some("zero's".to_owned())]);
    }
}

#[test]
fn an_edit_beats_a_delete() {
    for seed in SEEDS {
        let mut world = joined(seed, 2);
        for name in ["a", "b"] {
            world.node(0).write(&at(name), b"base");
        }
        rest(&mut world);
        apart(
            &mut world,
            |world| {
                world.node(0).remove(&at("a"));
                world.node(0).write(&at("b"), b"edited");
            },
            |world| {
                world.node(1).write(&at("a"), b"edited");
                world.node(1).remove(&at("b"));
            },
        );
        assert_eq!(names(&world, 0), ["a", "b"]);
        assert_eq!(text(&world, 0, "a").as_deref(), Some("edited"));
        assert_eq!(text(&world, 1, "b").as_deref(), Some("edited"));
    }
}

#[test]
fn a_mode_a_move_and_an_edit_all_survive() {
    for seed in SEEDS {
        let mut world = joined(seed, 2);
        for name in ["a", "b"] {
            world.node(0).write(&at(name), name.as_bytes());
        }
        rest(&mut world);
        apart(
            &mut world,
            |world| {
                world.node(0).write(&at("a"), b"edited");
                world.node(0).rename(&at("b"), &at("moved"));
            },
            |world| {
                world.node(1).chmod(&at("a"), 0o700);
                world.node(1).write(&at("b"), b"edited too");
            },
        );
        assert_eq!(names(&world, 0), ["a", "moved"]);
        assert_eq!(tree(&world, 0).get("a"), Some(&Item::File(0o700, b"edited".to_vec())));
        assert_eq!(text(&world, 0, "moved").as_deref(), Some("edited too"));
    }
}

#[test]
fn two_files_change_places() {
    for seed in SEEDS {
        let mut world = joined(seed, 2);
        world.node(0).write(&at("a"), b"was a");
        world.node(0).write(&at("b"), b"was b");
        rest(&mut world);
        let swap = |world: &mut World| {
            world.node(0).disk(|disk, now| disk.swap(now, &at("a"), &at("b"))).unwrap();
        };
        swap(&mut world);
        rest(&mut world);
        assert_eq!(names(&world, 1), ["a", "b"]);
        assert_eq!(text(&world, 1, "a").as_deref(), Some("was b"));
        apart(&mut world, swap, |_| {});
        assert_eq!(text(&world, 1, "a").as_deref(), Some("was a"));
    }
}

#[test]
fn a_file_against_a_directory_loses_nothing() {
    for seed in SEEDS {
        let mut world = joined(seed, 2);
        apart(
            &mut world,
            |world| world.node(0).write(&at("x"), b"a file"),
            |world| {
                world.node(1).mkdir(&at("x"));
                world.node(1).write(&at("x/inner"), b"a directory's");
            },
        );
        assert_eq!(text(&world, 0, "x/inner").as_deref(), Some("a directory's"));
        let kept = names(&world, 0).iter().any(|name| text(&world, 0, name).as_deref() == Some("a file"));
        assert!(kept, "{:?}", names(&world, 0));
    }
}

#[test]
fn directories_moved_into_each_other_stay_a_tree() {
    for seed in SEEDS {
        let mut world = joined(seed, 2);
        for dir in ["a", "b"] {
            world.node(0).mkdir(&at(dir));
            world.node(0).write(&at(&format!("{dir}/{dir}.txt")), dir.as_bytes());
        }
        rest(&mut world);
        apart(
            &mut world,
            |world| world.node(0).rename(&at("a"), &at("b/a")),
            |world| world.node(1).rename(&at("b"), &at("a/b")),
        );
        let files = |wanted: &str| {
            tree(&world, 0)
                .values()
                .filter(|item| matches!(item, Item::File(_, data) if data == wanted.as_bytes()))
                .count()
        };
        assert_eq!((files("a"), files("b")), (1, 1), "{:?}", names(&world, 0));
    }
}

#[test]
fn a_break_in_the_middle_of_a_transfer_is_mended() {
    for seed in SEEDS {
        for victim in [0, 1] {
            let mut world = joined(seed, 2);
            let large: Vec<u8> = (0..1_000_000u32).flat_map(|n| (n ^ 0x5555).to_le_bytes()).collect();
            world.node(0).write(&at("large"), &large);
            for index in 0..40 {
                world.node(0).write(&at(&format!("small {index}")), format!("{index}").as_bytes());
            }
            world.run_for(Duration::from_millis(1500));
            world.crash(victim);
            world.run_for(SECOND);
            world.restart(victim);
            world.run_for(SECOND);
            world.reset_all();
            rest(&mut world);
            assert_eq!(world.nodes[1].disk.read_file(&at("large")), Some(large));
            assert_eq!(names(&world, 1).len(), 41);
            assert_eq!(conflict_files(&world, 1), [] as [String; 0]);
        }
    }
}

#[test]
fn what_was_received_is_not_sent_again_after_a_kill() {
    let mut world = joined(5, 2);
    world.net.conditions = Conditions { bytes_per_second: 1_000_000, ..Conditions::default() };
    let large: Vec<u8> =
        (0..5_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    world.node(0).write(&at("large"), &large);
    world.run_for(17 * SECOND);
    let before = world.net.bytes_sent;
    assert!(before > 12_000_000, "only {before} bytes in 17 seconds");
    world.restart(1);
    rest(&mut world);
    let after = world.net.bytes_sent - before;
    assert!(after < 13_000_000, "{after} bytes more for a file of 20 MB");
}

#[test]
fn a_power_cut_loses_no_file() {
    for seed in 0..8 {
        for victim in [0, 1] {
            let mut world = joined(seed, 2);
            for index in 0..30 {
                world.node(0).write(&at(&format!("{index}")), &[b'a' + index; 5000]);
            }
            let wait = 100 + world.below(3000);
            world.run_for(Duration::from_millis(wait));
            world.power_cut(victim);
            world.run_for(5 * SECOND);
            world.restart(victim);
            rest(&mut world);
            for index in 0..30 {
                let content = world.nodes[1].disk.read_file(&at(&format!("{index}")));
                assert_eq!(content, Some(vec![b'a' + index; 5000]), "seed {seed}, file {index}");
            }
            assert_eq!(
                conflict_files(&world, 0),
                [] as [String; 0],
                "seed {seed}: a torn file is nobody's edit"
            );
        }
    }
}

#[test]
fn a_root_that_is_gone_deletes_nothing() {
    for seed in SEEDS {
        let mut world = joined(seed, 2);
        for index in 0..5 {
            world.node(0).write(&at(&format!("{index}")), b"x");
        }
        rest(&mut world);
        // Pulled out while the engine runs, with the hints that go with it.
        world.nodes[0].disk.unplugged.insert(SHARE.into());
        world.node(0).disk(|disk, _| disk.overflow());
        world.run_for(600 * SECOND);
        assert_eq!(names(&world, 1).len(), 5);
        let status = world.status(0);
        assert_eq!(status.shares[0].state, ShareState::Stopped);
        assert!(!status.shares[0].problems.is_empty());
        // Started without it.
        world.restart(0);
        world.run_for(600 * SECOND);
        assert_eq!(names(&world, 1).len(), 5);
        world.nodes[0].disk.unplugged.clear();
        world.node(1).write(&at("meanwhile"), b"y");
        world.run_for(600 * SECOND);
        rest(&mut world);
        assert_eq!(names(&world, 0).len(), 6);
    }
}

#[test]
fn an_emptied_root_deletes_nothing() {
    for seed in SEEDS {
        let mut world = joined(seed, 2);
        for index in 0..5 {
            world.node(0).write(&at(&format!("{index}")), b"x");
        }
        rest(&mut world);
        world.crash(0);
        // What an unmounted volume looks like: the folder is there, with nothing in it.
        world.node(0).rename(SHARE, "/aside");
        world.node(0).mkdir(SHARE);
        world.restart(0);
        world.run_for(600 * SECOND);
        assert_eq!(names(&world, 1).len(), 5);
        assert_eq!(world.status(0).shares[0].state, ShareState::Stopped);
        assert!(names(&world, 0).is_empty(), "nothing is put into a folder that is not the share's");
        world.node(0).remove(SHARE);
        world.node(0).rename("/aside", SHARE);
        world.run_for(600 * SECOND);
        rest(&mut world);
        assert_eq!(names(&world, 0).len(), 5);
    }
}

#[test]
fn many_deletes_at_once_are_held() {
    for confirm in [true, false] {
        let mut world = joined(6, 2);
        for index in 0..120 {
            world.node(0).write(&at(&format!("{index}")), b"x");
        }
        rest(&mut world);
        for index in 0..80 {
            world.node(0).remove(&at(&format!("{index}")));
        }
        world.run_for(120 * SECOND);
        assert_eq!(names(&world, 1).len(), 120, "held");
        match world.node(0).ask(Command::Deletions { path: None }) {
            Ok(Reply::Deletions(held)) => assert_eq!((held.len(), held[0].count), (1, 80)),
            other => panic!("{other:?}"),
        }
        let decide = Command::DecideDeletions { path: SHARE.into(), confirm };
        assert_eq!(world.node(0).ask(decide), Ok(Reply::Done));
        rest(&mut world);
        assert_eq!(names(&world, 1).len(), if confirm { 40 } else { 120 });
    }
}

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

#[test]
fn a_name_that_is_not_utf8_is_reported_and_left_alone() {
    let mut world = joined(10, 2);
    let body = Body::File { data: b"x".to_vec().into(), sha256: None, flushed: true };
    world.node(0).disk(|disk, now| disk.special(now, b"/share/bad\xff", body, 0o644)).unwrap();
    world.node(0).write(&at("good"), b"1");
    world.run_for(300 * SECOND);
    assert_eq!(names(&world, 1), ["good"]);
    let problems = world.status(0).shares[0].problems.join("\n");
    assert!(problems.contains("bad"), "{problems}");
}

#[test]
fn a_file_that_cannot_be_read_stops_no_other() {
    let mut world = joined(11, 2);
    world.node(0).write(&at("secret"), b"s");
    world.node(0).chmod(&at("secret"), 0);
    world.node(0).write(&at("good"), b"1");
    world.run_for(300 * SECOND);
    assert_eq!(names(&world, 1), ["good"]);
    let problems = world.status(0).shares[0].problems.join("\n");
    assert!(problems.contains("secret"), "{problems}");
    world.node(0).chmod(&at("secret"), 0o600);
    rest(&mut world);
    assert_eq!(text(&world, 1, "secret").as_deref(), Some("s"));
}

#[test]
fn a_folder_that_cannot_be_read_is_not_deleted() {
    let mut world = joined(12, 2);
    world.node(0).mkdir(&at("dir"));
    world.node(0).write(&at("dir/a"), b"1");
    rest(&mut world);
    world.crash(0);
    world.node(0).chmod(&at("dir"), 0);
    world.restart(0);
    world.run_for(600 * SECOND);
    assert_eq!(text(&world, 1, "dir/a").as_deref(), Some("1"));
    world.node(0).chmod(&at("dir"), 0o755);
    world.run_for(600 * SECOND);
    assert_eq!(text(&world, 0, "dir/a").as_deref(), Some("1"));
}

#[test]
fn a_full_disk_waits_for_space() {
    let mut world = joined(13, 2);
    world.nodes[1].disk.fs.capacity = 2_000_000;
    let large = vec![7u8; 3_000_000];
    world.node(0).write(&at("large"), &large);
    world.node(0).write(&at("small"), b"fits");
    world.run_for(900 * SECOND);
    assert_eq!(names(&world, 1), ["small"]);
    let problems = world.status(1).shares[0].problems.join("\n");
    assert!(!problems.is_empty(), "it says why");
    world.nodes[1].disk.fs.capacity = 1 << 40;
    rest(&mut world);
    assert_eq!(world.nodes[1].disk.read_file(&at("large")), Some(large));
}

#[test]
fn failures_of_the_disk_pass() {
    for (op, error) in [
        ("install", DiskError::Io),
        ("stage", DiskError::NoSpace),
        ("write_temp", DiskError::Io),
        ("finish_temp", DiskError::Io),
        ("make_dirs", DiskError::Io),
        ("hash", DiskError::Io),
        ("read", DiskError::Io),
        ("flush", DiskError::Io),
        ("walk", DiskError::Io),
    ] {
        let mut world = joined(14, 2);
        for node in &mut world.nodes {
            node.disk.faults.push(Fault { op: Some(op), path: None, error, times: 2 });
        }
        world.node(0).mkdir(&at("dir"));
        world.node(0).write(&at("dir/small"), b"1");
        world.node(0).write(&at("large"), &vec![9u8; 2_000_000]);
        // What failed is tried again, at the latest with the next scan.
        world.run_for(4 * 3600 * SECOND);
        rest(&mut world);
        assert_eq!(names(&world, 1), ["dir", "dir/small", "large"], "{op}");
    }
}

#[test]
fn clocks_a_year_apart_do_no_harm() {
    for offset in [-YEAR_NS, YEAR_NS] {
        let mut world = World::new(15, 2);
        world.nodes[1].clock_offset_ns = offset;
        world.restart(1);
        world.node(0).share(SHARE);
        attach(&mut world, 1, Existing::Refuse);
        for (index, content) in [(0, "one"), (1, "two"), (0, "three"), (1, "four")] {
            world.node(index).write(&at("a"), content.as_bytes());
            rest(&mut world);
            assert_eq!(text(&world, 0, "a").as_deref(), Some(content));
        }
        assert_eq!(names(&world, 0), ["a"]);
    }
}

#[test]
fn a_lost_store_loses_no_file() {
    let mut world = joined(16, 2);
    for name in ["kept", "edited", "deleted there"] {
        world.node(0).write(&at(name), name.as_bytes());
    }
    rest(&mut world);
    world.crash(1);
    world.nodes[1].store.put_back(Image::default());
    world.node(1).write(&at("edited"), b"edited meanwhile");
    world.node(1).write(&at("new"), b"new");
    world.node(0).remove(&at("deleted there"));
    world.run_for(60 * SECOND);
    world.restart(1);
    attach(&mut world, 1, Existing::Merge);
    assert_eq!(text(&world, 0, "new").as_deref(), Some("new"));
    assert_eq!(text(&world, 1, "kept").as_deref(), Some("kept"));
    let edited =
        names(&world, 0).iter().any(|name| text(&world, 0, name).as_deref() == Some("edited meanwhile"));
    assert!(edited, "{:?}", names(&world, 0));
}

#[test]
fn a_store_of_yesterday_loses_no_file() {
    for seed in SEEDS {
        let mut world = joined(seed, 2);
        world.node(1).write(&at("old"), b"1");
        rest(&mut world);
        let yesterday = world.nodes[1].store.backup();
        world.node(1).write(&at("old"), b"2");
        world.node(1).write(&at("new"), b"3");
        world.node(0).write(&at("gone"), b"4");
        rest(&mut world);
        world.node(0).remove(&at("gone"));
        rest(&mut world);
        world.crash(1);
        world.nodes[1].store.put_back(yesterday);
        world.restart(1);
        rest(&mut world);
        world.node(1).write(&at("after"), b"5");
        rest(&mut world);
        assert_eq!(names(&world, 0), ["after", "new", "old"]);
        assert_eq!(text(&world, 0, "old").as_deref(), Some("2"));
    }
}

#[test]
fn three_computers_agree() {
    for seed in SEEDS {
        let mut world = joined(seed, 3);
        for index in 0..3 {
            world.node(index).write(&at(&format!("from {index}")), b"x");
        }
        rest(&mut world);
        assert_eq!(names(&world, 0).len(), 3);
        // 0 and 2 do not hear each other: 1 carries everything.
        world.net.block(0, 2);
        world.net.block(2, 0);
        world.reset_all();
        world.node(0).write(&at("a"), b"by way of one");
        world.node(2).write(&at("b"), b"by way of one");
        world.run_for(900 * SECOND);
        world.assert_same_trees(&[0, 1, 2], SHARE);
        assert_eq!(names(&world, 0).len(), 5);
        // All three edit one file apart from each other.
        for index in 0..3 {
            world.partition(&[index]);
        }
        world.net.block(1, 2);
        world.net.block(2, 1);
        for index in 0..3 {
            world.run_for(10 * SECOND);
            world.node(index).write(&at("a"), format!("edit of {index}").as_bytes());
        }
        world.run_for(60 * SECOND);
        world.heal();
        world.reset_all();
        rest(&mut world);
        assert_eq!(conflict_files(&world, 1).len(), 2, "{:?}", names(&world, 1));
        assert_eq!(text(&world, 1, "a").as_deref(), Some("edit of 2"));
    }
}

#[test]
fn pausing_stops_and_resuming_goes_on() {
    let mut world = joined(17, 2);
    assert_eq!(world.node(1).ask(Command::Pause), Ok(Reply::Done));
    world.node(0).write(&at("a"), b"1");
    world.run_for(300 * SECOND);
    assert_eq!(names(&world, 1), [] as [String; 0]);
    world.stop(1);
    world.start(1);
    world.run_for(300 * SECOND);
    assert_eq!(names(&world, 1), [] as [String; 0], "a pause outlives a restart");
    assert_eq!(world.node(1).ask(Command::Resume), Ok(Reply::Done));
    rest(&mut world);
    assert_eq!(names(&world, 1), ["a"]);
}

#[test]
fn lost_hints_are_made_up_for() {
    for seed in SEEDS {
        let mut world = joined(seed, 2);
        world.hints_lost_per_mille = 500;
        for index in 0..30 {
            world.node(0).mkdir(&at(&format!("dir {}", index % 3)));
            world.node(0).write(&at(&format!("dir {}/{index}", index % 3)), b"x");
        }
        rest(&mut world);
        assert_eq!(names(&world, 1).len(), 33);
    }
}

#[test]
fn the_lan_finds_members_without_an_address() {
    let mut world = joined(18, 2);
    world.net.conditions = Conditions { datagrams_lost_per_mille: 200, ..Conditions::default() };
    // A new address: what both had noted is of no use.
    world.crash(0);
    world.nodes[0].ip = "10.0.0.77".parse().unwrap();
    world.restart(0);
    world.node(0).write(&at("a"), b"1");
    world.run_for(1800 * SECOND);
    assert_eq!(text(&world, 1, "a").as_deref(), Some("1"));
}

#[test]
fn the_same_seed_gives_the_same_log() {
    let history = |seed| {
        let mut world = joined(seed, 3);
        world.node(0).write(&at("a"), b"1");
        world.node(2).mkdir(&at("dir"));
        world.run_for(20 * SECOND);
        world.power_cut(1);
        world.restart(1);
        rest(&mut world);
        (world.trace.digest(), world.trace.count())
    };
    assert_eq!(history(19), history(19));
}
