//! What the ends of a world's links signed. Each proof is made anew for its link and checked once, in the same process:
//! the answer is looked up. A proof that nobody here made is checked by arithmetic.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use clearskies_core::channel::plain::Signatures;

/// Signatures that are remembered: those of the links that are being opened, and many more.
const REMEMBERED_MAX: usize = 1000;

/// By signature, whose it is and of what.
type Known = BTreeMap<[u8; 64], ([u8; 32], Vec<u8>)>;

/// Signatures that were made.
#[derive(Debug, Default)]
pub struct Signed(Mutex<Known>);

impl Signatures for Signed {
    fn note(&self, public: &[u8; 32], message: &[u8], signature: &[u8; 64]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        known.insert(*signature, (*public, message.to_vec()));
    }

    fn holds(&self, public: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(signature).is_some_and(|(whose, what)| whose == public && what == message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_exactly_what_was_noted() {
        let signed = Signed::default();
        signed.note(&[1; 32], b"a", &[2; 64]);
        assert!(signed.holds(&[1; 32], b"a", &[2; 64]));
        assert!(!signed.holds(&[3; 32], b"a", &[2; 64]));
        assert!(!signed.holds(&[1; 32], b"b", &[2; 64]));
        assert!(!signed.holds(&[1; 32], b"a", &[3; 64]));
    }
}
