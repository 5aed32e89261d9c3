//! What the survey must withstand: folders that change faster than they are looked at, a store that lags behind, files
//! that take long to read, and absences that nobody ordered.
//!
//! `SIM_SEED=7` runs one seed of the storms, `SIM_SEEDS=0..500` many.

use std::time::Duration;

use clearskies_core::engine::command::{Command, HeldDeletions, Reply};
use clearskies_core::files::path::RelPath;
use clearskies_core::io::Noticed;
use clearskies_core::io::store::Space;
use clearskies_tests::sim::World;
use clearskies_tests::sim::rng::Rng;
use clearskies_tests::sim::share::{REST, SHARE, at, joined, names, rest, seeds, text};
use clearskies_tests::sim::users::Item;

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

/// Contents of all files, each as often as it is there.
fn contents(world: &World, index: usize) -> Vec<Vec<u8>> {
    let items = world.nodes[index].disk.tree(SHARE).into_values();
    let mut all: Vec<Vec<u8>> =
        items.filter_map(|item| if let Item::File(_, data) = item { Some(data) } else { None }).collect();
    all.sort();
    all
}

fn held(world: &mut World, index: usize) -> Vec<HeldDeletions> {
    match world.ask(index, Command::Deletions { path: None }) {
        Ok(Reply::Deletions(held)) => held,
        other => panic!("{other:?}"),
    }
}

/// Folders with files in them, in step.
fn folders(world: &mut World, folders: usize, files: usize) {
    for dir in 0..folders {
        world.node(0).mkdir(&at(&format!("d{dir}")));
        for file in 0..files {
            let path = at(&format!("d{dir}/f{file}"));
            world.node(0).write(&path, format!("{file} of {dir}").as_bytes());
        }
    }
    rest(world);
}

#[test]
fn a_folder_that_is_unpacked_and_renamed_leaves_nothing_behind() {
    for wait in [50, 150, 250, 400, 700, 1000, 1500, 2500] {
        let mut world = joined(wait);
        world.store_delay_max = 300 * MILLI;
        for round in 0..4 {
            world.node(0).mkdir(&at(&format!(".tmp{round}/sub")));
            for file in 0..60 {
                let path = at(&format!(".tmp{round}/sub/{file}"));
                world.node(0).write(&path, format!("{file} of {round}").as_bytes());
            }
            world.run_for(Duration::from_millis(wait));
            world.node(0).rename(&at(&format!(".tmp{round}")), &at(&format!("pkg{round}")));
        }
        rest(&mut world);
        assert_eq!(names(&world, 0).len(), 4 * 62, "waited {wait} ms");
    }
}

#[test]
fn one_change_is_followed_at_once() {
    for (done, within) in [(0, 200), (1000, 80)] {
        let mut world = joined(7);
        world.node(0).write(&at("a"), b"one");
        rest(&mut world);
        world.run_for(Duration::from_secs(5));
        world.hints_done_per_mille = done;
        world.node(0).write(&at("a"), b"two");
        world.run_for(Duration::from_millis(within / 2));
        assert_eq!(contents(&world, 1), [b"one"], "done: {done}");
        world.run_for(Duration::from_millis(within / 2));
        assert_eq!(contents(&world, 1), [b"two"], "done: {done}");
    }
}

#[test]
fn what_is_made_and_deleted_under_a_busy_store_is_gone() {
    for seed in seeds(0..20) {
        let mut world = joined(seed);
        world.node(0).write(&at("kept"), b"kept");
        rest(&mut world);
        world.store_delay_max = 400 * MILLI;
        let mut rng = Rng::new(seed);
        for round in 0..30 {
            let path = at(&format!("x{}", round % 3));
            world.node(0).write(&path, format!("version {round}").as_bytes());
            world.run_for(Duration::from_millis(rng.below(400)));
            world.node(0).remove(&path);
            world.run_for(Duration::from_millis(rng.below(150)));
        }
        rest(&mut world);
        assert_eq!(names(&world, 1), ["kept"], "seed {seed}");
    }
}

#[test]
fn what_sync_has_just_put_there_may_be_moved_away_at_once() {
    for (seed, wait) in [0, 5, 10, 15, 20, 30, 60, 90, 120].into_iter().enumerate() {
        for to in ["e", "/elsewhere"] {
            let mut world = joined(seed as u64);
            world.node(0).write(&at("kept"), b"kept");
            rest(&mut world);
            world.store_delay_max = 2000 * MILLI;
            world.node(0).mkdir(&at("d"));
            for file in 0..20 {
                world.node(0).write(&at(&format!("d/{file}")), format!("content {file}").as_bytes());
            }
            while names(&world, 1).len() < 22 {
                world.run_for(5 * MILLI);
            }
            world.run_for(Duration::from_millis(wait));
            let (to, left) = if to == "e" { (at(to), 22) } else { (to.to_owned(), 1) };
            world.node(1).rename(&at("d"), &to);
            rest(&mut world);
            assert_eq!(names(&world, 0).len(), left, "waited {wait} ms: {:?}", names(&world, 0));
        }
    }
}

