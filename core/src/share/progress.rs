//! What a share counts and knows: the small row that every commit carries.

use alloc::vec::Vec;

use crate::ids::PeerId;
use crate::index::clock::Clock;
use crate::index::codec::{self, Damaged, PeerTable};
use crate::index::digest::Digest;
use crate::index::knowledge::Resume;
use crate::share::txn::Totals;
use crate::time::WallTime;

/// How many former identities are remembered.
pub const FORMER_MAX: usize = 8;

/// Where this peer's changes began that no other peer's word has confirmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunStart {
    /// The last revision before.
    pub revision: u64,
    /// The last arrival number before.
    pub arrival: u64,
}

/// An identity that this peer gave up because it may have named two changes alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Former {
    /// The identity.
    pub id: PeerId,
    /// Its changes beyond this revision are made again.
    pub above: u64,
    /// The next arrival number among which they are looked for,
    pub next: u64,
    /// and the last.
    pub end: u64,
}

/// A run that is over: arrival numbers up to here were given by then, and none beyond that others may have heard of is
/// known to be the same here. A store that was put back ends its runs where it ends itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// What named it to others.
    pub token: [u8; 16],
    /// Its last arrival number.
    pub end: u64,
}

/// A share's progress; one row, stored with every batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last revision of this peer.
    pub revision: u64,
    /// The last arrival number.
    pub arrival: u64,
    /// The last revision under which a change of a former identity was made again.
    pub reclaimed: u64,
    /// The last revision when a run ended that had met a writer: others may know of all up to here.
    pub told: u64,
    /// For every version written by p at revision ≤ K\[p\] the database holds it or a later one (protocol §7).
    pub knowledge: Clock,
    /// What is shown of the share.
    pub totals: Totals,
    /// Whether the peer was ever caught up with another one, or made the share itself.
    pub caught_up: bool,
    /// Whether the folder was looked through since then.
    pub looked_through: bool,
    /// The latest time of any stored record, as [`crate::index::author::latest_stored`] collects it.
    pub latest: WallTime,
    /// Where this run began, or an earlier one since which no writer was heard to its end.
    pub run: RunStart,
    /// Whether a writer has said in this run what it has, and was told nothing before that.
    pub met: bool,
    /// Whether a writer has told all that it has in this run: only then is it known what it holds of ours.
    pub heard: bool,
    /// The end of the store may be lost: what the disk has and the store does not know may be new, or old, or deleted.
    /// Until the folder was looked through.
    pub tail_lost: bool,
    /// What names this run where others say how far they have read.
    pub token: [u8; 16],
    /// The runs before, the newest last; [`RUNS_MAX`] at most.
    pub runs: Vec<Run>,
    /// Identities that were given up, the newest last; [`FORMER_MAX`] at most.
    pub former: Vec<Former>,
}

/// How many runs are remembered; who read in an earlier one reads all again.
pub const RUNS_MAX: usize = 16;

const FORMAT: u8 = 6;
/// As [`FORMAT`], without the sum over all records.
const FORMAT_FIFTH: u8 = 5;
/// As [`FORMAT_FIFTH`], without the revisions that were made again and told, and without what was heard.
const FORMAT_FOURTH: u8 = 4;
/// As [`FORMAT_FOURTH`], without the names of runs.
const FORMAT_THIRD: u8 = 3;
/// As [`FORMAT_THIRD`], without the number of records without a path.
const FORMAT_SECOND: u8 = 2;
/// As [`FORMAT_SECOND`], without what follows the knowledge.
const FORMAT_FIRST: u8 = 1;

