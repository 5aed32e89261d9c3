//! Downloads that are of no use any more: what takes their use away ends them at once, and nothing of them is left.
//! In virtual time, over a slow line.

use std::time::Duration;

use clearskies_core::engine::command::{Command, Reply, ShareState};
use clearskies_core::io::store::Space;
use clearskies_tests::sim::World;
use clearskies_tests::sim::net::Conditions;
use clearskies_tests::sim::share::{SHARE, at, conflict_files, joined, names, rest, text};

const SECOND: Duration = Duration::from_secs(1);
const MB: usize = 1_000_000;
/// Bytes a second of the line.
const LINE: u64 = 1_000_000;
/// After this a content that nobody has is left alone for most of the time.
const GIVEN_UP: Duration = Duration::from_secs(1500);

/// Two machines in step, from now on over a slow line.
fn slowly_joined(seed: u64) -> World {
    let mut world = joined(seed);
    world.net.conditions = Conditions { bytes_per_second: LINE, ..Conditions::default() };
    world
}

/// Bytes of which no two parts are alike.
fn content(size: usize, salt: u32) -> Vec<u8> {
    let words = (0..u32::try_from(size / 4).expect("a size"))
        .map(|n| n.wrapping_mul(2_654_435_761).wrapping_add(salt).to_le_bytes());
    words.flatten().collect()
}

fn temps(world: &World, index: usize) -> usize {
    world.nodes[index].disk.temps(SHARE)
}

fn partials(world: &World, index: usize) -> usize {
    world.nodes[index].store.live().rows(Space::Partial)
}

fn state(world: &mut World, index: usize) -> ShareState {
    world.status(index).shares[0].state
}

/// The conflict file that machine 1 is still to fetch.
fn pending_conflict(world: &mut World) -> String {
    let Ok(Reply::Conflicts(listed)) = world.ask(1, Command::Conflicts { path: None }) else { panic!() };
    assert_eq!(listed.len(), 1);
    assert!(conflict_files(world, 1).is_empty(), "it is still being fetched");
    listed[0].path.clone()
}

fn drop_it(world: &mut World, path: String) {
    world.ask(1, Command::Resolve { path, keep: false }).expect("dropped");
}

/// A conflict file of 20 MB that machine 1 is fetching, and another file.
fn fetching(seed: u64) -> World {
    let mut world = slowly_joined(seed);
    world.crash(1);
    world.node(0).write(&at("n"), &content(20 * MB, 1));
    world.node(0).write(&at("next"), &content(20 * MB, 2));
    world.run_for(10 * SECOND);
    world.node(1).write(&at("n"), b"small and later");
    world.start(1);
    world.run_for(18 * SECOND);
    world
}

/// What [`fetching`] fetches was given up, because machine 0 is down; parts are kept.
fn given_up(seed: u64) -> World {
    let mut world = fetching(seed);
    world.crash(0);
    // It is asked for again ever more seldom.
    world.run_for(GIVEN_UP);
    assert_eq!((temps(&world, 1), partials(&world, 1)), (2, 2), "parts are kept");
    assert_eq!(world.status(1).shares[0].pending_files, 2);
    world
}

#[test]
fn what_was_given_up_and_is_not_wanted_any_more_is_taken_away() {
    let mut world = given_up(5);
    let conflict = pending_conflict(&mut world);
    drop_it(&mut world, conflict);
    world.run_for(SECOND);
    assert_eq!((temps(&world, 1), partials(&world, 1)), (1, 1), "the other is still wanted");
    world.start(0);
    rest(&mut world);
    assert_eq!(names(&world, 1), ["n", "next"]);
}

#[test]
fn what_the_last_run_left_and_nobody_wants_any_more_goes() {
    let mut world = given_up(2);
    let conflict = pending_conflict(&mut world);
    world.ask(1, Command::Pause).expect("paused");
    world.restart(1);
    world.run_for(SECOND);
    drop_it(&mut world, conflict);
    world.run_for(20 * SECOND);
    assert_eq!((temps(&world, 1), partials(&world, 1)), (2, 2), "nothing is done while it is paused");
    world.ask(1, Command::Resume).expect("resumed");
    world.run_for(20 * SECOND);
    assert_eq!((temps(&world, 1), partials(&world, 1)), (1, 1));
}