/// Renames folders, at times into each other, faster than anybody can look.
fn storm(world: &mut World, rng: &mut Rng, index: usize, name: &str) {
    let tree = world.nodes[index].disk.tree(SHARE);
    let dirs: Vec<&String> =
        tree.iter().filter(|(_, item)| matches!(item, Item::Dir(_))).map(|(path, _)| path).collect();
    let Some(from) = rng.pick(&dirs).map(|path| (*path).clone()) else { return };
    let into = rng.per_mille(200).then(|| rng.pick(&dirs).map(|path| (*path).clone())).flatten();
    let to = match into {
        Some(into) if into != from && !into.starts_with(&format!("{from}/")) => format!("{into}/{name}"),
        _ => name.to_owned(),
    };
    world.node(index).rename(&at(&from), &at(&to));
}

fn storm_world(seed: u64, both: bool) {
    let mut world = joined(seed);
    let mut rng = Rng::new(seed ^ 0x0053_746f_726d);
    folders(&mut world, 12, 10);
    let before = contents(&world, 0);
    world.store_delay_max = Duration::from_millis(rng.below(200));
    world.disk_delay_max = Duration::from_millis(1 + rng.below(20));
    world.poll_delay_max = Duration::from_millis(1 + rng.below(100));
    for round in 0..80 {
        storm(&mut world, &mut rng, 0, &format!("r{round}"));
        if both && rng.per_mille(500) {
            storm(&mut world, &mut rng, 1, &format!("s{round}"));
        }
        world.run_for(Duration::from_millis(rng.below(60)));
    }
    let made = world.nodes[0].disk.tree(SHARE);
    if let Err(unquiet) = world.try_quiet(false, REST) {
        let mut told = String::new();
        for index in 0..2 {
            let here = names(&world, index);
            for name in here.iter().filter(|name| name.len() < 30) {
                let why = world.ask(index, Command::Why { path: at(name) });
                if !format!("{why:?}").contains("in step") {
                    told += &format!("n{index} {name}: {why:?}\n");
                }
            }
        }
        panic!("seed {seed}: {unquiet}\n{told}");
    }
    for (index, other) in [(0, 1), (1, 0)] {
        let (here, there) = (names(&world, index), names(&world, other));
        let alone = here.iter().find(|name| !there.contains(name));
        if let Some(alone) = alone {
            let whys: Vec<_> =
                [index, other].map(|index| world.ask(index, Command::Why { path: at(alone) })).into();
            panic!("seed {seed}: {alone} is only on {index}: {whys:?}");
        }
    }
    rest(&mut world);
    for index in 0..2 {
        assert!(held(&mut world, index).is_empty(), "seed {seed}: nobody deleted anything");
    }
    let after = contents(&world, 0);
    if !both {
        let now = names(&world, 0);
        assert!(made.keys().eq(&now), "seed {seed}: nobody else did anything, but {made:?} became {now:?}");
    }
    assert!(after == before, "seed {seed}: {} files became {}", before.len(), after.len());
}

#[test]
fn folders_renamed_in_a_storm_are_there_once() {
    for seed in seeds(0..8) {
        storm_world(seed, false);
    }
}

#[test]
fn folders_renamed_on_both_sides_end_the_same() {
    for seed in seeds(0..16) {
        storm_world(seed, true);
    }
}

#[test]
fn rarer_storms_on_both_sides_end_the_same() {
    // Each met something that no other one of the first 500 did, when hints came in any order.
    for seed in [28, 72, 103, 119, 176, 248, 382, 569] {
        storm_world(seed, true);
    }
}

/// How many records there are.
fn records(world: &World, index: usize) -> usize {
    world.nodes[index].store.live().iter(Space::Record).count()
}

