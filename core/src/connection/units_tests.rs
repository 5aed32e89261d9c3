//! Units that are right, and all that is none.

use alloc::vec;

use proptest::prelude::*;

use super::*;
use crate::connection::zlib::Deflater;

/// What is in a stream that comes in pieces of at most `piece` bytes.
fn unpack(stream: &[u8], piece: usize) -> Result<Vec<u8>, Malformed> {
    let (mut unpacker, mut found) = (Unpacker::default(), vec![]);
    for mut input in stream.chunks(piece.max(1)) {
        loop {
            let given = unpacker.next(&mut input)?;
            if given.is_empty() {
                break;
            }
            found.extend_from_slice(given);
        }
        assert!(input.is_empty() && !unpacker.is_full());
    }
    Ok(found)
}

fn unit(data: &[u8]) -> Vec<u8> {
    let mut unit = vec![];
    write_length(data.len(), &mut unit);
    unit.extend_from_slice(data);
    unit
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut data = vec![];
    let parts = bytes.chunks(1000);
    assert!(Deflater::new().deflate(parts, UNIT_LENGTH_MAX as usize, &mut data));
    data
}

fn text(length: usize) -> Vec<u8> {
    (0..length).map(|at| b"some words that come again "[at % 27] ^ (at / 2000) as u8).collect()
}

#[test]
fn units_cut_at_every_byte() {
    let stream = [store(b"stored"), deflate(&text(300)), store(&[7]), unit(&zlib(b"m"))].concat();
    let whole = [b"stored", &text(300)[..], &[7], b"m"].concat();
    for cut in 0..=stream.len() {
        let mut unpacker = Unpacker::default();
        let mut found = vec![];
        for mut input in [&stream[..cut], &stream[cut..]] {
            loop {
                let given = unpacker.next(&mut input).unwrap();
                if given.is_empty() {
                    break;
                }
                found.extend_from_slice(given);
            }
        }
        assert_eq!(found, whole, "{cut}");
    }
    assert_eq!(unpack(&stream, 1).unwrap(), whole);
}

/// A unit of the most that it may hold is taken; a byte more is not, and little of it is inflated.
#[test]
fn bombs() {
    for bytes in [vec![0; UNIT_INFLATED_MAX], text(UNIT_INFLATED_MAX)] {
        assert_eq!(unpack(&deflate(&bytes), 16_384).unwrap(), bytes);
    }
    let over = Malformed("a unit that holds more than 1 MiB");
    for length in [UNIT_INFLATED_MAX + 1, 100 << 20] {
        let bomb = deflate(&vec![0; length]);
        let mut input = &bomb[..];
        let (mut unpacker, mut given) = (Unpacker::default(), 0);
        let fault = loop {
            match unpacker.next(&mut input) {
                Ok(bytes) => given += bytes.len(),
                Err(fault) => break fault,
            }
            assert!(unpacker.room.capacity() <= PIECE_BYTES);
        };
        assert_eq!(fault, over);
        assert!(given <= UNIT_INFLATED_MAX);
    }
}

#[test]
fn lengths() {
    for (stream, fault) in [
        (&b":"[..], "a unit without a length"),
        (b"x", "a unit without a length"),
        (b"m12{", "a unit without a length"),
        (b"-1:", "a unit without a length"),
        (b"01:", "a unit's length with a leading zero"),
        (b"0:", "a unit's length with a leading zero"),
        (b"8:", "a unit that holds nothing"),
        (b"1052673:", "a unit longer than allowed"),
        (b"99999999", "a unit longer than allowed"),
        (b"9:garbage", "a unit that is no zlib data"),
    ] {
        assert_eq!(unpack(stream, 1), Err(Malformed(fault)), "{stream:?}");
        assert_eq!(unpack(stream, 100), Err(Malformed(fault)), "{stream:?}");
    }
    assert_eq!(unpack(b"1052672:", 100).unwrap(), b"");
}

