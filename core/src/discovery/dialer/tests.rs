//! Histories of dials, in virtual time.

use super::*;
use alloc::format;

const CLUB: RootId = RootId(1);
const ALICE: PeerId = PeerId([1; 16]);

fn at(millis: u64) -> Instant {
    Instant::default().plus(Duration::from_millis(millis))
}

fn addr(n: u32) -> SocketAddr {
    SocketAddr::new(IpAddr::from((0x0808_0000 + n).to_be_bytes()), 4000)
}

fn rng() -> Rng {
    Rng::from_seed([1; 32])
}

fn manual(n: u32) -> Dialer {
    let mut dialer = Dialer::default();
    assert!(dialer.add(CLUB, addr(n), Source::Manual, at(0)));
    dialer
}

#[test]
fn failures_back_off_with_jitter_to_five_minutes() {
    let (mut dialer, mut rng) = (manual(1), rng());
    let mut now = at(0);
    for failures in 1..20u32 {
        assert_eq!(dialer.poll_dial(now, &mut rng), Some((CLUB, addr(1))));
        assert_eq!(dialer.poll_dial(now, &mut rng), None);
        assert_eq!(dialer.poll_timeout(), None);
        dialer.failed(CLUB, addr(1), now);
        let next = dialer.poll_timeout().unwrap();
        let full = Duration::from_secs(1 << (failures - 1).min(9)).min(BACK_OFF_MAX);
        let entry = &dialer.clubs[&CLUB].entries[&addr(1)];
        let wait = entry.next.since(now);
        assert!(wait >= full / 2 && wait <= full, "{failures}: {wait:?}");
        assert_eq!(dialer.poll_dial(Instant(next.0 - 1), &mut rng), None);
        now = next;
    }
}

#[test]
fn ten_attempts_a_minute_at_what_was_hinted_to_a_club() {
    let (mut dialer, mut rng) = (Dialer::default(), rng());
    for n in 0..40 {
        dialer.add(CLUB, addr(n), Source::Remembered, at(u64::from(n)));
        dialer.add(RootId(2), addr(n), Source::Remembered, at(u64::from(n)));
    }
    let mut dials = |dialer: &mut Dialer, now: Instant| {
        let mut count = [0; 2];
        let mut first = None;
        while let Some((club, addr)) = dialer.poll_dial(now, &mut rng) {
            dialer.failed(club, addr, now);
            first = first.or(Some(addr));
            count[club.0 as usize - 1] += 1;
        }
        (count, first)
    };
    assert_eq!(dials(&mut dialer, at(1000)), ([10, 10], Some(addr(0))));
    assert_eq!(dialer.poll_timeout(), Some(at(61_000)));
    assert_eq!(dials(&mut dialer, at(60_999)).0, [0, 0]);
    // Those that waited longest come first.
    assert_eq!(dials(&mut dialer, at(61_000)), ([10, 10], Some(addr(10))));
}

#[test]
fn where_peers_were_proven_no_minute_is_waited_for() {
    let (mut dialer, mut rng) = (Dialer::default(), rng());
    let peers = ATTEMPTS_PER_MINUTE as u32 + 2;
    let peer = |n: u32| PeerId((u128::from(n) + 1).to_be_bytes());
    for n in 0..peers {
        let now = at(u64::from(n) * 60_000);
        dialer.add(CLUB, addr(n), Source::Lan, now);
        assert_eq!(dialer.poll_dial(now, &mut rng), Some((CLUB, addr(n))));
        dialer.connected(CLUB, addr(n), peer(n), now);
    }
    let end = at(u64::from(peers) * 60_000);
    // Hints that are due before do not keep them waiting.
    for n in 0..2 * ATTEMPTS_PER_MINUTE as u32 {
        dialer.add(CLUB, addr(1000 + n), Source::Lan, end);
    }
    (0..peers).for_each(|n| dialer.closed(CLUB, Some(addr(n)), peer(n), end));
    let soon = end.plus(BACK_OFF_FIRST);
    let dials = core::iter::from_fn(|| dialer.poll_dial(soon, &mut rng));
    let (known, hints): (Vec<_>, Vec<_>) =
        dials.map(|(_, addr)| addr).partition(|dialled| (0..peers).any(|n| addr(n) == *dialled));
    assert_eq!((known.len(), hints.len()), (peers as usize, ATTEMPTS_PER_MINUTE));
}