#[test]
fn what_came_from_where_nobody_may_look_is_taken_for_new() {
    for seed in 0..4 {
        let mut world = joined(seed);
        for dir in ["a", "b"] {
            world.node(0).mkdir(&at(dir));
        }
        world.node(0).write(&at("a/f"), b"content");
        world.node(0).write(&at("b/x"), b"beside");
        rest(&mut world);
        world.node(0).rename(&at("a/f"), &at("b/g"));
        world.node(0).chmod(&at("a"), 0);
        world.run_for(Duration::from_secs(20));
        assert_eq!(text(&world, 1, "b/g").as_deref(), Some("content"), "seed {seed}");
        world.node(0).chmod(&at("a"), 0o755);
        rest(&mut world);
        let files: Vec<String> =
            names(&world, 1).into_iter().filter(|name| !["a", "b"].contains(&&**name)).collect();
        assert_eq!(files, ["b/g", "b/x"], "seed {seed}");
    }
}

#[test]
fn a_folder_that_one_look_meets_twice_keeps_its_records() {
    // The look walks b, then z: what moves from the one to the other meanwhile is met in both.
    for wait in (100..150).step_by(4) {
        let mut world = joined(12);
        folders(&mut world, 1, 10);
        let before = records(&world, 0);
        world.disk_delay_max = 20 * MILLI;
        world.node(0).rename(&at("d0"), &at("b"));
        world.node(0).mkdir(&at("z"));
        world.run_for(Duration::from_millis(wait));
        world.node(0).rename(&at("b"), &at("z/b"));
        rest(&mut world);
        let new = records(&world, 0) - before;
        assert_eq!(new, 1, "waited {wait} ms: z alone is new");
    }
}

#[test]
fn a_folder_that_goes_away_and_comes_back_at_once_is_looked_into() {
    for wait in [0, 5, 30, 120, 1500, 3000] {
        let mut world = joined(13);
        world.node(0).mkdir(&at("d/sub/deep"));
        world.node(0).write(&at("d/sub/deep/kept"), b"kept");
        world.node(0).write(&at("other"), b"other");
        rest(&mut world);
        for round in 0..2 {
            let anew = round == 1;
            if anew {
                world.node(0).remove(&at("d"));
            } else {
                world.node(0).rename(&at("d"), "/elsewhere");
            }
            world.run_for(Duration::from_millis(wait));
            if anew {
                world.node(0).mkdir(&at("d/sub/deep"));
                world.node(0).write(&at("d/sub/deep/kept"), b"anew");
            } else {
                world.node(0).write("/elsewhere/sub/deep/kept", b"edited");
                world.node(0).write("/elsewhere/sub/made", b"made while it was away");
                world.node(0).rename("/elsewhere", &at("d"));
            }
            rest(&mut world);
            let told = format!("waited {wait} ms, anew: {anew}");
            let kept = if anew { "anew" } else { "edited" };
            assert_eq!(text(&world, 1, "d/sub/deep/kept").as_deref(), Some(kept), "{told}");
            assert_eq!(names(&world, 1).len(), if anew { 5 } else { 6 }, "{told}");
            // And what is in it is watched again.
            world.node(0).write(&at("d/sub/deep/later"), told.as_bytes());
            world.run_for(10 * SECOND);
            assert_eq!(text(&world, 1, "d/sub/deep/later"), Some(told));
        }
    }
}

/// Has the watcher of a machine name one path.
fn hint(world: &mut World, index: usize, path: &str) {
    let path = RelPath::new(path).unwrap();
    world.node(index).disk(|disk, _| {
        for root in disk.open_roots() {
            disk.hint(clearskies_tests::sim::disk::Hint::Seen(root, path.clone(), Noticed::Changed));
        }
    });
}

#[test]
fn what_lay_in_a_folder_that_was_never_seen_itself_goes_with_it() {
    let mut world = joined(10);
    world.node(0).write(&at("kept"), b"kept");
    rest(&mut world);
    world.node(0).disk(|disk, now| {
        disk.mkdir(now, &at("a/b")).unwrap();
        disk.take_hints();
    });
    hint(&mut world, 0, "a/b");
    world.run_for(5 * SECOND);
    assert_eq!(names(&world, 1), ["a", "a/b", "kept"]);
    world.node(0).rename(&at("a"), "/elsewhere");
    rest(&mut world);
    assert_eq!(names(&world, 1), ["kept"]);
}

#[test]
fn a_deleted_folder_that_something_unseen_kept_goes_when_that_went() {
    let mut world = joined(11);
    world.node(0).mkdir(&at("d"));
    world.node(0).write(&at("d/file"), b"x");
    world.node(0).write(&at("kept"), b"kept");
    rest(&mut world);
    world.node(1).disk(|disk, now| {
        disk.write(now, &at("d/unseen"), b"y").unwrap();
        disk.take_hints();
    });
    world.node(0).remove(&at("d"));
    world.run_for(20 * SECOND);
    assert_eq!(names(&world, 1), ["d", "d/unseen", "kept"]);
    world.node(1).remove(&at("d/unseen"));
    rest(&mut world);
    assert_eq!(names(&world, 1), ["kept"]);
}

