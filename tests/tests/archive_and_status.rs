//! What happens to what is replaced or deleted, and what a share says of itself, in virtual time.

use std::time::Duration;

use clearskies_core::engine::command::{Command, Reply, ShareState};
use clearskies_core::files::path::RelPath;
use clearskies_core::io::DiskError;
use clearskies_tests::sim::World;
use clearskies_tests::sim::disk::Fault;
use clearskies_tests::sim::share::{SHARE, at, conflict_files, joined, names, rest, text};
use clearskies_tests::sim::users::Item;

const SEEDS: std::ops::Range<u64> = 0..3;
const SECOND: Duration = Duration::from_secs(1);

/// What the archive of a machine keeps, paths and contents.
fn archive(world: &World, index: usize) -> Vec<(String, String)> {
    let kept = world.nodes[index].disk.archive(SHARE).into_iter();
    kept.map(|(path, bytes)| (path, String::from_utf8_lossy(&bytes).into_owned())).collect()
}

#[test]
fn nobody_is_in_step_while_the_other_goes_through_its_folder() {
    let mut world = joined(1);
    world.stop(0);
    world.run_for(SECOND);
    for file in 0..40 {
        world.node(0).write(&at(&format!("f{file}")), format!("content {file}").as_bytes());
    }
    // Read beside the look.
    world.node(0).write(&at("large"), &vec![1; 65 << 20]);
    world.slow_to_hash.insert(RelPath::new("large").unwrap(), 40 * SECOND);
    // It hears from the other at once, and needs a while for its files.
    world.disk_delay_max = 3 * SECOND;
    world.start(0);
    for _ in 0..3000 {
        world.run_for(Duration::from_millis(50));
        let state = world.status(1).shares[0].state;
        if names(&world, 1).len() == 41 {
            break;
        }
        assert_ne!(state, ShareState::InSync, "{} files came, and more are to come", names(&world, 1).len());
    }
    rest(&mut world);
    assert_eq!(world.status(1).shares[0].state, ShareState::InSync);
}

#[test]
fn what_is_written_to_an_archived_file_becomes_a_conflict_file() {
    for seed in SEEDS {
        // Before the first look, before the second, and long after both.
        for (wait, see) in [(3, 30), (60, 700), (2000, 90_000)] {
            let mut world = joined(seed);
            world.node(0).mkdir(&at("dir"));
            world.node(0).write(&at("dir/report.txt"), b"first");
            world.node(0).write(&at("gone.txt"), b"to be deleted");
            rest(&mut world);
            let report = world.node(1).open_file(&at("dir/report.txt"));
            let gone = world.node(1).open_file(&at("gone.txt"));
            world.node(0).save(&at("dir/report.txt"), b"second");
            world.node(0).remove(&at("gone.txt"));
            world.run_for(5 * SECOND);
            assert_eq!(text(&world, 1, "dir/report.txt").as_deref(), Some("second"));
            world.run_for(wait * SECOND);
            world.node(1).write_open(report, b"written late");
            world.node(1).write_open(gone, b"not gone");
            world.run_for(see * SECOND);
            rest(&mut world);
            let files = conflict_files(&world, 0);
            assert_eq!(files.len(), 2, "{files:?}");
            assert!(files[0].starts_with("dir/report.CONFLICT.") && files[0].ends_with(".txt"), "{files:?}");
            assert!(files[1].starts_with("gone.CONFLICT."), "{files:?}");
            assert_eq!(text(&world, 0, &files[0]).as_deref(), Some("written late"));
            assert_eq!(text(&world, 0, &files[1]).as_deref(), Some("not gone"));
            assert_eq!(text(&world, 0, "dir/report.txt").as_deref(), Some("second"));
            assert_eq!(archive(&world, 1), []);
            let Ok(Reply::Conflicts(listed)) = world.ask(0, Command::Conflicts { path: None }) else {
                panic!()
            };
            assert_eq!(listed.len(), 2, "{listed:?}");
            // The program goes on writing, to what everybody sees now.
            world.node(1).write_open(report, b"and later still");
            world.run_for(10 * SECOND);
            rest(&mut world);
            assert_eq!(text(&world, 0, &files[0]).as_deref(), Some("and later still"));
            assert_eq!(conflict_files(&world, 0).len(), 2);
        }
    }
}

