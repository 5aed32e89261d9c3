//! librsync's formats, as far as they are spoken here: signatures with MD4, and deltas (protocol §8, "rsync"). Knows
//! bytes and limits; reads no file and asks nobody.

use alloc::vec::Vec;
use core::ops::Range;

use crate::files::sources::RANGE_BYTES;

/// Only contents larger than this are worth a delta.
pub const DELTA_BYTES_MIN: u64 = 64 * 1024;
/// An older version that is smaller than the content by more than this factor has too little of it.
pub const OLD_PART_MIN: u64 = 8;
/// Bytes of a block, at least.
pub const BLOCK_BYTES_MIN: u32 = 256;
/// Bytes of a block, at most.
pub const BLOCK_BYTES_MAX: u32 = 4 << 20;
/// Blocks of a signature, at most; a file that has more even with the largest blocks is not signed.
pub const BLOCKS_MAX: u64 = 128 * 1024;
/// Bytes of MD4 in a signature, at least; also what ours have. A block that is taken for another costs a download, as
/// the whole is checked in the end: with 4 bytes of rolling sum this happens once in 2^96 comparisons.
pub const HASH_BYTES_MIN: u32 = 8;
/// Bytes of MD4 in a signature, at most: all of it.
pub const HASH_BYTES_MAX: u32 = 16;
/// Bytes of a signature, at most.
pub const SIGNATURE_BYTES_MAX: u64 = HEAD_BYTES as u64 + BLOCKS_MAX * (SUM_BYTES + HASH_BYTES_MAX as u64);
/// Bytes that one delta makes, at most, and a host compares at once: two of the largest blocks, so that a block is
/// found wherever it begins in the first half.
pub const WINDOW_BYTES_MAX: u64 = 2 * BLOCK_BYTES_MAX as u64;
/// A host compares so much at once where blocks are smaller.
const WINDOW_BYTES_MIN: u64 = 4 << 20;
/// Bytes of new content in one delta, at most.
pub const LITERAL_BYTES_MAX: u64 = RANGE_BYTES;
/// Bytes of a delta, at most: of commands there are two for each block of a window at worst, of 26 bytes together.
pub const PATCH_BYTES_MAX: u64 = LITERAL_BYTES_MAX + 1024 * 1024;
/// Bytes of a file that are signed at once, at most.
pub const SIGN_BYTES_MAX: u32 = BLOCK_BYTES_MAX;

/// Bytes of a block's rolling sum in a signature.
pub const SUM_BYTES: u64 = 4;
/// Bytes before the first block of a signature.
pub const HEAD_BYTES: usize = 12;

/// A signature with rolling sums and MD4.
const SIGNATURE_MAGIC: u32 = 0x7273_0136;
/// A delta.
const DELTA_MAGIC: u32 = 0x7273_0236;
/// What our blocks are a multiple of: smaller ones cost more in the signature than they save.
const BLOCK_GRAIN: u64 = 1024;

const END: u8 = 0;
const LITERAL_1: u8 = 0x41;
const COPY_1_1: u8 = 0x45;
const COPY_LAST: u8 = 0x54;

/// Bytes of the blocks in which a file of this size is signed; `None` if it is too large for any.
pub fn block_size(size: u64) -> Option<u32> {
    // Both what the signature costs and what an edit costs grow with the root.
    let wanted = size.isqrt().max(size.div_ceil(BLOCKS_MAX)).max(1);
    let block = u32::try_from(wanted.div_ceil(BLOCK_GRAIN) * BLOCK_GRAIN).ok()?;
    (block <= BLOCK_BYTES_MAX).then_some(block)
}

/// How many blocks a file has.
pub fn blocks_of(size: u64, block: u32) -> u64 {
    size.div_ceil(u64::from(block).max(1))
}

/// What a signature says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of a block.
    pub block: u32,
    /// Bytes of each block's MD4.
    pub hash: u32,
}

impl Head {
    /// Bytes of one block in the signature.
    pub fn entry_bytes(&self) -> u64 {
        SUM_BYTES + u64::from(self.hash)
    }

