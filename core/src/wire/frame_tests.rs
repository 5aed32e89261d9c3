//! Tests of `frame.rs`.

use alloc::format;
use alloc::vec;

use proptest::prelude::*;

use super::*;

/// All pieces of `bytes`, given to the parser in slices that end at `cuts`.
fn parse(bytes: &[u8], cuts: &[usize]) -> Result<Vec<Piece>, Malformed> {
    let mut parser = Parser::new(LENGTH_MAX);
    let mut pieces = Vec::new();
    let mut start = 0;
    for end in cuts.iter().copied().chain([bytes.len()]) {
        let mut input = &bytes[start..end];
        while let Some(piece) = parser.next(&mut input)? {
            pieces.push(piece);
        }
        assert!(input.is_empty());
        start = end;
    }
    Ok(pieces)
}

fn fault(bytes: &[u8]) -> bool {
    let whole = parse(bytes, &[]);
    let each: Vec<usize> = (0..bytes.len()).collect();
    assert_eq!(whole, parse(bytes, &each));
    whole.is_err()
}

fn body(text: &str) -> Piece {
    Piece::Body { body: text.into(), signature: None, payload: false }
}

#[test]
fn every_prefix() {
    let mut bytes = Vec::new();
    write_frame(b"{}", false, &mut bytes);
    write_frame(b"{ }", true, &mut bytes);
    bytes.extend_from_slice(b"3\nabc2\nde0\n");
    write_statement(b"{\"a\":1}", &[7; 64], &mut bytes);
    let dollar = [b"$2:88{}", BASE64.encode(&[9; 64]).as_bytes(), b"1\nx0\n"].concat();
    bytes.extend_from_slice(&dollar);
    assert_eq!(
        parse(&bytes, &[]).unwrap(),
        [
            body("{}"),
            Piece::Body { body: b"{ }".to_vec(), signature: None, payload: true },
            Piece::Payload { bytes: b"abcde".to_vec(), last: true },
            Piece::Body { body: b"{\"a\":1}".to_vec(), signature: Some([7; 64]), payload: false },
            Piece::Body { body: b"{}".to_vec(), signature: Some([9; 64]), payload: true },
            Piece::Payload { bytes: b"x".to_vec(), last: true },
        ]
    );
}

#[test]
fn faults() {
    let unpadded = format!("s2:86{{}}{}", "A".repeat(86));
    let no_base64 = format!("s2:88{{}}{}", "*".repeat(88));
    let not_canonical = format!("s2:88{{}}{}B==", "A".repeat(85));
    for text in [
        "x2{}",
        "\n",
        "m0{}",
        "m02{}",
        "m{}",
        "m-2{}",
        "m 2{}",
        "m2[]",
        "m2 {}",
        "m3\u{feff}",
        "m16777217{",
        "m000000002{}",
        "m123456789{",
        "s2{}",
        "s2:{}",
        "s2:9{}",
        "s2:088{}",
        "s2:888{}",
        "!2{}\n",
        "!2{}01\nx",
        "!2{}00\n",
        "!2{}1 x",
        "!2{}16777217\n",
        "!2{}1\nx\n",
        "m2{}\n",
        &unpadded,
        &no_base64,
        &not_canonical,
    ] {
        assert!(fault(text.as_bytes()), "{text}");
    }
}

#[test]
fn longest_length_is_taken() {
    let mut bytes = b"m16777216{".to_vec();
    bytes.resize(bytes.len() + LENGTH_MAX as usize - 1, b' ');
    assert_eq!(parse(&bytes, &[]).unwrap().len(), 1);
    assert!(!fault(b"!2{}16777216\n"));
    let mut small = Parser::new(10);
    assert!(small.next(&mut &b"m10{        }"[..]).unwrap().is_some());
    assert!(small.next(&mut &b"m11{"[..]).is_err());
    assert!(small.next(&mut &b"m2{}"[..]).is_err(), "a broken parser stays broken");
    assert!(small.next(&mut &b""[..]).is_err());
}

