//! Lines, power, clocks and stores that fail.

use std::time::Duration;

use clearskies_core::engine::command::{Command, Existing, Reply, ShareState};
use clearskies_core::io::store::StoreError;
use clearskies_tests::sim::World;
use clearskies_tests::sim::net::Conditions;
use clearskies_tests::sim::share::{SHARE, at, conflict_files, names, rest_running as rest, text};
use clearskies_tests::sim::store::Image;

use crate::{SECOND, SEEDS, YEAR_NS, attach, joined};

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
fn a_store_that_fails_at_the_start_is_tried_again() {
    let mut world = joined(6, 2);
    world.crash(1);
    world.node(0).write(&at("a"), b"new");
    world.nodes[1].store.faults = vec![StoreError::Io; 3];
    world.start(1);
    world.run_for(SECOND);
    let status = world.node(1).ask(Command::Status);
    let told = |notice: &&String| notice.contains("database");
    let notices = &world.nodes[1].notices;
    assert_eq!(notices.iter().filter(told).count(), 1, "{notices:?}");
    assert!(matches!(status, Ok(Reply::Status(_))), "{status:?}");
    let share = world.node(1).ask(Command::CreateShare { path: "/other".into() });
    assert_eq!(share.map_err(|error| error.code), Err("database"));
    // Two, four and eight seconds.
    world.run_for(15 * SECOND);
    let notices = &world.nodes[1].notices;
    assert_eq!(notices.iter().filter(told).count(), 2, "{notices:?}");
    rest(&mut world);
    assert_eq!(text(&world, 1, "a").as_deref(), Some("new"));
}

#[test]
fn after_a_power_cut_nobody_is_waited_for_where_nobody_was_met() {
    let mut world = World::new(7, 2);
    world.node(0).mkdir(SHARE);
    world.node(0).share(SHARE);
    world.node(0).write(&at("a"), b"one");
    world.run_for(30 * SECOND);
    world.power_cut(0);
    world.node(0).write(&at("b"), b"two");
    world.start(0);
    world.run_for(30 * SECOND);
    let Ok(Reply::Status(status)) = world.node(0).ask(Command::Status) else { panic!() };
    assert_eq!((status.shares[0].state, status.shares[0].files), (ShareState::Alone, 2));
    attach(&mut world, 1, Existing::Refuse);
    rest(&mut world);
    assert_eq!(text(&world, 1, "b").as_deref(), Some("two"));
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
fn a_peer_that_is_not_read_is_not_called_silent() {
    let mut world = joined(4, 2);
    world.net.conditions = Conditions::default();
    let links = world.net.links();
    for index in 0..4500 {
        world.node(0).write(&at(&format!("{index}")), b"x");
    }
    // A disk that hangs: nothing is read from the link while what came before is not stored.
    world.nodes[1].store_free = world.now().plus(Duration::from_secs(300));
    world.run_for(600 * SECOND);
    assert_eq!(world.net.links(), links, "the link was given up");
    rest(&mut world);
    assert_eq!(names(&world, 1).len(), 4500);
}
