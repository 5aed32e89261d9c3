//! Finds what two contents have in common (protocol §8, "rsync"): sums of blocks, and where in a piece of the new
//! content blocks of the old one lie. The only file that names the library for librsync's sums. Reads no file.

use clearskies_core::files::rsync::{DeltaWriter, HEAD_BYTES, Head, LITERAL_BYTES_MAX, SUM_BYTES, Signature};

/// Blocks that are summed up together, at first and at most: sums of several are made at once, and those behind a block
/// that differs are of no use.
const RUN_BLOCKS_MIN: usize = 8;
const RUN_BLOCKS_MAX: usize = 64;
/// Bytes of blocks that may have a rolling sum of the signature without being in it; a signature that causes more is
/// made to cost time, and finds nothing from then on.
const MISS_BYTES_MAX: usize = 64 << 20;
/// Bits of the filter of rolling sums, at least and at most, as powers of two.
const FILTER_BITS_MIN: u32 = 12;
const FILTER_BITS_MAX: u32 = 21;
/// What librsync adds to each byte.
const CHAR_OFFSET: u32 = 31;

/// The sums of each block of this size, as a signature has them.
pub fn sums(data: &[u8], head: Head) -> Vec<u8> {
    let mut signature = library::signature(data, head);
    signature.drain(..HEAD_BYTES);
    signature
}

/// What is used of the library; in tests, also what ours is compared with.
mod library {
    use clearskies_core::files::rsync::Head;
    use fast_rsync::{Signature, SignatureOptions};

    pub(super) fn signature(data: &[u8], head: Head) -> Vec<u8> {
        let options = SignatureOptions { block_size: head.block, crypto_hash_size: head.hash };
        Signature::calculate(data, options).into_serialized()
    }

    #[cfg(test)]
    pub(super) fn patch(old: &[u8], delta: &[u8], made: &mut Vec<u8>) {
        fast_rsync::apply(old, delta, made).unwrap();
    }
}

/// What is known of the first bytes of a piece.
#[derive(Debug)]
pub struct Piece {
    /// A delta that makes them.
    pub delta: Vec<u8>,
    /// How many.
    pub len: usize,
    /// The block that may well come next.
    pub next: u64,
}

/// Compares a piece of new content with a signature, beginning with the block that is expected there. `is_end`: nothing
/// follows the piece. Takes as much of it as can be judged, but no more than [`LITERAL_BYTES_MAX`] that are new.
pub fn delta(data: &[u8], is_end: bool, expected: u64, signature: &Signature) -> Piece {
    let block = signature.head.block as usize;
    let literal_max = LITERAL_BYTES_MAX as usize;
    let mut out = Out { data, writer: DeltaWriter::default(), copy: None, new_from: 0, new_bytes: 0 };
    let (mut at, mut next) = (0, expected);
    let mut index = None;
    loop {
        let run = run(&data[at..], next, signature);
        if run > 0 {
            out.copy(at, next * block as u64, run * block);
            at += run * block;
            next += run as u64;
        } else if data.len() - at < block {
            let tail = &data[at..];
            let last = signature.blocks().checked_sub(1);
            if is_end
                && !tail.is_empty()
                && let Some(last) = last
                && signature.entry(last) == Some(&*sums(tail, signature.head))
            {
                out.copy(at, last * block as u64, tail.len());
                at = data.len();
            }
            break;
        } else {
            let index = index.get_or_insert_with(|| Index::of(signature));
            let room = literal_max - out.new_bytes;
            match index.find(&data[at..], room) {
                (skipped, Some(found)) => {
                    at += skipped;
                    out.copy(at, found * block as u64, block);
                    at += block;
                    next = found + 1;
                }
                (skipped, None) => {
                    at += skipped;
                    break;
                }
            }
        }
    }
    let end = if is_end { data.len() } else { at };
    let len = end.min(out.new_from + (literal_max - out.new_bytes));
    Piece { delta: out.finish(len), len, next }
}

/// Writes a delta, joining what is next to each other.
struct Out<'a> {
    data: &'a [u8],
    writer: DeltaWriter,
    copy: Option<(u64, u64)>,
    /// Where what no copy covers begins.
    new_from: usize,
    new_bytes: usize,
}

impl Out<'_> {
    fn copy(&mut self, at: usize, from: u64, len: usize) {
        let len = len as u64;
        match &mut self.copy {
            Some((start, length)) if self.new_from == at && *start + *length == from => *length += len,
            _ => {
                self.literal_to(at);
                self.copy = Some((from, len));
            }
        }
        self.new_from = at + len as usize;
    }

    fn literal_to(&mut self, at: usize) {
        if let Some((from, len)) = self.copy.take() {
            self.writer.copy(from, len);
        }
        self.writer.literal(&self.data[self.new_from..at]);
        self.new_bytes += at - self.new_from;
    }

    fn finish(mut self, len: usize) -> Vec<u8> {
        self.literal_to(len);
        self.writer.finish()
    }
}

