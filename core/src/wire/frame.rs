//! Frames: how messages stand one after another on a link (protocol §4). Takes bytes in any pieces and hands out whole
//! bodies and pieces of payloads; knows nothing of what they say.

use alloc::vec::Vec;

use data_encoding::BASE64;

use crate::error::Malformed;
use crate::wire::cbor;
use crate::wire::json::write_u64;

/// The longest body and the longest chunk, in bytes (protocol §4).
pub const LENGTH_MAX: u32 = 16_777_216;

/// The longest piece in which a payload is handed out, and the longest chunk that is written, in bytes.
pub const PIECE_MAX: usize = 1 << 20;

/// Room is made for all of a piece once one of so many parts of it is there.
const PARTS_AHEAD: usize = 16;

/// Base64 characters of an Ed25519 signature.
const SIGNATURE_CHARS: usize = 88;

/// One thing that a parser found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A frame's body.
    Body {
        /// The bytes, beginning with `{`, or as a map in CBOR where that is allowed; otherwise unchecked.
        body: Vec<u8>,
        /// The signature of a statement, unchecked.
        signature: Option<[u8; 64]>,
        /// Whether a payload follows, in pieces.
        payload: bool,
    },
    /// A piece of the payload of the body before it. All but the last are [`PIECE_MAX`] long.
    Payload {
        /// The bytes; empty only where the whole payload is.
        bytes: Vec<u8>,
        /// Whether the payload ends with this piece.
        last: bool,
    },
}

/// Finds frames in a stream of bytes. After an error it finds nothing more.
#[derive(Debug)]
pub struct Parser {
    state: State,
    body_max: u32,
    /// Whether bodies without a signature may be in CBOR.
    cbor: bool,
    /// The body or piece of payload that is being gathered. Holds at most twice the room of what has arrived, or what
    /// is missing of a piece of which a part in [`PARTS_AHEAD`] is there.
    gathered: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Kind {
    signed: bool,
    payload: bool,
}

/// Decimal digits as they arrive.
#[derive(Clone, Copy, Debug, Default)]
struct Length {
    value: u32,
    digits: u8,
}

#[derive(Debug)]
enum State {
    Prefix,
    BodyLength(Kind, Length),
    /// So many of the digits `88` were seen.
    SignatureLength(Kind, u32, u8),
    Body(Kind, u32),
    Signature(Kind, Vec<u8>, [u8; SIGNATURE_CHARS], usize),
    ChunkLength(Length),
    /// So many bytes of the chunk are to come; never 0.
    Chunk(u32),
    Broken(Malformed),
}

impl Length {
    /// Takes one more digit.
    fn push(&mut self, digit: u8) -> Result<(), Malformed> {
        if self.digits == 1 && self.value == 0 {
            return Err(Malformed("a length with a leading zero"));
        }
        if self.digits == 8 {
            return Err(Malformed("a length of more than 8 digits"));
        }
        // Eight digits fit 32 bits.
        self.value = self.value * 10 + u32::from(digit - b'0');
        self.digits += 1;
        Ok(())
    }
}

impl Parser {
    /// A parser at the start of a stream, for bodies of at most `body_max` bytes.
    pub fn new(body_max: u32) -> Parser {
        Parser { state: State::Prefix, body_max: body_max.min(LENGTH_MAX), cbor: false, gathered: Vec::new() }
    }

    /// Sets the limit of bodies whose length was not read yet.
    pub fn set_body_max(&mut self, body_max: u32) {
        self.body_max = body_max.min(LENGTH_MAX);
    }

    /// From the next body on, those without a signature may be in CBOR.
    pub fn allow_cbor(&mut self) {
        self.cbor = true;
    }

    /// Takes bytes off the front of `input` until a piece is whole; `None` when all of `input` is taken first.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Piece>, Malformed> {
        let found = self.step_until_piece(input);
        if let Err(fault) = found {
            self.state = State::Broken(fault);
            self.gathered = Vec::new();
        }
        found
    }

