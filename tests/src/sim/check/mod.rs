//! What the simulator must hold (sync.md, the twelve properties): pure functions over what machines were seen to hold
//! and what users did. Each complaint says which property is broken and how.

use std::collections::{BTreeMap, BTreeSet};

use super::ledger::Ledger;
use super::users::{Item, Tree};

/// Bytes that one machine may send in an hour of rest, for each other: signs of life, and nothing else.
pub const IDLE_BYTES_PER_HOUR: u64 = 40_000;
/// Bytes that what follows from one act of a user may need, on each connection, beside contents: he may have moved a
/// folder with some ten paths.
pub const ACT_BYTES: u64 = 12 * RENAME_BYTES;
/// In the names of files that were brought back to where something else is.
const RESTORED: &str = ".CONFLICT.RESTORED.";
/// Orders that an engine may have under way at once: its own limits for reads, stages, copies and look-ups together
/// stay far below it.
pub const ORDERS_MAX: usize = 4096;
/// Bytes of contents in orders that are under way: what may be requested at once, staged or on its way to large temps.
pub const ORDERED_BYTES_MAX: usize = 96 << 20;
/// Commits, changes of files and hashes that one machine may make in an hour while it waits for what nobody gives.
pub const WAITING_WORK_PER_HOUR: u64 = 200;
/// Bytes that it may send to each other meanwhile.
pub const WAITING_BYTES_PER_HOUR: u64 = 1_000_000;
/// Bytes that the records of one renamed path may need, on each connection.
pub const RENAME_BYTES: u64 = 3000;

/// What one machine holds.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// The folder; directories that nobody agreed on have no permission bits.
    pub tree: Tree,
    /// The archive: paths, and bytes of files.
    pub archive: Vec<(String, Vec<u8>)>,
    /// What lies beside the share's folder.
    pub outside: Vec<String>,
    /// Temps that are left.
    pub temps: usize,
    /// Paths that are being put in place.
    pub intents: usize,
    /// Paths that are not in step.
    pub pending: Vec<String>,
}

/// What was done up to a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Of each machine: commits, changes of files, hashed files.
    pub work: Vec<(u64, u64, u64)>,
    /// Bytes sent by all.
    pub bytes: u64,
}

/// A broken property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its number in sync.md; 0 where the simulation itself failed.
    pub property: u8,
    /// In a word: two failures of one word are taken for the same.
    pub word: &'static str,
    /// How.
    pub text: String,
}

impl Broken {
    /// A broken property.
    pub fn new(property: u8, word: &'static str, text: impl Into<String>) -> Broken {
        Broken { property, word, text: text.into() }
    }
}

/// How a check ends.
pub type Checked = Result<(), Broken>;

fn all_well(property: u8, word: &'static str, complaints: Vec<String>) -> Checked {
    if complaints.is_empty() { Ok(()) } else { Err(Broken::new(property, word, complaints.join("\n"))) }
}

fn short(content: &[u8]) -> String {
    format!("{:?} ({} bytes)", String::from_utf8_lossy(&content[..content.len().min(24)]), content.len())
}

/// The files of a tree.
pub fn files(tree: &Tree) -> impl Iterator<Item = (&String, &Vec<u8>)> {
    tree.iter().filter_map(|(path, item)| match item {
        Item::File(_, data) => Some((path, data)),
        _ => None,
    })
}

/// 1: all machines hold the same. What is not in step at rest waits for a content that power took for good: its path is
/// as each machine had it, and a directory may stand for it.
pub fn same_trees(machines: &[Machine]) -> Checked {
    let waiting: BTreeSet<&String> = machines.iter().flat_map(|machine| &machine.pending).collect();
    let stands_for = |dir: &String, path: &String| {
        let beneath = path.strip_prefix(dir.as_str()).is_some_and(|rest| rest.starts_with('/'));
        beneath && machines.iter().all(|machine| matches!(machine.tree.get(dir), None | Some(Item::Dir(0))))
    };
    let waits = |name: &String| waiting.contains(name) || waiting.iter().any(|path| stands_for(name, path));
    let names: BTreeSet<&String> = machines.iter().flat_map(|machine| machine.tree.keys()).collect();
    let at = |name: &String| machines.iter().map(|machine| machine.tree.get(name)).collect::<Vec<_>>();
    let differ =
        names.into_iter().filter(|name| at(name).windows(2).any(|pair| pair[0] != pair[1]) && !waits(name));
    all_well(1, "trees differ", differ.map(|name| format!("{name}: {:?}", at(name))).collect())
}

/// 1: at rest nothing is being received or put in place.
pub fn nothing_left_over(machines: &[Machine]) -> Checked {
    let left = machines.iter().enumerate().filter(|(_, machine)| machine.temps + machine.intents > 0);
    let say = |(index, machine): (usize, &Machine)| {
        format!("n{index}: {} temps, {} intents", machine.temps, machine.intents)
    };
    all_well(1, "left over", left.map(say).collect())
}

