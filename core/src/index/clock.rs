//! Vector clocks: which changes a version has seen.

use alloc::vec::Vec;

use crate::ids::PeerId;

/// Peer → revision; a missing entry is 0. Sorted by peer, without zeros, so equal clocks are equal values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Clock(Vec<(PeerId, u64)>);
