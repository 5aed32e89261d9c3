//! What becomes of changes that were made apart, and of what is to be removed meanwhile: nothing is lost, each loser
//! has one conflict file that users can see and decide about. In virtual time.

use std::time::Duration;

use clearskies_core::engine::command::{Command, CommandError, Conflict, Existing, Reply};
use clearskies_tests::sim::World;
use clearskies_tests::sim::fs::Body;
use clearskies_tests::sim::net::Conditions;
use clearskies_tests::sim::share::{SHARE, at, attach, joined, names, rest, text};
use clearskies_tests::sim::users::Item;

const SEEDS: std::ops::Range<u64> = 0..3;
const SECOND: Duration = Duration::from_secs(1);

/// The conflict files, which are the same everywhere, counted and listed everywhere.
#[track_caller]
fn conflicts(world: &mut World) -> Vec<Conflict> {
    let mut all = Vec::new();
    for index in 0..2 {
        let Ok(Reply::Conflicts(listed)) = world.ask(index, Command::Conflicts { path: None }) else {
            panic!("n{index} lists no conflicts")
        };
        let named: Vec<String> = names(world, index)
            .into_iter()
            .filter(|name| name.contains(".CONFLICT."))
            .map(|n| at(&n))
            .collect();
        let paths: Vec<String> = listed.iter().map(|conflict| conflict.path.clone()).collect();
        assert_eq!(paths, named, "n{index}");
        assert_eq!(world.status(index).shares[0].conflicts, listed.len() as u64, "n{index}");
        all.push(paths);
        if index == 1 {
            assert_eq!(all[0], all[1]);
            return listed;
        }
    }
    Vec::new()
}

/// Exactly one conflict file, beside `path`, with this text.
#[track_caller]
fn one_conflict(world: &mut World, path: &str, content: &str) -> String {
    let listed = conflicts(world);
    assert_eq!(listed.len(), 1, "{:?}", names(world, 0));
    assert_eq!(listed[0].original, at(path));
    let name = listed[0].path.strip_prefix("/share/").expect("in the share").to_owned();
    assert_eq!(text(world, 0, &name).as_deref(), Some(content));
    name
}

fn resolve(world: &mut World, index: usize, path: &str, keep: bool) -> Result<Reply, CommandError> {
    let done = world.ask(index, Command::Resolve { path: at(path), keep });
    rest(world);
    done
}

/// Whether a machine told its user a sentence with these words.
fn was_told(world: &World, index: usize, words: &str) -> bool {
    world.nodes[index].notices.iter().any(|notice| notice.contains(words))
}

/// Of `u1/x`, edited on one side and then moved and edited on the other.
fn edit_against_move(seed: u64, to: &str, without_dir: bool, kill_after: Option<Duration>) {
    let mut world = joined(seed);
    world.node(0).mkdir(&at("u1"));
    world.node(0).write(&at("u1/x"), b"base");
    rest(&mut world);
    world.crash(1);
    world.node(1).write(&at("u1/x"), b"edit of 1");
    world.run_for(10 * SECOND);
    world.node(0).rename(&at("u1/x"), &at(to));
    world.run_for(10 * SECOND);
    world.node(0).write(&at(to), b"edit of 0");
    if without_dir {
        world.node(0).remove(&at("u1"));
    }
    world.run_for(10 * SECOND);
    world.restart(1);
    if let Some(after) = kill_after {
        for _ in 0..3 {
            world.run_for(after);
            world.restart(1);
        }
    }
    rest(&mut world);
    assert_eq!(text(&world, 1, to).as_deref(), Some("edit of 0"), "to {to}, killed after {kill_after:?}");
    one_conflict(&mut world, to, "edit of 1");
    assert_eq!(names(&world, 1).len(), if without_dir { 2 } else { 3 }, "{:?}", names(&world, 1));
}

#[test]
fn an_edit_survives_a_move_and_an_edit_made_elsewhere() {
    for seed in SEEDS {
        for to in ["u1/a", "u1/y", "a", "z"] {
            edit_against_move(seed, to, false, None);
        }
        for to in ["a", "z"] {
            edit_against_move(seed, to, true, None);
        }
    }
}