#[test]
fn half_open_dials_are_bounded() {
    let (mut dialer, mut rng) = (Dialer::default(), rng());
    for club in 1..=10 {
        for n in 0..8 {
            dialer.add(RootId(club), addr(n), Source::Manual, at(0));
        }
    }
    let dialled: Vec<_> = core::iter::from_fn(|| dialer.poll_dial(at(0), &mut rng)).collect();
    assert_eq!(dialled.len(), HALF_OPEN_MAX);
    assert_eq!((dialer.half_open(), dialer.poll_timeout()), (HALF_OPEN_MAX, None));
    dialer.failed(dialled[0].0, dialled[0].1, at(0));
    assert!(dialer.poll_timeout().is_some());
    assert!(dialer.poll_dial(at(0), &mut rng).is_some());
    dialer.connected(dialled[1].0, dialled[1].1, ALICE, at(0));
    dialer.failed(dialled[1].0, dialled[1].1, at(0));
    assert_eq!(dialer.half_open(), HALF_OPEN_MAX - 1, "an end is counted once");
    dialer.forget(dialled[2].0, dialled[2].1);
    assert_eq!(dialer.half_open(), HALF_OPEN_MAX - 2);
    for club in 1..=10 {
        dialer.remove(RootId(club));
    }
    assert_eq!(dialer.half_open(), 0);
    assert_eq!(dialer.poll_timeout(), None);
}

#[test]
fn a_connected_peer_is_not_dialled() {
    let (mut dialer, mut rng) = (manual(1), rng());
    dialer.poll_dial(at(0), &mut rng);
    dialer.connected(CLUB, addr(1), ALICE, at(0));
    dialer.add(CLUB, addr(2), Source::Lan, at(0));
    assert_eq!(dialer.poll_dial(at(0), &mut rng), Some((CLUB, addr(2))));
    dialer.connected(CLUB, addr(2), ALICE, at(0));
    // The engine keeps one of the two links.
    dialer.closed(CLUB, Some(addr(2)), ALICE, at(0));
    assert!(dialer.is_connected(CLUB, ALICE));
    assert_eq!(dialer.poll_timeout(), None);
    assert!(dialer.add(CLUB, addr(2), Source::Lan, at(100_000)));
    assert!(dialer.add(CLUB, addr(1), Source::Manual, at(100_000)));
    assert_eq!(dialer.poll_dial(at(100_000), &mut rng), None);
    dialer.closed(CLUB, Some(addr(1)), ALICE, at(100_000));
    assert!(!dialer.is_connected(CLUB, ALICE));
    assert_eq!(dialer.poll_dial(at(101_000), &mut rng), Some((CLUB, addr(2))));
    // It comes to us meanwhile, and goes.
    dialer.failed(CLUB, addr(2), at(101_000));
    dialer.accepted(CLUB, ALICE, at(101_000));
    assert_eq!(dialer.poll_dial(at(200_000), &mut rng), None);
    dialer.closed(CLUB, None, ALICE, at(200_000));
    assert!(dialer.poll_dial(at(200_000), &mut rng).is_some());
}

#[test]
fn short_links_back_off_and_long_ones_do_not() {
    let (mut dialer, mut rng) = (manual(1), rng());
    let mut now = at(0);
    for _ in 0..5 {
        dialer.poll_dial(now, &mut rng).unwrap();
        dialer.connected(CLUB, addr(1), ALICE, now);
        dialer.closed(CLUB, Some(addr(1)), ALICE, now);
        now = dialer.poll_timeout().unwrap();
    }
    assert_eq!(dialer.clubs[&CLUB].entries[&addr(1)].failures, 5);
    dialer.poll_dial(now, &mut rng).unwrap();
    dialer.connected(CLUB, addr(1), ALICE, now);
    let end = now.plus(STABLE_AFTER);
    dialer.closed(CLUB, Some(addr(1)), ALICE, end);
    assert!(dialer.poll_timeout().unwrap().since(end) <= BACK_OFF_FIRST);
    // A program that is started anew four times in a minute is soon found again each time.
    for _ in 0..4 {
        now = dialer.poll_timeout().unwrap();
        dialer.poll_dial(now, &mut rng).unwrap();
        dialer.connected(CLUB, addr(1), ALICE, now);
        now = now.plus(Duration::from_secs(14));
        dialer.closed(CLUB, Some(addr(1)), ALICE, now);
        assert!(dialer.poll_timeout().unwrap().since(now) <= BACK_OFF_FIRST);
    }
}

