//! What goes into the units of a link that speaks `gzip` (protocol §6): how many bytes a unit takes, whether they are
//! deflated or stored, and when deflating pays at all.
//!
//! It pays where the processor waits for the link anyway, and only for data that shrinks. The first is told by the
//! socket: where it is full again after a while, and took little meanwhile, the link is slow. A link that keeps up with
//! us shows itself by never being full for long; there small frames are deflated, which cost both sides more than that
//! anyway, and a little else each second, and all other data costs a sum over the bytes.

use alloc::vec::Vec;
use core::time::Duration;

use crate::connection::units::{STORED_MAX, SUM_LEN, write_length, write_stored_head};
use crate::connection::zlib::{Deflater, Sum};
use crate::time::Instant;

/// A link that takes fewer bytes a second is slow. Deflating text at the fastest setting fills more than that even on
/// processors of which one core is all that there is, so that it does not become what the link waits for.
pub const SLOW_BYTES_PER_SECOND: u64 = 16 << 20;

/// For how long a link is watched at least, before it is judged: shorter stretches tell of the sockets' buffers and of
/// whose turn it was.
pub const WATCH_MIN: Duration = Duration::from_millis(50);

/// How long there may be nothing to send before what was watched counts for nothing. A peer that asks for the next
/// piece of a file when it got one leaves such gaps, while the socket still sends.
pub const GAP_MAX: Duration = Duration::from_millis(100);

/// How many deflated bytes go out after a link was found slow, unless it is found so again.
pub const CREDIT_BYTES: u64 = 4 << 20;

/// So many bytes are deflated each second on any link: that takes about a hundredth of a processor.
pub const SPARE_BYTES_PER_SECOND: u64 = 1 << 20;

/// Less is stored unseen.
const DEFLATE_MIN: usize = 256;

/// How much of the middle of a unit is tried first.
const SAMPLE_BYTES: usize = 4 * 1024;

/// After each unit that did not shrink twice as many are stored unseen, and one more, up to this many times.
const MISSES_MAX: u32 = 4;

/// When data is deflated, where it shrinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deflating {
    /// Where the link is what is waited for; elsewhere small frames, and [`SPARE_BYTES_PER_SECOND`].
    #[default]
    OnSlowLinks,
    /// Always.
    Always,
}

/// Judges one link by when its socket is full.
#[derive(Debug)]
pub(super) struct Pace {
    deflating: Deflating,
    /// What is watched, from one moment at which the socket was full to the next.
    watched: Option<Watched>,
    credit: u64,
    /// What is left of [`SPARE_BYTES_PER_SECOND`], as of then.
    spare: u64,
    spare_at: Option<Instant>,
}

#[derive(Debug)]
struct Watched {
    since: Instant,
    bytes: u64,
    /// Since when there is nothing to send.
    idle: Option<Instant>,
}

impl Pace {
    fn new(deflating: Deflating) -> Pace {
        Pace { deflating, watched: None, credit: 0, spare: 0, spare_at: None }
    }

    /// Something is about to be sent. Returns whether nothing was for a second.
    fn sends(&mut self, now: Instant) -> bool {
        let second = Duration::from_secs(1);
        let passed = self.spare_at.replace(now).map_or(second, |since| now.since(since).min(second));
        let gained = u128::from(SPARE_BYTES_PER_SECOND) * passed.as_nanos() / second.as_nanos();
        self.spare = SPARE_BYTES_PER_SECOND.min(self.spare + u64::try_from(gained).unwrap_or(0));
        passed == second
    }

    /// The socket takes nothing more for now.
    pub(super) fn full(&mut self, now: Instant) {
        let Some(Watched { since, bytes, idle }) = &mut self.watched else {
            self.watched = Some(Watched { since: now, bytes: 0, idle: None });
            return;
        };
        *idle = None;
        let watched = now.since(*since);
        if watched >= WATCH_MIN {
            if u128::from(*bytes) * 1_000_000_000 < u128::from(SLOW_BYTES_PER_SECOND) * watched.as_nanos() {
                self.credit = CREDIT_BYTES;
            }
            self.watched = Some(Watched { since: now, bytes: 0, idle: None });
        }
    }

    /// The socket takes bytes; `all` that there were, if so.
    pub(super) fn took(&mut self, now: Instant, bytes: usize, all: bool) {
        let Some(watched) = self.watched.as_mut().filter(|_| bytes > 0) else { return };
        if watched.idle.is_some_and(|idle| now.since(idle) > GAP_MAX) {
            self.watched = None;
        } else {
            watched.bytes += bytes as u64;
            watched.idle = all.then_some(now);
        }
    }

    /// Whether so many bytes are to be deflated. What is spare has to cover all of them: something is gained each time
    /// that anything is sent, and on a fast link that is thousands of times a second.
    fn pays(&self, length: usize) -> bool {
        self.deflating == Deflating::Always || self.credit > 0 || self.spare >= length as u64
    }
}

