//! Where a share's facts lie in the store: the keys of its rows. Club numbers and arrival numbers are big-endian, so
//! that the order of the keys is the order of the numbers.

use alloc::vec::Vec;

use crate::files::path::RelPath;
use crate::ids::{PeerId, RootId, Sha256, Uuid};
use crate::io::store::{Query, Space};

/// A small fact of a club, in [`Space::Meta`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Fact {
    /// The share: path, how far joining went. Its presence means that the club exists here.
    Share = 0,
    /// Keys of the club.
    Club = 1,
    /// Seed of this peer's own key pair.
    Identity = 2,
    /// Access codes made here.
    Codes = 3,
    /// The peers' numbers.
    Peers = 4,
    /// Revision, arrival number, knowledge and totals.
    Progress = 5,
    /// Addresses to dial.
    Addresses = 6,
    /// How far the records of one peer were received, per peer.
    Resume = 7,
    /// Names that peers gave, per peer.
    Name = 8,
    /// A file that was brought back from the archive and not looked at yet, per path: its inode.
    Restored = 9,
    /// A new identity is due, as the store may not be the one that this node last wrote.
    Renewal = 10,
}

const NODE: u8 = 0;
const CLUB: u8 = 1;

/// Key of a fact of the node itself.
pub fn node_key(name: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + name.len());
    key.push(NODE);
    key.extend_from_slice(name.as_bytes());
    key
}

/// Key of a club's fact.
pub fn fact_key(root: RootId, fact: Fact) -> Vec<u8> {
    let mut key = Vec::with_capacity(6);
    key.push(CLUB);
    key.extend_from_slice(&root.0.to_be_bytes());
    key.push(fact as u8);
    key
}

/// Key of a club's fact about one peer.
pub fn peer_fact_key(root: RootId, fact: Fact, peer: PeerId) -> Vec<u8> {
    let mut key = fact_key(root, fact);
    key.extend_from_slice(&peer.0);
    key
}

/// What a key in [`Space::Meta`] names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaKey<'a> {
    /// A fact of the node.
    Node(&'a [u8]),
    /// A fact of a club: its number, the fact's number, and what follows.
    Club(RootId, u8, &'a [u8]),
}

/// Reads a key of [`Space::Meta`]; `None` for one of a later version.
pub fn meta_key(key: &[u8]) -> Option<MetaKey<'_>> {
    match key.split_first()? {
        (&NODE, name) => Some(MetaKey::Node(name)),
        (&CLUB, rest) => {
            let (root, rest) = rest.split_first_chunk::<4>()?;
            let (&fact, rest) = rest.split_first()?;
            Some(MetaKey::Club(RootId(u32::from_be_bytes(*root)), fact, rest))
        }
        _ => None,
    }
}

/// Everything in [`Space::Meta`], a page of it.
pub fn meta_page(start: Vec<u8>, limit: u32) -> Query {
    Query::Range { space: Space::Meta, start, end: [0xff].to_vec(), limit }
}

/// The range of all rows of a club in any space but Meta.
pub fn club_range(root: RootId) -> (Vec<u8>, Vec<u8>) {
    (root.0.to_be_bytes().to_vec(), (u64::from(root.0) + 1).to_be_bytes()[4..].to_vec())
}

/// The range of a club's facts in Meta.
pub fn fact_range(root: RootId) -> (Vec<u8>, Vec<u8>) {
    let mut start = [CLUB].to_vec();
    start.extend_from_slice(&root.0.to_be_bytes());
    let mut end = start.clone();
    end.extend_from_slice(&[0xff]);
    (start, end)
}

/// Key of a record.
pub fn record_key(root: RootId, uuid: Uuid) -> Vec<u8> {
    let mut key = Vec::with_capacity(20);
    key.extend_from_slice(&root.0.to_be_bytes());
    key.extend_from_slice(&uuid.0);
    key
}

/// Key of an arrival.
pub fn arrival_key(root: RootId, arrival: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(12);
    key.extend_from_slice(&root.0.to_be_bytes());
    key.extend_from_slice(&arrival.to_be_bytes());
    key
}

/// Key of the intents of one group of installs.
pub fn intents_key(root: RootId, group: u64) -> Vec<u8> {
    arrival_key(root, group)
}

/// Key of a path in [`Space::Path`] and [`Space::Pending`].
pub fn path_key(root: RootId, path: &RelPath) -> Vec<u8> {
    // Room for the byte that a range's end adds.
    let mut key = Vec::with_capacity(5 + path.as_str().len());
    key.extend_from_slice(&root.0.to_be_bytes());
    path.push_sort_key(&mut key);
    key
}

/// The path that a key names.
pub fn path_of_key(key: &[u8]) -> Option<RelPath> {
    RelPath::from_sort_key(key.get(4..)?)
}

/// Everything beneath a directory, without itself, in a space that is ordered by path.
pub fn beneath(root: RootId, dir: &RelPath) -> (Vec<u8>, Vec<u8>) {
    if dir.is_root() {
        let (mut start, end) = club_range(root);
        // The root's own key is the bare club number.
        start.push(0);
        return (start, end);
    }
    let mut start = path_key(root, dir);
    let mut end = start.clone();
    start.push(0);
    end.push(1);
    (start, end)
}

/// Where a content may lie: the range of [`Space::Content`] that a digest has.
pub fn content_range(root: RootId, sha256: &Sha256) -> (Vec<u8>, Vec<u8>) {
    let mut start = Vec::with_capacity(36);
    start.extend_from_slice(&root.0.to_be_bytes());
    start.extend_from_slice(&sha256.0);
    let mut end = Vec::with_capacity(38);
    end.extend_from_slice(&start);
    end.extend_from_slice(&[0xff; 2]);
    (start, end)
}
