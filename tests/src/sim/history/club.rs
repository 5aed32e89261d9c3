//! Clubs that have joined, ready to be used again: joining costs more than living through most histories, because of
//! its cryptography. What is kept is what the machines' disks and stores hold; engines start from that.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use clearskies_core::engine::command::Existing;

use super::super::World;
use super::super::fs::Fs;
use super::super::share::{REST, SHARE, attach};
use super::super::store::Image;

/// So many clubs of each size, with other names and keys.
const CLUBS: u64 = 16;
/// One world in so many looks for others on the local network.
const LAN_EVERY: u64 = 4;

#[derive(Clone)]
struct Kept {
    fs: Fs,
    home: (Image, Option<[u8; 16]>),
}

thread_local! {
    static CLUBS_KEPT: RefCell<BTreeMap<(usize, u64), Vec<Kept>>> = const { RefCell::new(BTreeMap::new()) };
}

/// Machines that have joined one share, in a world of its own chance. All of them run.
pub(super) fn joined(seed: u64, machines: usize) -> World {
    let key = (machines, seed % CLUBS);
    let kept = CLUBS_KEPT
        .with_borrow_mut(|clubs| clubs.entry(key).or_insert_with(|| found(key.1, machines)).clone());
    let mut world = World::asleep(seed, machines);
    for (node, kept) in world.nodes.iter_mut().zip(kept) {
        node.lan = seed.is_multiple_of(LAN_EVERY);
        node.disk.fs = kept.fs;
        node.put_home_back(kept.home);
    }
    for index in 0..machines {
        world.start(index);
    }
    world
}

fn found(seed: u64, machines: usize) -> Vec<Kept> {
    let mut world = World::new(seed, machines);
    world.trace.on = false;
    world.node(0).share(SHARE);
    for index in 1..machines {
        attach(&mut world, index, Existing::Refuse);
    }
    world.run_until_quiet(REST);
    world.run_for(Duration::from_secs(60));
    for index in 0..machines {
        world.stop(index);
    }
    world.nodes.iter().map(|node| Kept { fs: node.disk.fs.clone(), home: node.home_backup() }).collect()
}
