//! What two and three computers do with a folder, in virtual time over a slow line that breaks: the main job, and
//! what it must withstand. Each case runs for a few seeds; `SIM_TRACE=1` prints the log.

use std::time::Duration;

use clearskies_core::engine::command::Existing;
use clearskies_tests::sim::World;
use clearskies_tests::sim::net::Conditions;
use clearskies_tests::sim::share::{SHARE, rest_running as rest};
use clearskies_tests::sim::users::Tree;

mod both_sides;
mod breaks;
mod everyday;
mod folders;
mod joining;

pub(crate) const SEEDS: std::ops::Range<u64> = 0..3;
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const YEAR_NS: i64 = 31_557_600 * 1_000_000_000;

/// `count` machines with one share, all joined and in step, over a line that breaks.
pub(crate) fn joined(seed: u64, count: usize) -> World {
    let mut world = World::new(seed, count);
    world.net.conditions = Conditions::lossy();
    world.node(0).share(SHARE);
    for index in 1..count {
        attach(&mut world, index, Existing::Refuse);
    }
    world
}

pub(crate) fn attach(world: &mut World, index: usize, existing: Existing) {
    clearskies_tests::sim::share::attach(world, index, existing);
    rest(world);
}

pub(crate) fn tree(world: &World, index: usize) -> Tree {
    world.nodes[index].disk.tree(SHARE)
}

/// Takes one machine down, lets the other and then it change things, and brings both together again.
pub(crate) fn apart(world: &mut World, here: impl FnOnce(&mut World), there: impl FnOnce(&mut World)) {
    world.crash(1);
    here(world);
    world.run_for(10 * SECOND);
    there(world);
    world.run_for(10 * SECOND);
    world.restart(1);
    rest(world);
}
