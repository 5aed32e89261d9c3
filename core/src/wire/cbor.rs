//! CBOR (RFC 8949) as the protocol allows it (protocol §4): a strict check that runs before anything else reads a body,
//! the door to the decoder, and the few writers that messages need. Knows no message.

use alloc::vec::Vec;
use core::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

use crate::error::Malformed;
use crate::wire::json::DEPTH_MAX;

/// The longest body in CBOR, in bytes (protocol §4): no message needs more, and one name of each map takes memory.
pub const BODY_BYTES_MAX: usize = 2 << 20;

/// Up to so many names of one map are compared each with each; more are sorted first.
const PAIRWISE_MAX: usize = 16;

/// The kinds of items, as the first three bits of each say them.
const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const SIMPLE: u8 = 7;

const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;
const NULL: u8 = 0xf6;

/// Whether a body that begins so is a map in CBOR. No text of JSON begins so.
pub(crate) fn begins_map(first: u8) -> bool {
    (0xa0..=0xbb).contains(&first)
}

/// Checks a message's body by all rules of protocol §4: one map with a text `type`, which is returned; definite
/// lengths, names that are texts or byte strings and stand once in each map, UTF-8, integers within −2^63..2^64−1, no
/// fractions, no tags, depth at most [`DEPTH_MAX`]. Memory is taken for the names of open maps alone.
pub fn check_body(body: &[u8]) -> Result<&str, Malformed> {
    if body.len() > BODY_BYTES_MAX {
        return Err(Malformed("a body in CBOR above 2 MiB"));
    }
    if !body.first().is_some_and(|first| begins_map(*first)) {
        return Err(Malformed("a body that is no map"));
    }
    let mut check = Check { rest: body, names: Vec::new(), type_name: None };
    check.value(0)?;
    if !check.rest.is_empty() {
        return Err(Malformed("something after the CBOR value"));
    }
    check.type_name.ok_or(Malformed("a body without a type"))
}

/// Reads a body that passed [`check_body`].
pub(crate) fn decode<'a, T: Deserialize<'a>>(
    checked: &'a [u8],
    otherwise: &'static str,
) -> Result<T, Malformed> {
    serde_cbor::from_slice(checked).map_err(|_| Malformed(otherwise))
}

/// The kind of a name, and what it says.
type Name<'a> = (u8, &'a [u8]);

struct Check<'a> {
    rest: &'a [u8],
    /// The names of all open maps.
    names: Vec<Name<'a>>,
    /// The outermost map's `type`.
    type_name: Option<&'a str>,
}

impl<'a> Check<'a> {
    fn take(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        let taken = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        let (taken, rest) = taken.ok_or(Malformed("CBOR that is cut off"))?;
        self.rest = rest;
        Ok(taken)
    }

    /// Reads what an item begins with: its kind, and its number or length. Of a simple value the number says which.
    fn head(&mut self) -> Result<(u8, u64), Malformed> {
        let first = self.take(1)?[0];
        let (kind, low) = (first >> 5, first & 31);
        let width = match low {
            0..=23 => return Ok((kind, u64::from(low))),
            24..=27 if kind == SIMPLE => return Err(Malformed("a CBOR value that JSON does not have")),
            24..=27 => 1 << (low - 24),
            _ => return Err(Malformed("CBOR of an indefinite length")),
        };
        let number = self.take(width)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        Ok((kind, number))
    }

    fn text(&mut self, length: u64) -> Result<&'a str, Malformed> {
        core::str::from_utf8(self.take(length)?).map_err(|_| Malformed("text that is not UTF-8"))
    }

    /// Reads past one value that stands in `depth` others.
    fn value(&mut self, depth: u32) -> Result<(), Malformed> {
        let (kind, number) = self.head()?;
        match kind {
            UNSIGNED => Ok(()),
            // It stands for −1 − number.
            NEGATIVE if number > i64::MAX as u64 => Err(Malformed("an integer that 64 bits cannot hold")),
            NEGATIVE => Ok(()),
            BYTES => self.take(number).map(drop),
            TEXT => self.text(number).map(drop),
            ARRAY | MAP if depth == DEPTH_MAX => Err(Malformed("CBOR deeper than 32")),
            ARRAY => (0..number).try_for_each(|_| self.value(depth + 1)),
            MAP => self.map(number, depth + 1),
            SIMPLE if (20..=22).contains(&number) => Ok(()),
            _ => Err(Malformed("a CBOR value that JSON does not have")),
        }
    }

    fn map(&mut self, length: u64, depth: u32) -> Result<(), Malformed> {
        let base = self.names.len();
        for _ in 0..length {
            let name = match self.head()? {
                (TEXT, length) => (TEXT, self.text(length)?.as_bytes()),
                (BYTES, length) => (BYTES, self.take(length)?),
                _ => return Err(Malformed("a name in CBOR that is neither text nor bytes")),
            };
            self.names.push(name);
            if depth == 1 && name == (TEXT, b"type") {
                let mut ahead = Check { rest: self.rest, names: Vec::new(), type_name: None };
                if let (TEXT, length) = ahead.head()? {
                    self.type_name = Some(ahead.text(length)?);
                }
            }
            self.value(depth)?;
        }
        let doubled = any_twice(&mut self.names[base..]);
        self.names.truncate(base);
        if doubled { Err(Malformed("a name twice in one CBOR map")) } else { Ok(()) }
    }
}

