//! Large files that changed in parts: only the difference goes over the line, whatever happens on the way. In virtual
//! time.

use std::time::Duration;

use clearskies_tests::sim::World;
use clearskies_tests::sim::net::Conditions;
use clearskies_tests::sim::share::{at, conflict_files, joined, rest};

const SECOND: Duration = Duration::from_secs(1);
const MB: usize = 1_000_000;

/// Bytes of which no two parts are alike.
fn content(size: usize, salt: u32) -> Vec<u8> {
    let words = (0..u32::try_from(size / 4).expect("a size"))
        .map(|n| (n ^ salt).wrapping_mul(2_654_435_761).rotate_left(n % 31).to_le_bytes());
    words.flatten().collect()
}

/// Two machines with this file.
fn with(seed: u64, old: &[u8]) -> World {
    let mut world = joined(seed);
    world.node(0).write(&at("file"), old);
    rest(&mut world);
    world
}

/// Writes another version at machine 0; returns the bytes that go over the line until machine 1 has it.
fn cost(world: &mut World, new: &[u8]) -> u64 {
    let before = world.net.bytes_sent;
    world.node(0).write(&at("file"), new);
    settled(world, new);
    world.net.bytes_sent - before
}

#[track_caller]
fn settled(world: &mut World, new: &[u8]) {
    rest(world);
    assert!(world.nodes[1].disk.read_file(&at("file")).as_deref() == Some(new));
    assert_eq!(conflict_files(world, 1), [] as [String; 0]);
}

#[test]
fn an_edit_an_insertion_and_a_cut_cost_little() {
    let old = content(10 * MB, 1);
    let mut world = with(1, &old);
    let mut new = old.clone();
    new[5 * MB..5 * MB + 1000].fill(0);
    new.extend(content(50_000, 2));
    let edited = cost(&mut world, &new);
    assert!(edited < 150_000, "{edited} bytes for an edit and 50 kB appended");
    new.splice(0..0, [7; 100]);
    let inserted = cost(&mut world, &new);
    assert!(inserted < 100_000, "{inserted} bytes for an insertion");
    let cut = cost(&mut world, &new[4 * MB..]);
    assert!(cut < 100_000, "{cut} bytes for a cut");
}

#[test]
fn a_file_of_a_hundred_kilobytes_is_large_enough() {
    let mut new = content(100_000, 1);
    let mut world = with(2, &new);
    new[50_000] ^= 1;
    let cost = cost(&mut world, &new);
    assert!(cost < 10_000, "{cost} bytes for one changed byte");
}

#[test]
fn what_has_nothing_in_common_costs_little_more_than_itself() {
    let mut world = with(3, &content(40 * MB, 1));
    let new = content(40 * MB, 99);
    let cost = cost(&mut world, &new);
    assert!(cost < 41_500_000, "{cost} bytes for 40 MB");
}

#[test]
fn a_broken_line_and_a_restart_cost_little() {
    let old = content(20 * MB, 1);
    for victim in [None, Some(0), Some(1)] {
        let mut world = with(4, &old);
        world.net.conditions = Conditions { bytes_per_second: MB as u64 / 4, ..Conditions::default() };
        let mut new = old.clone();
        // So much is new that patches are under way for seconds.
        for part in 0..20 {
            new[part * MB..part * MB + 100_000].fill(part as u8);
        }
        let before = world.net.bytes_sent;
        world.node(0).write(&at("file"), &new);
        world.run_for(5 * SECOND);
        match victim {
            Some(victim) => world.restart(victim),
            None => world.reset_all(),
        }
        settled(&mut world, &new);
        let cost = world.net.bytes_sent - before;
        assert!(cost < 6 * MB as u64, "{cost} bytes after {victim:?} broke off");
    }
}

#[test]
fn an_older_version_that_changes_meanwhile_is_not_used() {
    let old = content(20 * MB, 1);
    let mut world = with(5, &old);
    world.net.conditions = Conditions { bytes_per_second: MB as u64 / 4, ..Conditions::default() };
    let mut new = old.clone();
    new[MB..2 * MB].fill(1);
    world.node(0).write(&at("file"), &new);
    world.run_for(3 * SECOND);
    let mut edited = old.clone();
    edited[15 * MB..15 * MB + 100].fill(9);
    world.node(1).write(&at("file"), &edited);
    rest(&mut world);
    // Both were made apart: one is the file, the other lies beside it, and both are whole.
    let file = world.nodes[0].disk.read_file(&at("file")).expect("a file");
    let beside = conflict_files(&world, 0);
    assert_eq!(beside.len(), 1);
    let beside = world.nodes[0].disk.read_file(&at(&beside[0])).expect("a file");
    assert!((file == new && beside == edited) || (file == edited && beside == new));
}
