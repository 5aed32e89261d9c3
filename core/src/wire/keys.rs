//! `core.keys`: what a member gives to a joiner, once (protocol §5 step 5). This file knows its form; whether the keys
//! fit together is judged by [`crate::club::keys`]. Always JSON:
//!
//! ```json
//! {"type":"core.keys","access_level":"read_only","club":{"body":"{…}","signature":"BASE64"},"name":"Photos",
//!  "keys":[{"access_level":"read_write","public_ed25519":"HEX"},
//!          {"access_level":"read_only","id":"HEX","key":"HEX","private_ed25519":"HEX","public_ed25519":"HEX",
//!           "content":"HEX"}, …]}
//! ```
//!
//! `club.body` is the body of the `core.club` statement as one string, exactly the bytes that were signed.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;

use data_encoding::{BASE64, HEXLOWER};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use zeroize::Zeroizing;

use crate::club::identity::SIGNATURE_LEN;
use crate::club::level::Level;
use crate::error::Malformed;

/// The longest body, in bytes.
pub const KEYS_BODY_BYTES_MAX: usize = 16 * 1024;
/// The longest `core.club` body, in bytes.
pub const CLUB_BODY_BYTES_MAX: usize = 4 * 1024;
/// The longest name of a club, in bytes.
pub const CLUB_NAME_BYTES_MAX: usize = 255;
/// The most levels that a message may list.
pub const LEVELS_MAX: usize = 8;

/// 32 secret bytes; zeroed when dropped, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret32(pub Zeroizing<[u8; 32]>);

impl Secret32 {
    /// A copy of these bytes.
    pub fn new(bytes: &[u8; 32]) -> Secret32 {
        Secret32(Zeroizing::new(*bytes))
    }
}

impl fmt::Debug for Secret32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret32(..)")
    }
}

/// A signed body: the exact bytes, and the signature over them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClubStatement {
    /// The JSON text that was signed.
    pub body: String,
    /// Ed25519 with the read_write key, scope `core`.
    pub signature: [u8; SIGNATURE_LEN],
}

/// What a message says of one level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelEntry {
    /// The level.
    pub level: Level,
    /// The key ID.
    pub id: Option<Secret32>,
    /// The level key.
    pub key: Option<Secret32>,
    /// The seed of the signing pair.
    pub private: Option<Secret32>,
    /// The public signing key.
    pub public: [u8; 32],
    /// The content secret; in the read_only entry alone.
    pub content: Option<Secret32>,
}

/// The message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysMessage {
    /// The level that is granted.
    pub access_level: Level,
    /// The club's founding statement.
    pub club: ClubStatement,
    /// What the club is called; empty on untrusted links.
    pub name: String,
    /// Each level.
    pub keys: Vec<LevelEntry>,
}

impl KeysMessage {
    /// Reads a JSON body of type `core.keys`.
    pub fn read(body: &[u8]) -> Result<KeysMessage, Malformed> {
        if body.len() > KEYS_BODY_BYTES_MAX {
            return Err(Malformed("core.keys is too long"));
        }
        let Object(raw): Object<RawKeys> =
            serde_json::from_slice(body).map_err(|_| Malformed("core.keys has a wrong form"))?;
        let Object(club) = raw.club;
        if raw.kind != "core.keys" {
            return Err(Malformed("not core.keys"));
        }
        if club.body.len() > CLUB_BODY_BYTES_MAX {
            return Err(Malformed("core.club is too long"));
        }
        if raw.name.len() > CLUB_NAME_BYTES_MAX {
            return Err(Malformed("the club's name is too long"));
        }
        if raw.keys.len() > LEVELS_MAX {
            return Err(Malformed("core.keys lists too many levels"));
        }
        let signature = BASE64.decode(club.signature.as_bytes()).ok();
        let signature = signature.and_then(|bytes| bytes.try_into().ok());
        Ok(KeysMessage {
            access_level: raw.access_level.0,
            club: ClubStatement {
                body: club.body,
                signature: signature.ok_or(Malformed("core.club has a wrong signature form"))?,
            },
            name: raw.name,
            keys: raw.keys.into_iter().map(|Object(entry)| LevelEntry::from(entry)).collect(),
        })
    }

