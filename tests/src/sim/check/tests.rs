//! Each check is shown a world that is wrong, and must say so; and one that is right.

use super::*;

fn file(content: &str) -> Item {
    Item::File(0o644, content.into())
}

fn machine(items: &[(&str, Item)]) -> Machine {
    let tree = items.iter().map(|(path, item)| ((*path).to_owned(), item.clone())).collect();
    Machine { tree, ..Machine::default() }
}

/// A ledger in which users wrote these, each once.
fn wrote(contents: &[&str]) -> Ledger {
    let mut ledger = Ledger::default();
    contents.iter().for_each(|content| ledger.wrote(content.as_bytes()));
    ledger
}

#[track_caller]
fn breaks(done: Checked, property: u8) {
    assert_eq!(done.map_err(|broken| broken.property), Err(property));
}

#[test]
fn trees_that_differ_are_seen() {
    let same = machine(&[("a", file("1"))]);
    assert_eq!(same_trees(&[same.clone(), same.clone()]), Ok(()));
    breaks(same_trees(&[same.clone(), machine(&[])]), 1);
    breaks(same_trees(&[same.clone(), machine(&[("a", file("2"))])]), 1);
    let other_mode = machine(&[("a", Item::File(0o600, "1".into()))]);
    breaks(same_trees(&[same.clone(), same.clone(), other_mode]), 1);
    let stands = machine(&[("a", file("1")), ("d", Item::Dir(0))]);
    let waits = |path: &str| Machine { pending: vec![path.into()], ..stands.clone() };
    assert_eq!(same_trees(&[same.clone(), waits("d/b")]), Ok(()), "for a content that nobody has");
    assert_eq!(
        same_trees(&[machine(&[("a", file("2"))]), Machine { pending: vec!["a".into()], ..same.clone() }]),
        Ok(())
    );
    breaks(same_trees(&[same.clone(), waits("db")]), 1);
    breaks(same_trees(&[same.clone(), stands.clone()]), 1);
    let of_its_own = machine(&[("a", file("1")), ("d", Item::Dir(0o755))]);
    breaks(same_trees(&[same, of_its_own, waits("d/b")]), 1);
}

#[test]
fn work_without_end_and_orders_beyond_limits_are_seen() {
    let before = Counts { work: vec![(1, 2, 3); 2], bytes: 100 };
    let later = |more, sent| Counts { work: vec![(1, 2 + more, 3); 2], bytes: 100 + sent };
    assert_eq!(calm(&before, &later(WAITING_WORK_PER_HOUR, 2 * WAITING_BYTES_PER_HOUR)), Ok(()));
    breaks(calm(&before, &later(WAITING_WORK_PER_HOUR + 1, 0)), 11);
    breaks(calm(&before, &later(0, 2 * WAITING_BYTES_PER_HOUR + 1)), 11);
    let most = 2 * (3 * ACT_BYTES + IDLE_BYTES_PER_HOUR) + 4 * 1000;
    assert_eq!(talk_is_bounded(most, 2, 3, 1000, 1), Ok(()));
    breaks(talk_is_bounded(most + 1, 2, 3, 1000, 1), 11);
    assert_eq!(orders_within_limits(0, (ORDERS_MAX, ORDERED_BYTES_MAX)), Ok(()));
    breaks(orders_within_limits(0, (ORDERS_MAX + 1, 0)), 11);
    breaks(orders_within_limits(0, (1, ORDERED_BYTES_MAX + 1)), 11);
}

#[test]
fn a_conflict_of_one_machine_with_itself_is_seen() {
    let world = |name: &str| [machine(&[("d/a.txt", file("2")), (name, file("1"))])];
    let made = world("d/a.CONFLICT.ABCDEFGH.txt");
    let mut ledger = Ledger::default();
    ledger.had_a_hand(0);
    breaks(conflicts_need_two(&made, &ledger), 3);
    assert_eq!(conflicts_need_two(&world("d/a.CONFLICT.RESTORED.ABCDEFGH.txt"), &ledger), Ok(()));
    ledger.had_a_hand(1);
    assert_eq!(conflicts_need_two(&made, &ledger), Ok(()));
}

