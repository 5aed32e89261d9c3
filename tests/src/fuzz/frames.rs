//! Frames, and the JSON and CBOR in them (protocol §4): a stream of any bytes, cut anywhere.

use clearskies_core::error::Malformed;
use clearskies_core::wire::cbor;
use clearskies_core::wire::core_msgs::{CODE_MAX, ERROR_TEXT_MAX, EXTENSIONS_MAX, NAME_MAX, Opening};
use clearskies_core::wire::frame::{
    LENGTH_MAX, PAYLOAD_END, PIECE_MAX, Parser, Piece, write_chunk_start, write_frame, write_statement,
};
use clearskies_core::wire::json::{self, Value};
use clearskies_core::wire::message::{Encoding, Message, TYPE_MAX};
use serde_json::Value as Tree;

use super::choices::Choices;

/// Limits of bodies that a connection sets.
const BODY_MAX: [u32; 4] = [64, 3584, 1 << 16, LENGTH_MAX];

/// What our check refuses and a common parser takes: rules of the protocol that JSON does not have.
const STRICTER: [&str; 5] = [
    "a JSON member name twice in one object",
    "JSON deeper than 32",
    "a number with a fraction or an exponent",
    "an integer that 64 bits cannot hold",
    "a text above 16 MiB",
];

/// Splitting changes nothing, limits hold, what is written is read, and our JSON is a common parser's.
pub fn frames(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let body_max = *choices.pick(&BODY_MAX);
    let step = 1 + choices.below(64);
    let stream = choices.rest();
    for encoding in [Encoding::Json, Encoding::Cbor] {
        on_a_link(stream, body_max, step, encoding);
    }
    json_agrees(stream);
    read_cbor(stream);
}

/// The stream on a link with this encoding.
fn on_a_link(stream: &[u8], body_max: u32, step: usize, encoding: Encoding) {
    let whole = parse(stream, body_max, usize::MAX, encoding);
    for step in [1, step] {
        assert_eq!(whole, parse(stream, body_max, step, encoding), "in steps of {step}");
    }
    let (pieces, _) = whole;
    for piece in &pieces {
        match piece {
            Piece::Body { body, signature, payload } => {
                let json = body.first() == Some(&b'{');
                assert!(json || encoding == Encoding::Cbor && signature.is_none());
                assert!(body.len() <= body_max as usize);
                assert!(body.capacity() <= 2 * body.len(), "room for what was only announced");
                if json {
                    read_body(body, *signature, *payload);
                } else {
                    read_cbor(body);
                }
            }
            Piece::Payload { bytes, last } => {
                assert!(bytes.len() <= PIECE_MAX && (*last || bytes.len() == PIECE_MAX));
                assert!(bytes.capacity() <= 2 * bytes.len().max(8), "room for what was only announced");
            }
        }
    }
    // Of a payload that broke off, the end is not there to be written.
    let ended = pieces.iter().rposition(|piece| match piece {
        Piece::Body { payload, .. } => !payload,
        Piece::Payload { last, .. } => *last,
    });
    let pieces = &pieces[..ended.map_or(0, |at| at + 1)];
    assert_eq!(parse(&written(pieces), body_max, usize::MAX, encoding), (pieces.to_vec(), None));
}

/// All pieces of a stream that arrives in steps, and how it broke.
fn parse(stream: &[u8], body_max: u32, step: usize, encoding: Encoding) -> (Vec<Piece>, Option<Malformed>) {
    let mut parser = Parser::new(body_max);
    if encoding == Encoding::Cbor {
        parser.allow_cbor();
    }
    let mut pieces = Vec::new();
    for mut input in stream.chunks(step.min(stream.len()).max(1)) {
        loop {
            let before = input.len();
            match parser.next(&mut input) {
                Ok(Some(piece)) => {
                    // A piece that is full is handed out before the byte that follows it is taken.
                    assert!(input.len() < before || matches!(piece, Piece::Payload { last: false, .. }));
                    pieces.push(piece);
                }
                Ok(None) => {
                    assert!(input.is_empty(), "bytes are left");
                    break;
                }
                Err(fault) => {
                    assert_eq!(parser.next(&mut input), Err(fault), "a broken stream goes on");
                    return (pieces, Some(fault));
                }
            }
        }
    }
    (pieces, None)
}

fn written(pieces: &[Piece]) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Body { body, signature: None, payload } => write_frame(body, *payload, &mut out),
            Piece::Body { body, signature: Some(signature), payload } => {
                let at = out.len();
                write_statement(body, signature, &mut out);
                if *payload {
                    out[at] = b'$';
                }
            }
            Piece::Payload { bytes, last } => {
                if !bytes.is_empty() {
                    write_chunk_start(bytes.len(), &mut out);
                    out.extend_from_slice(bytes);
                }
                if *last {
                    out.extend_from_slice(PAYLOAD_END);
                }
            }
        }
    }
    out
}

