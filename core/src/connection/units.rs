//! Units: the form of a stream on which `gzip` was agreed (protocol §6). Takes units in any pieces and hands out what
//! is in them, and writes what stands around the bytes of one that is stored; knows nothing of frames.

use alloc::vec::Vec;

use crate::connection::zlib::{Inflater, Sum};
use crate::error::Malformed;
use crate::wire::json::write_u64;

/// What a unit holds at most, in bytes (protocol §6).
pub const UNIT_INFLATED_MAX: usize = 1 << 20;

/// The most zlib data of a unit: as much as it may hold, stored, and room for blocks that are not full.
pub const UNIT_LENGTH_MAX: u32 = (1 << 20) + (4 << 10);

/// The least zlib data that holds anything: head, one byte in a block, sum.
const UNIT_LENGTH_MIN: u32 = 9;

/// Bytes that are inflated at once.
const PIECE_BYTES: usize = 16 * 1024;

/// What stands in a stored unit before its bytes: the head of zlib data, and that of one last, stored block.
const STORED_HEAD: usize = 7;

/// The sum behind them.
pub(super) const SUM_LEN: usize = 4;

/// Bytes in a stored unit of ours at most: with all around them four records of the channel.
pub(super) const STORED_MAX: usize = 65_536 - (6 + STORED_HEAD + SUM_LEN);

/// Says that the sum behind zlib data is Adler-32, that its window has 32 KiB, and that it was made fast.
const ZLIB_HEAD: [u8; 2] = [0x78, 0x01];

/// Appends the length of a unit.
pub(super) fn write_length(length: usize, out: &mut Vec<u8>) {
    write_u64(length as u64, out);
    out.push(b':');
}

/// Appends what stands before the `length` bytes of a stored unit, [`STORED_MAX`] at most.
pub(super) fn write_stored_head(length: usize, out: &mut Vec<u8>) {
    write_length(STORED_HEAD + length + SUM_LEN, out);
    out.extend_from_slice(&ZLIB_HEAD);
    // At most STORED_MAX, so it fits.
    let length = length as u16;
    out.push(1);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
}

/// How many bytes a unit of `length` stores, if it begins like one that [`write_stored_head`] makes.
fn stored(head: &[u8; STORED_HEAD], length: u32) -> Option<u32> {
    let [z0, z1, 1, a, b, c, d] = *head else { return None };
    let (count, check) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
    let fits = u32::from(count) + (STORED_HEAD + SUM_LEN) as u32 == length;
    ([z0, z1] == ZLIB_HEAD && count == !check && fits).then_some(count.into())
}

/// Takes units apart. After an error it is of no more use.
#[derive(Debug)]
pub struct Unpacker {
    state: State,
    /// What the unit that is read has given.
    given: usize,
    inflater: Option<Inflater>,
    /// Room for inflated bytes.
    room: Vec<u8>,
    /// Whether the room was filled: there may be more without further input.
    full: bool,
}

#[derive(Debug)]
enum State {
    /// The digits that were seen, as a number, and how many.
    Length(u32, u8),
    /// The unit's length, the beginning of its data, and how much of that has come.
    Head(u32, [u8; STORED_HEAD], usize),
    /// So many bytes are to come as they are; the sum of those that came.
    Stored(u32, Sum),
    /// The sum that is due, and how much of it has come.
    StoredSum([u8; SUM_LEN], usize),
    /// So much zlib data is to come.
    Deflated(u32),
}

impl Default for Unpacker {
    fn default() -> Unpacker {
        Unpacker { state: State::Length(0, 0), given: 0, inflater: None, room: Vec::new(), full: false }
    }
}

impl Unpacker {
    /// Takes bytes off the front of `input` until some of what is in units can be given; empty once all is taken and
    /// nothing more is to be given. What is given was not checked against its sum yet: that comes after it.
    pub fn next<'a, 'b: 'a>(&'a mut self, input: &mut &'b [u8]) -> Result<&'a [u8], Malformed> {
        loop {
            if self.full {
                let made = self.inflate(&mut (&[] as &[u8]))?;
                if made > 0 {
                    return Ok(&self.room[..made]);
                }
            }
            let Some(&byte) = input.first() else { return Ok(&[]) };
            match &mut self.state {
                State::Length(value, digits) => {
                    *input = &input[1..];
                    self.state = length(*value, *digits, byte)?;
                }
                State::Head(length, head, have) => {
                    let take = input.len().min(STORED_HEAD - *have);
                    head[*have..*have + take].copy_from_slice(&input[..take]);
                    *input = &input[take..];
                    *have += take;
                    if *have == STORED_HEAD {
                        let (head, length) = (*head, *length);
                        let made = self.begin(&head, length)?;
                        if made > 0 {
                            return Ok(&self.room[..made]);
                        }
                    }
                }
                State::Stored(left, sum) => {
                    let (given, rest) = input.split_at(input.len().min(*left as usize));
                    *input = rest;
                    sum.add(given);
                    // At most what was left.
                    *left -= given.len() as u32;
                    if *left == 0 {
                        self.state = State::StoredSum(sum.bytes(), 0);
                    }
                    return Ok(given);
                }
                State::StoredSum(sum, have) => {
                    *input = &input[1..];
                    if sum[*have] != byte {
                        return Err(Malformed("a unit with a wrong sum"));
                    }
                    *have += 1;
                    if *have == SUM_LEN {
                        self.state = State::Length(0, 0);
                    }
                }
                State::Deflated(_) => {
                    let made = self.inflate(input)?;
                    if made > 0 {
                        return Ok(&self.room[..made]);
                    }
                }
            }
        }
    }

