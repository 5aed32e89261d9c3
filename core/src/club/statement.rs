//! What a club signs (protocol §4), and the founding statement `core.club` that names its keys (protocol §2). Knows
//! forms and signatures, no secrets.

use alloc::string::String;
use alloc::vec::Vec;

use data_encoding::HEXLOWER;
use serde::Deserialize;

use crate::club::identity::{sha256, verify};
use crate::club::level::Level;
use crate::wire::keys::{CLUB_BODY_BYTES_MAX, ClubStatement, Hex32, LevelName, Object};

/// What `core.club` says of a club that is a share.
pub const KIND_DIRECTORY: &str = "directory";
/// How many levels a club has.
pub(crate) const LEVELS: usize = Level::ALL.len();

/// What a statement is about, and so which key signs it (protocol §4). Given by the link and the type, never read from
/// a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The plain database.
    ReadOnly,
    /// The sealed database.
    Untrusted,
    /// `core.club`.
    Core,
    /// `untrusted.verify`.
    Verify,
}

impl Scope {
    fn name(self) -> &'static str {
        match self {
            Scope::ReadOnly => "read_only",
            Scope::Untrusted => "untrusted",
            Scope::Core => "core",
            Scope::Verify => "verify",
        }
    }

    /// The level whose key signs statements of this scope.
    pub fn signer(self) -> Level {
        match self {
            Scope::ReadOnly | Scope::Untrusted | Scope::Core => Level::ReadWrite,
            Scope::Verify => Level::ReadOnly,
        }
    }
}

/// The bytes that a statement's signature covers.
pub(crate) fn statement_bytes(scope: Scope, body: &[u8]) -> Vec<u8> {
    let name = scope.name().as_bytes();
    [b"clearskies 2 statement", &[0][..], name, &[0], body].concat()
}

/// SHA-256("clearskies 2 level" ‖ key ID ‖ level key): by which `core.club` binds them (protocol §2).
pub(crate) fn check(id: &[u8; 32], key: &[u8; 32]) -> [u8; 32] {
    sha256(&[b"clearskies 2 level", id, key])
}

/// The body of `core.club`.
pub(crate) fn club_body(facts: &[LevelFact; LEVELS]) -> String {
    let mut body = String::from("{\"type\":\"core.club\",\"kind\":\"");
    body.push_str(KIND_DIRECTORY);
    body.push_str("\",\"levels\":[");
    for (level, fact) in Level::ALL.into_iter().zip(facts) {
        if !body.ends_with('[') {
            body.push(',');
        }
        body.push_str("{\"access_level\":\"");
        body.push_str(level.name());
        body.push_str("\",\"public_ed25519\":\"");
        body.push_str(&HEXLOWER.encode(&fact.public));
        body.push_str("\",\"check\":\"");
        body.push_str(&HEXLOWER.encode(&fact.check));
        body.push_str("\"}");
    }
    body.push_str("]}");
    body
}

/// What `core.club` says of a level.
pub(crate) struct LevelFact {
    pub(crate) public: [u8; 32],
    pub(crate) check: [u8; 32],
}

#[derive(Deserialize)]
struct RawClub {
    #[serde(rename = "type")]
    message: String,
    kind: String,
    levels: Vec<Object<RawLevel>>,
}

#[derive(Deserialize)]
struct RawLevel {
    access_level: LevelName,
    public_ed25519: Hex32,
    check: Hex32,
}

/// Reads and verifies `core.club`: the three levels, the highest first, signed with the read_write key that it names.
pub(crate) fn read_statement(statement: &ClubStatement) -> Option<[LevelFact; LEVELS]> {
    let body = statement.body.as_bytes();
    if body.len() > CLUB_BODY_BYTES_MAX {
        return None;
    }
    let Object(raw): Object<RawClub> = serde_json::from_slice(body).ok()?;
    if raw.message != "core.club" || raw.kind != KIND_DIRECTORY {
        return None;
    }
    let levels: [Object<RawLevel>; LEVELS] = raw.levels.try_into().ok()?;
    if levels.iter().zip(Level::ALL).any(|(Object(raw), level)| raw.access_level.0 != level) {
        return None;
    }
    let facts =
        levels.map(|Object(raw)| LevelFact { public: *raw.public_ed25519.0.0, check: *raw.check.0.0 });
    let signer = &facts[Scope::Core.signer().place()].public;
    if !verify(signer, &statement_bytes(Scope::Core, body), &statement.signature) {
        return None;
    }
    Some(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_bytes_and_checks_are_known() {
        assert_eq!(statement_bytes(Scope::Core, b"{}"), b"clearskies 2 statement\0core\0{}");
        assert_eq!(statement_bytes(Scope::ReadOnly, b"{}"), b"clearskies 2 statement\0read_only\0{}");
        assert_eq!(statement_bytes(Scope::Untrusted, b""), b"clearskies 2 statement\0untrusted\0");
        assert_eq!(statement_bytes(Scope::Verify, b""), b"clearskies 2 statement\0verify\0");
        // By an independent calculation.
        assert_eq!(
            HEXLOWER.encode(&check(&[1; 32], &[2; 32])),
            "f82d211aff14393fc185b4b7d374a15f80492e55bbcccdb78cb8294299aa26a3"
        );
        let facts = [1, 2, 3].map(|i| LevelFact { public: [i; 32], check: [i + 8; 32] });
        let hex = |i: &str| i.repeat(32);
        assert_eq!(
            club_body(&facts),
            alloc::format!(
                "{{\"type\":\"core.club\",\"kind\":\"directory\",\"levels\":[\
                 {{\"access_level\":\"read_write\",\"public_ed25519\":\"{}\",\"check\":\"{}\"}},\
                 {{\"access_level\":\"read_only\",\"public_ed25519\":\"{}\",\"check\":\"{}\"}},\
                 {{\"access_level\":\"untrusted\",\"public_ed25519\":\"{}\",\"check\":\"{}\"}}]}}",
                hex("01"),
                hex("09"),
                hex("02"),
                hex("0a"),
                hex("03"),
                hex("0b"),
            )
        );
    }
}
