//! `rsync.*` messages: a content as the difference to an older one (protocol §8, "rsync"). Judges only their form; what
//! the payloads hold is in `files/rsync.rs`.

use alloc::vec::Vec;

use serde::Deserialize;

use crate::error::Malformed;
use crate::ids::Sha256;
use crate::wire::cbor::{self, Bytes, write_array, write_bytes, write_map, write_text};
use crate::wire::core_msgs::write_hex_member;
use crate::wire::json::{Value, write_u64};

/// A message of the `rsync` extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RsyncMessage {
    /// Send me this content as the difference to one whose signature is the payload.
    Signature {
        /// Which.
        sha256: Sha256,
        /// The one that the sender has.
        old_sha256: Sha256,
        /// First byte that is wanted; 0 if missing.
        start: u64,
    },
    /// A piece of that content; the delta that makes it is the payload.
    Patch {
        /// Of which content.
        sha256: Sha256,
        /// Start and length in bytes.
        range: (u64, u64),
    },
    /// Nothing more follows of this content: that was all, or the sender does not have it, or not for the receiver, or
    /// it is better fetched otherwise. From who asked: nothing more of it is wanted.
    End {
        /// Which.
        sha256: Sha256,
    },
}

#[derive(Deserialize)]
struct In {
    sha256: Bytes<32>,
    old_sha256: Option<Bytes<32>>,
    start: Option<u64>,
    range: Option<(u64, u64)>,
}

impl RsyncMessage {
    /// Whether `type_name` is one of these.
    pub fn is(type_name: &str) -> bool {
        matches!(type_name, "rsync.signature" | "rsync.patch" | "rsync.end")
    }

    /// Reads a body that was checked as JSON.
    pub fn read(type_name: &str, body: &[u8]) -> Result<RsyncMessage, Malformed> {
        let (mut sha256, mut old, mut start, mut range) = (None, None, None, None);
        for (member, value) in Value::of(body).members() {
            match &*member {
                "sha256" => sha256 = value.hex().map(Sha256),
                "old_sha256" => old = value.hex().map(Sha256),
                "start" => start = Some(value.u64().ok_or(Malformed("a start that is no number"))?),
                "range" => {
                    let mut numbers = value.elements().map(Value::u64);
                    range = match (numbers.next(), numbers.next(), numbers.next()) {
                        (Some(Some(start)), Some(Some(length)), None) => Some((start, length)),
                        _ => return Err(Malformed("a range that is not [start, length]")),
                    };
                }
                _ => {}
            }
        }
        let sha256 = sha256.ok_or(Malformed("an rsync message without its sha256"))?;
        RsyncMessage::checked(type_name, sha256, old, start, range)
    }

    /// Reads a body that was checked as CBOR.
    pub fn read_cbor(type_name: &str, body: &[u8]) -> Result<RsyncMessage, Malformed> {
        let members: In =
            cbor::decode(body, "an rsync message with a member that is missing or of the wrong type")?;
        let old = members.old_sha256.map(|digest| Sha256(digest.0));
        RsyncMessage::checked(type_name, Sha256(members.sha256.0), old, members.start, members.range)
    }

    fn checked(
        type_name: &str,
        sha256: Sha256,
        old: Option<Sha256>,
        start: Option<u64>,
        range: Option<(u64, u64)>,
    ) -> Result<RsyncMessage, Malformed> {
        Ok(match type_name {
            "rsync.signature" => RsyncMessage::Signature {
                sha256,
                old_sha256: old.ok_or(Malformed("rsync.signature without its old_sha256"))?,
                start: start.unwrap_or(0),
            },
            "rsync.patch" => {
                let range = range.filter(|(start, length)| start.checked_add(*length).is_some());
                RsyncMessage::Patch { sha256, range: range.ok_or(Malformed("rsync.patch without a range"))? }
            }
            "rsync.end" => RsyncMessage::End { sha256 },
            _ => return Err(Malformed("an unknown rsync message")),
        })
    }