#[test]
fn what_was_written_to_an_archived_file_is_found_after_a_restart() {
    for seed in SEEDS {
        let mut world = joined(seed);
        world.node(0).write(&at("report.txt"), b"first");
        rest(&mut world);
        let report = world.node(1).open_file(&at("report.txt"));
        world.node(0).save(&at("report.txt"), b"second");
        world.run_for(5 * SECOND);
        world.crash(1);
        world.node(1).write_open(report, b"written late");
        world.run_for(3600 * SECOND);
        world.restart(1);
        world.run_for(700 * SECOND);
        rest(&mut world);
        let files = conflict_files(&world, 0);
        assert_eq!(files.len(), 1, "{files:?}");
        assert_eq!(text(&world, 0, &files[0]).as_deref(), Some("written late"));
    }
}

#[test]
fn an_archived_file_that_nobody_writes_to_stays() {
    let mut world = joined(1);
    let ahead = world.wall_ns(0) + 3_600_000_000_000;
    world.node(0).write(&at("touched"), b"same");
    world.node(0).write(&at("ahead"), b"of its time");
    world.node(0).disk(|disk, now| disk.touch(now, &at("ahead"), ahead)).unwrap();
    rest(&mut world);
    let touched = world.node(1).open_file(&at("touched"));
    world.node(0).save(&at("touched"), b"other");
    world.node(0).save(&at("ahead"), b"newer");
    world.run_for(5 * SECOND);
    world.node(1).write_open(touched, b"same");
    world.run_for(5 * SECOND);
    // Looked at in this run, and by its times alone in the next.
    world.run_for(700 * SECOND);
    world.crash(1);
    world.restart(1);
    world.run_for(2 * 86_400 * SECOND);
    rest(&mut world);
    assert_eq!(text(&world, 0, "ahead").as_deref(), Some("newer"));
    let files = conflict_files(&world, 0);
    // A touch after the last look, or before a restart, cannot be told from a write.
    assert!(files.iter().all(|file| file.starts_with("touched.")), "{files:?}");
    let kept = archive(&world, 1);
    assert!(kept.contains(&("ahead".into(), "of its time".into())), "{kept:?}");
}

#[test]
fn a_status_says_what_waits_for_the_user() {
    let mut world = joined(2);
    for index in 0..120 {
        world.node(0).write(&at(&format!("{index}")), b"x");
    }
    rest(&mut world);
    assert_eq!(world.status(0).shares[0].state, ShareState::InSync);
    for index in 0..80 {
        world.node(0).remove(&at(&format!("{index}")));
    }
    world.run_for(120 * SECOND);
    let status = world.status(0).shares.remove(0);
    assert_eq!((status.state, status.held_deletions), (ShareState::Attention, 80), "{status:?}");
    assert!(status.problems[0].contains("`clearskies deletions`"), "{status:?}");
    // Nobody else has anything to decide.
    assert_eq!(world.status(1).shares[0].state, ShareState::InSync);
    let decide = Command::DecideDeletions { path: SHARE.into(), confirm: true };
    assert_eq!(world.node(0).ask(decide), Ok(Reply::Done));
    rest(&mut world);
    let status = world.status(0).shares.remove(0);
    assert_eq!((status.state, status.held_deletions), (ShareState::InSync, 0), "{status:?}");
}

#[test]
fn rates_are_there_at_the_first_look_and_counts_outlive_a_link() {
    let mut world = joined(72);
    let large = vec![7; 4 << 20];
    world.node(0).write(&at("large"), &large);
    for _ in 0..200 {
        world.run_for(SECOND / 4);
        if text(&world, 1, "large").is_some() {
            break;
        }
    }
    let (there, here) = (world.status(0).upload_rate, world.status(1).download_rate);
    assert!(there > 100_000 && here > 100_000, "{there} {here}");
    rest(&mut world);
    world.run_for(60 * SECOND);
    let count = |world: &mut World, index| match world.ask(index, Command::Peers) {
        Ok(Reply::Peers(peers)) => (peers[0].received, peers[0].sent),
        other => panic!("no list: {other:?}"),
    };
    let before = [count(&mut world, 0), count(&mut world, 1)];
    assert!(before[0].1 > large.len() as u64 && before[1].0 > large.len() as u64, "{before:?}");
    world.reset_all();
    world.run_for(SECOND);
    rest(&mut world);
    for (index, (received, sent)) in before.into_iter().enumerate() {
        let now = count(&mut world, index);
        assert!(now.0 > received && now.1 > sent, "{now:?} after {before:?}");
    }
}