/// Reads a body as a message: what it says is within its limits, and written it is read as the same.
pub fn read_body(body: &[u8], signature: Option<[u8; 64]>, payload: bool) {
    json_agrees(body);
    let Ok(message) = Message::read(body.to_vec(), signature, payload) else { return };
    assert!(json::check(body).is_ok(), "a message of what is no JSON");
    match &message {
        Message::Greeting(opening) | Message::Start(opening) => {
            limits(opening);
            // The protocols that it speaks are not kept.
            if !opening.speaks_protocol {
                return;
            }
        }
        Message::Error { code, message } => {
            assert!(code.len() <= CODE_MAX && message.len() <= ERROR_TEXT_MAX);
        }
        Message::Statement { type_name, body: kept, .. } => {
            assert!(type_name.len() <= TYPE_MAX && kept == body);
        }
        Message::Unknown { type_name } => assert!(type_name.len() <= TYPE_MAX),
        _ => assert_eq!(message.has_payload(), payload),
    }
    let text = bytes_of(&message);
    if text.is_empty() {
        return;
    }
    let again = Message::read(text.clone(), signature, message.has_payload());
    let again = again.unwrap_or_else(|fault| panic!("{fault:?}: {}", String::from_utf8_lossy(&text)));
    assert_eq!(text, bytes_of(&again), "read anew it says something else");
    assert_eq!(format!("{message:?}"), format!("{again:?}"));
}

/// Reads bytes as a message in CBOR, if they are one: written it is read as the same.
pub fn read_cbor(body: &[u8]) {
    let Ok(type_name) = cbor::check_body(body) else { return };
    assert!(body.len() <= cbor::BODY_BYTES_MAX);
    let read = |body: Vec<u8>| {
        [false, true].into_iter().find_map(|payload| Message::read(body.clone(), None, payload).ok())
    };
    let Some(message) = read(body.to_vec()) else { return };
    if let Message::Unknown { type_name: kept } = &message {
        assert_eq!(kept, type_name);
        return;
    }
    let mut text = Vec::new();
    message.write_in(Encoding::Cbor, &mut text);
    // An unknown message of the database says nothing.
    if !text.is_empty() {
        let again = read(text).expect("what was written is read");
        assert_eq!(format!("{message:?}"), format!("{again:?}"));
    }
}

fn limits(opening: &Opening) {
    assert!(opening.software.len() <= NAME_MAX);
    assert!(opening.name.as_ref().is_none_or(|name| name.len() <= NAME_MAX));
    assert!(opening.extensions.len() <= EXTENSIONS_MAX);
}

fn bytes_of(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    message.write(&mut out);
    out
}

/// Our check and cursor see in a text what a common parser sees in it.
fn json_agrees(text: &[u8]) {
    // Never a panic, whatever it is.
    let unchecked = Value::of(text);
    let _ = (unchecked.str(), unchecked.u64(), unchecked.members().count(), unchecked.elements().count());
    match (json::check(text), serde_json::from_slice::<Tree>(text)) {
        (Ok(()), Ok(tree)) => agree(Value::of(text), &tree),
        (Ok(()), Err(error)) => panic!("{error}: {}", String::from_utf8_lossy(text)),
        (Err(fault), Ok(_)) => {
            assert!(STRICTER.contains(&fault.0), "{fault:?}: {}", String::from_utf8_lossy(text));
        }
        (Err(_), Err(_)) => {}
    }
}

fn agree(ours: Value<'_>, theirs: &Tree) {
    match theirs {
        Tree::Null => assert!(ours.is_null()),
        Tree::Bool(value) => assert_eq!(ours.raw(), value.to_string().as_bytes()),
        Tree::Number(number) => {
            assert!(number.is_u64() || number.is_i64(), "no integer: {number}");
            assert_eq!(ours.u64(), number.as_u64());
        }
        Tree::String(text) => assert_eq!(ours.str().as_deref(), Some(text.as_str())),
        Tree::Array(elements) => {
            assert!(ours.is_array() && ours.elements().count() == elements.len());
            ours.elements().zip(elements).for_each(|(ours, theirs)| agree(ours, theirs));
        }
        Tree::Object(members) => {
            assert!(ours.is_object() && ours.members().count() == members.len());
            for (name, value) in ours.members() {
                agree(value, &members[&*name]);
            }
        }
    }
}
