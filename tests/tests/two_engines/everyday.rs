//! The main job: what one side does is on the other.

use std::time::Duration;

use clearskies_core::engine::command::{Command, Existing, Reply};
use clearskies_tests::sim::World;
use clearskies_tests::sim::net::Conditions;
use clearskies_tests::sim::share::{SHARE, at, conflict_files, names, rest_running as rest, text};
use clearskies_tests::sim::users::Item;

use crate::{SECOND, SEEDS, attach, joined, tree};

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
fn one_flush_serves_many_files() {
    let mut world = joined(9, 2);
    let files = || (0..600).map(|index| (index % 20, index));
    for dir in 0..20 {
        world.node(0).mkdir(&at(&format!("dir/{dir}")));
    }
    let mut flushes = Vec::new();
    let mut count = |world: &mut World| {
        let before = world.nodes[1].disk.flushes;
        rest(world);
        flushes.push(world.nodes[1].disk.flushes - before);
    };
    for (dir, index) in files() {
        world.node(0).write(&at(&format!("dir/{dir}/{index}")), format!("{index}").as_bytes());
    }
    count(&mut world);
    world.node(0).rename(&at("dir"), &at("other"));
    count(&mut world);
    for (dir, index) in files() {
        world.node(0).chmod(&at(&format!("other/{dir}/{index}")), 0o600);
    }
    count(&mut world);
    // More at once would be asked about.
    for (dir, index) in files().take(100) {
        world.node(0).remove(&at(&format!("other/{dir}/{index}")));
    }
    count(&mut world);
    assert!(flushes.iter().all(|count| (1..=32).contains(count)), "{flushes:?}");
}

#[test]
fn a_written_file_is_read_once() {
    let mut world = joined(4, 2);
    let before = world.nodes[0].disk.hashes;
    for index in 0..50 {
        world.node(0).write(&at(&format!("{index}")), b"x");
    }
    rest(&mut world);
    world.run_for(10 * SECOND);
    assert_eq!(world.nodes[0].disk.hashes - before, 50);
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

/// A text goes compressed where the line is slow and both sides speak it; as it is where one does not, and most of it
/// where the line is fast. "always" is always.
#[test]
fn what_a_line_carries_of_a_text() {
    let words: Vec<u8> = (0..400_000u32).flat_map(|number| format!("line {number}\n").into_bytes()).collect();
    let slow = Conditions { bytes_per_second: 2_000_000, ..Conditions::default() };
    let fast = Conditions {
        latency: Duration::from_micros(100),
        jitter: Duration::from_micros(10),
        bytes_per_second: 1_000_000_000,
        ..Conditions::default()
    };
    for (sender, receiver, conditions, less) in [
        ("auto", "auto", &slow, true),
        ("auto", "always", &slow, true),
        ("auto", "never", &slow, false),
        ("never", "always", &slow, false),
        ("auto", "auto", &fast, false),
        ("always", "auto", &fast, true),
    ] {
        let mut world = World::new(1, 2);
        world.net.conditions = conditions.clone();
        for (index, compression) in [sender, receiver].into_iter().enumerate() {
            world.nodes[index].compression = Some(compression);
            world.restart(index);
        }
        world.node(0).share(SHARE);
        attach(&mut world, 1, Existing::Refuse);
        let before = world.net.bytes_sent;
        world.node(0).write(&at("words"), &words);
        rest(&mut world);
        assert_eq!(world.nodes[1].disk.read_file(&at("words")), Some(words.clone()));
        let sent = (world.net.bytes_sent - before) as usize;
        assert_eq!(sent < words.len() * 2 / 3, less, "{sender} to {receiver}: {sent} of {}", words.len());
        // A little is deflated on any line where both sides speak it.
        let spare = if sender == "auto" && receiver == "auto" { 2 << 20 } else { 0 };
        assert!(less || sent + spare > words.len(), "{sender} to {receiver}: {sent} of {}", words.len());
    }
}
