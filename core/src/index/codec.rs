//! The compact form in which records lie in the store: peers as small numbers, digests as bytes.

use alloc::vec::Vec;

use crate::ids::PeerId;
use crate::index::record::Record;

/// The peers of one club, numbered in the order in which they were met; the store keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerTable(Vec<PeerId>);

/// A stored form that cannot be read: the store is damaged, or of a later version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

/// Appends the stored form. Peers that the table lacks are added to it; the caller stores it in the same commit.
pub fn encode_record(_record: &Record, _peers: &mut PeerTable, _out: &mut Vec<u8>) {}

/// Reads what [`encode_record`] wrote, from the start of `bytes`; moves `bytes` behind it.
pub fn decode_record(_bytes: &mut &[u8], _peers: &PeerTable) -> Result<Record, Damaged> {
    Err(Damaged)
}
