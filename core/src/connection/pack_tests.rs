//! When deflating pays, and what goes into units.

use alloc::vec;

use super::*;
use crate::channel::RECORD_MAX;
use crate::rng::Rng;

const MILLI: u64 = 1_000_000;

fn at(ms: u64) -> Instant {
    Instant(ms * MILLI)
}

/// A link that was full twice and took so many bytes in so many milliseconds.
fn judged(bytes: usize, ms: u64) -> Pace {
    let mut pace = Pace::new(Deflating::OnSlowLinks);
    pace.full(at(1000));
    pace.took(at(1000 + ms), bytes, false);
    pace.full(at(1000 + ms));
    pace
}

#[test]
fn a_link_is_judged_by_what_it_takes_while_it_is_full() {
    let second = SLOW_BYTES_PER_SECOND as usize;
    assert!(judged(second / 20 - 1, 50).pays(STORED_MAX));
    assert!(!judged(second.div_ceil(20), 50).pays(STORED_MAX));
    // Too short to tell.
    assert!(!judged(1000, 49).pays(STORED_MAX));
    assert!(judged(0, 3_600_000).pays(STORED_MAX));
    assert!(!judged(usize::MAX, 3_600_000).pays(STORED_MAX));
    assert!(Pace::new(Deflating::Always).pays(STORED_MAX));
}

#[test]
fn what_is_not_waited_for_is_no_sign_of_a_slow_link() {
    for (gap, pays) in [(100, true), (101, false)] {
        let mut pace = Pace::new(Deflating::OnSlowLinks);
        pace.full(at(0));
        pace.took(at(10), 1000, true);
        pace.took(at(10 + gap), 1000, false);
        pace.full(at(200));
        assert_eq!(pace.pays(STORED_MAX), pays);
        // It is watched from then on, whatever there was before.
        pace.took(at(200), 1000, false);
        pace.full(at(260));
        assert!(pace.pays(STORED_MAX));
    }
}

/// A link that got fast is given no further credit.
#[test]
fn credit_is_not_renewed_on_a_fast_link() {
    let mut pace = judged(0, 50);
    pace.credit = 7;
    pace.took(at(1060), 100 << 20, false);
    pace.full(at(1150));
    assert_eq!(pace.credit, 7);
    pace.took(at(1160), 1000, false);
    pace.full(at(1200));
    assert_eq!(pace.credit, CREDIT_BYTES);
}

/// Packs all of `bytes` as if they were queued in two parts, and takes what comes out apart again.
fn round_trip(packer: &mut Packer, bytes: &[u8]) -> (usize, usize) {
    round_trip_of(packer, bytes, false)
}

fn round_trip_of(packer: &mut Packer, bytes: &[u8], small: bool) -> (usize, usize) {
    let (mut sent, mut found, mut deflated) = (vec![], vec![], 0);
    let mut rest = bytes;
    while !rest.is_empty() {
        let done =
            packer.pack([&rest[..rest.len() / 2], &rest[rest.len() / 2..]].into_iter(), rest.len(), small);
        sent.extend_from_slice(packer.ready());
        let (ready, bare) = (packer.ready().len(), packer.bare());
        assert_eq!(done == 0, bare > 0);
        sent.extend_from_slice(&rest[..bare]);
        sent.extend_from_slice(packer.sum());
        packer.went(ready, bare, true);
        rest = &rest[done + bare..];
        deflated += usize::from(done > 0);
    }
    let (mut unpacker, mut input) = (crate::connection::units::Unpacker::default(), &sent[..]);
    loop {
        let given = unpacker.next(&mut input).unwrap();
        if given.is_empty() {
            break;
        }
        found.extend_from_slice(given);
    }
    assert!(found == bytes);
    (sent.len(), deflated)
}

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Rng::from_seed([5; 32]).fill(&mut bytes);
    bytes
}