    /// The bytes before the first block.
    pub fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        head[..4].copy_from_slice(&SIGNATURE_MAGIC.to_be_bytes());
        head[4..8].copy_from_slice(&self.block.to_be_bytes());
        head[8..].copy_from_slice(&self.hash.to_be_bytes());
        head
    }

    /// Reads what a peer sent as a whole signature; `None` for anything that is not one, or is beyond a limit.
    pub fn of(signature: &[u8]) -> Option<Head> {
        let (head, entries) = signature.split_first_chunk::<HEAD_BYTES>()?;
        let number = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let read = Head { block: number(4), hash: number(8) };
        let fits = number(0) == SIGNATURE_MAGIC
            && (BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&read.block)
            && (HASH_BYTES_MIN..=HASH_BYTES_MAX).contains(&read.hash)
            && (entries.len() as u64).is_multiple_of(read.entry_bytes())
            && entries.len() as u64 / read.entry_bytes() <= BLOCKS_MAX;
        fits.then_some(read)
    }
}

/// Bytes of new content that a host compares at once with blocks of this size.
pub fn window_bytes(block: u32) -> u64 {
    WINDOW_BYTES_MIN.max(2 * u64::from(block))
}

/// A signature within its limits.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature {
    /// What it says of itself.
    pub head: Head,
    entries: Vec<u8>,
}

impl core::fmt::Debug for Signature {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Signature({} blocks of {})", self.blocks(), self.head.block)
    }
}

impl Signature {
    /// Reads what a peer sent as a whole signature; `None` for anything that is not one, or is beyond a limit.
    pub fn of(mut signature: Vec<u8>) -> Option<Signature> {
        let head = Head::of(&signature)?;
        signature.drain(..HEAD_BYTES);
        Some(Signature { head, entries: signature })
    }

    /// How many blocks it has.
    pub fn blocks(&self) -> u64 {
        self.entries.len() as u64 / self.head.entry_bytes()
    }

    /// The sums of a block: the rolling one, then MD4.
    pub fn entry(&self, block: u64) -> Option<&[u8]> {
        let bytes = self.head.entry_bytes();
        let start = usize::try_from(block.checked_mul(bytes)?).ok()?;
        self.entries.get(start..start.checked_add(usize::try_from(bytes).ok()?)?)
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        (HEAD_BYTES + self.entries.len()) as u64
    }
}

/// One command of a delta.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// These bytes of the delta are new content.
    Literal(Range<usize>),
    /// The old content has what comes next.
    Copy {
        /// First byte there.
        from: u64,
        /// How many bytes; never none.
        len: u64,
    },
}

/// A delta that is none, or asks for what there is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Reads a delta command by command. After an error, or the end, nothing follows.
#[derive(Clone, Debug)]
pub struct Commands<'a> {
    delta: &'a [u8],
    at: usize,
    over: bool,
}

