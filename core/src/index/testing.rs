//! Records, clocks and peers for tests.

use alloc::string::String;
use alloc::vec::Vec;
use proptest::prelude::*;

use crate::ids::{PeerId, Sha256, Uuid};
use crate::index::author::{Author, create};
use crate::index::clock::Clock;
use crate::index::record::{Change, EntryContent, EntryValue, Meta, Record, Value};
use crate::time::WallTime;

pub(crate) fn peer(n: u8) -> PeerId {
    PeerId([n; 16])
}

pub(crate) fn nth_peer(n: usize) -> PeerId {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&(n as u64).to_be_bytes());
    PeerId(id)
}

/// 2026-01-02T03:04:05.123456789Z
pub(crate) const WALL: WallTime = WallTime(1_767_323_045_123_456_789);

pub(crate) fn author(n: u8) -> Author {
    Author { peer: peer(n), rev: 0, wall: WALL }
}

pub(crate) fn file_value(size: u64) -> Value {
    let sha256 = Sha256([size as u8; 32]);
    let value = EntryValue::new(EntryContent::File { size, sha256 });
    Value::Entry(EntryValue { mtime: Some(WallTime(1_700_000_000_000_000_000)), ..value })
}

pub(crate) fn file(author: &mut Author, key: &str, size: u64) -> Record {
    let meta = Meta { unix_mode: Some(0o644), ..Meta::default() };
    create(author, Uuid([7; 16]), key.into(), file_value(size), meta, None).unwrap()
}

pub(crate) fn clock() -> impl Strategy<Value = Clock> {
    proptest::collection::btree_map(0u8..5, 1u64..6, 0..5).prop_map(|m| {
        Clock::from_sorted(m.into_iter().map(|(p, r)| (peer(p), r)).collect::<Vec<_>>()).unwrap()
    })
}

fn change() -> impl Strategy<Value = Change> {
    (0i64..4, 0u8..3, 1u64..4).prop_map(|(time, p, rev)| Change { time: WallTime(time), peer: peer(p), rev })
}

fn small_json() -> impl Strategy<Value = Option<alloc::boxed::Box<str>>> {
    prop_oneof![Just(None), "[a-c]{1,2}".prop_map(|t| Some(alloc::format!("{{\"{t}\":1}}").into()))]
}

pub(crate) fn value() -> impl Strategy<Value = Value> {
    let content = prop_oneof![
        Just(EntryContent::Dir),
        "\\PC{0,4}".prop_map(EntryContent::Link),
        (0u64..4, any::<u8>()).prop_map(|(size, d)| EntryContent::File { size, sha256: Sha256([d; 32]) }),
    ];
    let uuid = proptest::option::of(any::<[u8; 16]>().prop_map(Uuid));
    let entry = (content, proptest::option::of(any::<i64>().prop_map(WallTime)), uuid, small_json());
    prop_oneof![
        Just(Value::Null),
        "[a-z\"]{0,3}".prop_map(|t| {
            let mut json = Vec::new();
            crate::wire::json::write_str(&t, &mut json);
            Value::Json(String::from_utf8(json).unwrap().into())
        }),
        entry.prop_map(|(content, mtime, conflict_source, extra)| Value::Entry(EntryValue {
            content,
            mtime,
            conflict_source,
            extra
        })),
    ]
}

fn meta() -> impl Strategy<Value = Meta> {
    (proptest::option::of(0u32..0o10000), proptest::option::of((-5i64..5).prop_map(WallTime)), small_json())
        .prop_map(|(unix_mode, mtime, extra)| Meta { unix_mode, mtime, extra })
}

/// Any record at all of one uuid, contradictions included; small domains, so that ties are common.
pub(crate) fn any_record() -> impl Strategy<Value = Record> {
    let texts = ("[/a-b]{0,2}", value(), meta());
    let clocks = (clock(), clock(), clock());
    let changes = (change(), change(), change(), change());
    (texts, clocks, changes).prop_map(|((key, value, meta), (a, b, c), (update, k, v, m))| Record {
        uuid: Uuid([7; 16]),
        key,
        value,
        meta,
        clock: a,
        deleted_clock: b,
        value_clock: c,
        update,
        key_change: k,
        value_change: v,
        meta_change: m,
    })
}

/// A record that passes [`crate::index::check::check`].
pub(crate) fn good_record() -> impl Strategy<Value = Record> {
    any_record().prop_map(|mut r| {
        r.update = r.update.max(r.key_change).max(r.value_change).max(r.meta_change);
        for c in [r.update, r.key_change, r.value_change, r.meta_change] {
            r.clock.join(&Clock::of(c.peer, c.rev));
        }
        r.value_clock.join(&Clock::of(r.value_change.peer, r.value_change.rev));
        r.clock.join(&r.value_clock);
        r.clock.join(&r.deleted_clock);
        r
    })
}