#[test]
fn what_shrinks_is_deflated_and_what_does_not_is_hardly_tried() {
    let text = b"0123456789 and words ".repeat(100_000);
    let mut packer = Packer::new(Deflating::Always, 0);
    let (sent, _) = round_trip(&mut packer, &text);
    assert!(sent < text.len() / 10);
    let noise = noise(64 * STORED_MAX);
    let (sent, deflated) = round_trip(&mut packer, &noise);
    assert_eq!((sent, deflated), (64 * 4 * RECORD_MAX, 0));
    assert_eq!(packer.misses, MISSES_MAX);
    // After at most as many units as are stored unseen, text is noticed again.
    let (sent, deflated) = round_trip(&mut packer, &text);
    assert!(deflated >= text.len() / STORED_MAX - 15);
    assert!(sent < text.len() * 6 / 10);
    // A link that keeps up with us is given units as they are.
    let mut packer = Packer::new(Deflating::OnSlowLinks, 0);
    assert_eq!(round_trip(&mut packer, &text).1, 0);
    assert!(packer.deflater.is_none());
    // Small frames are deflated on any, and take nothing off what is spare.
    packer.sends(at(1000));
    let (spare, units) = (packer.pace.spare, text.len().div_ceil(STORED_MAX));
    assert_eq!(round_trip_of(&mut packer, &text, true).1, units);
    assert_eq!(packer.pace.spare, spare);
}

#[test]
fn a_slow_link_pays_until_its_credit_is_used_up() {
    let mut bytes = noise(STORED_MAX / 2);
    bytes.resize(STORED_MAX, 0);
    let unit = bytes.clone();
    let mut packer = Packer::new(Deflating::OnSlowLinks, 0);
    packer.pace.full(at(0));
    packer.pace.full(at(50));
    assert_eq!(packer.pace.credit, CREDIT_BYTES);
    let mut units = 0;
    // Its middle is half noise, half nothing, so the sample shrinks as the whole does.
    while round_trip(&mut packer, &unit).1 > 0 {
        units += 1;
    }
    let expected = CREDIT_BYTES / (STORED_MAX as u64 / 2);
    assert!((expected - 2..=expected).contains(&units), "{units} units");
    packer.rest();
    assert!(packer.deflater.is_none());
}

#[test]
fn any_link_is_given_a_little_deflated_each_second() {
    let text = b"0123456789 and words ".repeat(3 * SPARE_BYTES_PER_SECOND as usize / 21);
    let mut packer = Packer::new(Deflating::OnSlowLinks, 0);
    let mut at_ms = |ms| {
        packer.sends(at(ms));
        round_trip(&mut packer, &text).1
    };
    let second = SPARE_BYTES_PER_SECOND as usize / STORED_MAX;
    assert_eq!(at_ms(5000), second);
    assert_eq!(at_ms(5000), 0);
    assert_eq!(at_ms(5500), second / 2);
    // What was not used up does not add up.
    assert_eq!(at_ms(60_000), second);
    assert_eq!(at_ms(61_000), second);
    // Noise costs as much.
    packer.sends(at(70_000));
    assert_eq!(round_trip(&mut packer, &noise(2 * SPARE_BYTES_PER_SECOND as usize)).1, 0);
    assert!(packer.pace.spare > 0 && packer.unseen > 0, "most of it was stored unseen");
    packer.sends(at(70_999));
    assert!(packer.unseen > 0);
    packer.sends(at(71_999));
    assert_eq!(round_trip(&mut packer, &text[..STORED_MAX]).1, 1);
}

#[test]
fn sending_often_deflates_no_more() {
    let text = b"0123456789 and words ".repeat(STORED_MAX / 21 + 1);
    let mut packer = Packer::new(Deflating::OnSlowLinks, 0);
    let mut deflated = 0;
    for ms in 5000..6000 {
        packer.sends(at(ms));
        deflated += round_trip(&mut packer, &text[..STORED_MAX]).1;
    }
    // What there was at first, and what came in a second.
    assert!(deflated <= 2 * SPARE_BYTES_PER_SECOND as usize / STORED_MAX, "{deflated}");
}

#[test]
fn little_is_stored_unseen() {
    let mut packer = Packer::new(Deflating::Always, 0);
    assert_eq!(round_trip(&mut packer, &[b'a'; DEFLATE_MIN - 1]).1, 0);
    assert_eq!(round_trip(&mut packer, &[b'a'; DEFLATE_MIN]).1, 1);
}

#[test]
fn parts_within() {
    let parts = [&b"abc"[..], b"", b"defg", b"h"];
    for from in 0..=8 {
        for count in 0..=8 - from {
            let found: Vec<u8> = within(parts.into_iter(), from, count).flatten().copied().collect();
            assert_eq!(found, b"abcdefgh"[from..from + count]);
        }
    }
}