#[test]
fn what_is_to_come_of_a_large_file_grows_less_while_it_comes() {
    let mut world = joined(71);
    let size = 12 << 20;
    world.node(0).write(&at("large"), &vec![7; size]);
    let mut seen = vec![];
    while text(&world, 1, "large").is_none() {
        world.run_for(SECOND / 10);
        let share = world.status(1).shares.remove(0);
        if share.pending_files > 0 {
            seen.push(share.pending_bytes);
        }
    }
    seen.dedup();
    assert!(seen.len() >= 4 && seen.is_sorted_by(|a, b| a > b), "{seen:?}");
    assert!(seen[0] <= size as u64, "{seen:?}");
}

#[test]
fn a_status_counts_what_failed_and_what_cannot_be_read() {
    let mut world = joined(3);
    world.nodes[1].disk.fs.capacity = 2_000_000;
    world.node(0).write(&at("large"), &vec![7u8; 3_000_000]);
    world.node(1).write(&at("secret"), b"s");
    world.node(1).chmod(&at("secret"), 0);
    world.run_for(330 * SECOND);
    let status = world.status(1).shares.remove(0);
    assert_eq!(status.state, ShareState::Attention, "{status:?}");
    assert_eq!((status.pending_files, status.failed_files, status.unreadable_files), (1, 1, 1), "{status:?}");
    let problems = status.problems.join("\n");
    assert!(problems.contains("large") && problems.contains("secret"), "{problems}");
    world.nodes[1].disk.fs.capacity = 1 << 40;
    world.node(1).chmod(&at("secret"), 0o600);
    world.run_for(330 * SECOND);
    rest(&mut world);
    let status = world.status(1).shares.remove(0);
    assert_eq!((status.state, status.failed_files, status.unreadable_files), (ShareState::InSync, 0, 0));
}

/// A failure of one path of machine 1, as often as it is tried.
fn fail(world: &mut World, op: &'static str, path: &str, error: DiskError) {
    let path = clearskies_core::files::path::RelPath::new(path);
    world.nodes[1].disk.faults.push(Fault { op: Some(op), path, error, times: u32::MAX });
}

#[test]
fn a_newer_version_does_not_wait_for_the_pause_of_an_older_one() {
    for seed in SEEDS {
        let mut world = joined(seed);
        fail(&mut world, "install", "a", DiskError::Io);
        world.node(0).write(&at("a"), b"fails");
        world.run_for(1000 * SECOND);
        assert_eq!(text(&world, 1, "a"), None);
        assert_eq!(world.status(1).shares[0].failed_files, 1);
        world.nodes[1].disk.faults.clear();
        world.node(0).write(&at("a"), b"newer");
        world.run_for(5 * SECOND);
        assert_eq!(text(&world, 1, "a").as_deref(), Some("newer"));
        rest(&mut world);
    }
}

#[test]
fn a_chmod_during_the_install_of_a_new_version_is_kept() {
    for seed in SEEDS {
        let mut world = joined(seed);
        world.node(0).write(&at("script"), b"old");
        rest(&mut world);
        world.node(0).write(&at("script"), b"new");
        let installs = |world: &World| {
            let line = world.trace.tail(1);
            line.contains("n1 disk") && line.trim_end().ends_with(" install")
        };
        while !installs(&world) {
            assert!(world.step() && text(&world, 1, "script").as_deref() == Some("old"));
        }
        world.node(1).chmod(&at("script"), 0o750);
        rest(&mut world);
        for index in [0, 1] {
            let tree = world.nodes[index].disk.tree(SHARE);
            assert_eq!(tree.get("script"), Some(&Item::File(0o750, b"new".to_vec())), "n{index}");
        }
    }
}