/// 1: nothing was written or sent between two moments of rest, so many hours apart.
pub fn still(before: &Counts, after: &Counts, hours: u64) -> Checked {
    if before.work != after.work {
        return Err(Broken::new(1, "busy at rest", format!("{:?}, then {:?}", before.work, after.work)));
    }
    let pairs = (after.work.len() * after.work.len().saturating_sub(1)) as u64;
    let sent = after.bytes - before.bytes;
    if sent > pairs * hours * IDLE_BYTES_PER_HOUR {
        return Err(Broken::new(1, "talks at rest", format!("{sent} bytes in {hours} hours")));
    }
    Ok(())
}

/// 11: between two moments an hour apart, while something is waited for that a liar keeps back, little was done.
pub fn calm(before: &Counts, after: &Counts) -> Checked {
    let sum = |counts: &Counts| counts.work.iter().map(|(a, b, c)| a + b + c).sum::<u64>();
    let (done, machines) = (sum(after) - sum(before), after.work.len() as u64);
    let pairs = machines * machines.saturating_sub(1);
    let sent = after.bytes - before.bytes;
    if done > machines * WAITING_WORK_PER_HOUR || sent > pairs * WAITING_BYTES_PER_HOUR {
        let text = format!("{done} acts and {sent} bytes in an hour: {before:?}, then {after:?}");
        return Err(Broken::new(11, "works without end", text));
    }
    Ok(())
}

/// 11: an engine never had more orders under way, or more bytes of contents in them, than it may.
pub fn orders_within_limits(node: usize, (orders, bytes): (usize, usize)) -> Checked {
    if orders <= ORDERS_MAX && bytes <= ORDERED_BYTES_MAX {
        return Ok(());
    }
    Err(Broken::new(11, "orders", format!("n{node} had {orders} orders, {bytes} bytes in them")))
}

/// 11: in a history without faults no more was sent than records for each act, each content to each machine twice, and
/// signs of life.
pub fn talk_is_bounded(sent: u64, machines: u64, acts: u64, written: u64, hours: u64) -> Checked {
    let pairs = machines * machines.saturating_sub(1);
    let most = pairs * (acts * ACT_BYTES + hours * IDLE_BYTES_PER_HOUR) + 2 * machines * written;
    if sent <= most {
        return Ok(());
    }
    Err(Broken::new(
        11,
        "talks much",
        format!("{sent} bytes for {acts} acts that wrote {written}, {most} at most"),
    ))
}

/// 2: what nobody replaced or deleted is somewhere.
pub fn nothing_lost(machines: &[Machine], ledger: &Ledger) -> Checked {
    let trees = machines.iter().flat_map(|machine| files(&machine.tree).map(|(_, data)| data));
    let archives = machines.iter().flat_map(|machine| machine.archive.iter().map(|(_, data)| data));
    let kept: BTreeSet<&Vec<u8>> = trees.chain(archives).collect();
    all_well(2, "lost", ledger.alive().filter(|data| !kept.contains(data)).map(|data| short(data)).collect())
}

/// The files of a machine that are what they should be, of contents that were written once. A path that waits for its
/// content shows what it had, also where that is at its new place by now (sync.md, "Bringing a path to a version").
fn single_files<'a>(
    machine: &'a Machine,
    ledger: &'a Ledger,
) -> impl Iterator<Item = (&'a String, &'a Vec<u8>)> {
    let waiting: BTreeSet<&String> = machine.pending.iter().collect();
    files(&machine.tree).filter(move |(path, data)| ledger.is_single(data) && !waiting.contains(path))
}

/// The path of which this is a conflict file.
pub fn conflict_of(path: &str) -> Option<String> {
    let (before, after) = path.rsplit_once(".CONFLICT.")?;
    let ending = after.split_once('.').map(|(_, ending)| format!(".{ending}")).unwrap_or_default();
    Some(format!("{before}{ending}"))
}

/// 3: each loser has one conflict file, and no conflict file holds what its original holds.
pub fn one_conflict_file(machines: &[Machine], ledger: &Ledger) -> Checked {
    let mut complaints = Vec::new();
    for (index, machine) in machines.iter().enumerate() {
        let mut seen: BTreeMap<(String, &Vec<u8>), &String> = BTreeMap::new();
        for (path, data) in single_files(machine, ledger) {
            let Some(original) = conflict_of(path) else { continue };
            let waits = machine.pending.contains(&original);
            if !waits && matches!(machine.tree.get(&original), Some(Item::File(_, other)) if other == data) {
                complaints.push(format!("n{index} {path} holds what {original} holds: {}", short(data)));
            }
            if let Some(other) = seen.insert((original, data), path) {
                complaints.push(format!("n{index} {path} and {other} hold {}", short(data)));
            }
        }
    }
    all_well(3, "conflict files", complaints)
}

/// 3: where the users of one machine alone did anything there is no conflict file, but for what they brought back.
pub fn conflicts_need_two(machines: &[Machine], ledger: &Ledger) -> Checked {
    if !ledger.is_of_one() {
        return Ok(());
    }
    let mut complaints = Vec::new();
    for (index, machine) in machines.iter().enumerate() {
        let made =
            files(&machine.tree).filter(|(path, _)| conflict_of(path).is_some() && !path.contains(RESTORED));
        complaints.extend(made.map(|(path, data)| format!("n{index} {path} holds {}", short(data))));
    }
    all_well(3, "a conflict of one", complaints)
}