    /// Appends the JSON body.
    pub fn write(&self, out: &mut Vec<u8>) {
        // Room for all of it: a vector that grows leaves copies of secrets behind.
        out.reserve(512 + 2 * self.club.body.len() + 6 * self.name.len() + 512 * self.keys.len());
        out.extend_from_slice(b"{\"type\":\"core.keys\",\"access_level\":\"");
        out.extend_from_slice(self.access_level.name().as_bytes());
        out.extend_from_slice(b"\",\"club\":{\"body\":");
        push_string(out, &self.club.body);
        out.extend_from_slice(b",\"signature\":\"");
        out.extend_from_slice(BASE64.encode(&self.club.signature).as_bytes());
        out.extend_from_slice(b"\"},\"name\":");
        push_string(out, &self.name);
        out.extend_from_slice(b",\"keys\":[");
        for (i, entry) in self.keys.iter().enumerate() {
            out.extend_from_slice(if i == 0 { b"{\"access_level\":\"" } else { b",{\"access_level\":\"" });
            out.extend_from_slice(entry.level.name().as_bytes());
            out.push(b'"');
            let public = Secret32::new(&entry.public);
            let members = [
                ("id", &entry.id),
                ("key", &entry.key),
                ("private_ed25519", &entry.private),
                ("public_ed25519", &Some(public)),
                ("content", &entry.content),
            ];
            for (name, value) in members {
                if let Some(Secret32(bytes)) = value {
                    push_hex_member(out, name, bytes);
                }
            }
            out.push(b'}');
        }
        out.extend_from_slice(b"]}");
    }
}

fn push_hex_member(out: &mut Vec<u8>, name: &str, bytes: &[u8; 32]) {
    let mut digits = Zeroizing::new([0u8; 64]);
    HEXLOWER.encode_mut(bytes, &mut digits[..]);
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":\"");
    out.extend_from_slice(&digits[..]);
    out.push(b'"');
}

/// Appends a JSON string.
pub(crate) fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..0x20 => {
                let digits = HEXLOWER.encode(&[byte]);
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(digits.as_bytes());
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

#[derive(Deserialize)]
struct RawKeys {
    #[serde(rename = "type")]
    kind: String,
    access_level: LevelName,
    club: Object<RawClub>,
    #[serde(default)]
    name: String,
    keys: Vec<Object<RawEntry>>,
}

#[derive(Deserialize)]
struct RawClub {
    body: String,
    signature: String,
}

#[derive(Deserialize)]
struct RawEntry {
    access_level: LevelName,
    #[serde(default)]
    id: Option<Hex32>,
    #[serde(default)]
    key: Option<Hex32>,
    #[serde(default)]
    private_ed25519: Option<Hex32>,
    public_ed25519: Hex32,
    #[serde(default)]
    content: Option<Hex32>,
}

impl From<RawEntry> for LevelEntry {
    fn from(raw: RawEntry) -> LevelEntry {
        LevelEntry {
            level: raw.access_level.0,
            id: raw.id.map(|hex| hex.0),
            key: raw.key.map(|hex| hex.0),
            private: raw.private_ed25519.map(|hex| hex.0),
            public: *raw.public_ed25519.0.0,
            content: raw.content.map(|hex| hex.0),
        }
    }
}

/// A `T` that is written as a JSON object; serde alone would also take an array of its members.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object<T>, D::Error> {
        struct Members<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Members(PhantomData))
    }
}

/// A level by its name.
pub(crate) struct LevelName(pub(crate) Level);

impl<'de> Deserialize<'de> for LevelName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LevelName, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = LevelName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an access level")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<LevelName, E> {
                Level::from_name(name).map(LevelName).ok_or_else(|| E::custom("unknown access level"))
            }
        }
        deserializer.deserialize_str(Name)
    }
}

/// 64 hex digits, read without a copy that would outlive them.
pub(crate) struct Hex32(pub(crate) Secret32);

