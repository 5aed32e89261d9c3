//! What every scenario with one share needs: machines that have joined, rest, and short ways to look at the folder.

use std::ops::Range;
use std::time::Duration;

use clearskies_core::engine::command::{Existing, Reply};

use super::World;

/// Where the folder lies on each machine.
pub const SHARE: &str = "/share";
/// Long enough for every back-off of the dialer.
pub const REST: Duration = Duration::from_secs(1800);

/// The seeds that a test plays: `SIM_SEED=7` asks for one, `SIM_SEEDS=0..500` for many, else the ordinary ones.
pub fn seeds(ordinary: Range<u64>) -> Range<u64> {
    let number = |text: &str| text.parse::<u64>().expect("a number");
    if let Ok(seed) = std::env::var("SIM_SEED") {
        let seed = number(&seed);
        return seed..seed + 1;
    }
    match std::env::var("SIM_SEEDS") {
        Ok(range) => {
            let (start, end) = range.split_once("..").expect("a range like 0..100");
            number(start)..number(end)
        }
        Err(_) => ordinary,
    }
}

/// Two machines with one share, in step.
pub fn joined(seed: u64) -> World {
    let mut world = World::new(seed, 2);
    world.node(0).share(SHARE);
    attach(&mut world, 1, Existing::Refuse);
    rest(&mut world);
    world
}

/// Has a machine join the share of the first.
#[track_caller]
pub fn attach(world: &mut World, index: usize, existing: Existing) {
    let code = world.node(0).invite(SHARE);
    let done = world.node(index).attach(&code, SHARE, existing, 0);
    assert!(matches!(done, Ok(Reply::Share { new: true, .. })), "{done:?}");
}

/// Lets everything settle; then all machines have the same.
#[track_caller]
pub fn rest(world: &mut World) {
    world.run_until_quiet(REST);
    let all: Vec<usize> = (0..world.nodes.len()).collect();
    world.assert_same_trees(&all, SHARE);
}

/// Lets everything settle; then all machines that run have the same.
#[track_caller]
pub fn rest_running(world: &mut World) {
    world.run_until_quiet(REST);
    let running: Vec<usize> =
        (0..world.nodes.len()).filter(|index| world.nodes[*index].engine.is_some()).collect();
    world.assert_same_trees(&running, SHARE);
}

/// A path of the share as a machine knows it.
pub fn at(path: &str) -> String {
    format!("{SHARE}/{path}")
}

/// What a file says.
pub fn text(world: &World, index: usize, path: &str) -> Option<String> {
    world.nodes[index].disk.read_file(&at(path)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// All paths in the folder.
pub fn names(world: &World, index: usize) -> Vec<String> {
    world.nodes[index].disk.tree(SHARE).into_keys().collect()
}

/// The conflict files in the folder.
pub fn conflict_files(world: &World, index: usize) -> Vec<String> {
    names(world, index).into_iter().filter(|name| name.contains(".CONFLICT.")).collect()
}