#[test]
fn what_is_left_of_the_work_is_seen() {
    assert_eq!(nothing_left_over(&[Machine::default()]), Ok(()));
    breaks(nothing_left_over(&[Machine { temps: 1, ..Machine::default() }]), 1);
    breaks(nothing_left_over(&[Machine { intents: 1, ..Machine::default() }]), 1);
}

#[test]
fn work_and_talk_at_rest_are_seen() {
    let rest = Counts { work: vec![(1, 2, 3), (4, 5, 6)], bytes: 100 };
    let later = |work, bytes| Counts { work, bytes };
    let most = 100 + 2 * IDLE_BYTES_PER_HOUR;
    assert_eq!(still(&rest, &later(rest.work.clone(), most), 1), Ok(()));
    breaks(still(&rest, &later(rest.work.clone(), most + 1), 1), 1);
    breaks(still(&rest, &later(vec![(1, 2, 3), (5, 5, 6)], 100), 1), 1);
    breaks(still(&rest, &later(vec![(1, 2, 3), (4, 6, 6)], 100), 1), 1);
    breaks(rescan_is_free(&rest, &later(vec![(1, 2, 4), (4, 5, 6)], 100)), 11);
    assert_eq!(rescan_is_free(&rest, &later(rest.work.clone(), 500)), Ok(()));
}

#[test]
fn a_lost_content_is_seen() {
    let ledger = wrote(&["1", "2"]);
    let mut holder = machine(&[("a", file("1"))]);
    breaks(nothing_lost(std::slice::from_ref(&holder), &ledger), 2);
    holder.archive.push(("b".into(), "2".into()));
    assert_eq!(nothing_lost(&[holder], &ledger), Ok(()));
    let mut deleted = wrote(&["1"]);
    deleted.deleted(0, &[("a".into(), "1".into())]);
    assert_eq!(nothing_lost(&[Machine::default()], &deleted), Ok(()));
}

#[test]
fn a_second_conflict_file_is_seen() {
    let ledger = wrote(&["1", "2"]);
    let one = machine(&[("a.txt", file("1")), ("a.CONFLICT.AAAAAAAA.txt", file("2"))]);
    assert_eq!(one_conflict_file(std::slice::from_ref(&one), &ledger), Ok(()));
    let mut two = one.clone();
    two.tree.insert("a.CONFLICT.BBBBBBBB.txt".into(), file("2"));
    breaks(one_conflict_file(&[one, two], &ledger), 3);
    let same = machine(&[("a", file("1")), ("a.CONFLICT.AAAAAAAA", file("1"))]);
    breaks(one_conflict_file(&[same], &ledger), 3);
    // What waits for its content shows what it had.
    let mut waits = machine(&[("a", file("1")), ("a.CONFLICT.AAAAAAAA", file("1"))]);
    waits.pending.push("a".into());
    assert_eq!(one_conflict_file(&[waits], &ledger), Ok(()));
    assert_eq!(conflict_of("d/a.CONFLICT.AAAAAAAA.txt").as_deref(), Some("d/a.txt"));
}

#[test]
fn a_deleted_file_that_is_back_is_seen() {
    let mut ledger = wrote(&["1"]);
    ledger.deleted(0, &[("a".into(), "1".into())]);
    let back = machine(&[("a", file("1"))]);
    breaks(deleted_stays_deleted(&[Machine::default(), back.clone()], &ledger), 4);
    assert_eq!(deleted_stays_deleted(&[Machine::default()], &ledger), Ok(()));
    // Somebody wrote it anew, brought it back, or forgot that it was deleted.
    let mut again = ledger.clone();
    again.wrote(b"1");
    assert_eq!(deleted_stays_deleted(std::slice::from_ref(&back), &again), Ok(()));
    let mut restored = ledger.clone();
    restored.restored(0, b"1");
    assert_eq!(deleted_stays_deleted(std::slice::from_ref(&back), &restored), Ok(()));
    let mut forgot = ledger.clone();
    forgot.forgot(0);
    assert_eq!(deleted_stays_deleted(std::slice::from_ref(&back), &forgot), Ok(()));
    // Once all know of it, forgetting is no excuse, unless that path had something else since.
    ledger.rested();
    let mut followed = ledger.clone();
    followed.followed(b"1");
    breaks(deleted_stays_deleted(std::slice::from_ref(&back), &followed), 4);
    ledger.forgot(0);
    breaks(deleted_stays_deleted(std::slice::from_ref(&back), &ledger), 4);
    followed.forgot(0);
    assert_eq!(deleted_stays_deleted(&[back], &followed), Ok(()));
}

