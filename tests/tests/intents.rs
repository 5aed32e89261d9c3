//! Installs, and folders being made, that a crash interrupts: what one run had just put on the disk is told from what a
//! user did by the next, and no later edit is ever taken for it.

use std::time::Duration;

use clearskies_core::engine::command::Existing;
use clearskies_core::io::store::Space;
use clearskies_tests::sim::World;
use clearskies_tests::sim::share::{self, SHARE, attach, joined, names, rest};
use clearskies_tests::sim::users::Item;

const FILES: usize = 600;

fn file(index: usize) -> String {
    format!("{SHARE}/d{}/f{index}", index % 7)
}

/// Two machines; the second begins to install what the first has.
fn joining(seed: u64) -> World {
    let mut world = World::new(seed, 2);
    for dir in 0..7 {
        world.node(0).mkdir(&format!("{SHARE}/d{dir}"));
    }
    for index in 0..FILES {
        world.node(0).write(&file(index), format!("first {index}").as_bytes());
    }
    world.node(0).share(SHARE);
    world.run_for(Duration::from_secs(30));
    attach(&mut world, 1, Existing::Refuse);
    world
}

/// Two machines; the second was killed while it installed what the first has. Returns how many files lay there when
/// it came back.
fn killed_while_installing(seed: u64) -> (World, usize) {
    let mut world = joining(seed);
    let there =
        |world: &mut World| (0..FILES).filter(|index| world.node(1).read(&file(*index)).is_some()).count();
    while there(&mut world) == 0 {
        assert!(world.step(), "nothing is ever installed");
    }
    for _ in 0..world.below(40) {
        world.step();
    }
    world.crash(1);
    let left = there(&mut world);
    world.restart(1);
    rest(&mut world);
    (world, left)
}

#[test]
fn what_a_killed_run_had_put_there_is_no_edit() {
    for seed in 0..6 {
        let (world, left) = killed_while_installing(seed);
        assert!(left > 0);
        // An install that passed for an edit would have made conflict files or second records.
        let names = world.nodes[1].disk.tree(SHARE);
        assert_eq!(names.len(), FILES + 7, "seed {seed}");
    }
}

#[test]
fn after_that_run_the_same_content_again_is_the_users() {
    for seed in 0..6 {
        let (mut world, _) = killed_while_installing(seed);
        for index in 0..FILES {
            world.node(1).save(&file(index), format!("second {index}").as_bytes());
        }
        rest(&mut world);
        for index in 0..FILES {
            world.node(1).save(&file(index), format!("first {index}").as_bytes());
        }
        rest(&mut world);
        for index in 0..FILES {
            assert_eq!(
                world.node(0).read(&file(index)),
                Some(format!("first {index}").into_bytes()),
                "seed {seed}"
            );
        }
        for index in 0..40 {
            world.node(1).remove(&file(index));
        }
        rest(&mut world);
        assert_eq!(world.nodes[0].disk.tree(SHARE).len(), 7 + FILES - 40, "seed {seed}");
        for index in 0..40 {
            world.node(1).write(&file(index), format!("first {index}").as_bytes());
        }
        rest(&mut world);
        assert_eq!(world.nodes[0].disk.tree(SHARE).len(), 7 + FILES, "seed {seed}");
    }
}

/// Whoever empties the place for temps takes away what tells of a killed run's installs: none of them passes for done,
/// and what is not there for deleted.
#[test]
fn nothing_passes_for_deleted_where_somebody_emptied_the_place_for_temps() {
    for seed in 0..6 {
        let mut world = joining(seed);
        // The first intents are those of the folders, which are few.
        let of_files = |world: &World| {
            world.nodes[1].store.live().iter(Space::Intent).any(|(_, value)| value.len() > 1000)
        };
        while !of_files(&world) {
            assert!(world.step(), "nothing is ever to be installed");
        }
        world.crash(1);
        let temps = format!("{SHARE}/.clearskies/tmp");
        world.node(1).remove(&temps);
        if seed % 2 == 0 {
            world.node(1).mkdir(&temps);
        }
        world.restart(1);
        rest(&mut world);
        for index in 0..2 {
            assert_eq!(world.nodes[index].disk.tree(SHARE).len(), FILES + 7, "seed {seed}");
        }
    }
}

const FOLDERS: usize = 40;

fn folder(index: usize) -> String {
    format!("{SHARE}/d{index}")
}

/// Machines on which a flush takes long enough for others to hear of what comes before it.
fn slow(seed: u64) -> World {
    let mut world = joined(seed);
    for node in &mut world.nodes {
        node.flush_delay = Duration::from_secs(3);
    }
    world
}

/// The second of two machines has made folders that the first has, and has not told its database. Returns those.
fn making_folders(seed: u64) -> (World, Vec<usize>) {
    let mut world = slow(seed);
    for index in 0..FOLDERS {
        world.node(0).mkdir(&folder(index));
    }
    while names(&world, 1).is_empty() {
        assert!(world.step(), "no folder is ever made");
    }
    let tree = world.nodes[1].disk.tree(SHARE);
    let made = (0..FOLDERS).filter(|index| tree.contains_key(&format!("d{index}"))).collect();
    (world, made)
}

#[test]
fn a_folder_that_a_killed_run_had_made_is_no_users() {
    for seed in 0..6 {
        let (mut world, made) = making_folders(seed);
        for index in &made {
            world.node(0).rename(&folder(*index), &format!("{SHARE}/moved{index}"));
        }
        world.run_for(Duration::from_secs(2));
        world.crash(1);
        for index in &made {
            world.node(0).write(&folder(*index), b"in its place");
        }
        world.restart(1);
        rest(&mut world);
        // A folder of a user's would have made a conflict file of what is in its place.
        assert_eq!(names(&world, 1).len(), FOLDERS + made.len(), "seed {seed}");
    }
}

#[test]
fn bits_that_were_set_on_such_a_folder_are_told() {
    for seed in 0..6 {
        let (mut world, made) = making_folders(seed);
        world.crash(1);
        for index in &made {
            world.node(1).chmod(&folder(*index), 0o750);
        }
        world.restart(1);
        rest(&mut world);
        let tree = world.nodes[0].disk.tree(SHARE);
        for index in made {
            assert_eq!(tree[&format!("d{index}")], Item::Dir(0o750), "seed {seed}");
        }
    }
}

#[test]
fn a_folder_that_was_made_for_what_lies_beneath_it_goes_with_that() {
    for seed in 0..6 {
        let mut world = slow(seed);
        world.node(0).mkdir(&share::at("d"));
        world.node(0).write(&share::at("d/f"), b"first");
        rest(&mut world);
        // One deletes both, and the other's edit lives on.
        world.partition(&[0]);
        world.node(0).remove(&share::at("d/f"));
        world.node(0).remove(&share::at("d"));
        world.node(1).save(&share::at("d/f"), b"second");
        world.run_for(Duration::from_secs(60));
        assert_eq!(names(&world, 0), [] as [String; 0], "seed {seed}");
        world.heal();
        while names(&world, 0).is_empty() {
            assert!(world.step(), "the folder is never made");
        }
        world.node(1).rename(&share::at("d/f"), &share::at("f"));
        world.run_for(Duration::from_secs(2));
        world.crash(0);
        world.run_for(Duration::from_secs(60));
        world.node(1).write(&share::at("d"), b"in its place");
        world.restart(0);
        rest(&mut world);
        assert_eq!(names(&world, 1), ["d", "f"], "seed {seed}");
    }
}