#[test]
fn refusal_waits_about_a_minute() {
    let (mut dialer, mut rng) = (manual(1), rng());
    dialer.poll_dial(at(0), &mut rng).unwrap();
    dialer.refused_auth(CLUB, addr(1), at(0));
    let wait = dialer.poll_timeout().unwrap().since(at(0)).as_secs();
    assert!((32..=64).contains(&wait), "{wait}");
}

#[test]
fn hints_and_commands_start_an_address_anew() {
    let (mut dialer, mut rng) = (Dialer::default(), rng());
    dialer.add(CLUB, addr(1), Source::Lan, at(0));
    for _ in 0..6 {
        let now = dialer.poll_timeout().unwrap();
        dialer.poll_dial(now, &mut rng).unwrap();
        dialer.failed(CLUB, addr(1), now);
    }
    let last = dialer.clubs[&CLUB].entries[&addr(1)].last_attempt.unwrap();
    let waiting = dialer.poll_timeout().unwrap();
    dialer.add(CLUB, addr(1), Source::Lan, last.plus(HINT_GAP - Duration::from_nanos(1)));
    dialer.add(CLUB, addr(1), Source::Remembered, last.plus(HINT_GAP));
    assert_eq!(dialer.poll_timeout(), Some(waiting));
    dialer.add(CLUB, addr(1), Source::Lan, last.plus(HINT_GAP));
    assert_eq!(dialer.poll_timeout(), Some(last.plus(HINT_GAP)));
    dialer.poll_dial(last.plus(HINT_GAP), &mut rng).unwrap();
    dialer.refused_auth(CLUB, addr(1), last.plus(HINT_GAP));
    dialer.add(CLUB, addr(1), Source::Manual, last.plus(HINT_GAP));
    assert!(dialer.poll_dial(last.plus(HINT_GAP), &mut rng).is_some());
    dialer.refused_auth(CLUB, addr(1), last.plus(HINT_GAP));
    assert!(dialer.poll_dial(last.plus(HINT_GAP), &mut rng).is_none());
    dialer.reset(last.plus(HINT_GAP));
    assert!(dialer.poll_dial(last.plus(HINT_GAP), &mut rng).is_some());
}

#[test]
fn only_sensible_addresses_are_taken() {
    let mut dialer = Dialer::default();
    let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
    for bad in ["0.0.0.0:1", "255.255.255.255:1", "224.0.0.1:1", "8.8.8.8:0", "[ff02::1]:1", "[::]:1"] {
        assert!(!dialer.add(CLUB, parse(bad), Source::Manual, at(0)), "{bad}");
    }
    assert!(dialer.add(CLUB, parse("127.0.0.1:1"), Source::Manual, at(0)));
    assert!(!dialer.add(CLUB, parse("127.0.0.1:2"), Source::Lan, at(0)));
    assert!(!dialer.add(CLUB, parse("192.168.1.9:2"), Source::Lan, at(0)));
    assert!(dialer.add(CLUB, parse("[::ffff:8.8.8.8]:1"), Source::Manual, at(0)));
    assert!(dialer.addresses(CLUB).any(|(addr, ..)| addr == parse("8.8.8.8:1")));
}

