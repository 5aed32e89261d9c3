//! The filter by which a peer says which contents it may have (protocol §8, "Presence"). Knows nothing of links.

use alloc::vec;
use alloc::vec::Vec;

use crate::ids::Sha256;

/// A filter's payload is never larger.
pub const FILTER_BYTES_MAX: usize = 1 << 20;
/// A digest has so many 32-bit words, so no filter uses more of them.
pub const K_MAX: u8 = 8;

/// With ten bits a content and seven of them set, one in a hundred absent contents is taken for present.
const BITS_PER_CONTENT: usize = 10;
const K_BEST: u8 = 7;

/// A filter that a peer sent and that cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadFilter;

/// Which contents a peer may have. Says yes too often, never no too often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    k: u8,
    bits: Vec<u8>,
}

impl Presence {
    /// An empty filter of the size that fits `contents` contents.
    pub fn with_capacity(contents: usize) -> Presence {
        let bytes = contents.saturating_mul(BITS_PER_CONTENT).div_ceil(8).clamp(8, FILTER_BYTES_MAX);
        // With fewer bits for each content, fewer of them should be set: k = bits / contents * ln 2.
        let best = (bytes * 8).saturating_mul(7) / contents.max(1).saturating_mul(10);
        let k = u8::try_from(best).unwrap_or(K_BEST).clamp(1, K_BEST);
        Presence { k, bits: vec![0; bytes] }
    }

    /// "Ask and see": everything may be there.
    pub fn ask_and_see() -> Presence {
        Presence { k: 1, bits: vec![0xff] }
    }

    /// Nothing is there.
    pub fn nothing() -> Presence {
        Presence { k: 1, bits: vec![0x00] }
    }

    /// Takes what a peer sent. Payloads beyond [`FILTER_BYTES_MAX`] are to be refused before they are read.
    pub fn parse(k_value: u64, payload: Vec<u8>) -> Result<Presence, BadFilter> {
        let k = u8::try_from(k_value).ok().filter(|k| (1..=K_MAX).contains(k)).ok_or(BadFilter)?;
        if payload.is_empty() || payload.len() > FILTER_BYTES_MAX {
            return Err(BadFilter);
        }
        Ok(Presence { k, bits: payload })
    }

    /// Adds a content.
    pub fn insert(&mut self, sha256: &Sha256) {
        let size = self.bits.len() * 8;
        for bit in places(sha256, self.k, size) {
            self.bits[bit / 8] |= 0x80 >> (bit % 8);
        }
    }

    /// Whether the content may be there.
    pub fn may_have(&self, sha256: &Sha256) -> bool {
        places(sha256, self.k, self.bits.len() * 8).all(|bit| self.bits[bit / 8] & (0x80 >> (bit % 8)) != 0)
    }

    /// `k_value` on the wire.
    pub fn k_value(&self) -> u8 {
        self.k
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        &self.bits
    }
}

/// The bits of a digest in a filter of `size` bits; `size` is not 0 and below 2^32.
fn places(sha256: &Sha256, k: u8, size: usize) -> impl Iterator<Item = usize> {
    let (words, _) = sha256.0.as_chunks::<4>();
    words.iter().take(usize::from(k)).map(move |word| u32::from_be_bytes(*word) as usize % size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sha(n: u32) -> Sha256 {
        let digest = ring::digest::digest(&ring::digest::SHA256, &n.to_be_bytes());
        Sha256::from_slice(digest.as_ref()).unwrap()
    }

    #[test]
    fn bits_lie_where_the_protocol_says() {
        let mut filter = Presence { k: 2, bits: vec![0; 2] };
        let mut digest = [0u8; 32];
        digest[3] = 17;
        digest[7] = 15;
        filter.insert(&Sha256(digest));
        assert_eq!(filter.payload(), [0b0100_0000, 0b0000_0001]);
        assert!(filter.may_have(&Sha256(digest)));
        digest[7] = 14;
        assert!(!filter.may_have(&Sha256(digest)));
    }

    #[test]
    fn what_was_put_in_is_found_and_little_else() {
        let mut filter = Presence::with_capacity(2000);
        (0..2000).for_each(|n| filter.insert(&sha(n)));
        assert!((0..2000).all(|n| filter.may_have(&sha(n))));
        let wrong = (2000..12_000).filter(|n| filter.may_have(&sha(*n))).count();
        assert!(wrong < 200, "{wrong}");
    }

    #[test]
    fn two_payloads_mean_all_and_nothing() {
        let all = Presence::parse(7, vec![0xff]).unwrap();
        let none = Presence::parse(7, vec![0x00]).unwrap();
        assert!((0..100).all(|n| all.may_have(&sha(n)) && !none.may_have(&sha(n))));
        assert!(Presence::ask_and_see().may_have(&sha(1)) && !Presence::nothing().may_have(&sha(1)));
    }

    #[test]
    fn limits_hold() {
        assert_eq!(Presence::with_capacity(usize::MAX).payload().len(), FILTER_BYTES_MAX);
        assert_eq!(Presence::with_capacity(usize::MAX).k_value(), 1);
        assert_eq!(Presence::with_capacity(0).k_value(), K_BEST);
        assert!(Presence::parse(1, vec![0; FILTER_BYTES_MAX]).is_ok());
        assert_eq!(Presence::parse(1, vec![0; FILTER_BYTES_MAX + 1]), Err(BadFilter));
        assert_eq!(Presence::parse(1, vec![]), Err(BadFilter));
        assert!(Presence::parse(8, vec![0]).is_ok());
        assert_eq!(Presence::parse(9, vec![0]), Err(BadFilter));
        assert_eq!(Presence::parse(0, vec![0]), Err(BadFilter));
        assert_eq!(Presence::parse(256 + 1, vec![0]), Err(BadFilter));
    }
}