/// How many blocks, from the first, are those of the signature from `next` on.
fn run(data: &[u8], next: u64, signature: &Signature) -> usize {
    let block = signature.head.block as usize;
    let entry_bytes = SUM_BYTES as usize + signature.head.hash as usize;
    let mut same = 0;
    let mut batch = RUN_BLOCKS_MIN;
    loop {
        let rest = &data[same * block..];
        let first = next.saturating_add(same as u64);
        let there = usize::try_from(signature.blocks().saturating_sub(first)).unwrap_or(usize::MAX);
        let blocks = (rest.len() / block).min(there).min(batch);
        let Some(entry) = signature.entry(first).filter(|_| blocks > 0) else { return same };
        if same == 0 && entry[..SUM_BYTES as usize] != Rolling::of(&rest[..block]).sum().to_be_bytes() {
            return 0;
        }
        let made = sums(&rest[..blocks * block], signature.head);
        let equal = made.chunks_exact(entry_bytes).zip(first..);
        let equal = equal.take_while(|(sums, block)| signature.entry(*block) == Some(*sums)).count();
        same += equal;
        if equal < blocks {
            return same;
        }
        batch = (2 * batch).min(RUN_BLOCKS_MAX);
    }
}

/// librsync's rolling sum.
struct Rolling {
    len: u32,
    sum: u32,
    weighted: u32,
}

impl Rolling {
    fn of(block: &[u8]) -> Rolling {
        let mut rolling = Rolling { len: block.len() as u32, sum: 0, weighted: 0 };
        for &byte in block {
            rolling.sum = rolling.sum.wrapping_add(u32::from(byte) + CHAR_OFFSET);
            rolling.weighted = rolling.weighted.wrapping_add(rolling.sum);
        }
        rolling
    }

    fn roll(&mut self, gone: u8, come: u8) {
        self.sum = self.sum.wrapping_add(u32::from(come)).wrapping_sub(u32::from(gone));
        let lost = self.len.wrapping_mul(u32::from(gone) + CHAR_OFFSET);
        self.weighted = self.weighted.wrapping_add(self.sum).wrapping_sub(lost);
    }

    fn sum(&self) -> u32 {
        self.weighted << 16 | self.sum & 0xffff
    }
}

/// The blocks of a signature by their sums.
struct Index<'a> {
    signature: &'a Signature,
    /// Ordered by what the signature says of them.
    order: Vec<u32>,
    filter: Vec<u64>,
    shift: u32,
    missed: usize,
}

impl Index<'_> {
    fn of(signature: &Signature) -> Index<'_> {
        // At most `BLOCKS_MAX`, so the cast is exact.
        let mut order: Vec<u32> = (0..signature.blocks() as u32).collect();
        order.sort_unstable_by_key(|&block| (signature.entry(u64::from(block)), block));
        let bits = (order.len() * 16).next_power_of_two().ilog2().clamp(FILTER_BITS_MIN, FILTER_BITS_MAX);
        let mut index =
            Index { signature, order, filter: vec![0; 1 << (bits - 6)], shift: 32 - bits, missed: 0 };
        for block in 0..signature.blocks() {
            if let Some(sum) = signature.entry(block).and_then(|entry| entry.first_chunk::<4>()) {
                let (word, bit) = index.place(u32::from_be_bytes(*sum));
                index.filter[word] |= bit;
            }
        }
        index
    }

    fn place(&self, sum: u32) -> (usize, u64) {
        let place = sum.wrapping_mul(0x9e37_79b1) >> self.shift;
        ((place / 64) as usize, 1 << (place % 64))
    }

    /// Looks for any block, beginning at each of the first `room` bytes. Returns how many bytes are before it; if there
    /// is none, at how many bytes none begins.
    fn find(&mut self, data: &[u8], room: usize) -> (usize, Option<u64>) {
        let block = self.signature.head.block as usize;
        let Some(first) = data.get(..block) else { return (0, None) };
        let mut rolling = Rolling::of(first);
        let ends = data[block..].iter().copied().map(Some).chain([None]);
        for (at, (&gone, come)) in data.iter().zip(ends).enumerate() {
            if at == room {
                return (at, None);
            }
            let sum = rolling.sum();
            let (word, bit) = self.place(sum);
            if self.filter[word] & bit != 0
                && let Some(found) = self.look(sum, &data[at..at + block])
            {
                return (at, Some(found));
            }
            let Some(come) = come else { return (at + 1, None) };
            rolling.roll(gone, come);
        }
        (0, None)
    }

    /// The first block of the signature that is this one.
    fn look(&mut self, sum: u32, block: &[u8]) -> Option<u64> {
        let entry = |at: &u32| self.signature.entry(u64::from(*at)).unwrap_or_default();
        let sum = sum.to_be_bytes();
        let alike = self.order.partition_point(|at| entry(at)[..4] < sum[..]);
        if self.order.get(alike).is_none_or(|at| entry(at)[..4] != sum) || self.missed > MISS_BYTES_MAX {
            return None;
        }
        let sums = sums(block, self.signature.head);
        let alike = self.order.partition_point(|at| entry(at) < &*sums);
        let found = self.order.get(alike).filter(|at| entry(at) == &*sums).map(|at| u64::from(*at));
        if found.is_none() {
            self.missed += block.len();
        }
        found
    }
}

#[cfg(test)]
#[path = "delta_tests.rs"]
mod tests;