#[test]
fn an_edit_survives_a_move_through_kills() {
    for (seed, after) in (0..).zip([20, 60, 120, 250, 500, 900, 1500, 2500, 4000]) {
        for to in ["u1/a", "u1/y"] {
            edit_against_move(seed, to, false, Some(Duration::from_millis(after)));
        }
        edit_against_move(seed, "a", true, Some(Duration::from_millis(after)));
    }
}

#[test]
fn moves_and_edits_of_both_make_one_conflict_file() {
    for seed in SEEDS {
        for (first, second, kill) in
            [("a", "b", false), ("b", "a", true), ("z", "b", true), ("a", "z", false)]
        {
            let mut world = joined(seed);
            world.node(0).write(&at("x"), b"base");
            rest(&mut world);
            world.partition(&[1]);
            world.node(1).rename(&at("x"), &at(first));
            world.run_for(10 * SECOND);
            world.node(1).write(&at(first), b"edit of 1");
            world.run_for(10 * SECOND);
            world.node(0).rename(&at("x"), &at(second));
            world.run_for(10 * SECOND);
            world.node(0).write(&at(second), b"edit of 0");
            world.run_for(10 * SECOND);
            world.heal();
            world.reset_all();
            if kill {
                world.run_for(Duration::from_millis(150 + 100 * seed));
                world.restart(1);
            }
            rest(&mut world);
            assert_eq!(text(&world, 1, second).as_deref(), Some("edit of 0"));
            one_conflict(&mut world, second, "edit of 1");
            assert_eq!(names(&world, 1).len(), 2, "{:?}", names(&world, 1));
        }
    }
}

#[test]
fn what_lost_stays_and_says_so_until_its_conflict_file_can_be_made() {
    let mut world = joined(1);
    world.node(0).write(&at("f"), b"base");
    rest(&mut world);
    world.partition(&[1]);
    let large = vec![b'1'; 2_000_000];
    world.node(1).write(&at("f"), &large);
    world.run_for(10 * SECOND);
    world.node(0).write(&at("f"), b"edit of 0");
    world.run_for(10 * SECOND);
    world.nodes[1].disk.fs.capacity = 3_000_000;
    world.heal();
    world.reset_all();
    world.run_for(120 * SECOND);
    assert_eq!(text(&world, 1, "f").map(|text| text.len()), Some(large.len()), "what lost went");
    let Ok(Reply::Why(why)) = world.ask(1, Command::Why { path: at("f") }) else { panic!() };
    let needed =
        why.iter().any(|why| why.contains("needed for \"f.CONFLICT.") && why.contains("not in place yet"));
    assert!(needed, "{why:?}");
    world.nodes[1].disk.fs.capacity = 1 << 40;
    rest(&mut world);
    assert_eq!(text(&world, 1, "f").as_deref(), Some("edit of 0"));
    let Ok(Reply::Why(why)) = world.ask(1, Command::Why { path: at("f") }) else { panic!() };
    assert_eq!(why, ["It is in step."]);
}

#[test]
fn an_edit_survives_an_exchange_of_two_names() {
    for (seed, after) in (0..).zip([0, 40, 150, 600, 2000]) {
        let mut world = joined(seed);
        for name in ["a", "b"] {
            world.node(0).write(&at(name), name.as_bytes());
        }
        rest(&mut world);
        world.crash(1);
        world.node(1).write(&at("a"), b"edit of 1");
        world.run_for(10 * SECOND);
        for (from, to) in [("a", "aside"), ("b", "a"), ("aside", "b")] {
            world.node(0).rename(&at(from), &at(to));
            world.run_for(10 * SECOND);
        }
        world.node(0).write(&at("b"), b"edit of 0");
        world.run_for(10 * SECOND);
        world.restart(1);
        if after > 0 {
            for _ in 0..3 {
                world.run_for(Duration::from_millis(after));
                world.restart(1);
            }
        }
        rest(&mut world);
        assert_eq!(text(&world, 1, "a").as_deref(), Some("b"), "seed {seed}");
        assert_eq!(text(&world, 1, "b").as_deref(), Some("edit of 0"), "seed {seed}");
        one_conflict(&mut world, "b", "edit of 1");
        assert_eq!(names(&world, 1).len(), 3, "{:?}", names(&world, 1));
    }
}

