//! What the ends of a world's links sign. Each proof is made anew for its link and checked once, in the same process:
//! it is a number, and looked up. A proof that was not made here is checked by arithmetic.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use clearskies_core::channel::plain::Signatures;

/// Signatures that are remembered, the newest: those of the links that are being opened, and many more.
const REMEMBERED_MAX: usize = 1000;

/// By its number, whose a signature is and of what.
type Known = BTreeMap<u64, ([u8; 32], Vec<u8>)>;

/// Signatures that were made.
#[derive(Debug, Default)]
pub struct Signed(Mutex<Known>);

/// The signature with a number. It is no point of the curve and number below its order: arithmetic refuses it, whoever
/// is said to have signed.
fn numbered(number: u64) -> [u8; 64] {
    let mut signature = [0xff; 64];
    signature[..size_of::<u64>()].copy_from_slice(&number.to_le_bytes());
    signature
}

impl Signatures for Signed {
    fn sign(&self, public: &[u8; 32], message: &[u8]) -> [u8; 64] {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = known.last_key_value().map_or(0, |(number, _)| number + 1);
        known.insert(number, (*public, message.to_vec()));
        if known.len() > REMEMBERED_MAX {
            known.pop_first();
        }
        numbered(number)
    }

    fn holds(&self, public: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = u64::from_le_bytes(*signature.first_chunk().expect("64 bytes are more than eight"));
        *signature == numbered(number)
            && known.get(&number).is_some_and(|(whose, what)| whose == public && what == message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clearskies_core::club::identity::verify;

    #[test]
    fn holds_exactly_what_was_signed() {
        let signed = Signed::default();
        let proof = signed.sign(&[1; 32], b"a");
        assert!(signed.holds(&[1; 32], b"a", &proof));
        assert!(!signed.holds(&[3; 32], b"a", &proof));
        assert!(!signed.holds(&[1; 32], b"b", &proof));
        assert!(!signed.holds(&[1; 32], b"a", &[3; 64]));
        assert_ne!(signed.sign(&[1; 32], b"a"), proof);
        assert!(!verify(&[1; 32], b"a", &proof));
    }
}