impl<'de> Deserialize<'de> for Hex32 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hex32, D::Error> {
        struct Digits;
        impl Visitor<'_> for Digits {
            type Value = Hex32;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("64 lowercase hex digits")
            }

            fn visit_str<E: serde::de::Error>(self, digits: &str) -> Result<Hex32, E> {
                let mut bytes = Zeroizing::new([0u8; 32]);
                if digits.len() != 64 || HEXLOWER.decode_mut(digits.as_bytes(), &mut bytes[..]).is_err() {
                    return Err(E::custom("not 64 lowercase hex digits"));
                }
                Ok(Hex32(Secret32(bytes)))
            }
        }
        deserializer.deserialize_str(Digits).map_err(|_| D::Error::custom("not 64 lowercase hex digits"))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec;

    /// One of all kinds of members.
    pub(crate) fn message() -> KeysMessage {
        let secret = |byte: u8| Some(Secret32::new(&[byte; 32]));
        KeysMessage {
            access_level: Level::ReadOnly,
            club: ClubStatement { body: "{\"a\":\"\\u00e9 \"}".into(), signature: [0x5A; 64] },
            name: "Fotos \"2026\" \\ \u{7} é".into(),
            keys: vec![
                LevelEntry {
                    level: Level::ReadWrite,
                    id: None,
                    key: None,
                    private: None,
                    public: [1; 32],
                    content: None,
                },
                LevelEntry {
                    level: Level::ReadOnly,
                    id: secret(2),
                    key: secret(3),
                    private: secret(4),
                    public: [5; 32],
                    content: secret(6),
                },
            ],
        }
    }

    fn written() -> String {
        let mut out = Vec::new();
        message().write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let text = written();
        assert!(
            text.starts_with("{\"type\":\"core.keys\",\"access_level\":\"read_only\",\"club\":{\"body\":\"{")
        );
        assert_eq!(KeysMessage::read(text.as_bytes()), Ok(message()));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["keys"][1]["content"], "06".repeat(32));
        assert_eq!(value["keys"][0].as_object().unwrap().len(), 2);
    }

    #[test]
    fn unknown_members_and_escapes_are_legal() {
        let text = written().replace("\"name\":", "\"later\":{\"x\":[1]},\"name\":");
        let text = text.replacen(&"02".repeat(32), &format!("\\u0030{}", &"02".repeat(32)[1..]), 1);
        assert_eq!(KeysMessage::read(text.as_bytes()), Ok(message()));
    }

    #[test]
    fn wrong_forms_are_refused() {
        let good = written();
        let long = "02".repeat(32);
        for (from, to) in [
            ("core.keys", "core.key"),
            ("\"access_level\":\"read_only\",\"club\"", "\"club\""),
            ("\"access_level\":\"read_only\",\"club\"", "\"access_level\":\"owner\",\"club\""),
            ("\"access_level\":\"read_only\",\"club\"", "\"access_level\":1,\"club\""),
            ("\"name\":", "\"name\":\"x\",\"name\":"),
            (long.as_str(), &long[2..]),
            (long.as_str(), "zz"),
            (&format!("\"{long}\""), "7"),
            ("02020202", "0202020A"),
            ("\"keys\":[", "\"keys\":[[],"),
            (",\"public_ed25519\":\"01", ",\"public\":\"01"),
            ("WlpaWlpa", "WlpaWlp"),
            ("WlpaWlpa", "WlpaWlp*"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good, "{from}");
            assert!(KeysMessage::read(bad.as_bytes()).is_err(), "{from} -> {to}");
        }
        let array = format!(
            "[\"core.keys\",\"read_only\",{{\"body\":\"\",\"signature\":\"{}\"}},\"\",[]]",
            BASE64.encode(&[0; 64])
        );
        assert!(KeysMessage::read(array.as_bytes()).is_err());
        assert!(KeysMessage::read(b"").is_err());
        assert!(KeysMessage::read(&good.as_bytes()[..good.len() - 1]).is_err());
        assert!(KeysMessage::read(format!("{good}x").as_bytes()).is_err());
    }

    #[test]
    fn limits_hold_at_and_past() {
        let read = |change: &dyn Fn(&mut KeysMessage)| {
            let mut message = message();
            change(&mut message);
            let mut out = Vec::new();
            message.write(&mut out);
            KeysMessage::read(&out).map(|read| assert_eq!(read, message))
        };
        assert!(read(&|m| m.name = "n".repeat(CLUB_NAME_BYTES_MAX)).is_ok());
        assert!(read(&|m| m.name = "n".repeat(CLUB_NAME_BYTES_MAX + 1)).is_err());
        assert!(read(&|m| m.club.body = "b".repeat(CLUB_BODY_BYTES_MAX)).is_ok());
        assert!(read(&|m| m.club.body = "b".repeat(CLUB_BODY_BYTES_MAX + 1)).is_err());
        assert!(read(&|m| m.keys = vec![m.keys[0].clone(); LEVELS_MAX]).is_ok());
        assert!(read(&|m| m.keys = vec![m.keys[0].clone(); LEVELS_MAX + 1]).is_err());
        let mut body = written().into_bytes();
        body.resize(KEYS_BODY_BYTES_MAX, b' ');
        assert!(KeysMessage::read(&body).is_ok());
        body.push(b' ');
        assert!(KeysMessage::read(&body).is_err());
    }

    #[test]
    fn debug_shows_no_secret() {
        let text = format!("{:?}", message());
        for byte in [2u8, 3, 4, 6] {
            assert!(
                !text.contains(&format!("{byte}, {byte}"))
                    && !text.contains(&format!("{byte:02x}{byte:02x}"))
            );
        }
    }
}