impl<'a> Commands<'a> {
    /// Begins to read.
    pub fn of(delta: &'a [u8]) -> Commands<'a> {
        Commands { delta, at: 0, over: false }
    }

    fn number(&mut self, width: usize) -> Result<u64, Malformed> {
        let end = self.at.checked_add(width).ok_or(Malformed)?;
        let bytes = self.delta.get(self.at..end).ok_or(Malformed)?;
        self.at = end;
        Ok(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// The next command; `None` at the end, which must be that of the delta as well.
    fn read(&mut self) -> Result<Option<Command>, Malformed> {
        if self.at == 0 && self.number(4)? != u64::from(DELTA_MAGIC) {
            return Err(Malformed);
        }
        let op = self.number(1)? as u8;
        match op {
            END if self.at == self.delta.len() => Ok(None),
            END => Err(Malformed),
            1..COPY_1_1 => {
                let len = if op < LITERAL_1 { u64::from(op) } else { self.number(1 << (op - LITERAL_1))? };
                let start = self.at;
                let end = usize::try_from(len).ok().and_then(|len| start.checked_add(len));
                self.at = end.filter(|end| len > 0 && *end <= self.delta.len()).ok_or(Malformed)?;
                Ok(Some(Command::Literal(start..self.at)))
            }
            COPY_1_1..=COPY_LAST => {
                let widths = op - COPY_1_1;
                let from = self.number(1 << (widths / 4))?;
                let len = self.number(1 << (widths % 4))?;
                if len == 0 { Err(Malformed) } else { Ok(Some(Command::Copy { from, len })) }
            }
            _ => Err(Malformed),
        }
    }
}

impl Iterator for Commands<'_> {
    type Item = Result<Command, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let read = self.read();
        self.over = !matches!(read, Ok(Some(_)));
        read.transpose()
    }
}

/// How many bytes a delta makes out of an old content of `old` bytes; `None` where it is none.
pub fn made_bytes(delta: &[u8], old: u64) -> Option<u64> {
    Commands::of(delta).try_fold(0u64, |made, command| {
        let more = match command.ok()? {
            Command::Literal(bytes) => bytes.len() as u64,
            Command::Copy { from, len } => {
                from.checked_add(len).filter(|end| *end <= old)?;
                len
            }
        };
        made.checked_add(more)
    })
}

/// Whether a delta makes exactly `len` bytes out of an old content of `old` bytes.
pub fn is_delta(delta: &[u8], old: u64, len: u64) -> bool {
    made_bytes(delta, old) == Some(len)
}

/// Writes a delta.
#[derive(Clone, Debug)]
pub struct DeltaWriter {
    delta: Vec<u8>,
}

impl Default for DeltaWriter {
    fn default() -> DeltaWriter {
        DeltaWriter { delta: DELTA_MAGIC.to_be_bytes().to_vec() }
    }
}

impl DeltaWriter {
    /// Appends new content.
    pub fn literal(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let len = bytes.len() as u64;
        if len < u64::from(LITERAL_1) {
            self.delta.push(len as u8);
        } else {
            let width = width_of(len);
            self.delta.push(LITERAL_1 + width);
            self.number(len, width);
        }
        self.delta.extend_from_slice(bytes);
    }

    /// Appends a piece of the old content.
    pub fn copy(&mut self, from: u64, len: u64) {
        if len == 0 {
            return;
        }
        let (from_width, len_width) = (width_of(from), width_of(len));
        self.delta.push(COPY_1_1 + 4 * from_width + len_width);
        self.number(from, from_width);
        self.number(len, len_width);
    }

    /// The whole delta.
    pub fn finish(mut self) -> Vec<u8> {
        self.delta.push(END);
        self.delta
    }