    fn step_until_piece(&mut self, input: &mut &[u8]) -> Result<Option<Piece>, Malformed> {
        while let Some(&byte) = input.first() {
            match &mut self.state {
                State::Prefix => {
                    *input = &input[1..];
                    self.state = State::BodyLength(kind_of(byte)?, Length::default());
                }
                State::BodyLength(kind, length) => {
                    let (kind, ended) = (*kind, !byte.is_ascii_digit());
                    if !ended {
                        length.push(byte)?;
                        *input = &input[1..];
                        continue;
                    }
                    let value = length.value;
                    if value == 0 {
                        return Err(Malformed("a frame without a length"));
                    }
                    if value > self.body_max {
                        return Err(Malformed("a body longer than allowed"));
                    }
                    if !kind.signed {
                        self.state = State::Body(kind, value);
                    } else if byte == b':' {
                        *input = &input[1..];
                        self.state = State::SignatureLength(kind, value, 0);
                    } else {
                        return Err(Malformed("a signed frame without a signature length"));
                    }
                }
                State::SignatureLength(kind, length, seen) => {
                    if byte != b'8' {
                        return Err(Malformed("a signature that is not 88 characters long"));
                    }
                    *input = &input[1..];
                    *seen += 1;
                    if *seen == 2 {
                        self.state = State::Body(*kind, *length);
                    }
                }
                State::Body(kind, length) => {
                    let (kind, length) = (*kind, *length as usize);
                    let in_cbor = self.cbor && !kind.signed && cbor::begins_map(byte);
                    if self.gathered.is_empty() && byte != b'{' && !in_cbor {
                        return Err(Malformed("a body that is no JSON object"));
                    }
                    let missing = length - self.gathered.len();
                    gather(&mut self.gathered, input, missing);
                    if self.gathered.len() < length {
                        return Ok(None);
                    }
                    let body = core::mem::take(&mut self.gathered);
                    if kind.signed {
                        self.state = State::Signature(kind, body, [0; SIGNATURE_CHARS], 0);
                    } else {
                        self.state = State::after_body(kind);
                        return Ok(Some(Piece::Body { body, signature: None, payload: kind.payload }));
                    }
                }
                State::Signature(kind, body, text, have) => {
                    let take = input.len().min(SIGNATURE_CHARS - *have);
                    text[*have..*have + take].copy_from_slice(&input[..take]);
                    *have += take;
                    *input = &input[take..];
                    if *have == SIGNATURE_CHARS {
                        let signature = Some(read_signature(text)?);
                        let (kind, body) = (*kind, core::mem::take(body));
                        self.state = State::after_body(kind);
                        return Ok(Some(Piece::Body { body, signature, payload: kind.payload }));
                    }
                }
                State::ChunkLength(length) => {
                    *input = &input[1..];
                    if byte.is_ascii_digit() {
                        length.push(byte)?;
                        continue;
                    }
                    if byte != b'\n' || length.digits == 0 {
                        return Err(Malformed("a chunk without a length"));
                    }
                    if length.value > LENGTH_MAX {
                        return Err(Malformed("a chunk above 16 MiB"));
                    }
                    if length.value == 0 {
                        self.state = State::Prefix;
                        let bytes = core::mem::take(&mut self.gathered);
                        return Ok(Some(Piece::Payload { bytes, last: true }));
                    }
                    self.state = State::Chunk(length.value);
                }
                State::Chunk(left) => {
                    if self.gathered.len() == PIECE_MAX {
                        let bytes = core::mem::take(&mut self.gathered);
                        return Ok(Some(Piece::Payload { bytes, last: false }));
                    }
                    let want = (PIECE_MAX - self.gathered.len()).min(*left as usize);
                    // At most PIECE_MAX, so it fits.
                    *left -= gather(&mut self.gathered, input, want) as u32;
                    if *left == 0 {
                        self.state = State::ChunkLength(Length::default());
                    }
                }
                State::Broken(fault) => return Err(*fault),
            }
        }
        match self.state {
            State::Broken(fault) => Err(fault),
            _ => Ok(None),
        }
    }
}

impl State {
    fn after_body(kind: Kind) -> State {
        if kind.payload { State::ChunkLength(Length::default()) } else { State::Prefix }
    }
}

fn kind_of(prefix: u8) -> Result<Kind, Malformed> {
    match prefix {
        b'm' => Ok(Kind { signed: false, payload: false }),
        b'!' => Ok(Kind { signed: false, payload: true }),
        b's' => Ok(Kind { signed: true, payload: false }),
        b'$' => Ok(Kind { signed: true, payload: true }),
        _ => Err(Malformed("a frame with an unknown prefix")),
    }
}

/// Moves up to `want` bytes from the front of `input` into `into`. Room is made for what is there, at most doubled for
/// what may follow: a length that a peer merely announces reserves nothing. Once enough of a piece is there, room is
/// made for all of it, as growing bit by bit touches twice the memory and copies each byte once more.
fn gather(into: &mut Vec<u8>, input: &mut &[u8], want: usize) -> usize {
    let (taken, rest) = input.split_at(want.min(input.len()));
    if into.capacity() - into.len() < taken.len() {
        let here = into.len() + taken.len();
        let all = want <= PIECE_MAX && into.len() + want <= here.saturating_mul(PARTS_AHEAD);
        into.reserve_exact(if all { want } else { want.min(taken.len().max(into.len())) });
    }
    into.extend_from_slice(taken);
    *input = rest;
    taken.len()
}

fn read_signature(text: &[u8; SIGNATURE_CHARS]) -> Result<[u8; 64], Malformed> {
    let fault = Malformed("a signature that is no base64");
    // The decoder asks for room for the padding too.
    let mut room = [0; SIGNATURE_CHARS / 4 * 3];
    let length = BASE64.decode_mut(text, &mut room).map_err(|_| fault)?;
    room[..length].try_into().map_err(|_| fault)
}

/// Appends a frame of one unsigned body; `payload` says that chunks follow.
pub fn write_frame(body: &[u8], payload: bool, out: &mut Vec<u8>) {
    out.push(if payload { b'!' } else { b'm' });
    write_u64(body.len() as u64, out);
    out.extend_from_slice(body);
}

/// Appends a frame of one signed body without a payload.
pub fn write_statement(body: &[u8], signature: &[u8; 64], out: &mut Vec<u8>) {
    out.push(b's');
    write_u64(body.len() as u64, out);
    out.extend_from_slice(b":88");
    out.extend_from_slice(body);
    let start = out.len();
    out.resize(start + SIGNATURE_CHARS, 0);
    BASE64.encode_mut(signature, &mut out[start..]);
}

/// Appends what stands before a chunk of `length` bytes.
pub fn write_chunk_start(length: usize, out: &mut Vec<u8>) {
    write_u64(length as u64, out);
    out.push(b'\n');
}

/// What stands after a payload's last chunk.
pub const PAYLOAD_END: &[u8] = b"0\n";

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
