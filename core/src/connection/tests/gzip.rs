//! Links on which `gzip` is agreed on, and links on which it is not.

use super::*;
use crate::connection::intake::INFLATED_BYTES_MAX;
use crate::connection::units::{UNIT_INFLATED_MAX, deflate, store};

fn gzip(transport: Transport) -> ConnConfig {
    ConnConfig { extensions: Arc::new([EXTENSION_GZIP.into()]), ..config(transport) }
}

fn gzip_pair(transport: Transport) -> Pair {
    let config = gzip(transport);
    let logins = vec![by_key(2, Level::ReadWrite)];
    let mut pair = Pair::with(&config, &config, by_key(1, Level::ReadWrite), logins);
    pair.run();
    assert!(pair.client.conn.inner.queue.has_units() && pair.server.conn.inner.queue.has_units());
    pair
}

/// The payloads that a side was told of.
fn payloads(side: &Side) -> Vec<Vec<u8>> {
    let mut found: Vec<Vec<u8>> = vec![];
    for event in &side.events[1..] {
        match event {
            ConnEvent::Message(Message::Directory(_)) => found.push(vec![]),
            ConnEvent::Payload { bytes, .. } => found.last_mut().unwrap().extend_from_slice(bytes),
            other => panic!("{other:?}"),
        }
    }
    found
}

fn text(length: usize) -> Vec<u8> {
    (0..length).map(|at| b"some words that come again "[at % 27]).collect()
}

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Rng::from_seed([5; 32]).fill(&mut bytes);
    bytes
}

#[test]
fn units_only_where_both_speak_them() {
    let (with, without) = (gzip(Transport::Plain), config(Transport::Plain));
    for (client, server, agreed) in [
        (&with, &with, true),
        (&with, &without, false),
        (&without, &with, false),
        (&without, &without, false),
    ] {
        let logins = vec![by_key(2, Level::ReadWrite)];
        let mut pair = Pair::with(client, server, by_key(1, Level::ReadWrite), logins);
        pair.cuts = Some(Rng::from_seed([3; 32]));
        pair.run();
        let before = (pair.client.sent, pair.server.sent);
        for side in [&mut pair.client, &mut pair.server] {
            assert_eq!(side.conn.inner.queue.has_units(), agreed);
            assert!(side.conn.send_with_payload(&data(100_000), text(100_000)));
        }
        pair.run();
        for (side, before) in [(&pair.client, before.0), (&pair.server, before.1)] {
            assert_eq!(payloads(side), [text(100_000)]);
            assert_eq!(side.sent - before < 20_000, agreed);
        }
    }
}

#[test]
fn payloads_of_all_kinds_arrive_whole() {
    for transport in [Transport::Plain, tls()] {
        let mut pair = gzip_pair(transport);
        pair.cuts = Some(Rng::from_seed([4; 32]));
        let mut expected = vec![];
        for length in [1, 300, RECORD, 65_519, 65_520, PIECE_MAX, 3 * PIECE_MAX + 5, 0] {
            for bytes in [text(length), noise(length), vec![0; length]] {
                assert!(pair.client.conn.send_with_payload(&data(length as u64), bytes.clone()));
                assert!(pair.server.conn.send_with_payload(&data(length as u64), bytes.clone()));
                expected.push(bytes);
            }
        }
        pair.run();
        assert_eq!((pair.client.conn.queued_bytes(), pair.server.conn.queued_bytes()), (0, 0));
        assert!(payloads(&pair.client) == expected && payloads(&pair.server) == expected);
    }
}

