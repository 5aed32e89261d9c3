//! Ed25519 pairs: a peer's own, and those of a club's levels (protocol §1, §2). Seeds are zeroed when dropped and never
//! printed; nothing here knows what is signed or why.

use core::fmt;

use ring::digest;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use zeroize::Zeroizing;

use crate::ids::PeerId;
use crate::rng::Rng;

/// Length of an Ed25519 signature in bytes.
pub const SIGNATURE_LEN: usize = 64;

/// An Ed25519 pair with the seed that it was made from.
struct Pair {
    seed: Zeroizing<[u8; 32]>,
    pair: Ed25519KeyPair,
    public: [u8; 32],
    /// As [`peer_id`] gives it; it is asked for all the time.
    id: PeerId,
}

impl Pair {
    fn from_seed(seed: &[u8; 32]) -> Pair {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("a seed of 32 bytes is always accepted");
        let mut public = [0u8; 32];
        public.copy_from_slice(pair.public_key().as_ref());
        Pair { seed: Zeroizing::new(*seed), pair, public, id: peer_id(&public) }
    }

    fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        let mut out = [0u8; SIGNATURE_LEN];
        out.copy_from_slice(self.pair.sign(message).as_ref());
        out
    }
}

/// Defines a pair with a role of its own, so that a peer's pair is never taken for a level's.
macro_rules! pair_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name(Pair);

        impl $name {
            /// Makes a new pair.
            pub fn generate(rng: &mut Rng) -> $name {
                let seed = Zeroizing::new(rng.bytes::<32>());
                $name(Pair::from_seed(&seed))
            }

            /// The pair of this RFC 8032 seed.
            pub fn from_seed(seed: &[u8; 32]) -> $name {
                $name(Pair::from_seed(seed))
            }

            /// The secret seed, for the store and for `core.keys`.
            pub fn seed(&self) -> &[u8; 32] {
                &self.0.seed
            }

            /// The public key.
            pub fn public(&self) -> [u8; 32] {
                self.0.public
            }

            /// Signs `message`.
            pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
                self.0.sign(message)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

pair_type!(
    /// A peer's own pair; one per peer and club (protocol §1).
    PeerKeys
);
pair_type!(
    /// The signing pair of a club's level (protocol §2).
    SigningKey
);

impl PeerKeys {
    /// The peer ID that this pair proves.
    pub fn id(&self) -> PeerId {
        self.0.id
    }
}

/// The peer ID of a public key: the first 16 bytes of its SHA-256 (protocol §1).
pub fn peer_id(public: &[u8; 32]) -> PeerId {
    PeerId(sha256_prefix(&[public]))
}

/// Whether `signature` is that of `message` under `public`. Only the canonical form (S < L) counts (protocol §4).
pub fn verify(public: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, public).verify(message, signature).is_ok()
}

/// SHA-256 over the joined parts.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0u8; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// The first 16 bytes of the SHA-256 over the joined parts.
pub(crate) fn sha256_prefix(parts: &[&[u8]]) -> [u8; 16] {
    let mut out = [0u8; 16];
    out.copy_from_slice(&sha256(parts)[..16]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use data_encoding::HEXLOWER;

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap()
    }

    #[test]
    fn rfc_8032_test_2() {
        let keys =
            PeerKeys::from_seed(&hex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"));
        assert_eq!(
            HEXLOWER.encode(&keys.public()),
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
        );
        let signature = keys.sign(&[0x72]);
        assert_eq!(
            HEXLOWER.encode(&signature),
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        );
        assert!(verify(&keys.public(), &[0x72], &signature));
        assert!(!verify(&keys.public(), &[0x73], &signature));
        assert!(!verify(&keys.public(), &[0x72], &signature[..63]));
    }

    #[test]
    fn a_signature_with_s_plus_l_is_refused() {
        let keys = PeerKeys::from_seed(&[9; 32]);
        let mut signature = keys.sign(b"once");
        // L, the order of the group, little-endian.
        let order: [u8; 32] = hex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
        let mut carry = 0u16;
        for (byte, add) in signature[32..].iter_mut().zip(order) {
            carry += u16::from(*byte) + u16::from(add);
            *byte = carry as u8;
            carry >>= 8;
        }
        assert!(!verify(&keys.public(), b"once", &signature));
    }

    #[test]
    fn id_is_the_hash_of_the_public_key() {
        let keys = PeerKeys::from_seed(&[9; 32]);
        let digest = digest::digest(&digest::SHA256, &keys.public());
        assert_eq!(&keys.id().0, &digest.as_ref()[..16]);
        assert_eq!(keys.id(), peer_id(&keys.public()));
        assert_eq!(PeerKeys::from_seed(keys.seed()).id(), keys.id());
    }

    #[test]
    fn debug_shows_no_key() {
        let keys = PeerKeys::generate(&mut Rng::from_seed([3; 32]));
        assert_eq!(format!("{keys:?}"), "PeerKeys(..)");
        assert_eq!(format!("{:?}", SigningKey::from_seed(&[1; 32])), "SigningKey(..)");
    }
}