#[test]
fn private_addresses_are_dialled_at_home_only() {
    let (mut dialer, mut rng) = (Dialer::default(), rng());
    let printer: SocketAddr = "192.168.1.9:4000".parse().unwrap();
    dialer.add(CLUB, printer, Source::Remembered, at(0));
    assert_eq!(dialer.poll_timeout(), None);
    dialer.set_networks(Networks::new(&[("192.168.1.5".parse().unwrap(), 24)]), at(1));
    assert_eq!(dialer.poll_dial(at(1), &mut rng), Some((CLUB, printer)));
    dialer.failed(CLUB, printer, at(1));
    dialer.set_networks(Networks::new(&[("10.0.0.5".parse().unwrap(), 8)]), at(2));
    assert_eq!(dialer.poll_timeout(), None);
    dialer.add(CLUB, printer, Source::Manual, at(3));
    assert_eq!(dialer.poll_dial(at(3), &mut rng), Some((CLUB, printer)));
}

#[test]
fn the_book_is_bounded() {
    let (mut dialer, mut rng) = (Dialer::default(), rng());
    for n in 0..PEERS_PER_CLUB_MAX as u32 {
        assert!(dialer.add(CLUB, addr(n), Source::Remembered, at(0)));
    }
    assert!(!dialer.add(CLUB, addr(1000), Source::Lan, at(0)), "a hint displaces nothing better");
    assert!(dialer.add(CLUB, addr(1000), Source::Manual, at(0)));
    assert_eq!(dialer.addresses(CLUB).count(), PEERS_PER_CLUB_MAX);
    for n in 2000..3000 {
        dialer.add(CLUB, addr(n), Source::Manual, at(0));
    }
    assert_eq!(dialer.addresses(CLUB).count(), PEERS_PER_CLUB_MAX);

    let mut dialer = Dialer::default();
    let mut meet = |dialer: &mut Dialer, n: u32, peer: PeerId| {
        let now = at(u64::from(n) * 60_000);
        dialer.add(CLUB, addr(n), Source::Lan, now);
        assert_eq!(dialer.poll_dial(now, &mut rng), Some((CLUB, addr(n))));
        dialer.connected(CLUB, addr(n), peer, now);
        now
    };
    for n in 0..2 * ADDRESSES_PER_PEER_MAX as u32 {
        let now = meet(&mut dialer, n, ALICE);
        dialer.closed(CLUB, Some(addr(n)), ALICE, now);
        dialer.accepted(CLUB, ALICE, now);
    }
    assert_eq!(dialer.addresses(CLUB).count(), ADDRESSES_PER_PEER_MAX);

    let mut dialer = Dialer::default();
    for n in 0..2 * PEERS_PER_CLUB_MAX as u32 {
        let peer = PeerId((u128::from(n) + 1).to_be_bytes());
        meet(&mut dialer, n, peer);
        let end = at(u64::from(n) * 60_000);
        dialer.closed(CLUB, Some(addr(n)), peer, end);
        dialer.clubs.get_mut(&CLUB).unwrap().known.clear();
    }
    assert_eq!(dialer.addresses(CLUB).count(), PEERS_PER_CLUB_MAX);
    let last = addr(2 * PEERS_PER_CLUB_MAX as u32 - 1);
    assert!(dialer.addresses(CLUB).any(|(addr, ..)| addr == last));
}

