//! Counts versions that contradict others (protocol §7, Merging), by the member from which they came. Whoever passes
//! them on need not have made them, so nobody is sent away for it; the user is told.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;

use crate::ids::PeerId;

/// Members whose faults are counted,
const MEMBERS_MAX: usize = 1000;
/// and from how many on the user is told: a database that was put back from a backup brings some.
const TOLD_FROM: u64 = 10;

/// What was counted in this run.
#[derive(Debug, Default)]
pub struct Faults(BTreeMap<PeerId, u64>);

impl Faults {
    /// One more came from this member.
    pub fn note(&mut self, peer: PeerId) {
        if self.0.len() < MEMBERS_MAX || self.0.contains_key(&peer) {
            let count = self.0.entry(peer).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// The members of whom the user is told, and how much came from each.
    pub fn told(&self) -> impl Iterator<Item = (PeerId, u64)> {
        self.0.iter().map(|(peer, count)| (*peer, *count)).filter(|(_, count)| *count >= TOLD_FROM)
    }
}

/// What is told of a member; `who` is its name.
pub fn sentence(who: &str, count: u64) -> String {
    format!(
        "{count} changes that came from {who} contradict others that have the same number. One of each two was taken, \
         and no file is lost here. Two computers may run with copies of one node's data; if not, the program of a \
         member is faulty."
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::testing::nth_peer;

    #[test]
    fn few_are_nothing_to_tell() {
        let mut faults = Faults::default();
        (1..TOLD_FROM).for_each(|_| faults.note(nth_peer(1)));
        faults.note(nth_peer(2));
        assert_eq!(faults.told().next(), None);
        faults.note(nth_peer(1));
        assert!(faults.told().eq([(nth_peer(1), TOLD_FROM)]));
        let told = sentence("ada", TOLD_FROM);
        assert!(told.starts_with("10 changes that came from ada ") && !told.contains("  "), "{told}");
    }

    #[test]
    fn members_are_counted_up_to_a_limit() {
        let mut faults = Faults::default();
        (0..=MEMBERS_MAX).for_each(|n| faults.note(nth_peer(n)));
        assert_eq!(faults.0.len(), MEMBERS_MAX);
        (0..TOLD_FROM).for_each(|_| faults.note(nth_peer(0)));
        (0..TOLD_FROM).for_each(|_| faults.note(nth_peer(MEMBERS_MAX)));
        assert!(faults.told().eq([(nth_peer(0), TOLD_FROM + 1)]));
    }
}