    /// Whether there may be more to give without further input.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Forgets what it holds only to be faster, while nothing is being read.
    pub(super) fn rest(&mut self) {
        if matches!(self.state, State::Length(0, 0)) {
            self.inflater = None;
            self.room = Vec::new();
        }
    }

    /// The beginning of a unit's data is known.
    fn begin(&mut self, head: &[u8; STORED_HEAD], length: u32) -> Result<usize, Malformed> {
        self.given = 0;
        if let Some(count) = stored(head, length) {
            if count == 0 {
                return Err(EMPTY);
            }
            self.state = State::Stored(count, Sum::default());
            return Ok(0);
        }
        self.inflater.get_or_insert_with(Inflater::new).restart();
        self.state = State::Deflated(length);
        let mut input = &head[..];
        let made = self.inflate(&mut input)?;
        // So few bytes do not fill the room.
        if input.is_empty() { Ok(made) } else { Err(BEHIND) }
    }

    /// Inflates what of `input` belongs to the unit, as far as there is room, and says how much that gave.
    fn inflate(&mut self, input: &mut &[u8]) -> Result<usize, Malformed> {
        let (State::Deflated(left), Some(inflater)) = (&mut self.state, &mut self.inflater) else {
            self.full = false;
            return Ok(0);
        };
        self.room.resize(PIECE_BYTES, 0);
        // One byte more than is allowed is enough to see that there is more.
        let room = PIECE_BYTES.min(UNIT_INFLATED_MAX + 1 - self.given);
        let (mut own, _) = input.split_at(input.len().min(*left as usize));
        let before = own.len();
        let (made, ended) = inflater.inflate(&mut own, &mut self.room[..room])?;
        let taken = before - own.len();
        *input = &input[taken..];
        // At most what was left.
        *left -= taken as u32;
        self.given += made;
        self.full = made == room && !ended;
        if self.given > UNIT_INFLATED_MAX {
            return Err(Malformed("a unit that holds more than 1 MiB"));
        }
        if ended {
            if *left > 0 {
                return Err(BEHIND);
            }
            if self.given == 0 {
                return Err(EMPTY);
            }
            self.state = State::Length(0, 0);
        } else if *left == 0 && !self.full {
            return Err(Malformed("a unit whose zlib data is cut"));
        }
        Ok(made)
    }
}

const BEHIND: Malformed = Malformed("a unit with bytes behind its zlib data");
const EMPTY: Malformed = Malformed("a unit that holds nothing");

/// Takes one more byte of a unit's length.
fn length(value: u32, digits: u8, byte: u8) -> Result<State, Malformed> {
    match byte {
        b'0' if digits == 0 => Err(Malformed("a unit's length with a leading zero")),
        b'0'..=b'9' => {
            // At most ten times the limit, so it fits.
            let value = value * 10 + u32::from(byte - b'0');
            if value > UNIT_LENGTH_MAX {
                return Err(Malformed("a unit longer than allowed"));
            }
            Ok(State::Length(value, digits + 1))
        }
        b':' if value >= UNIT_LENGTH_MIN => Ok(State::Head(value, [0; STORED_HEAD], 0)),
        b':' => Err(if digits == 0 { Malformed("a unit without a length") } else { EMPTY }),
        _ => Err(Malformed("a unit without a length")),
    }
}

/// A stored unit in the form of ours, for tests and fuzzers.
#[cfg(any(test, feature = "simulator"))]
pub fn store(bytes: &[u8]) -> Vec<u8> {
    let mut unit = Vec::new();
    write_stored_head(bytes.len(), &mut unit);
    unit.extend_from_slice(bytes);
    let mut sum = Sum::default();
    sum.add(bytes);
    unit.extend_from_slice(&sum.bytes());
    unit
}

/// A deflated unit, for tests and fuzzers.
#[cfg(any(test, feature = "simulator"))]
pub fn deflate(bytes: &[u8]) -> Vec<u8> {
    let (mut data, mut unit) = (Vec::new(), Vec::new());
    let parts = core::iter::once(bytes);
    super::zlib::Deflater::new().deflate(parts, UNIT_LENGTH_MAX as usize, &mut data);
    write_length(data.len(), &mut unit);
    unit.extend_from_slice(&data);
    unit
}

#[cfg(test)]
#[path = "units_tests.rs"]
mod tests;
