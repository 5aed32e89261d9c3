//! Folders that are gone, emptied, full or closed, and names that cannot be synced.

use clearskies_core::engine::command::{Command, Reply, ShareState};
use clearskies_core::io::DiskError;
use clearskies_tests::sim::disk::Fault;
use clearskies_tests::sim::fs::Body;
use clearskies_tests::sim::share::{SHARE, at, names, rest_running as rest, text};

use crate::{SECOND, SEEDS, joined};

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