/// The longest unit: blocks that hold little, one after another.
#[test]
fn a_unit_as_long_as_allowed() {
    let block = |last: u8, bytes: &[u8]| {
        let length = bytes.len() as u16;
        [&[last][..], &length.to_le_bytes(), &(!length).to_le_bytes(), bytes].concat()
    };
    let bytes = text(UNIT_INFLATED_MAX);
    let mut sum = Sum::default();
    sum.add(&bytes);
    let chunks: Vec<&[u8]> = bytes.chunks(65_000).collect();
    let mut data = ZLIB_HEAD.to_vec();
    for (at, chunk) in chunks.iter().enumerate() {
        data.extend(block(u8::from(at + 1 == chunks.len()), chunk));
    }
    data.extend(sum.bytes());
    assert_eq!(unpack(&unit(&data), 9000).unwrap(), bytes);
    // Blocks that hold nothing fill it up to the limit.
    let missing = UNIT_LENGTH_MAX as usize - data.len();
    let mut padded = data.clone();
    let empty = block(0, b"").repeat(missing / 5);
    padded.splice(2..2, empty);
    assert_eq!(unpack(&unit(&padded), 9000).unwrap(), bytes);
}

#[test]
fn what_is_no_unit() {
    let data = zlib(&text(300));
    let fault = |data: &[u8]| unpack(&unit(data), 10_000).unwrap_err().0;
    // Cut, and the length says so; the next unit cannot make up for it.
    for cut in 9..data.len() {
        assert_eq!(fault(&data[..cut]), "a unit whose zlib data is cut");
    }
    for behind in [&b"0"[..], &data] {
        assert_eq!(fault(&[&data, behind].concat()), "a unit with bytes behind its zlib data");
    }
    // A stream that ends in the first bytes already.
    let empty = zlib(b"");
    assert_eq!(empty.len(), 8);
    assert_eq!(fault(&[&empty[..], &[0]].concat()), "a unit with bytes behind its zlib data");
    // Holds nothing, in a block of some kind.
    let nothing = [&ZLIB_HEAD[..], &[1, 0, 0, 0xff, 0xff, 0, 0, 0, 1]].concat();
    assert_eq!(fault(&nothing), "a unit that holds nothing");
    let nothing = [&ZLIB_HEAD[..], &[0, 0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff, 0, 0, 0, 1]].concat();
    assert_eq!(fault(&nothing), "a unit that holds nothing");
    // A dictionary that nobody has; gzip in place of zlib; no head at all.
    for head in [[0x78, 0x20], [0x1f, 0x8b], [0x4b, 0x04]] {
        let other = [&head[..], &data[2..]].concat();
        assert_eq!(fault(&other), "a unit that is no zlib data");
    }
}

/// A wrong sum is seen, however the bytes are packed.
#[test]
fn sums() {
    let data = zlib(&text(300));
    let stored = store(&text(300));
    for at in 1..=4 {
        let mut wrong = data.clone();
        wrong[data.len() - at] ^= 1;
        assert_eq!(unpack(&unit(&wrong), 100), Err(Malformed("a unit that is no zlib data")));
        let mut wrong = stored.clone();
        wrong[stored.len() - at] ^= 1;
        assert_eq!(unpack(&wrong, 100), Err(Malformed("a unit with a wrong sum")));
    }
    let mut wrong = stored;
    wrong[50] ^= 1;
    assert_eq!(unpack(&wrong, 100), Err(Malformed("a unit with a wrong sum")));
}

/// Whatever it held is forgotten between two units only.
#[test]
fn rests() {
    let stream = deflate(&text(300));
    let mut unpacker = Unpacker::default();
    let mut found = vec![];
    for _ in 0..3 {
        for byte in stream.chunks(1) {
            unpacker.rest();
            found.extend_from_slice(unpacker.next(&mut &byte[..]).unwrap());
        }
        unpacker.rest();
        assert!(unpacker.inflater.is_none());
    }
    assert_eq!(found, text(300).repeat(3));
}

proptest! {
    #[test]
    fn garbage_never_gives_more_than_allowed(stream: Vec<u8>, piece in 1usize..50) {
        let _ = unpack(&stream, piece);
        let _ = unpack(&unit(&stream), piece);
        let _ = unpack(&unit(&[&ZLIB_HEAD[..], &stream].concat()), piece);
    }

    #[test]
    fn what_is_packed_comes_out(bytes: Vec<u8>, deflated: bool, piece in 1usize..50) {
        prop_assume!(!bytes.is_empty());
        let stream = if deflated { deflate(&bytes) } else { store(&bytes) };
        prop_assert_eq!(unpack(&stream, piece).unwrap(), bytes);
    }
}