    fn number(&mut self, number: u64, width: u8) {
        self.delta.extend_from_slice(&number.to_be_bytes()[8 - (1 << width)..]);
    }
}

/// Which of the widths 1, 2, 4 and 8 a number takes.
fn width_of(number: u64) -> u8 {
    match number {
        0..=0xff => 0,
        0x100..=0xffff => 1,
        0x1_0000..=0xffff_ffff => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    #[test]
    fn blocks_grow_with_the_file() {
        assert_eq!(block_size(DELTA_BYTES_MIN + 1), Some(1024));
        assert_eq!(block_size(1 << 30), Some(32 * 1024));
        assert_eq!(block_size((1 << 30) + (1 << 20)), Some(33 * 1024));
        let most = BLOCKS_MAX * u64::from(BLOCK_BYTES_MAX);
        assert_eq!(block_size(most), Some(BLOCK_BYTES_MAX));
        assert_eq!(block_size(most + 1), None);
        for size in [1, 1 << 20, 16 << 30, 17 << 30, most] {
            assert!(blocks_of(size, block_size(size).unwrap()) <= BLOCKS_MAX, "{size}");
        }
    }

    fn signature(block: u32, hash: u32, bytes: usize) -> Vec<u8> {
        let mut signature = Head { block, hash }.encode().to_vec();
        signature.resize(HEAD_BYTES + bytes, 7);
        signature
    }

    #[test]
    fn signatures_within_their_limits_alone_are_read() {
        let is = |block, hash, bytes| Head::of(&signature(block, hash, bytes)).is_some();
        assert!(is(1024, 8, 24) && is(1024, 8, 0) && is(1024, 16, 20));
        assert!(is(BLOCK_BYTES_MIN, 8, 12) && !is(BLOCK_BYTES_MIN - 1, 8, 12) && !is(0, 8, 12));
        assert!(is(BLOCK_BYTES_MAX, 8, 12) && !is(BLOCK_BYTES_MAX + 1, 8, 12) && !is(u32::MAX, 8, 12));
        assert!(
            !is(1024, HASH_BYTES_MIN - 1, 0) && !is(1024, HASH_BYTES_MAX + 1, 0) && !is(1024, u32::MAX, 0)
        );
        assert!(!is(1024, 8, 23) && !is(1024, 8, 25));
        let most = BLOCKS_MAX as usize;
        assert!(is(1024, 8, most * 12) && !is(1024, 8, (most + 1) * 12));
        assert!(is(1024, 16, most * 20) && !is(1024, 16, (most + 1) * 20));
        assert_eq!((HEAD_BYTES + most * 20) as u64, SIGNATURE_BYTES_MAX);
        let mut blake = signature(1024, 8, 12);
        blake[3] = 0x37;
        assert_eq!(Head::of(&blake), None);
        assert_eq!(Head::of(&signature(1024, 8, 0)[..HEAD_BYTES - 1]), None);
    }

    fn delta(of: impl FnOnce(&mut DeltaWriter)) -> Vec<u8> {
        let mut writer = DeltaWriter::default();
        of(&mut writer);
        writer.finish()
    }

    #[test]
    fn a_delta_makes_what_it_is_to_make_out_of_what_there_is() {
        let one = delta(|delta| {
            delta.literal(b"abc");
            delta.copy(5, 5);
        });
        assert!(is_delta(&one, 10, 8));
        assert!(!is_delta(&one, 9, 8), "a copy beyond the old content");
        assert!(!is_delta(&one, 10, 7), "more than is wanted");
        assert!(!is_delta(&one, 10, 9), "less than is wanted");
        assert!((0..one.len()).all(|len| !is_delta(&one[..len], 10, 8)), "a delta that was cut");
        assert!(!is_delta(&[&one[..], &[0]].concat(), 10, 8), "something behind the end");
        let mut other = one.clone();
        other[3] = 0x37;
        assert!(!is_delta(&other, 10, 8));
        let far = delta(|delta| delta.copy(u64::MAX, 2));
        assert!(!is_delta(&far, u64::MAX, 2));
        let twice = delta(|delta| (0..2).for_each(|_| delta.copy(0, u64::MAX)));
        assert!(!is_delta(&twice, u64::MAX, u64::MAX));
        let none = |op: &[u8]| [&DELTA_MAGIC.to_be_bytes(), op, &[END]].concat();
        assert!(!is_delta(&none(&[COPY_1_1, 0, 0]), 10, 0) && !is_delta(&none(&[LITERAL_1, 0]), 10, 0));
        assert!(!is_delta(&none(&[COPY_LAST + 1]), 10, 0) && !is_delta(&none(&[0xff]), 10, 0));
        assert!(is_delta(&none(&[]), 10, 0));
        let huge = [&[LITERAL_1 + 3][..], &u64::MAX.to_be_bytes()].concat();
        assert!(!is_delta(&none(&huge), 10, u64::MAX));
    }

    #[test]
    fn each_width_is_written_and_read() {
        for len in [1, 64, 65, 255, 256, 65_535, 65_536] {
            let written = delta(|delta| delta.literal(&vec![7; len]));
            let read: Vec<_> = Commands::of(&written).collect();
            assert!(matches!(&read[..], [Ok(Command::Literal(range))] if range.len() == len), "{len}");
        }
        for number in [1, 0xff, 0x100, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000] {
            let written = delta(|delta| delta.copy(number - 1, number));
            let read: Vec<_> = Commands::of(&written).collect();
            assert_eq!(read, [Ok(Command::Copy { from: number - 1, len: number })]);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            magic: bool,
            old in 0..100u64,
            len in 0..100u64,
        ) {
            let head = if magic { DELTA_MAGIC.to_be_bytes().to_vec() } else { vec![] };
            let delta = [head, bytes].concat();
            let made: u64 = Commands::of(&delta)
                .map_while(Result::ok)
                .map(|command| match command {
                    Command::Literal(range) => delta[range].len() as u64,
                    Command::Copy { len, .. } => len,
                })
                .fold(0, u64::saturating_add);
            prop_assert!(!is_delta(&delta, old, len) || made == len);
            _ = Head::of(&delta);
        }
    }
}