/// 4: what was deleted is not back at its path.
pub fn deleted_stays_deleted(machines: &[Machine], ledger: &Ledger) -> Checked {
    let mut complaints = Vec::new();
    for (content, path) in ledger.gone_for_good() {
        for (index, machine) in machines.iter().enumerate() {
            if matches!(machine.tree.get(path), Some(Item::File(_, data)) if data == content) {
                complaints.push(format!("n{index} {path}: {}", short(content)));
            }
        }
    }
    all_well(4, "deleted is back", complaints)
}

/// 5 and 10: what nobody replaced or deleted is in the folders, not in an archive alone: no delete took what it did not
/// know, and no folder that was away deleted anything.
pub fn edits_stand(machines: &[Machine], ledger: &Ledger) -> Checked {
    let Some(first) = machines.first() else { return Ok(()) };
    let standing: BTreeSet<&Vec<u8>> = files(&first.tree).map(|(_, data)| data).collect();
    let fallen = ledger.standing().filter(|data| !standing.contains(data));
    all_well(5, "in an archive alone", fallen.map(|data| short(data)).collect())
}

/// 6: nothing that was written on a machine that may only read is anywhere else.
pub fn readers_change_nothing(
    machines: &[Machine],
    readers: &BTreeSet<usize>,
    written_there: &BTreeSet<Vec<u8>>,
) -> Checked {
    let mut complaints = Vec::new();
    for (index, machine) in machines.iter().enumerate().filter(|(index, _)| !readers.contains(index)) {
        let held = files(&machine.tree).map(|(_, data)| data);
        let held = held.chain(machine.archive.iter().map(|(_, data)| data));
        complaints.extend(
            held.filter(|data| written_there.contains(*data))
                .map(|data| format!("n{index} has {}", short(data))),
        );
    }
    all_well(6, "a reader's content elsewhere", complaints)
}

/// 7: every content that was ever to be seen is one that a user wrote.
pub fn whole<'a>(shown: impl IntoIterator<Item = (&'a String, &'a Vec<u8>)>, ledger: &Ledger) -> Checked {
    let strange = shown.into_iter().filter(|(_, data)| !ledger.knows(data));
    all_well(7, "mixture", strange.map(|(path, data)| format!("{path}: {}", short(data))).collect())
}

/// 7: nothing is written outside the folder.
pub fn inside(machines: &[Machine], allowed: &[&str]) -> Checked {
    let mut complaints = Vec::new();
    for (index, machine) in machines.iter().enumerate() {
        let strange = machine.outside.iter().filter(|name| !allowed.contains(&name.as_str()));
        complaints.extend(strange.map(|name| format!("n{index}: {name}")));
    }
    all_well(7, "outside the root", complaints)
}

/// 8: each path lies in a directory, and no content that was written once stands at two paths.
pub fn one_place_each(machines: &[Machine], ledger: &Ledger) -> Checked {
    let mut complaints = Vec::new();
    for (index, machine) in machines.iter().enumerate() {
        for path in machine.tree.keys() {
            let above = path.rsplit_once('/').map(|(above, _)| above);
            if above.is_some_and(|above| !matches!(machine.tree.get(above), Some(Item::Dir(_)))) {
                complaints.push(format!("n{index} {path} lies in no directory"));
            }
        }
        let mut places: BTreeMap<&Vec<u8>, &String> = BTreeMap::new();
        for (path, data) in single_files(machine, ledger) {
            if let Some(other) = places.insert(data, path) {
                complaints.push(format!("n{index} {other} and {path} hold {}", short(data)));
            }
        }
    }
    all_well(8, "doubled", complaints)
}

/// 11: looking through everything again neither hashed nor wrote anything.
pub fn rescan_is_free(before: &Counts, after: &Counts) -> Checked {
    if before.work == after.work {
        return Ok(());
    }
    Err(Broken::new(11, "a rescan works", format!("{:?}, then {:?}", before.work, after.work)))
}

/// 11: renaming a directory with so many paths beneath sent no more than their records, between so many machines.
pub fn rename_is_cheap(before: &Counts, after: &Counts, paths: u64) -> Checked {
    let pairs = (after.work.len() * after.work.len().saturating_sub(1)) as u64;
    let (sent, most) = (after.bytes - before.bytes, (paths + 2) * RENAME_BYTES * pairs);
    if sent <= most {
        return Ok(());
    }
    Err(Broken::new(11, "a rename is dear", format!("{sent} bytes for {paths} paths, {most} at most")))
}

/// 12: a path that is not in step says why.
pub fn says_why(node: usize, path: &str, sentences: &[String]) -> Checked {
    let empty = ["It is in step.", "Nothing is known of it"];
    if sentences.iter().any(|sentence| empty.iter().all(|empty| !sentence.starts_with(empty))) {
        return Ok(());
    }
    Err(Broken::new(12, "no reason", format!("n{node} {path}: {sentences:?}")))
}

#[cfg(test)]
mod tests;