#[test]
fn what_was_given_up_goes_on_while_it_is_wanted() {
    let mut world = given_up(8);
    // Other things come and go meanwhile, so that what is pending is swept over many times.
    for index in 0..20 {
        world.node(1).write(&at(&format!("{index}")), b"x");
        world.run_for(10 * SECOND);
    }
    assert_eq!((temps(&world, 1), partials(&world, 1)), (2, 2));
    let before = world.net.bytes_sent;
    world.start(0);
    rest(&mut world);
    let sent = world.net.bytes_sent - before;
    assert!(sent < 32 * MB as u64, "{sent} bytes more for 40 MB");
    assert_eq!((temps(&world, 1), partials(&world, 1)), (0, 0));
    assert_eq!(conflict_files(&world, 1).len(), 1);
}

#[test]
fn a_full_volume_gets_back_what_nobody_wants() {
    let mut world = given_up(4);
    // Room for the other one, if nothing is left of this one.
    let used = world.nodes[1].disk.fs.used();
    world.nodes[1].disk.fs.capacity = used + 6 * MB as u64;
    let conflict = pending_conflict(&mut world);
    drop_it(&mut world, conflict);
    world.start(0);
    rest(&mut world);
    assert_eq!(text(&world, 1, "n").as_deref(), Some("small and later"));
    assert!(names(&world, 1).contains(&"next".to_owned()), "{:?}", names(&world, 1));
}

#[test]
fn a_conflict_file_that_is_dropped_while_it_is_fetched_is_over_at_once() {
    let mut world = fetching(5);
    let conflict = pending_conflict(&mut world);
    drop_it(&mut world, conflict);
    world.run_for(SECOND);
    assert_eq!(temps(&world, 1), 1, "that of the other");
    // Only that one comes now, and nobody waits for anything when it is here.
    world.run_for(18 * SECOND);
    assert_eq!(state(&mut world, 1), ShareState::InSync);
    rest(&mut world);
    assert_eq!(names(&world, 0), ["n", "next"]);
}

#[test]
fn a_file_that_is_renamed_while_its_newer_version_comes_is_known_by_its_new_name_at_once() {
    for (seed, from, to, path) in
        [(6, "f", "g", "g"), (7, "d", "e", "e/f"), (8, "d/f", "g", "g"), (9, "f", "new/f", "new/f")]
    {
        let mut world = joined(seed);
        for dir in ["d", "new"] {
            world.node(0).mkdir(&at(dir));
        }
        let file = if from.starts_with('d') { "d/f" } else { "f" };
        world.node(0).write(&at(file), &content(MB, 4));
        rest(&mut world);
        world.net.conditions = Conditions { bytes_per_second: LINE, ..Conditions::default() };
        let newer = content(40 * MB, 5);
        world.node(0).write(&at(file), &newer);
        world.run_for(13 * SECOND);
        assert_eq!(temps(&world, 1), 1, "it is under way");
        let (read, sent) = (world.nodes[1].disk.hashes, world.net.bytes_sent);
        world.node(1).rename(&at(from), &at(to));
        world.run_for(10 * SECOND);
        assert!(names(&world, 0).contains(&path.to_owned()), "{:?}", names(&world, 0));
        let read = world.nodes[1].disk.hashes - read;
        // Once as what seems new, and once more because its time was as young as that.
        assert!(read <= 2, "{path} was read {read} times");
        rest(&mut world);
        assert_eq!(world.nodes[1].disk.read_file(&at(path)), Some(newer));
        assert_eq!(conflict_files(&world, 1), [] as [String; 0]);
        let sent = world.net.bytes_sent - sent;
        // What came before the name changed is made use of, as far as it was flushed.
        assert!(sent < 38 * MB as u64, "{sent} bytes more for a file of 40 MB");
        assert_eq!((temps(&world, 1), partials(&world, 1)), (0, 0));
    }
}

#[test]
fn equal_files_cross_the_wire_once() {
    let mut world = joined(17);
    world.nodes[1].flush_delay = SECOND;
    let before = world.net.bytes_sent;
    for name in ["a", "b", "c", "d", "e", "f"] {
        world.node(0).write(&at(name), &content(4 * MB, 1));
    }
    world.run_for(30 * SECOND);
    assert_eq!((names(&world, 1).len(), temps(&world, 1)), (6, 0));
    let sent = usize::try_from(world.net.bytes_sent - before).unwrap();
    assert!((4 * MB..5 * MB).contains(&sent), "{sent} bytes were sent");
}
