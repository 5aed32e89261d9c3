//! The one source of chance of a simulated world. Not for anything secret.

/// A small generator (SplitMix64): the same seed gives the same numbers, on every machine.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator for a seed; near seeds give unrelated numbers.
    pub fn new(seed: u64) -> Rng {
        Rng(seed ^ 0x5bd1_e995_9d1b_54a5)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 where `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        // The bias of a remainder is below 2^-32 for the small ranges that are asked for here.
        if end == 0 { 0 } else { self.number() % end }
    }

    /// A number from `start` up to and without `end`.
    pub fn between(&mut self, start: u64, end: u64) -> u64 {
        start + self.below(end.saturating_sub(start))
    }

    /// True so many times in a thousand.
    pub fn per_mille(&mut self, chance: u32) -> bool {
        self.below(1000) < u64::from(chance)
    }

    /// One of the items.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let index = self.below(items.len() as u64);
        items.get(usize::try_from(index).ok()?)
    }

    /// `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            out.extend_from_slice(&self.number().to_le_bytes());
        }
        out.truncate(len);
        out
    }

    /// An array of bytes, like a seed for an engine.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&self.bytes(N));
        out
    }

    /// A generator of its own for one part of the world, so that parts do not shift each other's numbers.
    pub fn fork(&mut self) -> Rng {
        Rng::new(self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let (mut a, mut b) = (Rng::new(7), Rng::new(7));
        assert!((0..100).all(|_| a.number() == b.number()));
        assert_ne!(Rng::new(7).number(), Rng::new(8).number());
        assert_eq!(Rng::new(1).bytes(13).len(), 13);
        assert!((0..1000).all(|_| (3..9).contains(&a.between(3, 9))));
    }
}