/// Whether two of `names` are equal. May reorder them.
fn any_twice(names: &mut [Name<'_>]) -> bool {
    if names.len() <= PAIRWISE_MAX {
        return (1..names.len()).any(|i| names[..i].contains(&names[i]));
    }
    if !names.is_sorted() {
        names.sort_unstable();
    }
    names.windows(2).any(|pair| pair[0] == pair[1])
}

fn write_head(kind: u8, number: u64, out: &mut Vec<u8>) {
    let bytes = number.to_be_bytes();
    let (low, width) = match number {
        // Below 24 the number itself stands in the low five bits.
        0..=23 => (bytes[7], 0),
        24..=0xff => (24, 1),
        0x100..=0xffff => (25, 2),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 8),
    };
    out.push(kind << 5 | low);
    out.extend_from_slice(&bytes[8 - width..]);
}

/// Appends an integer that is not negative.
pub(crate) fn write_u64(value: u64, out: &mut Vec<u8>) {
    write_head(UNSIGNED, value, out);
}

/// Appends an integer.
pub(crate) fn write_i64(value: i64, out: &mut Vec<u8>) {
    match u64::try_from(value) {
        Ok(value) => write_u64(value, out),
        // All bits of a negative number turned over are −1 − number.
        Err(_) => write_head(NEGATIVE, !value as u64, out),
    }
}

/// Appends a byte string.
pub(crate) fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    write_head(BYTES, bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Appends a text.
pub(crate) fn write_text(text: &str, out: &mut Vec<u8>) {
    write_head(TEXT, text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

/// Appends what an array of so many elements begins with.
pub(crate) fn write_array(length: usize, out: &mut Vec<u8>) {
    write_head(ARRAY, length as u64, out);
}

/// Appends what a map of so many members begins with.
pub(crate) fn write_map(length: usize, out: &mut Vec<u8>) {
    write_head(MAP, length as u64, out);
}

/// Appends true or false.
pub(crate) fn write_bool(value: bool, out: &mut Vec<u8>) {
    out.push(if value { TRUE } else { FALSE });
}

/// Appends null.
pub(crate) fn write_null(out: &mut Vec<u8>) {
    out.push(NULL);
}

/// What a map or array begins with whose length is not known yet; [`Later::set`] puts it in.
pub(crate) struct Later {
    at: usize,
    kind: u8,
}

impl Later {
    /// Appends room for the length of an array.
    pub(crate) fn array(out: &mut Vec<u8>) -> Later {
        Later::new(ARRAY, out)
    }

    /// Appends room for the length of a map.
    pub(crate) fn map(out: &mut Vec<u8>) -> Later {
        Later::new(MAP, out)
    }

    fn new(kind: u8, out: &mut Vec<u8>) -> Later {
        let at = out.len();
        out.extend_from_slice(&[0; 3]);
        Later { at, kind }
    }

    /// Puts the length in.
    pub(crate) fn set(self, length: u16, out: &mut [u8]) {
        let [high, low] = length.to_be_bytes();
        out[self.at..self.at + 3].copy_from_slice(&[self.kind << 5 | 25, high, low]);
    }
}

/// A byte string of exactly `N` bytes.
pub(crate) struct Bytes<const N: usize>(pub(crate) [u8; N]);

impl<'de, const N: usize> Deserialize<'de> for Bytes<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BytesVisitor<const N: usize>;
        impl<const N: usize> Visitor<'_> for BytesVisitor<N> {
            type Value = Bytes<N>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{N} bytes")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                bytes.try_into().map(Bytes).map_err(|_| E::invalid_length(bytes.len(), &self))
            }
        }
        deserializer.deserialize_bytes(BytesVisitor)
    }
}

#[cfg(test)]
#[path = "cbor_tests.rs"]
mod tests;