#[test]
fn a_folder_whose_removal_fails_is_tried_again_soon() {
    for seed in SEEDS {
        for (holds, error) in [(false, DiskError::Io), (true, DiskError::Io), (true, DiskError::Denied)] {
            let mut world = joined(seed);
            world.node(0).mkdir(&at("dir/sub"));
            if holds {
                world.node(0).write(&at("dir/sub/a"), b"1");
            }
            rest(&mut world);
            for path in ["dir", "dir/sub"] {
                fail(&mut world, "remove", path, error);
            }
            world.node(0).remove(&at("dir"));
            world.run_for(10 * SECOND);
            assert!(world.nodes[1].disk.tree(SHARE).contains_key("dir/sub"));
            world.nodes[1].disk.faults.clear();
            world.run_for(20 * SECOND);
            let left = world.nodes[1].disk.tree(SHARE);
            assert!(left.is_empty(), "{left:?} {:?}\n{}", world.status(1).shares[0], world.trace.tail(30));
            rest(&mut world);
        }
    }
}

#[test]
fn a_folder_that_lived_through_what_it_held_is_tried_again_soon() {
    for seed in SEEDS {
        for local in [true, false] {
            let mut world = joined(seed);
            world.node(0).mkdir(&at("dir"));
            world.node(0).write(&at("dir/a"), b"1");
            rest(&mut world);
            // The folder goes here while something new is made in it there: it stays for that alone.
            world.crash(1);
            world.node(0).remove(&at("dir"));
            world.run_for(10 * SECOND);
            world.node(1).write(&at("dir/b"), b"2");
            world.run_for(10 * SECOND);
            world.restart(1);
            rest(&mut world);
            assert_eq!(text(&world, 0, "dir/b").as_deref(), Some("2"));
            fail(&mut world, "remove", "dir", DiskError::Io);
            world.node(usize::from(local)).remove(&at("dir/b"));
            world.run_for(10 * SECOND);
            assert!(world.nodes[1].disk.tree(SHARE).contains_key("dir"));
            world.nodes[1].disk.faults.clear();
            world.run_for(20 * SECOND);
            let left = world.nodes[1].disk.tree(SHARE);
            assert!(
                left.is_empty(),
                "{local} {left:?} {:?}\n{}",
                world.status(1).shares[0],
                world.trace.tail(30)
            );
            rest(&mut world);
        }
    }
}

#[test]
fn replacing_waits_where_the_archive_is_full_and_says_why() {
    let mut world = joined(5);
    world.node(0).write(&at("large"), &vec![1; 2_000_000]);
    world.node(0).write(&at("small"), b"old");
    world.node(0).write(&at("gone"), b"still here");
    rest(&mut world);
    // The archive may take a tenth of it, and no more than that is left free.
    world.nodes[1].disk.fs.capacity = 5_000_000;
    world.run_for(660 * SECOND);
    world.node(0).write(&at("large"), &vec![2; 2_500_000]);
    world.run_for(100 * SECOND);
    assert_eq!(world.nodes[1].disk.read_file(&at("large")).map(|bytes| bytes.len()), Some(2_500_000));
    world.node(0).save(&at("small"), b"new");
    world.node(0).remove(&at("gone"));
    world.node(0).write(&at("other"), b"goes on");
    world.run_for(600 * SECOND);
    assert_eq!(text(&world, 1, "small").as_deref(), Some("old"));
    assert_eq!(text(&world, 1, "gone").as_deref(), Some("still here"));
    assert_eq!(text(&world, 1, "other").as_deref(), Some("goes on"));
    let status = world.status(1).shares.remove(0);
    assert_eq!((status.state, status.failed_files), (ShareState::Attention, 2), "{status:?}");
    assert!(status.problems.iter().any(|problem| problem.contains("fills the archive")), "{status:?}");
    assert!(world.nodes[1].notices.iter().any(|notice| notice.contains("fills the archive")));
    let Ok(Reply::Why(why)) = world.ask(1, Command::Why { path: at("small") }) else { panic!() };
    assert!(why.iter().any(|why| why.contains("fills the archive")), "{why:?}");
    // Nothing younger than a day goes; what is older makes room, and the rest follows by itself.
    assert!(archive(&world, 1).iter().any(|(path, _)| path == "large"));
    world.run_for(25 * 3600 * SECOND);
    assert!(!archive(&world, 1).iter().any(|(path, _)| path == "large"));
    rest(&mut world);
    assert_eq!(text(&world, 1, "small").as_deref(), Some("new"));
    assert_eq!(world.status(1).shares[0].state, ShareState::InSync);
}