    /// Appends the body.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(self.type_name().as_bytes());
        out.push(b'"');
        write_hex_member("sha256", &self.sha256().0, out);
        match self {
            RsyncMessage::Signature { old_sha256, start, .. } => {
                write_hex_member("old_sha256", &old_sha256.0, out);
                if *start > 0 {
                    out.extend_from_slice(b",\"start\":");
                    write_u64(*start, out);
                }
            }
            RsyncMessage::Patch { range: (start, length), .. } => {
                out.extend_from_slice(b",\"range\":[");
                write_u64(*start, out);
                out.push(b',');
                write_u64(*length, out);
                out.push(b']');
            }
            RsyncMessage::End { .. } => {}
        }
        out.push(b'}');
    }

    /// Appends the body in CBOR.
    pub fn write_cbor(&self, out: &mut Vec<u8>) {
        let others = match self {
            RsyncMessage::Signature { start, .. } => 1 + usize::from(*start > 0),
            RsyncMessage::Patch { .. } => 1,
            RsyncMessage::End { .. } => 0,
        };
        write_map(2 + others, out);
        write_text("type", out);
        write_text(self.type_name(), out);
        write_text("sha256", out);
        write_bytes(&self.sha256().0, out);
        match self {
            RsyncMessage::Signature { old_sha256, start, .. } => {
                write_text("old_sha256", out);
                write_bytes(&old_sha256.0, out);
                if *start > 0 {
                    write_text("start", out);
                    cbor::write_u64(*start, out);
                }
            }
            RsyncMessage::Patch { range: (start, length), .. } => {
                write_text("range", out);
                write_array(2, out);
                cbor::write_u64(*start, out);
                cbor::write_u64(*length, out);
            }
            RsyncMessage::End { .. } => {}
        }
    }

    /// Whether a payload belongs to it.
    pub fn has_payload(&self) -> bool {
        !matches!(self, RsyncMessage::End { .. })
    }

    fn sha256(&self) -> &Sha256 {
        match self {
            RsyncMessage::Signature { sha256, .. }
            | RsyncMessage::Patch { sha256, .. }
            | RsyncMessage::End { sha256 } => sha256,
        }
    }

    fn type_name(&self) -> &'static str {
        match self {
            RsyncMessage::Signature { .. } => "rsync.signature",
            RsyncMessage::Patch { .. } => "rsync.patch",
            RsyncMessage::End { .. } => "rsync.end",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::{Encoding, Message};

    fn read(body: &[u8], payload: bool) -> Result<RsyncMessage, Malformed> {
        match Message::read(body.to_vec(), None, payload)? {
            Message::Rsync(message) => Ok(message),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_comes_back_in_both_encodings() {
        let (sha256, old_sha256) = (Sha256([1; 32]), Sha256([2; 32]));
        for message in [
            RsyncMessage::Signature { sha256, old_sha256, start: 0 },
            RsyncMessage::Signature { sha256, old_sha256, start: 1 << 40 },
            RsyncMessage::Patch { sha256, range: (7, u64::MAX - 7) },
            RsyncMessage::End { sha256 },
        ] {
            for encoding in [Encoding::Json, Encoding::Cbor] {
                let mut body = Vec::new();
                Message::Rsync(message.clone()).write_in(encoding, &mut body);
                assert_eq!(read(&body, message.has_payload()), Ok(message.clone()));
                assert!(read(&body, !message.has_payload()).is_err());
            }
        }
    }

    #[test]
    fn what_is_missing_or_too_large_is_refused() {
        let sha = "11".repeat(32);
        let is = |rest: &str| {
            let body = alloc::format!("{{\"type\":\"rsync.{rest},\"sha256\":\"{sha}\"}}");
            read(body.as_bytes(), !rest.starts_with("end")).is_ok()
        };
        let old = alloc::format!("\"old_sha256\":\"{sha}\"");
        assert!(is("end\"") && is("patch\",\"range\":[0,1]") && is(&alloc::format!("signature\",{old}")));
        assert!(!is("signature\"") && !is("patch\"") && !is("patch\",\"range\":[1,18446744073709551615]"));
        assert!(!is("patch\",\"range\":[1]") && !is(&alloc::format!("signature\",\"start\":\"1\",{old}")));
        assert!(read(b"{\"type\":\"rsync.end\"}", false).is_err());
    }
}
