//! What a store that was put back from a backup must withstand: its peers hold what it wrote since, and the folder
//! holds some of it. Ends in step, whoever wrote what again.
//!
//! `SIM_SEED=7` runs one seed, `SIM_SEEDS=0..500` many.

use std::time::Duration;

use clearskies_core::engine::command::{Command, Existing};
use clearskies_core::io::store::{Space, StoreError};
use clearskies_core::share::layout::{Fact, MetaKey, meta_key, path_of_key};
use clearskies_tests::sim::World;
use clearskies_tests::sim::net::Conditions;
use clearskies_tests::sim::rng::Rng;
use clearskies_tests::sim::share::{REST, SHARE, at, attach, names, seeds};
use clearskies_tests::sim::store::Image;
use clearskies_tests::sim::world::{Ambush, Moment};

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

/// Two machines in step, the second of which went on after the backup that comes with them.
fn with_backup(seed: u64) -> (World, Image) {
    let mut world = World::new(seed, 2);
    world.node(0).share(SHARE);
    attach(&mut world, 1, Existing::Refuse);
    world.node(0).write(&at("kept"), b"kept");
    world.run_for(20 * SECOND);
    world.restart(1);
    world.run_for(20 * SECOND);
    let (backup, _) = world.nodes[1].home_backup();
    world.restart(1);
    world.node(1).write(&at("later"), b"later");
    world.run_for(20 * SECOND);
    world.crash(1);
    // Nobody tells it.
    world.partition(&[1]);
    (world, backup)
}

/// The seed of the second machine's keys.
fn identity(world: &World) -> Vec<u8> {
    let is_identity =
        |key: &[u8]| matches!(meta_key(key), Some(MetaKey::Club(_, fact, _)) if fact == Fact::Identity as u8);
    let store = world.nodes[1].store.live();
    store.iter(Space::Meta).find(|(key, _)| is_identity(key)).expect("it is a member").1.to_vec()
}

/// Starts the second machine, which is killed at one of its first orders to disk, store or the file beside the store;
/// then starts it for good.
fn starts_cut_off(world: &mut World, output: u64, moment: Moment) {
    world.ambush = Some(Ambush { node: 1, output, moment });
    world.start(1);
    world.run_for(20 * SECOND);
    assert!(world.nodes[1].engine.is_none(), "{output} {moment:?}: it is not killed");
    world.start(1);
    world.run_for(20 * SECOND);
}

const MOMENTS: [Moment; 3] = [Moment::Before, Moment::After, Moment::Torn];

#[test]
fn a_store_that_was_put_back_is_found_by_the_start_after_one_that_was_cut_off() {
    for output in 0..8 {
        for moment in MOMENTS {
            let (mut world, backup) = with_backup(output);
            let last = identity(&world);
            world.nodes[1].store.put_back(backup);
            starts_cut_off(&mut world, output, moment);
            assert_ne!(identity(&world), last, "{output} {moment:?}");
        }
    }
}

#[test]
fn a_start_that_was_cut_off_leaves_the_store_this_node_s_own() {
    for output in 0..8 {
        // A power cut may take the end of the store: then it is not known whose it is.
        for moment in [Moment::Before, Moment::After] {
            let (mut world, _) = with_backup(output);
            let last = identity(&world);
            starts_cut_off(&mut world, output, moment);
            assert_eq!(identity(&world), last, "{output} {moment:?}");
        }
    }
}

#[test]
fn a_power_cut_is_known_of_by_the_start_after_one_that_was_cut_off() {
    for output in 0..8 {
        for moment in MOMENTS {
            let (mut world, _) = with_backup(output);
            let last = identity(&world);
            world.start(1);
            world.run_for(20 * SECOND);
            world.power_cut(1);
            starts_cut_off(&mut world, output, moment);
            assert_ne!(identity(&world), last, "{output} {moment:?}");
        }
    }
}

#[test]
fn a_start_that_cannot_be_named_beside_the_store_is_tried_again() {
    let (mut world, _) = with_backup(1);
    let last = identity(&world);
    world.start(1);
    let commits = world.nodes[1].store.commits;
    while world.nodes[1].store.commits == commits {
        world.run_for(Duration::from_micros(5));
    }
    world.nodes[1].store.faults.push(StoreError::Io);
    world.run_for(Duration::from_millis(100));
    assert!(world.nodes[1].notices.iter().any(|notice| notice.contains("database cannot be used")));
    world.heal();
    world.run_for(120 * SECOND);
    assert!(world.nodes[1].notices.iter().any(|notice| notice.contains("can be used again")));
    assert_eq!(identity(&world), last);
    world.assert_same_trees(&[0, 1], SHARE);
}
