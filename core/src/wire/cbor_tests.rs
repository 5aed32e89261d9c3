//! Tests of `cbor.rs`.

use alloc::string::String;
use alloc::vec;

use proptest::prelude::*;

use super::*;

/// A body with the type `t` and one more member, `v`, whose value is `value`.
fn body(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_map(2, &mut out);
    write_text("type", &mut out);
    write_text("t", &mut out);
    write_text("v", &mut out);
    out.extend_from_slice(value);
    out
}

fn check(value: &[u8]) -> Result<(), &'static str> {
    check_body(&body(value)).map(|name| assert_eq!(name, "t")).map_err(|fault| fault.0)
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

#[test]
fn what_json_has_and_nothing_else() {
    let goods: [&[u8]; 9] =
        [&[0xf4], &[0xf5], &[0xf6], &[0x80], &[0xa0], &[0x40], &[0x60], &[0x18, 0], &[0x62, b'h', b'i']];
    for good in goods {
        assert_eq!(check(good), Ok(()), "{good:x?}");
    }
    let beyond = "a CBOR value that JSON does not have";
    let indefinite = "CBOR of an indefinite length";
    for (bad, why) in [
        (&[0xf7][..], beyond),
        (&[0xf8, 0x20], beyond),
        (&[0xf9, 0x3c, 0], beyond),
        (&[0xfb, 0, 0, 0, 0, 0, 0, 0, 0], beyond),
        (&[0xc1, 0], beyond),
        (&[0x5f, 0xff], indefinite),
        (&[0x7f, 0xff], indefinite),
        (&[0x9f, 0xff], indefinite),
        (&[0xbf, 0xff], indefinite),
        (&[0x1c], indefinite),
        (&[0xff], indefinite),
        (&[0x61, 0xff], "text that is not UTF-8"),
        (&[0x62, b'h'], "CBOR that is cut off"),
        (&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "CBOR that is cut off"),
        (&[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "CBOR that is cut off"),
        (&[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "CBOR that is cut off"),
        (&[0xa1, 0x01, 0x01], "a name in CBOR that is neither text nor bytes"),
        (&[0xa2, 0x61, b'a', 0, 0x61, b'a', 0], "a name twice in one CBOR map"),
        // One name in two lengths of its head is one name.
        (&[0xa2, 0x61, b'a', 0, 0x78, 1, b'a', 0], "a name twice in one CBOR map"),
        (&[0, 0], "something after the CBOR value"),
    ] {
        assert_eq!(check(bad), Err(why), "{bad:x?}");
    }
    assert_eq!(check(&[0xa2, 0x61, b'a', 0, 0x41, b'a', 0]), Ok(()), "a text is no byte string");
}

#[test]
fn integers_at_their_limits_and_past_them() {
    for value in [i64::MIN, -1, 0, 23, 24, 255, 256, 65535, 65536, i64::MAX] {
        assert_eq!(check(&written(|out| write_i64(value, out))), Ok(()));
    }
    assert_eq!(check(&written(|out| write_u64(u64::MAX, out))), Ok(()));
    let mut below = written(|out| write_i64(i64::MIN, out));
    assert_eq!(below, [0x3b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    below[1..].copy_from_slice(&(1_u64 << 63).to_be_bytes());
    assert_eq!(check(&below), Err("an integer that 64 bits cannot hold"));
}

#[test]
fn depth_at_the_limit_and_past_it() {
    // The body's own map is the first.
    let nested = |levels: usize| {
        let mut value = vec![0x81; levels - 1];
        value.push(0x80);
        value
    };
    assert_eq!(check(&nested(DEPTH_MAX as usize - 1)), Ok(()));
    assert_eq!(check(&nested(DEPTH_MAX as usize)), Err("CBOR deeper than 32"));
    assert_eq!(check(&nested(1 << 20)), Err("CBOR deeper than 32"));
}

#[test]
fn length_at_the_limit_and_past_it() {
    let around = body(&[]).len();
    let filled = |length: usize| body(&written(|out| write_bytes(&vec![0; length - around - 5], out)));
    assert_eq!(filled(BODY_BYTES_MAX).len(), BODY_BYTES_MAX);
    assert_eq!(check_body(&filled(BODY_BYTES_MAX)), Ok("t"));
    let past = Malformed("a body in CBOR above 2 MiB");
    assert_eq!(check_body(&filled(BODY_BYTES_MAX + 1)), Err(past));
}

#[test]
fn a_body_is_a_map_with_a_type() {
    let untyped = Err(Malformed("a body without a type"));
    assert_eq!(check_body(&[0xa0]), untyped);
    assert_eq!(check_body(&[0xa1, 0x64, b't', b'y', b'p', b'e', 0]), untyped);
    assert_eq!(
        check_body(&[0xa1, 0x44, b't', b'y', b'p', b'e', 0x61, b't']),
        untyped,
        "a byte string is no type"
    );
    let inner = [0xa1, 0x61, b'v', 0xa1, 0x64, b't', b'y', b'p', b'e', 0x61, b't'];
    assert_eq!(check_body(&inner), untyped, "that of an inner map");
    for other in [&[][..], b"{}", &[0x80], &[0xbf, 0xff]] {
        assert_eq!(check_body(other), Err(Malformed("a body that is no map")));
    }
}

/// Names by the thousand are compared sorted.
#[test]
fn names_of_large_maps() {
    let names = |count: u64, last: u64| {
        written(|out| {
            write_map(count as usize + 1, out);
            for name in (0..count).chain([last]) {
                write_bytes(&name.to_le_bytes(), out);
                write_u64(0, out);
            }
        })
    };
    for count in [PAIRWISE_MAX as u64 - 1, PAIRWISE_MAX as u64, 4096] {
        assert_eq!(check(&names(count, count)), Ok(()));
        assert_eq!(check(&names(count, count / 2)), Err("a name twice in one CBOR map"));
    }
}

proptest! {
    /// Whatever passes, the decoder reads; nothing makes the check panic.
    #[test]
    fn the_decoder_reads_what_passes(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let body = body(&bytes);
        if check_body(&body).is_ok() {
            prop_assert!(decode::<serde::de::IgnoredAny>(&body, "").is_ok());
        }
    }

    #[test]
    fn integers_and_texts_come_back(number: i64, large: u64, text: String, bytes: [u8; 16]) {
        let body = written(|out| {
            write_map(2, out);
            write_text("type", out);
            write_text("t", out);
            write_text("v", out);
            write_array(4, out);
            write_i64(number, out);
            write_u64(large, out);
            write_text(&text, out);
            write_bytes(&bytes, out);
        });
        prop_assert!(check_body(&body).is_ok());
        #[derive(serde::Deserialize)]
        struct Body {
            v: (i64, u64, String, Bytes<16>),
        }
        let read: Body = decode(&body, "").unwrap();
        prop_assert_eq!((read.v.0, read.v.1, read.v.2, read.v.3.0), (number, large, text, bytes));
    }
}