/// The keys are in no unit, and what follows them is.
#[test]
fn keys_are_never_in_a_unit() {
    let config = gzip(Transport::Plain);
    for joiner_dials in [true, false] {
        let (joiner, member) = (by_code(1, Role::Joiner), by_code(2, Role::Member));
        let mut pair = if joiner_dials {
            Pair::with(&config, &config, joiner, vec![member])
        } else {
            Pair::with(&config, &config, by_code(1, Role::Member), vec![by_code(2, Role::Joiner)])
        };
        pair.run();
        let Pair { client, server, .. } = &mut pair;
        let (joiner, member) = if joiner_dials { (client, server) } else { (server, client) };
        assert!(joiner.conn.is_ready() && member.conn.is_ready());
        let keys = crate::wire::keys::tests::message();
        let keys = Message::Keys(Box::new(keys));
        let now = Now { mono: Instant(0), wall: WallTime(0) };
        let mut bytes = vec![];
        // What is said before is in no unit either.
        assert!(member.conn.send(&Message::Ping { timeout: 60 }) && member.conn.send(&keys));
        assert!(member.conn.send_with_payload(&data(5000), text(5000)));
        member.conn.poll_transmit(&mut bytes, 1 << 20);
        let mut plain = vec![];
        for message in [&Message::Ping { timeout: 60 }, &keys] {
            let mut body = vec![];
            message.write_in(Encoding::Json, &mut body);
            frame::write_frame(&body, false, &mut plain);
        }
        assert!(bytes.starts_with(&plain) && bytes[plain.len()].is_ascii_digit());
        assert!(bytes.len() < plain.len() + 1000);
        for byte in bytes.chunks(1) {
            joiner.receive(now, byte);
        }
        joiner.drain();
        assert!(matches!(&joiner.events[1], ConnEvent::Message(Message::Keys(_))));
        assert!(matches!(&joiner.events[3], ConnEvent::Payload { bytes, .. } if *bytes == text(5000)));

        bytes.clear();
        assert!(joiner.conn.send(&Message::KeysAcknowledgment));
        assert!(joiner.conn.send_with_payload(&data(5000), text(5000)));
        joiner.conn.poll_transmit(&mut bytes, 1 << 20);
        assert!(bytes.starts_with(b"m") && bytes.len() < 1000);
        for byte in bytes.chunks(1) {
            member.receive(now, byte);
        }
        member.drain();
        assert!(matches!(&member.events[3], ConnEvent::Payload { bytes, .. } if *bytes == text(5000)));
    }
}

/// Sends these bytes in place of what a connection would say.
fn tell(pair: &mut Pair, bytes: &[u8]) {
    for piece in bytes.chunks(16_000) {
        pair.server.receive(pair.now, piece);
        pair.server.drain();
    }
}

#[test]
fn what_is_no_unit_ends_the_link() {
    let frame = b"m35{\"type\":\"core.keys_acknowledgment\"}";
    let wrong_sum = {
        let mut unit = store(frame);
        *unit.last_mut().unwrap() ^= 1;
        unit
    };
    let bomb = deflate(&vec![b'm'; UNIT_INFLATED_MAX + 1]);
    let behind = {
        let unit = deflate(&text(300));
        let data = &unit[unit.iter().position(|byte| *byte == b':').unwrap() + 1..];
        [format!("{}:", data.len() + 1).as_bytes(), data, b"x"].concat()
    };
    let nothing = b"8:\x78\x9c\x03\x00\x00\x00\x00\x01";
    for bytes in [&frame[..], b"x", b"0:", b"1052673:", nothing, &wrong_sum, &bomb, &behind] {
        let mut pair = gzip_pair(Transport::Plain);
        tell(&mut pair, bytes);
        assert!(matches!(pair.server.closed(), Some(CloseReason::Protocol(_))), "{bytes:?}");
        // The other side hears why, in a unit.
        pair.run();
        let said = pair.client.closed();
        assert!(matches!(said, Some(CloseReason::ByPeer { code, .. }) if code == "protocol"), "{said:?}");
    }
}

