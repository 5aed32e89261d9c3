//! Units (protocol §6): a stream of any bytes, cut anywhere, and any bytes packed and taken apart again.

use clearskies_core::connection::units::{UNIT_INFLATED_MAX, Unpacker, deflate, store};
use clearskies_core::error::Malformed;

use super::choices::Choices;

/// The longest piece that is given at once, but for what is given as it came.
const PIECE_MAX: usize = 16 * 1024;

/// A stored unit holds at most as much as a block.
const STORED_MAX: usize = 65_519;

/// The most bytes that zlib data repeats at once.
const ZLIB_STEP: usize = 258;

/// The characters of a length and the colon behind it.
const LENGTH_CHARS: usize = 8;

/// Streams that are cut elsewhere give the same bytes or have a fault all the same, and no more than units may hold.
pub fn units(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let (way, step) = (choices.below(4), 1 + choices.below(64));
    let rest = choices.rest();
    let stream = match way {
        // As zlib data behind a right length, and behind a right head.
        1 => [format!("{}:", rest.len()).as_bytes(), rest].concat(),
        2 => [format!("{}:\x78\x01", rest.len() + 2).as_bytes(), rest].concat(),
        _ => rest.to_vec(),
    };
    let whole = unpack(&stream, usize::MAX);
    for step in [1, step] {
        let (found, fault) = unpack(&stream, step);
        assert_eq!(fault.is_some(), whole.1.is_some(), "in steps of {step}");
        let common = found.len().min(whole.0.len());
        assert!(found[..common] == whole.0[..common], "in steps of {step}");
        // How much a unit gives before its fault is seen depends on how it comes; one that is not whole yet may keep
        // back what a last step of zlib makes.
        let differ = found.len().abs_diff(whole.0.len());
        assert!(fault.is_some() || differ <= ZLIB_STEP, "in steps of {step}");
    }
    assert!(whole.0.len() <= (stream.len() / 9 + 1) * UNIT_INFLATED_MAX);
    if way == 3 && !rest.is_empty() {
        packed(rest, step);
    }
}

/// What a stream gives in steps, and how it ended.
fn unpack(stream: &[u8], step: usize) -> (Vec<u8>, Option<Malformed>) {
    let (mut unpacker, mut found) = (Unpacker::default(), Vec::new());
    for mut input in stream.chunks(step) {
        let came = input.len();
        loop {
            match unpacker.next(&mut input) {
                Ok([]) => break,
                Ok(given) => {
                    assert!(given.len() <= PIECE_MAX.max(came));
                    found.extend_from_slice(given);
                }
                Err(fault) => return (found, Some(fault)),
            }
        }
        assert!(input.is_empty() && !unpacker.is_full());
    }
    (found, None)
}

/// What is packed comes out, and nothing that was changed on the way does so unnoticed.
fn packed(bytes: &[u8], step: usize) {
    for chunk in bytes.chunks(STORED_MAX) {
        for unit in [store(chunk), deflate(chunk)] {
            let (found, fault) = unpack(&unit, step);
            assert!(fault.is_none() && found == chunk);
            let mut changed = unit.clone();
            let at = step * 7919 % unit.len();
            changed[at] ^= 1;
            let (other, fault) = unpack(&changed, step);
            // A length can announce more than came, and built for fuzzing the library checks no sum.
            let may_pass = at < LENGTH_CHARS || cfg!(fuzzing);
            assert!(fault.is_some() || other == found || may_pass, "{at} of {unit:?}");
        }
    }
}