#[test]
fn an_edit_that_a_delete_or_an_empty_folder_took_is_seen() {
    let ledger = wrote(&["1"]);
    let archived = Machine { archive: vec![("a".into(), "1".into())], ..Machine::default() };
    breaks(edits_stand(&[archived], &ledger), 5);
    assert_eq!(edits_stand(&[machine(&[("b", file("1"))])], &ledger), Ok(()));
}

#[test]
fn what_a_reader_wrote_is_seen_elsewhere() {
    let readers = BTreeSet::from([1]);
    let theirs = BTreeSet::from([b"2".to_vec()]);
    let reader = machine(&[("a", file("2"))]);
    let writer = machine(&[("a", file("1"))]);
    assert_eq!(readers_change_nothing(&[writer, reader.clone()], &readers, &theirs), Ok(()));
    breaks(readers_change_nothing(&[reader.clone(), reader], &readers, &theirs), 6);
    let archived = Machine { archive: vec![("a".into(), "2".into())], ..Machine::default() };
    breaks(readers_change_nothing(&[archived], &readers, &theirs), 6);
}

#[test]
fn a_mixture_is_seen() {
    let ledger = wrote(&["old", "new"]);
    let (path, shown) = ("a".to_owned(), [b"old".to_vec(), b"new".to_vec(), b"ned".to_vec()]);
    assert_eq!(whole(shown[..2].iter().map(|data| (&path, data)), &ledger), Ok(()));
    breaks(whole(shown.iter().map(|data| (&path, data)), &ledger), 7);
}

#[test]
fn what_is_written_outside_is_seen() {
    let outside = |name: &str| Machine { outside: vec!["share".into(), name.into()], ..Machine::default() };
    assert_eq!(inside(&[outside("share")], &["share"]), Ok(()));
    breaks(inside(&[outside("evil")], &["share"]), 7);
}

#[test]
fn a_doubled_file_and_an_orphan_are_seen() {
    let ledger = wrote(&["1", "2"]);
    let good = machine(&[("d", Item::Dir(0o755)), ("d/a", file("1")), ("b", file("2"))]);
    assert_eq!(one_place_each(&[good], &ledger), Ok(()));
    breaks(one_place_each(&[machine(&[("a", file("1")), ("b", file("1"))])], &ledger), 8);
    breaks(one_place_each(&[machine(&[("d/a", file("1"))])], &ledger), 8);
    breaks(one_place_each(&[machine(&[("d", file("2")), ("d/a", file("1"))])], &ledger), 8);
    let twice = wrote(&["1", "1"]);
    assert_eq!(one_place_each(&[machine(&[("a", file("1")), ("b", file("1"))])], &twice), Ok(()));
    // What waits for its content shows what it had, and what a liar announced was not written by a user alone.
    let mut waits = machine(&[("a", file("1")), ("b", file("1"))]);
    waits.pending.push("b".into());
    assert_eq!(one_place_each(&[waits], &ledger), Ok(()));
    let mut shared = ledger.clone();
    shared.shared(|content| content == b"1");
    assert_eq!(one_place_each(&[machine(&[("a", file("1")), ("b", file("1"))])], &shared), Ok(()));
    breaks(one_place_each(&[machine(&[("a", file("2")), ("b", file("2"))])], &shared), 8);
}

#[test]
fn a_rename_that_sends_contents_is_seen() {
    let before = Counts { work: vec![(0, 0, 0); 2], bytes: 0 };
    let after = |bytes| Counts { bytes, ..before.clone() };
    let most = 12 * RENAME_BYTES * 2;
    assert_eq!(rename_is_cheap(&before, &after(most), 10), Ok(()));
    breaks(rename_is_cheap(&before, &after(most + 1), 10), 11);
}

#[test]
fn silence_about_a_path_is_seen() {
    let say = |text: &str| says_why(0, "a", &[text.to_owned()]);
    assert_eq!(say("Its content (4 bytes) is being fetched."), Ok(()));
    breaks(say("It is in step."), 12);
    breaks(says_why(0, "a", &[]), 12);
}