#[test]
fn a_full_volume_names_the_size_of_the_archive() {
    let mut world = joined(6);
    world.node(0).write(&at("old"), &vec![1; 3_000_000]);
    rest(&mut world);
    world.node(0).remove(&at("old"));
    rest(&mut world);
    world.nodes[1].disk.fs.capacity = 5_000_000;
    world.node(0).write(&at("new"), &vec![2; 4_000_000]);
    world.run_for(120 * SECOND);
    let problems = world.status(1).shares.remove(0).problems.join("\n");
    assert!(problems.contains("full") && problems.contains("archive takes 3.0 MB"), "{problems}");
    world.nodes[1].disk.fs.capacity = 50_000_000;
    rest(&mut world);
    assert_eq!(world.status(1).shares.remove(0).problems, [""; 0]);
}

#[test]
fn a_full_volume_takes_from_the_archive_what_is_older_than_a_day() {
    let mut world = joined(6);
    world.nodes[1].disk.fs.capacity = 10_000_000;
    world.node(0).write(&at("old"), &vec![1; 500_000]);
    rest(&mut world);
    world.node(0).remove(&at("old"));
    world.run_for(26 * 3600 * SECOND);
    world.node(0).write(&at("young"), &vec![2; 100_000]);
    rest(&mut world);
    world.node(0).remove(&at("young"));
    world.run_for(60 * SECOND);
    let kept = |world: &World| archive(world, 1).into_iter().map(|(path, _)| path).collect::<Vec<_>>();
    assert_eq!(kept(&world), ["old", "young"], "within its days and its limit");
    world.node(0).write(&at("large"), &vec![3; 9_500_000]);
    world.run_for(1200 * SECOND);
    assert_eq!(kept(&world), ["young"]);
    assert!(text(&world, 1, "large").is_some());
    rest(&mut world);
}

#[test]
fn what_is_written_late_is_never_lost() {
    for seed in 0..12 {
        let mut world = joined(seed);
        for name in ["a", "b", "dir/c"] {
            world.node(0).mkdir(&at("dir"));
            world.node(0).write(&at(name), b"first");
        }
        rest(&mut world);
        let open = ["a", "b", "dir/c"].map(|name| world.node(1).open_file(&at(name)));
        world.node(0).save(&at("a"), b"second");
        world.node(0).remove(&at("b"));
        world.node(0).remove(&at("dir"));
        let mut written = Vec::new();
        for (number, inode) in open.into_iter().enumerate() {
            let wait = [10, 3000, 30_000, 700_000][usize::try_from(world.below(4)).unwrap()];
            let wait = Duration::from_millis(world.below(wait));
            world.run_for(wait);
            match world.below(4) {
                0 => world.crash(1),
                1 => world.power_cut(1),
                _ => {}
            }
            let content = format!("late {number}");
            world.node(1).write_open(inode, content.as_bytes());
            written.push(content);
            if world.nodes[1].engine.is_none() {
                world.run_for(60 * SECOND);
                world.start(1);
            }
        }
        // Both looks, and the daily round for what was written after them.
        world.run_for(25 * 3600 * SECOND);
        rest(&mut world);
        for content in written {
            let tree = world.nodes[0].disk.tree(SHARE);
            let shown =
                tree.values().any(|item| matches!(item, Item::File(_, data) if *data == content.as_bytes()));
            let kept = archive(&world, 1);
            assert!(shown, "seed {seed}: {content} {tree:?} {kept:?}\n{}", world.trace.tail(40));
        }
    }
}
