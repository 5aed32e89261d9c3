//! Which record each of this peer's newest revisions was made for: where a copy of the database, or this node before it
//! was put back, gave the same number to a change of another record, it is told from that. Decides nothing.

use alloc::collections::BTreeMap;

use crate::ids::{PeerId, Uuid};
use crate::index::record::{Change, Record};

/// So many revisions are remembered, the newest; the changes of a copy are met soon after it was made, or their numbers
/// are known by then.
const MADE_MAX: usize = 4096;

/// The records of the newest revisions that were stored in this run.
#[derive(Debug, Default)]
pub struct Made(BTreeMap<u64, Uuid>);

impl Made {
    /// A record was stored.
    pub fn note(&mut self, own: PeerId, record: &Record) {
        for revision in revisions(own, record) {
            self.0.entry(revision).or_insert(record.uuid);
        }
        while self.0.len() > MADE_MAX {
            self.0.pop_first();
        }
    }

    /// Whether a record says that it was changed by this peer in a revision that another one was made in.
    pub fn contradicts(&self, own: PeerId, record: &Record) -> bool {
        revisions(own, record).any(|revision| self.0.get(&revision).is_some_and(|uuid| *uuid != record.uuid))
    }

    /// This peer has another identity from now on.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}

/// Revisions in which this peer changed a record: that of each part, and the newest, which may have lost. Of a
/// conflict file all but the key is the loser's; what was deleted once may have been one.
fn revisions(own: PeerId, record: &Record) -> impl Iterator<Item = u64> {
    let of = |change: &Change| if change.peer == own { change.rev } else { 0 };
    let key = of(&record.key_change);
    let copied = [of(&record.value_change), of(&record.meta_change), record.clock.get(own)];
    let may_be_copy = record.conflict_source().is_some() || !record.deleted_clock.is_empty();
    core::iter::once(key)
        .chain(copied.into_iter().filter(move |_| !may_be_copy))
        .filter(|revision| *revision > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::author;
    use crate::index::testing::{author as member, file};

    fn record(me: &mut author::Author, number: u64) -> Record {
        let mut uuid = Uuid([0; 16]);
        uuid.0[..8].copy_from_slice(&number.to_be_bytes());
        Record { uuid, ..file(me, "/a", 1) }
    }

    #[test]
    fn a_number_that_was_given_twice_is_noticed() {
        let (mut made, mut me, mut twin) = (Made::default(), member(1), member(1));
        let own = me.peer;
        let mine = record(&mut me, 1);
        made.note(own, &mine);
        let theirs = record(&mut twin, 2);
        assert!(made.contradicts(own, &theirs));
        assert!(!made.contradicts(own, &mine));
        // It lost, and its number is in the clock alone.
        let lost = Record { clock: theirs.clock.clone(), ..record(&mut member(2), 2) };
        assert!(made.contradicts(own, &lost));
        // Another member's changes have numbers of their own.
        assert!(!made.contradicts(own, &record(&mut member(2), 2)));
        made.forget();
        assert!(!made.contradicts(own, &theirs));
    }

    #[test]
    fn a_conflict_file_bears_the_numbers_of_the_loser() {
        let (mut made, mut me, mut other) = (Made::default(), member(1), member(2));
        let own = me.peer;
        let loser = record(&mut me, 1);
        made.note(own, &loser);
        let file = author::conflict_copy(&mut other, &loser, Uuid([7; 16]), "/a.c".into(), Uuid([8; 16]));
        let file = file.unwrap();
        assert!(file.clock.get(own) > 0 && !made.contradicts(own, &file));
        // Made again by a user after it was deleted, it is an ordinary file with that clock.
        let deleted = author::delete(&mut other, &file).unwrap();
        let value = loser.value.clone();
        let again = author::edit(&mut other, &deleted, value, None).unwrap();
        assert_eq!(again.conflict_source(), None);
        assert!(again.clock.get(own) > 0 && !made.contradicts(own, &again));
    }

    #[test]
    fn counts_at_the_limit_and_past_it() {
        let (mut made, mut me, mut twin) = (Made::default(), member(1), member(1));
        let own = me.peer;
        let first = record(&mut twin, 9999);
        for number in 1..=MADE_MAX as u64 {
            made.note(own, &record(&mut me, number));
        }
        assert!(made.contradicts(own, &first));
        made.note(own, &record(&mut me, 0));
        assert!(!made.contradicts(own, &first));
        assert_eq!(made.0.len(), MADE_MAX);
    }
}
