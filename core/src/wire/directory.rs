//! `directory.*` messages: presence and content (protocol §8). `get`, `data` and `not_present` come by the hundred
//! thousand, so all are read and written by hand.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use crate::error::Malformed;
use crate::ids::Sha256;
use crate::wire::core_msgs::{CODE_MAX, short, write_hex_member};
use crate::wire::json::{Value, write_str, write_u64};

/// A message of the `directory` extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryMessage {
    /// Which contents do you have?
    GetPresence,
    /// The contents that the sender has, as a Bloom filter; its bits are the payload.
    BloomFilter {
        /// Bits per content.
        k_value: u32,
    },
    /// The sender has one more content.
    Present {
        /// Which.
        sha256: Sha256,
    },
    /// Send me this content.
    Get {
        /// Which.
        sha256: Sha256,
        /// Start and length in bytes; all of it if missing.
        range: Option<(u64, u64)>,
    },
    /// Content; its bytes are the payload.
    Data {
        /// Of which content.
        sha256: Sha256,
        /// Start and length in bytes.
        range: (u64, u64),
    },
    /// The sender does not have this content, or not for the receiver.
    NotPresent {
        /// Which.
        sha256: Sha256,
    },
    /// The sender has this content but cannot read it.
    GetError {
        /// Which.
        sha256: Sha256,
        /// Why, in a word.
        code: String,
    },
}

/// The members of these messages, in whatever encoding they came.
#[derive(Default)]
pub(crate) struct Members<'a> {
    pub sha256: Option<Sha256>,
    pub range: Option<(u64, u64)>,
    pub k_value: Option<u32>,
    pub code: Option<Cow<'a, str>>,
}

impl Members<'_> {
    /// The message of this type.
    pub(crate) fn into_message(self, type_name: &str) -> Result<DirectoryMessage, Malformed> {
        let Members { sha256, range, k_value, code } = self;
        let sha256 = sha256.ok_or(Malformed("a directory message without its sha256"));
        Ok(match type_name {
            "directory.get" => DirectoryMessage::Get { sha256: sha256?, range },
            "directory.data" => DirectoryMessage::Data {
                sha256: sha256?,
                range: range.ok_or(Malformed("directory.data without a range"))?,
            },
            "directory.not_present" => DirectoryMessage::NotPresent { sha256: sha256? },
            "directory.present" => DirectoryMessage::Present { sha256: sha256? },
            "directory.get_error" => {
                DirectoryMessage::GetError { sha256: sha256?, code: short(code, CODE_MAX)? }
            }
            "directory.bloom_filter" => DirectoryMessage::BloomFilter {
                k_value: k_value.ok_or(Malformed("a Bloom filter without its k_value"))?,
            },
            "directory.get_presence" => DirectoryMessage::GetPresence,
            _ => return Err(Malformed("an unknown directory message")),
        })
    }
}

impl DirectoryMessage {
    /// Whether `type_name` is one of these.
    pub fn is(type_name: &str) -> bool {
        matches!(
            type_name,
            "directory.get_presence"
                | "directory.bloom_filter"
                | "directory.present"
                | "directory.get"
                | "directory.data"
                | "directory.not_present"
                | "directory.get_error"
        )
    }

    /// Reads a body that was checked as JSON.
    pub fn read(type_name: &str, body: &[u8]) -> Result<DirectoryMessage, Malformed> {
        let mut members = Members::default();
        for (member, value) in Value::of(body).members() {
            match &*member {
                "sha256" => members.sha256 = value.hex().map(Sha256),
                "range" => members.range = Some(read_range(value)?),
                "k_value" => members.k_value = value.u64().and_then(|k| u32::try_from(k).ok()),
                "code" => members.code = value.str(),
                _ => {}
            }
        }
        members.into_message(type_name)
    }

    /// Appends the body.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(self.type_name().as_bytes());
        out.push(b'"');
        match self {
            DirectoryMessage::GetPresence => {}
            DirectoryMessage::BloomFilter { k_value } => {
                out.extend_from_slice(b",\"k_value\":");
                write_u64(u64::from(*k_value), out);
            }
            DirectoryMessage::Present { sha256 } | DirectoryMessage::NotPresent { sha256 } => {
                write_hex_member("sha256", &sha256.0, out);
            }
            DirectoryMessage::Get { sha256, range } => {
                write_hex_member("sha256", &sha256.0, out);
                if let Some(range) = range {
                    write_range(*range, out);
                }
            }
            DirectoryMessage::Data { sha256, range } => {
                write_hex_member("sha256", &sha256.0, out);
                write_range(*range, out);
            }
            DirectoryMessage::GetError { sha256, code } => {
                write_hex_member("sha256", &sha256.0, out);
                out.extend_from_slice(b",\"code\":");
                write_str(code, out);
            }
        }
        out.push(b'}');
    }

    /// Whether a payload belongs to it.
    pub fn has_payload(&self) -> bool {
        matches!(self, DirectoryMessage::BloomFilter { .. } | DirectoryMessage::Data { .. })
    }

    /// Its `type`.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            DirectoryMessage::GetPresence => "directory.get_presence",
            DirectoryMessage::BloomFilter { .. } => "directory.bloom_filter",
            DirectoryMessage::Present { .. } => "directory.present",
            DirectoryMessage::Get { .. } => "directory.get",
            DirectoryMessage::Data { .. } => "directory.data",
            DirectoryMessage::NotPresent { .. } => "directory.not_present",
            DirectoryMessage::GetError { .. } => "directory.get_error",
        }
    }
}

/// Reads `[start, length]`, whose sum must fit 64 bits.
fn read_range(value: Value<'_>) -> Result<(u64, u64), Malformed> {
    let mut numbers = value.elements().map(Value::u64);
    match (numbers.next(), numbers.next(), numbers.next()) {
        (Some(Some(start)), Some(Some(length)), None) if start.checked_add(length).is_some() => {
            Ok((start, length))
        }
        _ => Err(Malformed("a range that is not [start, length]")),
    }
}

fn write_range((start, length): (u64, u64), out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"range\":[");
    write_u64(start, out);
    out.push(b',');
    write_u64(length, out);
    out.push(b']');
}
