//! The engine's only source of randomness: ChaCha20 from one seed of the system's generator. It never asks the system
//! itself, so that the same seed and the same calls give the same bytes.

use core::fmt;

use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng as _, SeedableRng};
use zeroize::Zeroizing;

/// A generator that replaces its key before every draw ends: who reads its state learns nothing of earlier draws.
pub struct Rng {
    key: Zeroizing<[u8; 32]>,
}

impl Rng {
    /// Starts from 32 bytes of the system's generator.
    pub fn from_seed(seed: [u8; 32]) -> Rng {
        Rng { key: Zeroizing::new(seed) }
    }

    /// Fills `out` with random bytes.
    pub fn fill(&mut self, out: &mut [u8]) {
        let mut stream = ChaCha20Rng::from_seed(*self.key);
        stream.fill_bytes(&mut self.key[..]);
        stream.fill_bytes(out);
    }

    /// `N` random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0u8; N];
        self.fill(&mut out);
        out
    }

    /// A number below `n`, each with the same chance; 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        // 2^64 mod n: below it a draw would favour small results, so it is made again.
        let uneven = n.wrapping_neg() % n;
        loop {
            let draw = u64::from_le_bytes(self.bytes());
            if draw >= uneven {
                return draw % n;
            }
        }
    }
}

impl fmt::Debug for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rng(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn same_seed_gives_same_bytes_and_each_draw_differs() {
        let (mut a, mut b) = (Rng::from_seed([7; 32]), Rng::from_seed([7; 32]));
        let first: [u8; 100] = a.bytes();
        assert_eq!(first, b.bytes());
        assert_ne!(first, a.bytes());
        assert_ne!(Rng::from_seed([8; 32]).bytes::<32>(), Rng::from_seed([7; 32]).bytes::<32>());
    }

    #[test]
    fn the_key_is_replaced_by_every_draw() {
        let mut rng = Rng::from_seed([7; 32]);
        rng.fill(&mut []);
        assert_ne!(*rng.key, [7; 32]);
        let before = *rng.key;
        // The first 32 bytes of the stream become the key, never output.
        assert_ne!(rng.bytes::<32>(), before);
        assert_ne!(*rng.key, before);
    }

    #[test]
    fn first_draw_is_the_second_half_of_the_first_block() {
        // RFC 8439 key stream of the zero key and zero nonce, block 0, bytes 32..64.
        let expected = "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586";
        let got: [u8; 32] = Rng::from_seed([0; 32]).bytes();
        assert_eq!(data_encoding::HEXLOWER.encode(&got), expected);
    }

    #[test]
    fn below_stays_below() {
        let mut rng = Rng::from_seed([1; 32]);
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.below(1), 0);
        let mut seen = [false; 5];
        for _ in 0..200 {
            seen[rng.below(5) as usize] = true;
            assert!(rng.below(u64::MAX) < u64::MAX);
        }
        assert_eq!(seen, [true; 5]);
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Rng::from_seed([0xAB; 32])), "Rng(..)");
    }
}
