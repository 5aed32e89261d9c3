//! `core.*` messages except `core.keys`: greeting, start, ping, error (protocol §5). Reads and writes their bodies and
//! checks their form; whether a proof in them holds is the connection's business.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use crate::error::Malformed;
use crate::ids::PeerId;
use crate::time::WallTime;
use crate::wire::json::{Value, write_hex, write_str, write_u64};
use crate::wire::time::{parse_time, write_time};

/// The message protocol that this program speaks, after the handshake.
pub const PROTOCOL: u64 = 1;

/// The longest `software` and `name`, in bytes; longer ones of ours are cut, longer ones of others refused.
pub const NAME_MAX: usize = 128;

/// The most extensions in one message.
pub const EXTENSIONS_MAX: usize = 32;

/// The longest name of an extension, in bytes.
pub const EXTENSION_NAME_MAX: usize = 64;

/// The longest text of a `core.error` that is kept, in bytes; the rest is dropped.
pub const ERROR_TEXT_MAX: usize = 512;

/// The longest error code, in bytes.
pub const CODE_MAX: usize = 64;

/// What both sides say of themselves: the members of `core.greeting` and `core.start`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Name and version of the program.
    pub software: String,
    /// What the computer is called; never on untrusted links.
    pub name: Option<String>,
    /// Whether [`PROTOCOL`] is among the protocols it speaks, or the one it chose.
    pub speaks_protocol: bool,
    /// Extensions offered (greeting) or chosen (start).
    pub extensions: Vec<String>,
    /// The peer ID that it claims.
    pub peer: PeerId,
    /// Its own public key, of which the peer ID is the hash.
    pub peer_key: [u8; 32],
    /// Its signature over this link with that key.
    pub peer_proof: [u8; 64],
    /// Its signature over this link with the read_write key, if it shows one.
    pub writer: Option<[u8; 64]>,
    /// Random per start and club.
    pub run: [u8; 16],
    /// Its clock.
    pub time: WallTime,
}

impl Opening {
    /// Reads the body of `core.greeting` or `core.start`, already checked as JSON.
    pub fn read(body: &[u8], is_start: bool) -> Result<Opening, Malformed> {
        let (mut software, mut name, mut protocol, mut extensions) = (None, None, None, None);
        let (mut peer, mut peer_key, mut peer_proof, mut writer) = (None, None, None, None);
        let (mut run, mut time) = (None, None);
        for (member, value) in Value::of(body).members() {
            match &*member {
                "software" => software = Some(short(value.str(), NAME_MAX)?),
                "name" => name = Some(short(value.str(), NAME_MAX)?),
                "protocol" if is_start => protocol = Some(value.u64() == Some(PROTOCOL)),
                "protocol" => protocol = Some(value.elements().any(|p| p.u64() == Some(PROTOCOL))),
                "extensions" => extensions = Some(read_extensions(value)?),
                "peer" => peer = value.hex().map(PeerId),
                "peer_key" => peer_key = value.hex(),
                "peer_proof" => peer_proof = value.hex(),
                "writer" => {
                    writer = Some(value.hex().ok_or(Malformed("a writer proof that is no signature"))?);
                }
                "run" => run = value.hex(),
                "time" => time = value.str().and_then(|t| parse_time(&t)),
                _ => {}
            }
        }
        let missing = Malformed("a greeting without one of its members");
        Ok(Opening {
            software: software.ok_or(missing)?,
            name,
            speaks_protocol: protocol.ok_or(missing)?,
            extensions: extensions.ok_or(missing)?,
            peer: peer.ok_or(missing)?,
            peer_key: peer_key.ok_or(missing)?,
            peer_proof: peer_proof.ok_or(missing)?,
            writer,
            run: run.ok_or(missing)?,
            time: time.ok_or(missing)?,
        })
    }

    /// Appends the body.
    pub fn write(&self, is_start: bool, out: &mut Vec<u8>) {
        let (name, protocol): (_, &[u8]) =
            if is_start { ("core.start", b"1") } else { ("core.greeting", b"[1]") };
        out.extend_from_slice(b"{\"type\":");
        write_str(name, out);
        out.extend_from_slice(b",\"software\":");
        write_str(cut(&self.software, NAME_MAX), out);
        if let Some(name) = &self.name {
            out.extend_from_slice(b",\"name\":");
            write_str(cut(name, NAME_MAX), out);
        }
        out.extend_from_slice(b",\"protocol\":");
        out.extend_from_slice(protocol);
        out.extend_from_slice(b",\"extensions\":[");
        for (at, extension) in self.extensions.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write_str(extension, out);
        }
        out.push(b']');
        write_hex_member("peer", &self.peer.0, out);
        write_hex_member("peer_key", &self.peer_key, out);
        write_hex_member("peer_proof", &self.peer_proof, out);
        if let Some(writer) = &self.writer {
            write_hex_member("writer", writer, out);
        }
        write_hex_member("run", &self.run, out);
        out.extend_from_slice(b",\"time\":\"");
        write_time(self.time, out);
        out.extend_from_slice(b"\"}");
    }
}

/// Appends `,"name":"hex"`.
pub(crate) fn write_hex_member(name: &str, bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":\"");
    write_hex(bytes, out);
    out.push(b'"');
}

/// Reads `core.ping`: its timeout in seconds.
pub(crate) fn read_ping(body: &[u8]) -> Result<u64, Malformed> {
    member(body, "timeout").and_then(Value::u64).ok_or(Malformed("a ping without a timeout"))
}

/// Appends `core.ping`.
pub(crate) fn write_ping(timeout_s: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"core.ping\",\"timeout\":");
    write_u64(timeout_s, out);
    out.push(b'}');
}

/// Reads `core.error`: its code and its text, cut to [`ERROR_TEXT_MAX`].
pub(crate) fn read_error(body: &[u8]) -> Result<(String, String), Malformed> {
    let code = short(member(body, "code").and_then(Value::str), CODE_MAX)?;
    let message = member(body, "message").and_then(Value::str).unwrap_or_default();
    Ok((code, cut(&message, ERROR_TEXT_MAX).into()))
}

/// Appends `core.error`.
pub(crate) fn write_error(code: &str, message: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"core.error\",\"code\":");
    write_str(code, out);
    out.extend_from_slice(b",\"message\":");
    write_str(cut(message, ERROR_TEXT_MAX), out);
    out.push(b'}');
}

/// The member `name` of a checked object.
fn member<'a>(body: &'a [u8], name: &str) -> Option<Value<'a>> {
    Value::of(body).members().find(|(member, _)| member == name).map(|(_, value)| value)
}

/// A string that must be there and no longer than `max` bytes.
pub(crate) fn short(text: Option<Cow<'_, str>>, max: usize) -> Result<String, Malformed> {
    match text {
        Some(text) if text.len() <= max => Ok(text.into_owned()),
        Some(_) => Err(Malformed("a name longer than allowed")),
        None => Err(Malformed("a member that is missing or no string")),
    }
}

/// The longest start of `text` that has at most `max` bytes and ends between characters.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn read_extensions(value: Value<'_>) -> Result<Vec<String>, Malformed> {
    if !value.is_array() {
        return Err(Malformed("extensions that are no list"));
    }
    let mut extensions = Vec::new();
    for element in value.elements() {
        if extensions.len() == EXTENSIONS_MAX {
            return Err(Malformed("more extensions than allowed"));
        }
        extensions.push(short(element.str(), EXTENSION_NAME_MAX)?);
    }
    Ok(extensions)
}
