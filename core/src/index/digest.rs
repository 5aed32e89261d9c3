//! A sum over all records of a database, by which two peers that know the same see whether they also hold the same.
//! It changes with each record and needs no look at the others. Who lies about it has all sent once more, and no more.

use alloc::vec::Vec;

use ring::digest;

use crate::index::clock::Clock;
use crate::index::record::{Change, EntryContent, Record, Value};

/// The sum, modulo 2^128, of the first halves of the SHA-256 of each record's versions as they are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(u128);

impl Digest {
    /// As on the wire and in the store.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// What [`Digest::to_bytes`] gave.
    pub fn from_bytes(bytes: [u8; 16]) -> Digest {
        Digest(u128::from_be_bytes(bytes))
    }

    /// A version came to be held.
    pub fn add(&mut self, record: &Record) {
        self.0 = self.0.wrapping_add(of(record));
    }

    /// A version is not held any more.
    pub fn take(&mut self, record: &Record) {
        self.0 = self.0.wrapping_sub(of(record));
    }
}

/// What tells one version of a record from all others. What a change of meta set is named by that change.
fn of(record: &Record) -> u128 {
    let mut bytes = Vec::with_capacity(320);
    bytes.extend_from_slice(&record.uuid.0);
    text(record.key.as_bytes(), &mut bytes);
    match &record.value {
        Value::Null => bytes.push(0),
        Value::Json(json) => {
            bytes.push(1);
            text(json.as_bytes(), &mut bytes);
        }
        Value::Entry(entry) => match &entry.content {
            EntryContent::Dir => bytes.push(2),
            EntryContent::Link(target) => {
                bytes.push(3);
                text(target.as_bytes(), &mut bytes);
            }
            EntryContent::File { size, sha256 } => {
                bytes.push(4);
                bytes.extend_from_slice(&size.to_be_bytes());
                bytes.extend_from_slice(&sha256.0);
            }
        },
    }
    for seen in [&record.clock, &record.deleted_clock, &record.value_clock] {
        clock(seen, &mut bytes);
    }
    for made in [&record.update, &record.key_change, &record.value_change, &record.meta_change] {
        change(made, &mut bytes);
    }
    let hash = digest::digest(&digest::SHA256, &bytes);
    hash.as_ref().first_chunk().map_or(0, |half| u128::from_be_bytes(*half))
}

fn text(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u64).to_be_bytes());
    out.extend_from_slice(text);
}

fn clock(clock: &Clock, out: &mut Vec<u8>) {
    out.extend_from_slice(&(clock.len() as u64).to_be_bytes());
    for (peer, rev) in clock.iter() {
        out.extend_from_slice(&peer.0);
        out.extend_from_slice(&rev.to_be_bytes());
    }
}

fn change(change: &Change, out: &mut Vec<u8>) {
    out.extend_from_slice(&change.time.0.to_be_bytes());
    out.extend_from_slice(&change.peer.0);
    out.extend_from_slice(&change.rev.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{PeerId, Sha256, Uuid};
    use crate::index::author;
    use crate::index::record::{EntryValue, Meta};
    use crate::index::testing::{author as member, file};
    use crate::time::WallTime;

    #[test]
    fn it_goes_by_what_is_held_and_not_by_the_order() {
        let mut me = member(1);
        let (a, b) = (file(&mut me, "/a", 1), file(&mut me, "/b", 2));
        let deleted = author::delete(&mut me, &a).unwrap();
        let sum = |records: &[&Record]| {
            let mut sum = Digest::default();
            records.iter().for_each(|record| sum.add(record));
            sum
        };
        assert_eq!(sum(&[&a, &b]), sum(&[&b, &a]));
        let mut later = sum(&[&a, &b]);
        later.take(&a);
        later.add(&deleted);
        assert_eq!(later, sum(&[&b, &deleted]));
        assert_eq!(Digest::from_bytes(later.to_bytes()), later);
        let all = [sum(&[]), sum(&[&a]), sum(&[&b]), sum(&[&deleted]), sum(&[&a, &b]), sum(&[&b, &deleted])];
        for (n, one) in all.iter().enumerate() {
            assert!(all[n + 1..].iter().all(|other| other != one), "{n}");
        }
    }

    /// Computed apart from this code, from what the protocol says.
    #[test]
    fn a_known_record_has_a_known_sum() {
        let (first, second) = (PeerId([1; 16]), PeerId([2; 16]));
        let made = Change { time: WallTime(10), peer: first, rev: 3 };
        let touched = Change { time: WallTime(30), peer: second, rev: 4 };
        let mut clock = Clock::of(first, 3);
        clock.set(second, 4);
        let content = EntryContent::File { size: 5, sha256: Sha256([9; 32]) };
        let record = Record {
            uuid: Uuid([7; 16]),
            key: "/a".into(),
            value: Value::Entry(EntryValue { content, mtime: None, conflict_source: None, extra: None }),
            meta: Meta::default(),
            clock,
            deleted_clock: Clock::new(),
            value_clock: Clock::of(first, 3),
            update: touched,
            key_change: made,
            value_change: made,
            meta_change: touched,
        };
        let mut sum = Digest::default();
        sum.add(&record);
        assert_eq!(Uuid(sum.to_bytes()).to_hex(), "8d952cbc7c000bf250289ad9ca27ba52");
    }

    #[test]
    fn two_changes_of_one_number_differ() {
        let (mut me, mut twin) = (member(1), member(1));
        let (mine, mut theirs) = (file(&mut me, "/a", 1), file(&mut twin, "/a", 1));
        theirs.uuid = mine.uuid;
        let of_time = |record: &Record| Record {
            value_change: Change { time: WallTime(7), ..record.value_change },
            ..record.clone()
        };
        assert_eq!(of(&mine), of(&theirs));
        assert_ne!(of(&mine), of(&of_time(&theirs)));
    }
}