/// Packs what is queued into units.
#[derive(Debug)]
pub(super) struct Packer {
    pub(super) pace: Pace,
    /// Bytes that go out before anything else that is queued: heads, sums and whole units.
    ready: Vec<u8>,
    sent: usize,
    /// Queued bytes that go out as they are, and what follows them: they are in a unit that has begun, or from before
    /// the units.
    bare: usize,
    sum: Option<[u8; SUM_LEN]>,
    deflater: Option<Deflater>,
    /// Units in a row that did not shrink, at most [`MISSES_MAX`], and how many are stored unseen now.
    misses: u32,
    unseen: u32,
}

impl Packer {
    /// Packs all but the next `bare` bytes.
    pub(super) fn new(deflating: Deflating, bare: usize) -> Packer {
        Packer {
            pace: Pace::new(deflating),
            ready: Vec::new(),
            sent: 0,
            bare,
            sum: None,
            deflater: None,
            misses: 0,
            unseen: 0,
        }
    }

    /// Something is about to be sent. After a pause what did not shrink before says nothing of it.
    pub(super) fn sends(&mut self, now: Instant) {
        if self.pace.sends(now) {
            (self.misses, self.unseen) = (0, 0);
        }
    }

    /// What goes out first.
    pub(super) fn ready(&self) -> &[u8] {
        &self.ready[self.sent..]
    }

    /// How many queued bytes follow that, as they are.
    pub(super) fn bare(&self) -> usize {
        self.bare
    }

    /// What follows those.
    pub(super) fn sum(&self) -> &[u8] {
        self.sum.as_ref().map_or(&[], |sum| &sum[..])
    }

    /// Bytes that go out beside those that are queued.
    pub(super) fn bytes(&self) -> usize {
        self.ready().len() + self.sum().len()
    }

    /// Packs the first of `length` queued bytes, which are in `parts`; `small` if they are small frames. Returns how
    /// many of them are done with, because they are in [`Packer::ready`]; if none, then the first [`Packer::bare`] go
    /// out from the queue.
    pub(super) fn pack<'a, P>(&mut self, parts: P, length: usize, small: bool) -> usize
    where
        P: Iterator<Item = &'a [u8]> + Clone,
    {
        self.ready.drain(..self.sent);
        self.sent = 0;
        let length = length.min(STORED_MAX);
        if self.deflates(parts.clone(), length, small) {
            return length;
        }
        let mut sum = Sum::default();
        within(parts, 0, length).for_each(|part| sum.add(part));
        write_stored_head(length, &mut self.ready);
        self.bare = length;
        self.sum = Some(sum.bytes());
        0
    }

    /// So many bytes went out: of what is ready, of the queue, and then of the sum, all of it or none.
    pub(super) fn went(&mut self, ready: usize, bare: usize, sum: bool) {
        self.sent += ready;
        self.bare -= bare;
        if self.bare > 0 {
            return;
        }
        let behind = self.sum.take();
        if let (Some(behind), false) = (behind, sum) {
            // The record is full: it goes with the next.
            self.ready.clear();
            self.sent = 0;
            self.ready.extend_from_slice(&behind);
        }
    }

    /// Whether `length` bytes were worth it and are deflated in [`Packer::ready`].
    fn deflates<'a, P>(&mut self, parts: P, length: usize, small: bool) -> bool
    where
        P: Iterator<Item = &'a [u8]> + Clone,
    {
        if length < DEFLATE_MIN || !(small || self.pace.pays(length)) {
            return false;
        }
        if self.unseen > 0 {
            self.unseen -= 1;
            return false;
        }
        if !small {
            self.pace.spare = self.pace.spare.saturating_sub(length as u64);
        }
        let deflater = self.deflater.get_or_insert_with(Deflater::new);
        let mut data = Vec::new();
        let mut shrinks = |from, count| {
            data.clear();
            // An eighth less, or it is not worth the other side's time either.
            deflater.deflate(within(parts.clone(), from, count), count - count / 8, &mut data)
        };
        // The middle of small frames says nothing of the others.
        let sampled =
            small || length < 2 * SAMPLE_BYTES || shrinks((length - SAMPLE_BYTES) / 2, SAMPLE_BYTES);
        if !sampled || !shrinks(0, length) {
            self.misses = MISSES_MAX.min(self.misses + 1);
            self.unseen = (1 << self.misses) - 1;
            return false;
        }
        self.misses = 0;
        write_length(data.len(), &mut self.ready);
        self.ready.extend_from_slice(&data);
        self.pace.credit = self.pace.credit.saturating_sub(data.len() as u64);
        true
    }

    /// Forgets what it holds only to be faster.
    pub(super) fn rest(&mut self) {
        self.deflater = None;
        if self.bytes() == 0 {
            (self.ready, self.sent) = (Vec::new(), 0);
        }
    }
}

/// The `count` bytes from `from` on of `parts`, which have as many.
fn within<'a>(
    parts: impl Iterator<Item = &'a [u8]>,
    mut from: usize,
    mut count: usize,
) -> impl Iterator<Item = &'a [u8]> {
    parts.map_while(move |part| {
        let (skipped, rest) = part.split_at(from.min(part.len()));
        let taken = &rest[..count.min(rest.len())];
        let ended = count == 0;
        from -= skipped.len();
        count -= taken.len();
        (!ended).then_some(taken)
    })
}

#[cfg(test)]
#[path = "pack_tests.rs"]
mod tests;
