//! Installs that a crash interrupts: what one run had just put on the disk is told from a user's edit by the next,
//! and no later edit is ever taken for it.

use std::time::Duration;

use clearskies_core::engine::command::Existing;
use clearskies_tests::sim::World;
use clearskies_tests::sim::share::{SHARE, attach, rest};

const FILES: usize = 600;

fn at(index: usize) -> String {
    format!("{SHARE}/d{}/f{index}", index % 7)
}

/// Two machines; the second was killed while it installed what the first has. Returns how many files lay there when
/// it came back.
fn killed_while_installing(seed: u64) -> (World, usize) {
    let mut world = World::new(seed, 2);
    for dir in 0..7 {
        world.node(0).mkdir(&format!("{SHARE}/d{dir}"));
    }
    for index in 0..FILES {
        world.node(0).write(&at(index), format!("first {index}").as_bytes());
    }
    world.node(0).share(SHARE);
    world.run_for(Duration::from_secs(30));
    attach(&mut world, 1, Existing::Refuse);
    let there =
        |world: &mut World| (0..FILES).filter(|index| world.node(1).read(&at(*index)).is_some()).count();
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
            world.node(1).save(&at(index), format!("second {index}").as_bytes());
        }
        rest(&mut world);
        for index in 0..FILES {
            world.node(1).save(&at(index), format!("first {index}").as_bytes());
        }
        rest(&mut world);
        for index in 0..FILES {
            assert_eq!(
                world.node(0).read(&at(index)),
                Some(format!("first {index}").into_bytes()),
                "seed {seed}"
            );
        }
        for index in 0..40 {
            world.node(1).remove(&at(index));
        }
        rest(&mut world);
        assert_eq!(world.nodes[0].disk.tree(SHARE).len(), 7 + FILES - 40, "seed {seed}");
        for index in 0..40 {
            world.node(1).write(&at(index), format!("first {index}").as_bytes());
        }
        rest(&mut world);
        assert_eq!(world.nodes[0].disk.tree(SHARE).len(), 7 + FILES, "seed {seed}");
    }
}