#[test]
fn deletes_that_sync_made_are_not_held_and_hold_nothing() {
    let mut world = joined(1);
    folders(&mut world, 10, 20);
    world.store_delay_max = 200 * MILLI;
    for round in 0..30 {
        let from = if round < 10 { format!("d{round}") } else { format!("r{}", round - 10) };
        world.node(0).rename(&at(&from), &at(&format!("r{round}")));
        world.run_for(200 * MILLI);
        assert!(held(&mut world, 1).is_empty(), "round {round}: {:?}", held(&mut world, 1));
    }
    world.node(1).write(&at("own"), b"of the passive side");
    world.run_for(5 * SECOND);
    world.node(1).remove(&at("own"));
    rest(&mut world);
    assert_eq!(names(&world, 0).len(), 210);
}

#[test]
fn a_held_path_counts_once_however_often_it_is_looked_at() {
    let mut world = joined(2);
    folders(&mut world, 2, 60);
    world.node(0).remove(&at("d0"));
    world.run_for(20 * SECOND);
    assert_eq!(held(&mut world, 0)[0].count, 61);
    for _ in 0..5 {
        for file in 0..60 {
            hint(&mut world, 0, &format!("d0/f{file}"));
            hint(&mut world, 0, "d0");
        }
        world.run_for(10 * SECOND);
    }
    assert_eq!(held(&mut world, 0)[0].count, 61);
    // What comes back is not held any more.
    world.node(0).mkdir(&at("d0"));
    for file in 0..60 {
        world.node(0).write(&at(&format!("d0/f{file}")), format!("{file} of 0").as_bytes());
    }
    rest(&mut world);
    assert!(held(&mut world, 0).is_empty());
    assert_eq!(names(&world, 1).len(), 122);
}

#[test]
fn a_held_folder_that_is_moved_back_is_not_held() {
    let mut world = joined(3);
    folders(&mut world, 2, 60);
    world.node(0).rename(&at("d0"), "/elsewhere");
    world.run_for(20 * SECOND);
    assert_eq!(held(&mut world, 0)[0].count, 61);
    world.node(0).rename("/elsewhere", &at("d0"));
    rest(&mut world);
    assert!(held(&mut world, 0).is_empty());
    assert_eq!(names(&world, 1).len(), 122);
}

#[test]
fn what_was_confirmed_does_not_hold_what_comes_after() {
    let mut world = joined(4);
    folders(&mut world, 2, 60);
    world.node(0).remove(&at("d0"));
    world.run_for(20 * SECOND);
    let decide = Command::DecideDeletions { path: SHARE.into(), confirm: true };
    assert_eq!(world.ask(0, decide), Ok(Reply::Done));
    rest(&mut world);
    world.node(0).remove(&at("d1/f0"));
    rest(&mut world);
    assert!(held(&mut world, 0).is_empty());
    assert_eq!(names(&world, 1).len(), 60);
}

#[test]
fn a_folder_that_is_suddenly_empty_sends_no_delete() {
    for (files, left, running) in [
        (2, 0, true),
        (2, 0, false),
        (22, 0, true),
        (22, 0, false),
        (2, 1, true),
        (22, 1, true),
        (22, 1, false),
    ] {
        let mut world = joined(5);
        for file in 0..files {
            world.node(0).write(&at(&format!("{file}")), b"x");
        }
        rest(&mut world);
        if !running {
            world.crash(0);
        }
        // The folder's own mark stays.
        for file in left..files {
            world.node(0).remove(&at(&format!("{file}")));
        }
        if !running {
            world.restart(0);
        }
        world.run_for(120 * SECOND);
        let told = format!("{left} of {files} left, running: {running}");
        if left > 0 {
            assert!(held(&mut world, 0).is_empty(), "{told}");
            assert_eq!(names(&world, 1).len(), left, "{told}");
            continue;
        }
        assert_eq!(names(&world, 1).len(), files, "{told}");
        assert_eq!(held(&mut world, 0)[0].count, files as u64, "{told}");
        assert!(!world.status(0).shares[0].problems.is_empty(), "{told}");
        let confirm = running;
        let decide = Command::DecideDeletions { path: SHARE.into(), confirm };
        assert_eq!(world.ask(0, decide), Ok(Reply::Done));
        rest(&mut world);
        assert_eq!(names(&world, 1).len(), if confirm { 0 } else { files }, "{told}");
    }
}