#[test]
fn what_matters_is_remembered() {
    let (mut dialer, mut rng) = (Dialer::default(), rng());
    let far: SocketAddr = "[2001:db8::1]:4000".parse().unwrap();
    let scoped: SocketAddr = "[fe80::9%3]:4000".parse().unwrap();
    let inside: SocketAddr = "127.0.0.1:4000".parse().unwrap();
    let ours = [("fe80::5".parse().unwrap(), 64), ("127.0.0.1".parse().unwrap(), 8)];
    dialer.set_networks(Networks::new(&ours), at(0));
    assert_eq!(dialer.poll_changed(at(0)), None);
    dialer.add(CLUB, addr(1), Source::Manual, at(0));
    assert_eq!((dialer.poll_changed(at(0)), dialer.poll_changed(at(0))), (Some(CLUB), None));
    dialer.add(CLUB, addr(2), Source::Lan, at(0));
    dialer.add(CLUB, addr(3), Source::Lan, at(0));
    assert_eq!(dialer.poll_changed(at(0)), None);
    dialer.add(CLUB, far, Source::Invitation, at(0));
    dialer.add(CLUB, scoped, Source::Lan, at(0));
    dialer.add(CLUB, inside, Source::Lan, at(0));
    while let Some((_, to)) = dialer.poll_dial(at(0), &mut rng) {
        if to == addr(2) || to == scoped || to == inside {
            dialer.connected(CLUB, to, ALICE, at(0));
        } else {
            dialer.failed(CLUB, to, at(0));
        }
    }
    assert_eq!(dialer.poll_changed(at(0)), Some(CLUB));
    let stored = dialer.encode(CLUB);
    let mut again = Dialer::default();
    assert!(again.decode(CLUB, &stored, at(0)));
    assert_eq!(again.poll_changed(at(0)), None);
    // What could not be stored is stored again.
    again.not_stored(CLUB, at(10_000));
    assert_eq!((again.poll_changed(at(9999)), again.poll_changed(at(10_000))), (None, Some(CLUB)));
    assert_eq!(again.poll_changed(at(20_000)), None);
    let known: Vec<_> = again.addresses(CLUB).collect();
    assert_eq!(
        known,
        [
            (addr(1), Source::Manual, None),
            (addr(2), Source::Remembered, Some(ALICE)),
            (far, Source::Invitation, None)
        ]
    );
    assert_eq!(again.encode(CLUB), stored);
    assert!(
        again.clubs[&CLUB].known.iter().any(|(_, known)| *known == addr(2)),
        "no hint: a peer was proven there"
    );
    assert_eq!(core::iter::from_fn(|| again.poll_dial(at(0), &mut rng)).count(), 3);
    assert_eq!(Dialer::default().encode(CLUB), [STORE_VERSION]);
}

#[test]
fn a_damaged_store_adds_nothing() {
    let mut dialer = manual(1);
    let stored = dialer.encode(CLUB);
    let mut other = Dialer::default();
    assert!(!other.decode(CLUB, &[], at(0)));
    assert!(!other.decode(CLUB, &[2], at(0)));
    assert!(!other.decode(CLUB, &stored[..stored.len() - 1], at(0)));
    let mut bad = stored.clone();
    bad[1] = 3;
    assert!(!other.decode(CLUB, &bad, at(0)));
    let row = &stored[1..];
    assert!(other.decode(CLUB, &[&[STORE_VERSION][..], &row.repeat(REMEMBERED_MAX)].concat(), at(0)));
    assert!(!other.decode(CLUB, &[&[STORE_VERSION][..], &row.repeat(REMEMBERED_MAX + 1)].concat(), at(0)));
    assert_eq!(other.addresses(CLUB).count(), 1);
    dialer.forget(CLUB, addr(1));
    assert_eq!(dialer.encode(CLUB), [STORE_VERSION]);
}

#[test]
fn calls_about_unknown_things_do_nothing() {
    let mut dialer = Dialer::default();
    dialer.connected(CLUB, addr(1), ALICE, at(0));
    dialer.closed(CLUB, Some(addr(1)), ALICE, at(0));
    dialer.failed(CLUB, addr(1), at(0));
    dialer.refused_auth(CLUB, addr(1), at(0));
    dialer.forget(CLUB, addr(1));
    dialer.remove(CLUB);
    dialer.accepted(CLUB, ALICE, at(0));
    dialer.closed(CLUB, None, PeerId([9; 16]), at(0));
    assert!(dialer.is_connected(CLUB, ALICE), "{}", format!("{dialer:?}"));
    assert_eq!((dialer.half_open(), dialer.poll_timeout()), (0, None));
}

#[test]
fn where_this_node_reached_itself_a_peer_may_be_again() {
    let (mut dialer, mut rng) = (manual(1), rng());
    dialer.add(CLUB, addr(2), Source::Lan, at(0));
    while let Some((_, to)) = dialer.poll_dial(at(0), &mut rng) {
        dialer.reached_self(CLUB, to, at(0));
    }
    let known: Vec<_> = dialer.addresses(CLUB).map(|(addr, ..)| addr).collect();
    assert_eq!((known, dialer.half_open()), ([addr(1)].into(), 0), "a hint of the LAN comes again by itself");
    let next = dialer.poll_timeout().unwrap().since(at(0));
    assert!(next >= BACK_OFF_MAX / 2, "{next:?}");
}
