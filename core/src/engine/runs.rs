//! Which runs of a peer were replaced by a later one: one that comes back shows two nodes under one identity, who may
//! never meet each other (protocol §5). In memory alone.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::ids::{PeerId, RootId};

/// Runs of one peer that are remembered.
const RUNS_MAX: usize = 8;
/// Peers of which some are.
const PEERS_MAX: usize = 1024;

/// A peer's word for one start of its program.
type Run = [u8; 16];

/// Runs that were replaced, the newest first.
#[derive(Debug, Default)]
pub struct Runs(BTreeMap<(RootId, PeerId), Vec<Run>>);

impl Runs {
    /// A link is open to a run of a peer, and takes the place of one to `old`. Whether this run had been replaced
    /// before and is alive nevertheless.
    pub fn returns(&mut self, root: RootId, peer: PeerId, run: Run, old: Option<Run>) -> bool {
        let key = (root, peer);
        if self.0.get(&key).is_some_and(|replaced| replaced.contains(&run)) {
            self.0.remove(&key);
            return true;
        }
        if let Some(old) = old.filter(|old| *old != run) {
            if self.0.len() >= PEERS_MAX && !self.0.contains_key(&key) {
                self.0.pop_first();
            }
            let replaced = self.0.entry(key).or_default();
            replaced.truncate(RUNS_MAX - 1);
            replaced.insert(0, old);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: RootId = RootId(1);
    const PEER: PeerId = PeerId([1; 16]);

    #[test]
    fn a_run_that_was_replaced_does_not_return_unless_both_live() {
        let (mut runs, run) = (Runs::default(), |n| [n; 16]);
        assert!(!runs.returns(ROOT, PEER, run(1), None));
        assert!(!runs.returns(ROOT, PEER, run(1), Some(run(1))), "the same over another address");
        assert!(!runs.returns(ROOT, PEER, run(2), Some(run(1))), "started anew");
        assert!(!runs.returns(RootId(2), PEER, run(1), None));
        assert!(runs.returns(ROOT, PEER, run(1), Some(run(2))));
    }

    #[test]
    fn so_many_are_remembered_and_no_more() {
        let (mut runs, run) = (Runs::default(), |n| [n; 16]);
        for n in 0..=RUNS_MAX as u8 {
            assert!(!runs.returns(ROOT, PEER, run(n + 1), Some(run(n))));
        }
        assert!(!runs.returns(ROOT, PEER, run(0), None) && runs.returns(ROOT, PEER, run(1), None));
        for root in 0..=PEERS_MAX as u32 {
            assert!(!runs.returns(RootId(root), PEER, run(2), Some(run(1))));
        }
        assert_eq!(runs.0.len(), PEERS_MAX);
        assert!(!runs.returns(RootId(0), PEER, run(1), None) && runs.returns(RootId(1), PEER, run(1), None));
    }
}
