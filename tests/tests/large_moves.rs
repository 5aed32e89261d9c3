//! Renamed folders that hold more than one look takes at once: they move their records, whatever their size.

use std::collections::BTreeSet;
use std::time::Duration;

use clearskies_core::engine::command::{Command, Reply};
use clearskies_core::io::store::Space;
use clearskies_tests::sim::World;
use clearskies_tests::sim::share::{SHARE, at, joined, names, rest, text};

/// A simulated look takes 400 paths at once.
const DIRS: usize = 4;
const FILES: usize = 100;

/// Two machines with one large folder, in step and at rest for so long that all stamps are trusted.
fn with_folder(seed: u64) -> World {
    let mut world = joined(seed);
    for dir in 0..DIRS {
        world.node(0).mkdir(&at(&format!("big/k{dir}")));
        for file in 0..FILES {
            world.node(0).write(&at(&path("big", dir, file)), content(dir, file).as_bytes());
        }
    }
    rest(&mut world);
    world.run_for(Duration::from_secs(60));
    world
}

fn path(top: &str, dir: usize, file: usize) -> String {
    format!("{top}/k{dir}/file {file}")
}

fn content(dir: usize, file: usize) -> String {
    format!("{file} of {dir}")
}

/// The names of all records.
fn records(world: &World, index: usize) -> BTreeSet<Vec<u8>> {
    world.nodes[index].store.live().iter(Space::Record).map(|(key, _)| key.clone()).collect()
}

/// What must hold after the renames that `act` does: the same records, nothing deleted, read or archived.
fn moves_records(mut world: World, told: &str, act: impl FnOnce(&mut World)) -> World {
    let before = records(&world, 0);
    let hashes = [0, 1].map(|index| world.nodes[index].disk.hashes);
    act(&mut world);
    rest(&mut world);
    for (index, hashes) in hashes.into_iter().enumerate() {
        let held = world.ask(index, Command::Deletions { path: None });
        assert_eq!(held, Ok(Reply::Deletions(Vec::new())), "{told}");
        let after = records(&world, index);
        let (more, less) = (after.difference(&before).count(), before.difference(&after).count());
        assert_eq!((more, less), (0, 0), "{told}: records of {index}");
        assert!(world.nodes[index].disk.archive(SHARE).is_empty(), "{told}: archive of {index}");
        assert_eq!(world.nodes[index].disk.hashes, hashes, "{told}: read by {index}");
    }
    world
}

fn all_at(world: &World, places: [&str; DIRS]) {
    for index in 0..2 {
        for (dir, place) in places.into_iter().enumerate() {
            for file in 0..FILES {
                let path = format!("{place}/file {file}");
                assert_eq!(text(world, index, &path), Some(content(dir, file)), "{path} on {index}");
            }
        }
    }
}

#[test]
fn a_large_folder_moves_its_records() {
    // The walk may meet the new name before the old one, or after it.
    for to in ["a", "moved"] {
        let world = moves_records(with_folder(1), to, |world| world.node(0).rename(&at("big"), &at(to)));
        all_at(&world, [0, 1, 2, 3].map(|dir| format!("{to}/k{dir}")).each_ref().map(String::as_str));
    }
}

#[test]
fn a_large_folder_that_was_renamed_meanwhile_moves_its_records() {
    for to in ["a", "moved"] {
        let world = moves_records(with_folder(2), to, |world| {
            world.crash(0);
            world.node(0).rename(&at("big"), &at(to));
            world.restart(0);
        });
        all_at(&world, [0, 1, 2, 3].map(|dir| format!("{to}/k{dir}")).each_ref().map(String::as_str));
    }
}

#[test]
fn renames_within_a_renamed_folder_move_their_records() {
    for crash in [false, true] {
        let told = format!("crash: {crash}");
        let world = moves_records(with_folder(3), &told, |world| {
            if crash {
                world.crash(0);
            }
            world.node(0).rename(&at("big"), &at("moved"));
            // To names that come later, earlier, and out of it; two of them change places.
            world.node(0).rename(&at("moved/k0"), &at("moved/z"));
            world.node(0).rename(&at("moved/k3"), &at("a"));
            world.node(0).rename(&at("moved/k1"), &at("moved/k"));
            world.node(0).rename(&at("moved/k2"), &at("moved/k1"));
            world.node(0).rename(&at("moved/k"), &at("moved/k2"));
            if crash {
                world.restart(0);
            }
        });
        all_at(&world, ["moved/z", "moved/k2", "moved/k1", "a"]);
    }
}

