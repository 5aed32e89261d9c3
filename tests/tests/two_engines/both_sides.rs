//! What both sides do at once.

use clearskies_core::engine::command::{Command, Reply};
use clearskies_tests::sim::World;
use clearskies_tests::sim::share::{at, conflict_files, names, rest_running as rest, text};
use clearskies_tests::sim::users::Item;

use crate::{SEEDS, apart, joined, tree};

#[test]
fn edits_of_both_make_one_conflict_file() {
    for seed in SEEDS {
        let mut world = joined(seed, 2);
        world.node(0).write(&at("note.txt"), b"base");
        rest(&mut world);
        apart(
            &mut world,
            |world| world.node(0).write(&at("note.txt"), b"by zero"),
            |world| world.node(1).write(&at("note.txt"), b"by one, and later"),
        );
        let conflicts = conflict_files(&world, 0);
        assert_eq!(conflicts.len(), 1, "{:?}", names(&world, 0));
        assert!(
            conflicts[0].starts_with("note.CONFLICT.") && conflicts[0].ends_with(".txt"),
            "{conflicts:?}"
        );
        assert_eq!(conflicts, conflict_files(&world, 1));
        assert_eq!(text(&world, 0, "note.txt").as_deref(), Some("by one, and later"));
        assert_eq!(text(&world, 0, &conflicts[0]).as_deref(), Some("by zero"));
        for index in 0..2 {
            match world.node(index).ask(Command::Conflicts { path: None }) {
                Ok(Reply::Conflicts(listed)) => {
                    assert_eq!(listed.len(), 1);
                    assert_eq!(
                        (listed[0].path.as_str(), listed[0].original.as_str()),
                        (at(&conflicts[0]).as_str(), at("note.txt").as_str(),)
                    );
                }
                other => panic!("{other:?}"),
            }
        }
        let keep = Command::Resolve { path: at(&conflicts[0]), keep: true };
        assert_eq!(world.node(1).ask(keep), Ok(Reply::Done));
        rest(&mut world);
        assert_eq!(names(&world, 0), ["note.txt"]);
        assert_eq!(text(&world, 0, "note.txt").as_deref(), Some("by zero"));
    }
}

#[test]
fn the_same_content_is_no_conflict() {
    for seed in SEEDS {
        let mut world = joined(seed, 2);
        world.node(0).write(&at("a"), b"base");
        rest(&mut world);
        apart(
            &mut world,
            |world| {
                world.node(0).write(&at("a"), b"equal");
                world.node(0).write(&at("new"), b"equal too");
            },
            |world| {
                world.node(1).write(&at("a"), b"equal");
                world.node(1).write(&at("new"), b"equal too");
            },
        );
        assert_eq!(names(&world, 1), ["a", "new"]);
    }
}

#[test]
fn two_new_files_of_one_name_are_both_kept() {
    for seed in SEEDS {
        let mut world = joined(seed, 2);
        apart(
            &mut world,
            |world| world.node(0).write(&at("a"), b"zero's"),
            |world| world.node(1).write(&at("a"), b"one's"),
        );
        let conflicts = conflict_files(&world, 0);
        assert_eq!(conflicts.len(), 1, "{:?}", names(&world, 0));
        let mut both = vec![text(&world, 0, "a"), text(&world, 0, &conflicts[0])];
        both.sort();
        assert_eq!(both, [Some("one's".to_owned()), Some("zero's".to_owned())]);
    }
}

#[test]
fn an_edit_beats_a_delete() {
    for seed in SEEDS {
        let mut world = joined(seed, 2);
        for name in ["a", "b"] {
            world.node(0).write(&at(name), b"base");
        }
        rest(&mut world);
        apart(
            &mut world,
            |world| {
                world.node(0).remove(&at("a"));
                world.node(0).write(&at("b"), b"edited");
            },
            |world| {
                world.node(1).write(&at("a"), b"edited");
                world.node(1).remove(&at("b"));
            },
        );
        assert_eq!(names(&world, 0), ["a", "b"]);
        assert_eq!(text(&world, 0, "a").as_deref(), Some("edited"));
        assert_eq!(text(&world, 1, "b").as_deref(), Some("edited"));
    }
}

#[test]
fn a_mode_a_move_and_an_edit_all_survive() {
    for seed in SEEDS {
        let mut world = joined(seed, 2);
        for name in ["a", "b"] {
            world.node(0).write(&at(name), name.as_bytes());
        }
        rest(&mut world);
        apart(
            &mut world,
            |world| {
                world.node(0).write(&at("a"), b"edited");
                world.node(0).rename(&at("b"), &at("moved"));
            },
            |world| {
                world.node(1).chmod(&at("a"), 0o700);
                world.node(1).write(&at("b"), b"edited too");
            },
        );
        assert_eq!(names(&world, 0), ["a", "moved"]);
        assert_eq!(tree(&world, 0).get("a"), Some(&Item::File(0o700, b"edited".to_vec())));
        assert_eq!(text(&world, 0, "moved").as_deref(), Some("edited too"));
    }
}

#[test]
fn two_files_change_places() {
    for seed in SEEDS {
        let mut world = joined(seed, 2);
        world.node(0).write(&at("a"), b"was a");
        world.node(0).write(&at("b"), b"was b");
        rest(&mut world);
        let swap = |world: &mut World| {
            world.node(0).disk(|disk, now| disk.swap(now, &at("a"), &at("b"))).unwrap();
        };
        swap(&mut world);
        rest(&mut world);
        assert_eq!(names(&world, 1), ["a", "b"]);
        assert_eq!(text(&world, 1, "a").as_deref(), Some("was b"));
        apart(&mut world, swap, |_| {});
        assert_eq!(text(&world, 1, "a").as_deref(), Some("was a"));
    }
}

#[test]
fn a_file_against_a_directory_loses_nothing() {
    for seed in SEEDS {
        let mut world = joined(seed, 2);
        apart(
            &mut world,
            |world| world.node(0).write(&at("x"), b"a file"),
            |world| {
                world.node(1).mkdir(&at("x"));
                world.node(1).write(&at("x/inner"), b"a directory's");
            },
        );
        assert_eq!(text(&world, 0, "x/inner").as_deref(), Some("a directory's"));
        let kept = names(&world, 0).iter().any(|name| text(&world, 0, name).as_deref() == Some("a file"));
        assert!(kept, "{:?}", names(&world, 0));
    }
}

#[test]
fn directories_moved_into_each_other_stay_a_tree() {
    for seed in SEEDS {
        let mut world = joined(seed, 2);
        for dir in ["a", "b"] {
            world.node(0).mkdir(&at(dir));
            world.node(0).write(&at(&format!("{dir}/{dir}.txt")), dir.as_bytes());
        }
        rest(&mut world);
        apart(
            &mut world,
            |world| world.node(0).rename(&at("a"), &at("b/a")),
            |world| world.node(1).rename(&at("b"), &at("a/b")),
        );
        let files = |wanted: &str| {
            tree(&world, 0)
                .values()
                .filter(|item| matches!(item, Item::File(_, data) if data == wanted.as_bytes()))
                .count()
        };
        assert_eq!((files("a"), files("b")), (1, 1), "{:?}", names(&world, 0));
    }
}