#[test]
fn two_new_files_of_one_name_can_be_decided_about() {
    for seed in SEEDS {
        for keep in [true, false] {
            let mut world = joined(seed);
            world.partition(&[1]);
            world.node(0).write(&at("n.txt"), b"zero's");
            world.run_for(10 * SECOND);
            world.node(1).write(&at("n.txt"), b"one's");
            world.run_for(10 * SECOND);
            world.heal();
            world.reset_all();
            rest(&mut world);
            assert_eq!(text(&world, 0, "n.txt").as_deref(), Some("one's"));
            let name = one_conflict(&mut world, "n.txt", "zero's");
            assert!(name.starts_with("n.CONFLICT.") && name.ends_with(".txt"), "{name}");
            assert!((0..2).any(|index| was_told(&world, index, &name)), "nobody was told");
            assert_eq!(resolve(&mut world, seed as usize % 2, &name, keep), Ok(Reply::Done));
            assert_eq!(names(&world, 1), ["n.txt"]);
            assert_eq!(text(&world, 1, "n.txt").as_deref(), Some(if keep { "zero's" } else { "one's" }));
            assert!(conflicts(&mut world).is_empty());
        }
    }
}

#[test]
fn a_conflict_file_stays_one_when_somebody_edits_it_who_had_not_seen_it_become_one() {
    for seed in SEEDS {
        let mut world = World::new(seed, 3);
        world.node(0).share(SHARE);
        (1..3).for_each(|index| attach(&mut world, index, Existing::Refuse));
        rest(&mut world);
        world.partition(&[1]);
        world.reset_all();
        world.node(0).write(&at("n.txt"), b"zero's");
        world.run_for(200 * SECOND);
        world.node(1).write(&at("n.txt"), b"one's");
        world.run_for(10 * SECOND);
        assert_eq!(text(&world, 2, "n.txt").as_deref(), Some("zero's"));
        world.heal();
        world.partition(&[2]);
        world.reset_all();
        world.run_for(200 * SECOND);
        let name = one_conflict(&mut world, "n.txt", "zero's");
        assert_eq!(text(&world, 2, "n.txt").as_deref(), Some("zero's"));
        world.node(2).write(&at("n.txt"), b"two's edit of zero's");
        world.run_for(10 * SECOND);
        world.heal();
        world.reset_all();
        rest(&mut world);
        assert_eq!(one_conflict(&mut world, "n.txt", "two's edit of zero's"), name);
        assert_eq!(text(&world, 2, "n.txt").as_deref(), Some("one's"));
        assert_eq!(resolve(&mut world, 1, &name, true), Ok(Reply::Done));
        assert!(conflicts(&mut world).is_empty());
        assert_eq!(text(&world, 2, "n.txt").as_deref(), Some("two's edit of zero's"));
    }
}

#[test]
fn a_link_or_file_against_a_directory_can_be_decided_about() {
    for seed in SEEDS {
        for link in [true, false] {
            let mut world = joined(seed);
            world.partition(&[1]);
            match link {
                true => world.node(0).symlink(&at("x"), "target"),
                false => world.node(0).write(&at("x"), b"a file"),
            }
            world.run_for(10 * SECOND);
            world.node(1).mkdir(&at("x"));
            world.node(1).write(&at("x/inner"), b"a directory's");
            world.run_for(10 * SECOND);
            world.heal();
            world.reset_all();
            rest(&mut world);
            let listed = conflicts(&mut world);
            assert_eq!(listed.len(), 1, "{:?}", names(&world, 0));
            assert_eq!(listed[0].original, at("x"));
            let name = listed[0].path.strip_prefix("/share/").expect("in the share").to_owned();
            let is_link = world.nodes[1].disk.tree(SHARE).get(&name) == Some(&Item::Link("target".into()));
            assert!(is_link || text(&world, 1, &name).as_deref() == Some("a file"));
            // A directory is not replaced: it keeps the name it got, and is a file like any other.
            assert_eq!(resolve(&mut world, 0, &name, true), Ok(Reply::Done));
            assert!(names(&world, 1).contains(&name), "{:?}", names(&world, 1));
            assert_eq!(text(&world, 1, "x/inner").as_deref(), Some("a directory's"));
            let Ok(Reply::Conflicts(left)) = world.ask(1, Command::Conflicts { path: None }) else {
                panic!()
            };
            assert_eq!(left, []);
            assert_eq!(world.status(0).shares[0].conflicts, 0);
        }
    }
}