#[test]
fn the_last_file_alone_may_go() {
    let mut world = joined(6);
    world.node(0).mkdir(&at("dir"));
    world.node(0).write(&at("dir/only"), b"x");
    rest(&mut world);
    world.node(0).remove(&at("dir"));
    rest(&mut world);
    assert!(names(&world, 1).is_empty());
}

const LARGE: usize = 65 << 20;

#[test]
fn a_large_file_that_is_read_holds_up_nothing() {
    let mut world = joined(7);
    world.slow_to_hash.insert(RelPath::new("large").unwrap(), 300 * SECOND);
    world.node(0).write(&at("large"), &vec![7; LARGE]);
    world.run_for(SECOND);
    for round in 0..3 {
        let (small, again) = (format!("small {round}"), format!("again {round}"));
        world.node(0).write(&at(&small), small.as_bytes());
        world.run_for(5 * SECOND);
        assert_eq!(text(&world, 1, &small).as_ref(), Some(&small));
        world.node(0).write(&at(&small), again.as_bytes());
        world.run_for(5 * SECOND);
        assert_eq!(text(&world, 1, &small), Some(again));
        world.node(0).remove(&at(&small));
        world.run_for(10 * SECOND);
        assert_eq!(text(&world, 1, &small), None);
    }
    assert!(names(&world, 1).is_empty());
    rest(&mut world);
    assert_eq!(names(&world, 1), ["large"]);
}

#[test]
fn a_large_file_that_changes_while_it_is_read_ends_as_it_is_last() {
    let mut world = joined(8);
    world.slow_to_hash.insert(RelPath::new("large").unwrap(), 20 * SECOND);
    world.node(0).write(&at("large"), &vec![7; LARGE]);
    world.run_for(10 * SECOND);
    let slow = std::mem::take(&mut world.slow_to_hash);
    world.node(0).write(&at("large"), b"small now");
    world.run_for(5 * SECOND);
    assert_eq!(text(&world, 1, "large").as_deref(), Some("small now"));
    rest(&mut world);
    world.slow_to_hash = slow;
    world.node(0).write(&at("large"), &vec![8; LARGE]);
    world.run_for(10 * SECOND);
    world.node(0).remove(&at("large"));
    world.node(0).write(&at("other"), b"other");
    rest(&mut world);
    assert_eq!(names(&world, 1), ["other"]);
    world.node(0).write(&at("large"), &vec![9; LARGE]);
    world.run_for(10 * SECOND);
    world.slow_to_hash.insert(RelPath::new("moved").unwrap(), 20 * SECOND);
    world.node(0).rename(&at("large"), &at("moved"));
    rest(&mut world);
    assert_eq!(names(&world, 1), ["moved", "other"]);
}

#[test]
fn a_large_file_found_at_the_start_keeps_the_time_of_the_disk() {
    let mut world = joined(9);
    world.node(0).write(&at("large"), b"small at first");
    rest(&mut world);
    world.crash(1);
    world.slow_to_hash.insert(RelPath::new("large").unwrap(), 60 * SECOND);
    world.node(1).write(&at("large"), &vec![1; LARGE]);
    world.run_for(10 * SECOND);
    world.node(0).write(&at("large"), b"later");
    world.run_for(100 * SECOND);
    world.restart(1);
    rest(&mut world);
    assert_eq!(text(&world, 0, "large").as_deref(), Some("later"));
    assert_eq!(names(&world, 0).len(), 2, "the older one is the conflict file");
}

#[test]
fn an_edit_while_paused_has_the_time_at_which_it_was_made() {
    let mut world = joined(10);
    world.node(0).write(&at("a"), b"base");
    rest(&mut world);
    assert_eq!(world.ask(1, Command::Pause), Ok(Reply::Done));
    world.node(1).write(&at("a"), b"by one, first");
    world.run_for(300 * SECOND);
    world.node(0).write(&at("a"), b"by zero, later");
    world.run_for(300 * SECOND);
    assert_eq!(world.ask(1, Command::Resume), Ok(Reply::Done));
    rest(&mut world);
    assert_eq!(text(&world, 1, "a").as_deref(), Some("by zero, later"));
    assert_eq!(names(&world, 0).len(), 2);
    // Afterwards what is edited has the time at which it is noticed again.
    world.node(1).disk(|disk, now| {
        disk.write(now, &at("a"), b"with an old time").unwrap();
        disk.touch(now, &at("a"), now - 3_600_000_000_000).unwrap();
    });
    rest(&mut world);
    assert_eq!(text(&world, 0, "a").as_deref(), Some("with an old time"));
}