#[test]
fn a_folder_whose_ends_are_heard_of_apart_moves_its_records() {
    for wait in [200, 500, 1500] {
        let world = moves_records(with_folder(4), &format!("{wait} ms"), |world| {
            world.node(0).rename(&at("big"), "/elsewhere");
            world.run_for(Duration::from_millis(wait));
            world.node(0).rename("/elsewhere/k2", &at("inner"));
            world.run_for(Duration::from_millis(wait / 4));
            world.node(0).rename("/elsewhere", &at("big2"));
        });
        all_at(&world, ["big2/k0", "big2/k1", "inner", "big2/k3"]);
    }
}

#[test]
fn a_folder_that_is_renamed_while_it_is_looked_at_is_there_once() {
    for wait in [0, 120, 150, 200, 300, 500, 1000] {
        let mut world = with_folder(5);
        world.store_delay_max = Duration::from_millis(100);
        for (from, to) in [("big", "a"), ("a", "moved"), ("moved", "b")] {
            world.node(0).rename(&at(from), &at(to));
            world.run_for(Duration::from_millis(wait));
        }
        rest(&mut world);
        all_at(&world, ["b/k0", "b/k1", "b/k2", "b/k3"]);
        // Empty folders of a name that it had for a moment may stay (sync.md, Known gaps).
        let files = names(&world, 1).into_iter().filter(|name| text(&world, 1, name).is_some()).count();
        assert_eq!(files, DIRS * FILES, "waited {wait} ms");
    }
}

#[test]
fn an_edit_made_elsewhere_meanwhile_follows_a_large_folder() {
    let mut world = with_folder(6);
    world.crash(1);
    world.node(0).rename(&at("big"), &at("moved"));
    world.run_for(Duration::from_secs(30));
    world.node(1).write(&at(&path("big", 3, 99)), b"edited");
    world.restart(1);
    rest(&mut world);
    assert_eq!(text(&world, 0, &path("moved", 3, 99)).as_deref(), Some("edited"));
    assert_eq!(names(&world, 0).len(), DIRS * (FILES + 1) + 1);
}

#[test]
fn a_file_that_is_edited_just_after_the_move_keeps_the_edit() {
    let mut world = with_folder(7);
    world.node(0).rename(&at("big"), &at("moved"));
    world.node(0).write(&at(&path("moved", 2, 50)), b"edited");
    world.node(0).rename(&at(&path("moved", 1, 50)), &at("out"));
    world.node(0).remove(&at(&path("moved", 0, 50)));
    rest(&mut world);
    assert_eq!(text(&world, 1, &path("moved", 2, 50)).as_deref(), Some("edited"));
    assert_eq!(text(&world, 1, "out"), Some(content(1, 50)));
    assert_eq!(names(&world, 1).len(), DIRS * (FILES + 1) + 1 - 1);
}

#[test]
fn a_large_folder_may_take_the_place_of_another() {
    for crash in [false, true] {
        let mut world = with_folder(8);
        world.node(0).mkdir(&at("moved/k1"));
        world.node(0).write(&at(&path("moved", 1, 7)), b"was there");
        world.node(0).write(&at("moved/old"), b"was there");
        rest(&mut world);
        if crash {
            world.crash(0);
        }
        world.node(0).remove(&at("moved"));
        world.node(0).rename(&at("big"), &at("moved"));
        if crash {
            world.restart(0);
        }
        rest(&mut world);
        all_at(&world, ["moved/k0", "moved/k1", "moved/k2", "moved/k3"]);
        assert_eq!(names(&world, 1).len(), DIRS * (FILES + 1) + 1, "crash: {crash}");
    }
}

#[test]
fn the_files_of_a_folder_that_both_rename_stay_together() {
    let mut world = joined(8);
    let mut place = "big".to_owned();
    world.node(0).mkdir(&at(&place));
    for file in 0..1200 {
        world.node(0).write(&at(&format!("big/{file}")), content(0, file).as_bytes());
    }
    for round in 0..4 {
        rest(&mut world);
        world.run_for(Duration::from_secs(60));
        world.node(0).rename(&at(&place), &at(&format!("a{round}")));
        world.run_for(Duration::from_micros(700 * round));
        world.node(1).rename(&at(&place), &at(&format!("b{round}")));
        rest(&mut world);
        let files = names(&world, 0).into_iter().filter(|name| name.contains('/'));
        let places: BTreeSet<_> = files.filter_map(|name| Some(name.split_once('/')?.0.to_owned())).collect();
        assert_eq!(places.len(), 1, "round {round}: {places:?}");
        place = places.into_iter().next().unwrap_or_default();
    }
}