#[test]
fn a_delete_does_not_wait_for_a_slow_download() {
    let mut world = joined(1);
    world.node(0).mkdir(&at("dir/deep"));
    for name in ["dir/a", "dir/deep/b", "file", "moved"] {
        world.node(0).write(&at(name), name.as_bytes());
    }
    rest(&mut world);
    world.net.conditions = Conditions { bytes_per_second: 100_000, ..Conditions::default() };
    let large: Vec<u8> =
        (0..2_500_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    world.node(0).write(&at("large"), &large);
    world.run_for(30 * SECOND);
    world.node(0).remove(&at("dir"));
    world.node(0).remove(&at("file"));
    world.node(0).mkdir(&at("file"));
    world.node(0).rename(&at("moved"), &at("here"));
    world.run_for(20 * SECOND);
    assert_eq!(names(&world, 1), ["file", "here"], "before the download has ended");
    assert!(matches!(world.nodes[1].disk.tree(SHARE).get("file"), Some(Item::Dir(_))));
    rest(&mut world);
    assert_eq!(world.nodes[1].disk.read_file(&at("large")), Some(large));
}

#[test]
fn a_directory_is_restored_with_what_is_missing_in_it() {
    let mut world = joined(2);
    world.node(0).mkdir(&at("d/deep"));
    for name in ["d/a", "d/deep/b", "d/kept", "d.txt", "stays"] {
        world.node(0).write(&at(name), b"first");
    }
    rest(&mut world);
    world.node(0).write(&at("d/a"), b"second");
    world.node(0).write(&at("d/kept"), b"second");
    rest(&mut world);
    for name in ["d/a", "d/deep", "d.txt"] {
        world.node(0).remove(&at(name));
    }
    rest(&mut world);
    let restore = |path: &str| Command::Restore { path: at(path), folder: None };
    let done = world.ask(1, restore("d"));
    assert_eq!(done, Ok(Reply::RestoredAll { path: at("d"), files: 2 }));
    rest(&mut world);
    assert_eq!(names(&world, 0), ["d", "d/a", "d/deep", "d/deep/b", "d/kept", "stays"]);
    assert_eq!(text(&world, 0, "d/a").as_deref(), Some("second"), "the newest");
    assert_eq!(text(&world, 0, "d/kept").as_deref(), Some("second"), "what is there is left alone");
    assert_eq!(world.ask(1, restore("d")), Ok(Reply::RestoredAll { path: at("d"), files: 0 }));
    // What cannot be put back is told, with how much could.
    world.node(0).remove(&at("d"));
    rest(&mut world);
    world.node(1).mkdir(&at("d"));
    world.node(1).write(&at("d/deep"), b"a file where a directory was");
    rest(&mut world);
    let failed = world.ask(1, restore("d")).expect_err("d/deep is a file now");
    assert!(failed.message.contains("came back: 2") && failed.message.contains("d/deep/b"), "{failed:?}");
    let none = world.ask(1, restore("nothing")).expect_err("never was there");
    assert!(none.message.contains("`clearskies restore`") && !none.message.contains("clearskies archive"));
}

#[test]
fn a_bad_name_says_nothing_of_what_lies_beside_it() {
    let mut world = joined(3);
    world.node(0).mkdir(&at("d"));
    world.node(0).write(&at("d/good"), b"1");
    let file = || Body::File { data: b"x".to_vec().into(), sha256: None, flushed: true };
    for name in [&b"/share/d/bad\xff"[..], b"/share/d/worse\xfe"] {
        world.node(0).disk(|disk, now| disk.special(now, name, file(), 0o644)).unwrap();
    }
    let link = Body::Link(b"to\xff".to_vec());
    world.node(0).disk(|disk, now| disk.special(now, b"/share/d/link", link, 0o777)).unwrap();
    world.node(0).disk(|disk, _| disk.overflow());
    world.run_for(300 * SECOND);
    let mut why = |path: &str| match world.ask(0, Command::Why { path: at(path) }) {
        Ok(Reply::Why(sentences)) => sentences.join("\n"),
        other => panic!("{other:?}"),
    };
    assert_eq!(why("d/good"), "It is in step.");
    let of_dir = why("d");
    assert!(
        of_dir.contains("bad") && of_dir.contains("worse") && !of_dir.contains("permissions"),
        "{of_dir}"
    );
    let of_link = why("d/link");
    assert!(of_link.contains("target is not UTF-8") && !of_link.contains("another computer"), "{of_link}");
    let problems = world.status(0).shares[0].problems.join("\n");
    assert!(problems.contains("bad") && problems.contains("worse"), "{problems}");
    world.node(0).rename(&at("d"), "/aside");
    world.run_for(60 * SECOND);
    assert_eq!(world.status(0).shares[0].problems, [] as [String; 0]);
}

/// Who takes a conflict file's content while the original is edited has not seen that content there: neither is lost.
#[test]
fn an_edit_beside_a_resolve_is_a_file_of_its_own() {
    for seed in SEEDS {
        let mut world = joined(seed);
        world.node(0).write(&at("a"), b"old");
        rest(&mut world);
        world.node(0).write(&at("a"), b"one");
        world.node(1).write(&at("a"), b"two");
        rest(&mut world);
        let listed = conflicts(&mut world);
        let name = listed[0].path.strip_prefix("/share/").expect("in the share").to_owned();
        let kept = text(&world, 0, &name).expect("a conflict file");
        world.node(0).write(&at("a"), b"new");
        assert!(resolve(&mut world, 0, &name, true).is_ok());
        for index in 0..2 {
            let names = names(&world, index);
            let texts: Vec<_> = names.iter().filter_map(|name| text(&world, index, name)).collect();
            assert!(
                texts.contains(&kept) && texts.contains(&"new".to_owned()),
                "n{index}: {names:?} {texts:?}"
            );
        }
    }
}

/// A conflict file that is kept, and that its user removes before its content is in the original's place: the content
/// comes from another member; where none has it any more, the original stays as it was.
#[test]
fn what_was_kept_and_removed_comes_from_elsewhere_or_the_original_stays() {
    for (seed, elsewhere) in [(0, true), (1, false), (2, true), (3, false)] {
        let mut world = joined(seed);
        world.node(0).write(&at("a"), b"old");
        rest(&mut world);
        world.node(0).write(&at("a"), b"one");
        world.node(1).write(&at("a"), b"two");
        rest(&mut world);
        let name = conflicts(&mut world)[0].path.strip_prefix("/share/").expect("in the share").to_owned();
        let kept = text(&world, 0, &name).expect("a conflict file");
        let original = text(&world, 0, "a").expect("the winner");
        // What went to the archive is found there.
        for index in 0..2 {
            let archive = at(".clearskies/archive");
            for folder in world.nodes[index].disk.names(&archive) {
                world.node(index).remove(&format!("{archive}/{folder}"));
            }
        }
        world.run_for(1000 * SECOND);
        world.crash(1);
        let room = world.nodes[0].disk.fs.capacity;
        world.nodes[0].disk.fs.capacity = world.nodes[0].disk.fs.used();
        assert_eq!(world.ask(0, Command::Resolve { path: at(&name), keep: true }), Ok(Reply::Done));
        world.run_for(SECOND);
        world.node(0).remove(&at(&name));
        if !elsewhere {
            world.node(1).remove(&at(&name));
        }
        world.run_for(SECOND);
        world.nodes[0].disk.fs.capacity = room;
        // Who is away may have it.
        world.run_for(3600 * SECOND);
        let Ok(Reply::Why(why)) = world.ask(0, Command::Why { path: at("a") }) else { panic!("no reason") };
        assert!(why[0].starts_with("A newer version"), "{why:?}");
        world.restart(1);
        rest(&mut world);
        let there = if elsewhere { &kept } else { &original };
        for index in 0..2 {
            assert_eq!(names(&world, index), ["a"]);
            assert_eq!(text(&world, index, "a").as_ref(), Some(there), "seed {seed}");
        }
        assert_eq!(was_told(&world, 0, "it stays as it was"), !elsewhere);
        assert!(conflicts(&mut world).is_empty());
    }
}