/// A few bytes that inflate to many are inflated as their owner takes what is in them.
#[test]
fn what_inflates_to_much_waits() {
    let mut pair = gzip_pair(Transport::Plain);
    let (count, length) = (64, 700_000);
    let mut frames = vec![];
    for _ in 0..count {
        let mut body = vec![];
        data(length as u64).write_in(Encoding::Json, &mut body);
        frame::write_frame(&body, true, &mut frames);
        frame::write_chunk_start(length, &mut frames);
        frames.resize(frames.len() + length, 0);
        frames.extend_from_slice(frame::PAYLOAD_END);
    }
    let units: Vec<u8> = frames.chunks(UNIT_INFLATED_MAX).flat_map(deflate).collect();
    assert!(units.len() < 256 * 1024);
    let side = &mut pair.server;
    side.conn.handle_received(pair.now, &units, &mut side.book, &mut side.rng);
    for found in 0..count {
        assert!(side.conn.inner.event_bytes <= INFLATED_BYTES_MAX + length + 1000);
        assert!(found > count - 3 || (side.conn.is_holding() && !side.conn.wants_read()));
        let mut payload = None;
        while payload.is_none() {
            match side.conn.poll_event().unwrap() {
                ConnEvent::Payload { bytes, last: true } => payload = Some(bytes),
                ConnEvent::Message(_) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(payload.unwrap(), vec![0; length]);
    }
    assert!(side.conn.poll_event().is_none() && !side.conn.is_holding() && side.conn.wants_read());
}

/// A stream that ends within a unit is a lost link and nothing else; what is held is given before its end.
#[test]
fn a_stream_that_ends_in_a_unit() {
    let config = gzip(tls());
    let logins = vec![by_key(2, Level::ReadWrite)];
    for (cut, messages) in [(true, 0), (false, 1)] {
        let mut pair = Pair::with(&config, &config, by_key(1, Level::ReadWrite), logins.clone());
        pair.run();
        let mut frame = vec![];
        frame::write_frame(
            &[b"{\"type\":\"core.keys_acknowledgment\"}", &[b' '; 600_000][..]].concat(),
            false,
            &mut frame,
        );
        let unit = deflate(&frame);
        let mut bytes = vec![];
        let said = if cut { &unit[..unit.len() / 2] } else { &unit[..] };
        pair.client.conn.channel.seal(&[said], &mut bytes).unwrap();
        pair.client.conn.channel.close();
        pair.client.conn.channel.flush(&mut bytes);
        pair.server.conn.inner.event_bytes += INFLATED_BYTES_MAX;
        pair.server.receive(pair.now, &bytes);
        assert!(pair.server.conn.is_holding() && !pair.server.conn.is_closed());
        pair.server.conn.inner.event_bytes -= INFLATED_BYTES_MAX;
        pair.server.drain();
        assert!(matches!(pair.server.closed(), Some(CloseReason::Ended)), "{:?}", pair.server.events);
        let heard = pair.server.events.iter().filter(|event| matches!(event, ConnEvent::Message(_))).count();
        assert_eq!(heard, messages);
    }
}

/// A server that does not take our start says why in a frame, as it does not know yet that units were agreed on.
#[test]
fn a_refusal_outside_of_units_is_heard() {
    for (first, heard) in [
        (&b"m50{\"type\":\"core.error\",\"code\":\"auth\",\"message\":\"no\"}"[..], true),
        (b"m35{\"type\":\"core.keys_acknowledgment\"}", false),
    ] {
        let mut pair = gzip_pair(Transport::Plain);
        for byte in first.chunks(1) {
            pair.client.receive(pair.now, byte);
        }
        pair.client.drain();
        match pair.client.closed() {
            Some(CloseReason::ByPeer { code, .. }) => assert!(heard && code == "auth"),
            Some(CloseReason::Protocol(_)) => assert!(!heard),
            other => panic!("{other:?}"),
        }
    }
    // Once there was a unit, it is too late for that.
    let mut pair = gzip_pair(Transport::Plain);
    pair.client.receive(pair.now, &store(b"m35{\"type\":\"core.keys_acknowledgment\"}"));
    pair.client.receive(pair.now, b"m50{\"type\":\"core.error\",\"code\":\"auth\",\"message\":\"no\"}");
    pair.client.drain();
    assert!(matches!(pair.client.closed(), Some(CloseReason::Protocol(_))));
}

/// What was queued but not begun is dropped at a close, and no unit is cut for it.
#[test]
fn a_close_within_units() {
    for step in 0..40 {
        let mut pair = gzip_pair(Transport::Plain);
        for bytes in [noise(100_000), text(100_000), noise(100_000)] {
            assert!(pair.client.conn.send_with_payload(&data(100_000), bytes));
        }
        let mut bytes = vec![];
        pair.client.conn.poll_transmit(&mut bytes, 1 + step * 8192);
        pair.client.conn.close("shutdown", "now");
        while pair.client.conn.poll_transmit(&mut bytes, 8192) {}
        pair.server.receive(pair.now, &bytes);
        pair.server.drain();
        assert!(
            matches!(pair.server.closed(), Some(CloseReason::ByPeer { code, .. }) if code == "shutdown"),
            "{step}: {:?}",
            pair.server.closed()
        );
    }
}

#[test]
fn silence_frees_what_only_makes_faster() {
    let mut pair = gzip_pair(Transport::Plain);
    pair.client.conn.send_with_payload(&data(100_000), text(100_000));
    pair.run();
    pair.pass(31);
    pair.run();
    assert_eq!(payloads(&pair.server), [text(100_000)]);
    pair.client.conn.send_with_payload(&data(100_000), text(100_000));
    pair.run();
    assert_eq!(payloads(&pair.server).len(), 2);
}
