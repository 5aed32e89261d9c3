//! What a store that was put back from a backup must withstand: its peers hold what it wrote since, and the folder
//! holds some of it. Ends in step, whoever wrote what again.
//!
//! `SIM_SEED=7` runs one seed, `SIM_SEEDS=0..500` many.

use std::time::Duration;

use clearskies_core::engine::command::{Command, Existing};
use clearskies_core::io::store::Space;
use clearskies_core::share::layout::path_of_key;
use clearskies_tests::sim::World;
use clearskies_tests::sim::net::Conditions;
use clearskies_tests::sim::rng::Rng;
use clearskies_tests::sim::share::{REST, SHARE, at, attach, names, seeds};

const SECOND: Duration = Duration::from_secs(1);

/// Lets a user write, delete or move one of a few names with one of a few contents.
fn act(world: &mut World, rng: &mut Rng, index: usize) {
    let name = format!("{}", rng.below(4));
    let there = names(world, index).contains(&name);
    match rng.below(4) {
        0 if there => world.node(index).remove(&at(&name)),
        1 if there => {
            let to = format!("{}", rng.below(4));
            if !names(world, index).contains(&to) {
                world.node(index).rename(&at(&name), &at(&to));
            }
        }
        _ => world.node(index).write(&at(&name), format!("{}", rng.below(3)).as_bytes()),
    }
}

fn acts(world: &mut World, rng: &mut Rng, indexes: &[usize], most: u64) {
    for _ in 0..rng.below(most) {
        let index = *rng.pick(indexes).expect("some");
        act(world, rng, index);
        world.run_for(Duration::from_millis(rng.below(5000)));
    }
}

/// What no machine says is in step, and why.
fn told(world: &mut World) -> String {
    let mut told = String::new();
    for index in 0..world.nodes.len() {
        let store = world.nodes[index].store.live();
        let pending: Vec<_> = store.iter(Space::Pending).filter_map(|(key, _)| path_of_key(key)).collect();
        for path in pending {
            let why = world.ask(index, Command::Why { path: at(path.as_str()) });
            told += &format!("n{index} {}: {why:?}\n", path.as_str());
        }
    }
    told
}

fn restored(seed: u64) {
    let mut rng = Rng::new(seed ^ 0x7265_7374);
    let count = 2 + usize::from(rng.per_mille(300));
    let mut world = World::new(seed, count);
    world.node(0).share(SHARE);
    (1..count).for_each(|index| attach(&mut world, index, Existing::Refuse));
    let all: Vec<usize> = (0..count).collect();
    // What stays, so that the folder is never found empty.
    (0..3).for_each(|n| world.node(0).write(&at(&format!("kept{n}")), b"kept"));
    world.run_for(20 * SECOND);
    acts(&mut world, &mut rng, &all, 8);
    world.run_for(20 * SECOND);
    let lost = usize::from(rng.per_mille(700));
    let yesterday = world.nodes[lost].home_backup();
    acts(&mut world, &mut rng, &all, 8);
    world.run_for(20 * SECOND);
    world.crash(lost);
    if rng.per_mille(700) {
        world.nodes[lost].put_home_back(yesterday);
    } else {
        world.nodes[lost].store.put_back(yesterday.0);
    }
    acts(&mut world, &mut rng, &all, 4);
    let apart = rng.per_mille(500);
    if apart {
        world.partition(&[lost]);
    }
    world.start(lost);
    acts(&mut world, &mut rng, &all, 6);
    world.run_for(Duration::from_secs(rng.below(60)));
    world.heal();
    world.reset_all();
    acts(&mut world, &mut rng, &all, 3);
    if let Err(unquiet) = world.try_quiet(false, REST) {
        panic!("seed {seed}: {unquiet}\n{}", told(&mut world));
    }
    world.assert_same_trees(&all, SHARE);
}

#[test]
fn a_store_that_was_put_back_ends_in_step() {
    let mut failed = Vec::new();
    // In the last one changes of the lost identity are known of that nobody holds.
    for seed in seeds(0..40).chain([257]) {
        if let Err(why) = std::panic::catch_unwind(|| restored(seed)) {
            failed.push((seed, why.downcast_ref::<String>().cloned()));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// The file survives, but the database may not know of it any more while a member does.
#[test]
fn a_power_cut_right_after_a_write_leaves_nothing_pending() {
    for seed in seeds(0..30) {
        for slow in [false, true] {
            let mut world = World::new(seed, 2);
            world.node(0).share(SHARE);
            attach(&mut world, 1, Existing::Refuse);
            (0..3).for_each(|n| world.node(0).write(&at(&format!("kept{n}")), b"kept"));
            world.node(0).write(&at("edited"), b"base of it");
            world.run_for(120 * SECOND);
            if slow {
                // The record arrives, the content does not.
                world.net.conditions.bytes_per_second = 2000;
            }
            let large = [7; 30_000];
            world.node(0).write(&at("edited"), &large);
            world.node(0).write(&at("new"), &large[1..]);
            let wait = Duration::from_millis(world.below(20_000));
            world.run_for(wait);
            world.power_cut(0);
            world.net.conditions = Conditions::default();
            world.run_for(10 * SECOND);
            world.restart(0);
            if let Err(unquiet) = world.try_quiet(false, REST) {
                panic!("seed {seed} {slow} {wait:?}: {unquiet}\n{}", told(&mut world));
            }
            world.assert_same_trees(&[0, 1], SHARE);
        }
    }
}