#[test]
fn announced_lengths_reserve_nothing() {
    let mut parser = Parser::new(LENGTH_MAX);
    parser.next(&mut &b"m16777216{"[..]).unwrap();
    assert!(parser.gathered.capacity() <= 16);
    let mut parser = Parser::new(LENGTH_MAX);
    let mut input = &b"!2{}16777216\nab"[..];
    while parser.next(&mut input).unwrap().is_some() {}
    assert!(parser.gathered.capacity() <= 16);
}

#[test]
fn room_for_all_of_a_piece_follows_a_part_of_it() {
    let part = PIECE_MAX / PARTS_AHEAD;
    for (head, length, have, ahead) in [
        ("!2{}1048576\n", PIECE_MAX, part - 1, false),
        ("!2{}1048576\n", PIECE_MAX, part, true),
        ("m1048576", PIECE_MAX, part - 1, false),
        ("m1048576", PIECE_MAX, part, true),
        ("m1048577", PIECE_MAX + 1, PIECE_MAX / 2, false),
    ] {
        let bytes = [head.as_bytes(), b"{", &vec![b' '; have - 1]].concat();
        let (mut parser, mut input) = (Parser::new(LENGTH_MAX), &bytes[..]);
        while parser.next(&mut input).unwrap().is_some() {}
        let room = parser.gathered.capacity();
        assert!(if ahead { room == length } else { room <= 2 * have }, "{head} {have} {room}");
    }
}

#[test]
fn payloads_come_in_large_pieces() {
    for (length, pieces) in [(0, 1), (1, 1), (PIECE_MAX, 1), (PIECE_MAX + 1, 2), (3 * PIECE_MAX, 3)] {
        let mut bytes = b"!2{}".to_vec();
        for chunk in vec![b'x'; length].chunks(300_000) {
            write_chunk_start(chunk.len(), &mut bytes);
            bytes.extend_from_slice(chunk);
        }
        bytes.extend_from_slice(PAYLOAD_END);
        let found = parse(&bytes, &[]).unwrap();
        assert_eq!(found.len(), 1 + pieces);
        let mut total = 0;
        for (at, piece) in found[1..].iter().enumerate() {
            let Piece::Payload { bytes, last } = piece else { panic!("{piece:?}") };
            assert_eq!(*last, at + 1 == pieces);
            assert!(*last || bytes.len() == PIECE_MAX);
            total += bytes.len();
        }
        assert_eq!(total, length);
    }
}

fn any_frames() -> impl Strategy<Value = Vec<u8>> {
    let one = (0..4_u8, "[a-z]{0,20}", proptest::collection::vec(1..2000_usize, 1..4));
    proptest::collection::vec(one, 1..6).prop_map(|frames| {
        let mut bytes = Vec::new();
        for (kind, text, chunks) in frames {
            let body = format!("{{\"type\":\"{text}\"}}");
            match kind {
                0 => write_frame(body.as_bytes(), false, &mut bytes),
                1 => write_statement(body.as_bytes(), &[kind; 64], &mut bytes),
                _ => {
                    write_frame(body.as_bytes(), true, &mut bytes);
                    for length in chunks {
                        write_chunk_start(length, &mut bytes);
                        bytes.resize(bytes.len() + length, b'0');
                    }
                    bytes.extend_from_slice(PAYLOAD_END);
                }
            }
        }
        bytes
    })
}

proptest! {
    #[test]
    fn any_split_gives_the_same(
        bytes in any_frames(),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..20),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(parse(&bytes, &cuts).unwrap(), parse(&bytes, &[]).unwrap());
    }

    #[test]
    fn any_split_of_garbage_gives_the_same(
        bytes in "[m!s$0-9{}:\n ]{0,40}",
        cuts in proptest::collection::vec(0..41_usize, 0..6),
    ) {
        let bytes = bytes.as_bytes();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.sort_unstable();
        prop_assert_eq!(parse(bytes, &cuts), parse(bytes, &[]));
    }
}