impl Progress {
    /// The stored form.
    pub fn encode(&self, peers: &mut PeerTable) -> Vec<u8> {
        let mut out = Vec::with_capacity(80);
        out.push(FORMAT);
        let flags = [self.caught_up, self.looked_through, self.met, self.tail_lost, self.heard];
        out.push((0..).zip(flags).map(|(bit, flag)| u8::from(flag) << bit).sum());
        let Totals { files, bytes, pending, pending_bytes, conflicts, pathless, digest } = self.totals;
        for number in [self.revision, self.arrival, files, bytes, pending, pending_bytes, conflicts] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        codec::encode_clock(&self.knowledge, peers, &mut out);
        out.extend_from_slice(&self.latest.0.to_be_bytes());
        for number in [self.run.revision, self.run.arrival, pathless, self.reclaimed, self.told] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        // 0 for none; a sum that is 0 by chance counts as none.
        out.extend_from_slice(&digest.unwrap_or_default().to_bytes());
        out.extend_from_slice(&self.token);
        // At most `RUNS_MAX`.
        out.push(self.runs.len() as u8);
        for run in &self.runs {
            out.extend_from_slice(&run.token);
            out.extend_from_slice(&run.end.to_be_bytes());
        }
        for former in &self.former {
            out.extend_from_slice(&former.id.0);
            for number in [former.above, former.next, former.end] {
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
        out
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8], peers: &PeerTable) -> Result<Progress, Damaged> {
        let (&[format, flags], mut rest) = bytes.split_first_chunk::<2>().ok_or(Damaged)?;
        if !(FORMAT_FIRST..=FORMAT).contains(&format) {
            return Err(Damaged);
        }
        let (revision, arrival) = (number(&mut rest)?, number(&mut rest)?);
        let totals = Totals {
            files: number(&mut rest)?,
            bytes: number(&mut rest)?,
            pending: number(&mut rest)?,
            pending_bytes: number(&mut rest)?,
            conflicts: number(&mut rest)?,
            pathless: 0,
            digest: None,
        };
        let knowledge = codec::decode_clock(&mut rest, peers)?;
        let (caught_up, looked_through) = (flags & 1 != 0, flags & 2 != 0);
        let mut progress = Progress {
            revision,
            arrival,
            knowledge,
            totals,
            caught_up,
            looked_through,
            run: RunStart { revision, arrival },
            told: revision,
            met: flags & 4 != 0,
            heard: flags & if format > FORMAT_FOURTH { 16 } else { 4 } != 0,
            tail_lost: flags & 8 != 0,
            ..Progress::default()
        };
        if format == FORMAT_FIRST {
            return Ok(progress);
        }
        progress.latest = WallTime(number(&mut rest)?.cast_signed());
        progress.run = RunStart { revision: number(&mut rest)?, arrival: number(&mut rest)? };
        progress.told = progress.run.revision;
        if format > FORMAT_SECOND {
            progress.totals.pathless = number(&mut rest)?;
        }
        if format > FORMAT_FOURTH {
            progress.reclaimed = number(&mut rest)?;
            progress.told = number(&mut rest)?;
        }
        if format > FORMAT_FIFTH {
            let digest = Digest::from_bytes(token(&mut rest)?);
            let known = digest != Digest::default() || arrival == 0;
            progress.totals.digest = known.then_some(digest);
        }
        if format > FORMAT_THIRD {
            progress.token = token(&mut rest)?;
            let (count, tail) = rest.split_first().ok_or(Damaged)?;
            rest = tail;
            for _ in 0..*count {
                progress.runs.push(Run { token: token(&mut rest)?, end: number(&mut rest)? });
            }
        }
        while let Some((id, tail)) = rest.split_first_chunk::<16>() {
            rest = tail;
            let (above, next, end) = (number(&mut rest)?, number(&mut rest)?, number(&mut rest)?);
            progress.former.push(Former { id: PeerId(*id), above, next, end });
        }
        if rest.is_empty() { Ok(progress) } else { Err(Damaged) }
    }

    /// A run begins, and gets a name. If a writer was met in the last one, others may know what was written before this
    /// one; if a writer was heard to its end as well, that is confirmed.
    pub fn begin_run(&mut self, token: [u8; 16]) {
        if self.runs.len() >= RUNS_MAX {
            self.runs.remove(0);
        }
        self.runs.push(Run { token: core::mem::replace(&mut self.token, token), end: self.arrival });
        let heard = core::mem::take(&mut self.heard);
        if !core::mem::take(&mut self.met) {
            return;
        }
        self.told = self.revision;
        if heard {
            self.run = RunStart { revision: self.revision, arrival: self.arrival };
        }
    }

    /// An identity is given up: what it wrote in this run is to be made again.
    pub fn give_up(&mut self, id: PeerId) {
        if self.former.len() == FORMER_MAX {
            self.former.remove(0);
        }
        let next = self.run.arrival.saturating_add(1);
        self.former.push(Former { id, above: self.run.revision, next, end: self.arrival });
    }

    /// What a peer is told of knowledge until its answer is complete, if that is less than is known: of what an
    /// identity wrote that was given up, the word of others may mean changes that were made under used numbers. So
    /// whoever holds the others of these numbers sends them in any case.
    ///
    /// The same holds of what `own`, the present identity, wrote since its last word was confirmed.
    pub fn doubted(&self, own: PeerId) -> Option<Clock> {
        if self.former.is_empty() && self.confirmed() == self.revision {
            return None;
        }
        let mut known = self.knowledge.clone();
        known.set(own, known.get(own).min(self.confirmed()));
        for former in &self.former {
            known.set(former.id, known.get(former.id).min(former.above));
        }
        Some(known)
    }

    /// Since when a peer is asked for what it has. Of our own changes it is to send all that are not confirmed: those
    /// that this store lost may be among them. `heard` says whether this peer's answer was taken in full in this run:
    /// what another one said proves nothing about what this one was told.
    pub fn asks_since(&self, own: PeerId, heard: bool) -> Clock {
        let mut since = self.doubted(own).unwrap_or_else(|| self.knowledge.clone());
        if self.is_unconfirmed() || !heard {
            since.set(own, since.get(own).min(self.run.revision));
        }
        since
    }

    /// Whether there are changes of this peer whose numbers may have been used before, by what this store lost: a
    /// writer that says how far it knows them may hold later ones, and is believed once it has told all.
    pub fn is_unconfirmed(&self) -> bool {
        !self.heard && self.run.revision < self.revision
    }

    /// The last revision of this peer that others may know of by now. Whoever knows a later one knows a change that
    /// this store lost, even if its number was given again since (protocol §7, case c).
    pub fn confirmed(&self) -> u64 {
        if self.met { self.revision } else { self.told }
    }

    /// The former identity whose changes are to be made again next.
    pub fn reclaims(&self) -> Option<&Former> {
        self.former.iter().find(|former| former.next <= former.end)
    }

    /// Where somebody goes on who has read as far as this, in the terms of this run: what this store ends before it has
    /// lost, and its numbers were given again since.
    pub fn resume_at(&self, at: Resume) -> Option<Resume> {
        let known = self.runs.iter().rev().find(|run| run.token == at.token).map(|run| run.end);
        let end = if at.token == self.token { self.arrival } else { known? };
        Some(Resume { token: self.token, arrival: at.arrival.min(end) })
    }
}

fn token(rest: &mut &[u8]) -> Result<[u8; 16], Damaged> {
    let (token, tail) = rest.split_first_chunk::<16>().ok_or(Damaged)?;
    *rest = tail;
    Ok(*token)
}

fn number(rest: &mut &[u8]) -> Result<u64, Damaged> {
    let (bytes, tail) = rest.split_first_chunk::<8>().ok_or(Damaged)?;
    *rest = tail;
    Ok(u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_survives_the_store() {
        let mut peers = PeerTable::default();
        let mut progress = Progress { revision: 7, arrival: 9, caught_up: true, ..Progress::default() };
        progress.knowledge.set(PeerId([3; 16]), 12);
        progress.totals.bytes = u64::MAX;
        progress.totals.pathless = 4;
        progress.totals.digest = Some(Digest::from_bytes([5; 16]));
        progress.latest = WallTime(-5);
        (progress.met, progress.heard, progress.tail_lost) = (true, true, true);
        progress.reclaimed = 6;
        progress.run = RunStart { revision: 5, arrival: 6 };
        progress.begin_run([8; 16]);
        (progress.met, progress.heard) = (true, true);
        for number in 0..=RUNS_MAX as u8 {
            progress.begin_run([number; 16]);
        }
        assert_eq!((progress.runs.len(), progress.runs[0].token), (RUNS_MAX, [0; 16]));
        (progress.met, progress.heard, progress.run) = (true, true, RunStart { revision: 5, arrival: 6 });
        for number in 0..=FORMER_MAX as u8 {
            progress.give_up(PeerId([number; 16]));
        }
        assert_eq!((progress.former.len(), progress.former[0].id), (FORMER_MAX, PeerId([1; 16])));
        let bytes = progress.encode(&mut peers);
        assert_eq!(Progress::decode(&bytes, &peers).as_ref(), Ok(&progress));
        assert_eq!(Progress::decode(&bytes[..bytes.len() - 1], &peers), Err(Damaged));
        for format in [0, FORMAT + 1] {
            let other = [&[format], &bytes[1..]].concat();
            assert_eq!(Progress::decode(&other, &peers), Err(Damaged));
        }
        // As earlier versions wrote it.
        let tail = bytes.len() - FORMER_MAX * 40;
        let runs = tail - 17 - RUNS_MAX * 24;
        let fifth = [&[FORMAT_FIFTH], &bytes[1..runs - 16], &bytes[runs..]].concat();
        let read = Progress::decode(&fifth, &peers).unwrap();
        assert_eq!(progress.totals.digest.take(), Some(Digest::from_bytes([5; 16])));
        assert_eq!(read, progress);
        let fourth = [&[FORMAT_FOURTH], &bytes[1..runs - 32], &bytes[runs..]].concat();
        let read = Progress::decode(&fourth, &peers).unwrap();
        assert_eq!(core::mem::take(&mut progress.reclaimed), 6);
        progress.told = progress.run.revision;
        assert_eq!(read, progress);
        let third = [&[FORMAT_THIRD], &bytes[1..runs - 32], &bytes[tail..]].concat();
        let read = Progress::decode(&third, &peers).unwrap();
        assert_eq!((read.token, core::mem::take(&mut progress.runs).len()), ([0; 16], RUNS_MAX));
        progress.token = [0; 16];
        assert_eq!(read, progress);
        let second = [&[FORMAT_SECOND], &bytes[1..runs - 40], &bytes[tail..]].concat();
        let mut read = Progress::decode(&second, &peers).unwrap();
        assert_eq!(core::mem::replace(&mut read.totals.pathless, 4), 0);
        assert_eq!(read, progress);
        let mut first = bytes[..runs - 64].to_vec();
        first[0] = FORMAT_FIRST;
        let read = Progress::decode(&first, &peers).unwrap();
        assert_eq!((read.knowledge, read.run), (progress.knowledge, RunStart { revision: 7, arrival: 9 }));
    }

    #[test]
    fn a_run_goes_back_to_the_last_one_that_met_somebody() {
        let mut progress =
            Progress { revision: 7, arrival: 9, met: true, heard: true, ..Progress::default() };
        progress.begin_run([1; 16]);
        assert_eq!(progress.doubted(PeerId([9; 16])), None);
        let start = RunStart { revision: 7, arrival: 9 };
        assert_eq!((progress.run, progress.met), (start, false));
        (progress.revision, progress.arrival) = (8, 11);
        progress.begin_run([2; 16]);
        assert_eq!(progress.run, start);
        // Met, and not heard to the end: it may hold changes of ours that it has not told.
        progress.met = true;
        progress.begin_run([3; 16]);
        assert_eq!((progress.run, progress.met, progress.confirmed()), (start, false, 8));
        let own = PeerId([9; 16]);
        progress.knowledge = Clock::of(own, 8);
        assert_eq!((progress.doubted(own), progress.asks_since(own, true)), (None, Clock::of(own, 7)));
        progress.heard = true;
        assert_eq!(progress.asks_since(own, true), Clock::of(own, 8));
        assert_eq!(progress.asks_since(own, false), Clock::of(own, 7), "of a peer that was not heard yet");
        progress.heard = false;
        progress.give_up(PeerId([3; 16]));
        let former = Former { id: PeerId([3; 16]), above: 7, next: 10, end: 11 };
        assert_eq!(progress.reclaims(), Some(&former));
        for (known, told) in [(6, 6), (7, 7), (8, 7)] {
            progress.knowledge = Clock::of(former.id, known);
            assert_eq!(progress.doubted(PeerId([9; 16])), Some(Clock::of(former.id, told)));
        }
        progress.former[0].next = 12;
        assert_eq!(progress.reclaims(), None);
    }

    #[test]
    fn who_read_in_a_run_goes_on_where_this_store_knows_its_end() {
        let mut progress = Progress { arrival: 9, token: [1; 16], ..Progress::default() };
        let at = |token, arrival| Resume { token: [token; 16], arrival };
        assert_eq!(progress.resume_at(at(1, 9)), Some(at(1, 9)));
        // Put back to here from arrival 12: what has the numbers from 10 on is not what others read under them.
        progress.begin_run([2; 16]);
        progress.arrival = 14;
        assert_eq!(progress.resume_at(at(1, 12)), Some(at(2, 9)));
        assert_eq!(progress.resume_at(at(1, 3)), Some(at(2, 3)));
        assert_eq!(progress.resume_at(at(2, 13)), Some(at(2, 13)));
        assert_eq!(progress.resume_at(at(3, 4)), None, "a run after the backup was made");
    }
}
