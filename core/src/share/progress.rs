//! What a share counts and knows: the small row that every commit carries.

use alloc::vec::Vec;

use crate::index::clock::Clock;
use crate::index::codec::{self, Damaged, PeerTable};
use crate::share::txn::Totals;

/// A share's progress; one row, stored with every batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last revision of this peer.
    pub revision: u64,
    /// The last arrival number.
    pub arrival: u64,
    /// For every version written by p at revision ≤ K\[p\] the database holds it or a later one (protocol §7).
    pub knowledge: Clock,
    /// What is shown of the share.
    pub totals: Totals,
    /// Whether the peer was ever caught up with another one, or made the share itself.
    pub caught_up: bool,
    /// Whether the folder was looked through since then.
    pub looked_through: bool,
}

const FORMAT: u8 = 1;

impl Progress {
    /// The stored form.
    pub fn encode(&self, peers: &mut PeerTable) -> Vec<u8> {
        let mut out = Vec::with_capacity(80);
        out.push(FORMAT);
        out.push(u8::from(self.caught_up) | u8::from(self.looked_through) << 1);
        let Totals { files, bytes, pending, pending_bytes, conflicts } = self.totals;
        for number in [self.revision, self.arrival, files, bytes, pending, pending_bytes, conflicts] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        codec::encode_clock(&self.knowledge, peers, &mut out);
        out
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8], peers: &PeerTable) -> Result<Progress, Damaged> {
        let (&[format, flags], mut rest) = bytes.split_first_chunk::<2>().ok_or(Damaged)?;
        if format != FORMAT {
            return Err(Damaged);
        }
        let mut number = || -> Result<u64, Damaged> {
            let (bytes, tail) = rest.split_first_chunk::<8>().ok_or(Damaged)?;
            rest = tail;
            Ok(u64::from_be_bytes(*bytes))
        };
        let (revision, arrival) = (number()?, number()?);
        let totals = Totals {
            files: number()?,
            bytes: number()?,
            pending: number()?,
            pending_bytes: number()?,
            conflicts: number()?,
        };
        let knowledge = codec::decode_clock(&mut rest, peers)?;
        let (caught_up, looked_through) = (flags & 1 != 0, flags & 2 != 0);
        Ok(Progress { revision, arrival, knowledge, totals, caught_up, looked_through })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PeerId;

    #[test]
    fn progress_survives_the_store() {
        let mut peers = PeerTable::default();
        let mut progress = Progress { revision: 7, arrival: 9, caught_up: true, ..Progress::default() };
        progress.knowledge.set(PeerId([3; 16]), 12);
        progress.totals.bytes = u64::MAX;
        let bytes = progress.encode(&mut peers);
        assert_eq!(Progress::decode(&bytes, &peers), Ok(progress));
        assert_eq!(Progress::decode(&bytes[..bytes.len() - 1], &peers), Err(Damaged));
        assert_eq!(Progress::decode(&[2, 0], &peers), Err(Damaged));
    }
}
