//! CPace-ristretto255-SHA512 (draft-irtf-cfrg-cpace) in its initiator-responder mode: two sides that know the same
//! short secret make a strong one, and one that does not know it gets one guess for each run. What is bound
//! to a run is decided by the caller; the four functions named after the protocol's inputs say what (protocol §3, §5).

use alloc::vec::Vec;
use core::fmt;

use curve25519_dalek::ristretto::{CompressedRistretto, RistrettoPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::IsIdentity;
use ring::digest;
use zeroize::{Zeroize, Zeroizing};

use crate::ids::AccessId;
use crate::rng::Rng;

/// Length of a public element in bytes.
pub const ELEMENT_LEN: usize = 32;
/// Length of the shared secret (the draft's ISK) in bytes.
pub const SECRET_LEN: usize = 64;

/// The draft's domain separation for this group.
const DSI: &[u8] = b"CPaceRistretto255";
const DSI_ISK: &[u8] = b"CPaceRistretto255_ISK";
/// SHA-512's input block, which the password is padded to so that hashing it takes one block of its own.
const HASH_BLOCK_LEN: usize = 128;

/// The side that opens a run, between its element and the other's.
pub struct CpaceInitiator {
    scalar: Zeroizing<Scalar>,
    element: [u8; ELEMENT_LEN],
    sid: Vec<u8>,
}

impl CpaceInitiator {
    /// Opens a run. Returns what is kept and the element that goes to the other side.
    pub fn start(prs: &[u8], ci: &[u8], sid: &[u8], rng: &mut Rng) -> (CpaceInitiator, [u8; ELEMENT_LEN]) {
        CpaceInitiator::with_scalar(prs, ci, sid, random_scalar(rng))
    }

    fn with_scalar(
        prs: &[u8],
        ci: &[u8],
        sid: &[u8],
        scalar: Zeroizing<Scalar>,
    ) -> (CpaceInitiator, [u8; ELEMENT_LEN]) {
        let element = (generator(prs, ci, sid) * *scalar).compress().to_bytes();
        (CpaceInitiator { scalar, element, sid: sid.to_vec() }, element)
    }

    /// Ends the run with the other side's element; `None` if it is no element or the identity.
    pub fn finish(self, ad_a: &[u8], yb: &[u8], ad_b: &[u8]) -> Option<[u8; SECRET_LEN]> {
        let shared = shared_point(yb, &self.scalar)?;
        Some(shared_secret(&self.sid, &shared, &self.element, ad_a, yb, ad_b))
    }
}

impl fmt::Debug for CpaceInitiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CpaceInitiator(..)")
    }
}

/// Answers a run: the element that goes back, and the secret. `None` if `ya` is no element or the identity.
pub fn respond(
    prs: &[u8],
    ci: &[u8],
    sid: &[u8],
    ad_b: &[u8],
    ya: &[u8],
    ad_a: &[u8],
    rng: &mut Rng,
) -> Option<([u8; ELEMENT_LEN], [u8; SECRET_LEN])> {
    respond_with_scalar(prs, ci, sid, ad_b, ya, ad_a, &random_scalar(rng))
}

fn respond_with_scalar(
    prs: &[u8],
    ci: &[u8],
    sid: &[u8],
    ad_b: &[u8],
    ya: &[u8],
    ad_a: &[u8],
    scalar: &Scalar,
) -> Option<([u8; ELEMENT_LEN], [u8; SECRET_LEN])> {
    let yb = (generator(prs, ci, sid) * scalar).compress().to_bytes();
    let shared = shared_point(ya, scalar)?;
    Some((yb, shared_secret(sid, &shared, ya, ad_a, &yb, ad_b)))
}

/// An element that nobody can tell from a real one, for an ID that is not served here (protocol §5). Where the time
/// matters too, call [`respond`] with a random `prs` instead and drop the secret.
pub fn honest_element(rng: &mut Rng) -> [u8; ELEMENT_LEN] {
    RistrettoPoint::from_uniform_bytes(&rng.bytes()).compress().to_bytes()
}

/// Joins byte strings, each behind its length in LEB128: the `lv` of the protocol and of the draft.
pub fn lv(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(parts.iter().map(|part| part.len() + 10).sum());
    for part in parts {
        let mut len = part.len();
        while len >= 0x80 {
            out.push(len as u8 | 0x80);
            len >>= 7;
        }
        out.push(len as u8);
        out.extend_from_slice(part);
    }
    out
}

/// The PRS of a generated code: from its password half.
pub fn code_prs(password: &[u8; 8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(lv(&[b"clearskies-code-2", password]))
}

/// The CI of a run by code: from the access ID and the TLS exporter, which is also the sid.
pub fn join_ci(access_id: &AccessId, exporter: &[u8; 32]) -> Vec<u8> {
    lv(&[b"clearskies/2/join", &access_id.0, exporter])
}

/// The client's associated data: its hello up to but without the PAKE length.
pub fn client_ad(hello_head: &[u8]) -> Vec<u8> {
    lv(&[b"A", hello_head])
}

/// The server's associated data: its challenge up to but without the PAKE length.
pub fn server_ad(challenge_head: &[u8]) -> Vec<u8> {
    lv(&[b"B", challenge_head])
}

fn random_scalar(rng: &mut Rng) -> Zeroizing<Scalar> {
    let wide = Zeroizing::new(rng.bytes::<64>());
    Zeroizing::new(Scalar::from_bytes_mod_order_wide(&wide))
}

fn generator_string(prs: &[u8], ci: &[u8], sid: &[u8]) -> Zeroizing<Vec<u8>> {
    let head = lv(&[DSI, prs]).len();
    let padding = [0u8; HASH_BLOCK_LEN];
    let padding = &padding[..(HASH_BLOCK_LEN - 1).saturating_sub(head)];
    Zeroizing::new(lv(&[DSI, prs, padding, ci, sid]))
}

fn generator(prs: &[u8], ci: &[u8], sid: &[u8]) -> RistrettoPoint {
    let hash = digest::digest(&digest::SHA512, &generator_string(prs, ci, sid));
    let mut wide = Zeroizing::new([0u8; 64]);
    wide.copy_from_slice(hash.as_ref());
    RistrettoPoint::from_uniform_bytes(&wide)
}

fn shared_point(other: &[u8], scalar: &Scalar) -> Option<Zeroizing<[u8; ELEMENT_LEN]>> {
    let point = CompressedRistretto::from_slice(other).ok()?.decompress()?;
    if point.is_identity() {
        return None;
    }
    let mut shared = point * scalar;
    // A scalar of zero, which is out of reach by chance.
    if shared.is_identity() {
        return None;
    }
    let bytes = Zeroizing::new(shared.compress().to_bytes());
    shared.zeroize();
    Some(bytes)
}

fn shared_secret(
    sid: &[u8],
    shared: &[u8; ELEMENT_LEN],
    ya: &[u8],
    ad_a: &[u8],
    yb: &[u8],
    ad_b: &[u8],
) -> [u8; SECRET_LEN] {
    let input = Zeroizing::new(lv(&[DSI_ISK, sid, shared, ya, ad_a, yb, ad_b]));
    let mut secret = [0u8; SECRET_LEN];
    secret.copy_from_slice(digest::digest(&digest::SHA512, &input).as_ref());
    secret
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec;
    use chacha20::ChaCha20Rng;
    use chacha20::rand_core::{CryptoRng, SeedableRng};
    use data_encoding::HEXLOWER;
    use pakery_core::PakeError;
    use pakery_core::crypto::{CpaceGroup, Hash};
    use pakery_cpace::{CpaceCiphersuite, CpaceMode, CpaceResponder};

    fn hex(text: &str) -> Vec<u8> {
        HEXLOWER.decode(text.as_bytes()).unwrap()
    }

    fn scalar(text: &str) -> Scalar {
        Scalar::from_canonical_bytes(hex(text).try_into().unwrap()).unwrap()
    }

    const CI: &[u8] = b"\x0bA_initiator\x0bB_responder";
    const SID: &str = "7e4b4791d6a8ef019b936c79fb7f2c57";

    /// The draft's appendix "Test vector for CPace using group ristretto255 and hash SHA-512".
    #[test]
    fn vectors_of_the_draft() {
        let sid = hex(SID);
        assert_eq!(generator_string(b"Password", CI, &sid).len(), 170);
        assert_eq!(
            HEXLOWER.encode(generator(b"Password", CI, &sid).compress().as_bytes()),
            "222b6b195fe84b1652badb6f6a3ae3d24341e7306967f0b8115b40d5698c7e56"
        );
        let ya_scalar = scalar("da3d23700a9e5699258aef94dc060dfda5ebb61f02a5ea77fad53f4ff0976d08");
        let yb_scalar = scalar("d2316b454718c35362d83d69df6320f38578ed5984651435e2949762d900b80d");
        let (a, ya) = CpaceInitiator::with_scalar(b"Password", CI, &sid, Zeroizing::new(ya_scalar));
        assert_eq!(HEXLOWER.encode(&ya), "d6bac480f2c386c394efc7c47adb9925dcd2630b64f240c50f8d0eec482b9157");
        let (yb, of_b) = respond_with_scalar(b"Password", CI, &sid, b"ADb", &ya, b"ADa", &yb_scalar).unwrap();
        assert_eq!(HEXLOWER.encode(&yb), "3ea7e0b19560d7c0b0f5734f63b955286dfa8232b5ebe63324e2d9e7433f7258");
        assert_eq!(
            HEXLOWER.encode(&*shared_point(&yb, &ya_scalar).unwrap()),
            "80b69a8a76457ab6a4d7f887a4bf6b55a2f80ac19c333f917a05fc9887c8b40f"
        );
        assert_eq!(
            HEXLOWER.encode(&of_b),
            "b69effbf61b51d56401c0f65601abe428de8206feaaf0e32198896dcae7b35cd\
             2b38950a39dfd5d4a79164614c2984f7daa460b588c1e80c3fa2068af7900447"
        );
        assert_eq!(a.finish(b"ADa", &yb, b"ADb").unwrap(), of_b);
    }

    #[test]
    fn lv_is_the_drafts_prepend_len() {
        assert_eq!(lv(&[b"1234", b"5", b"", b"678"]), hex("043132333401350003363738"));
        assert_eq!(lv(&[&[7; 127]])[0], 127);
        assert_eq!(lv(&[&[7; 128]])[..2], [0x80, 0x01]);
        assert_eq!(lv(&[&vec![7; 16384]])[..3], [0x80, 0x80, 0x01]);
    }

    #[test]
    fn elements_that_are_none_are_refused() {
        let mut rng = Rng::from_seed([5; 32]);
        let good = honest_element(&mut rng);
        // The last two: not canonical, and a negative field element.
        let mut negative = [0u8; 32];
        negative[0] = 1;
        for bad in [&[0u8; 32][..], &good[..31], &[&good[..], &[0]].concat(), &[0xff; 32], &negative] {
            assert!(respond(b"p", b"c", b"s", b"", bad, b"", &mut rng).is_none());
            let (a, _) = CpaceInitiator::start(b"p", b"c", b"s", &mut rng);
            assert!(a.finish(b"", bad, b"").is_none());
        }
        assert!(respond(b"p", b"c", b"s", b"", &good, b"", &mut rng).is_some());
    }

    #[test]
    fn every_input_is_bound() {
        let run = |prs: &[u8], ci: &[u8], sid: &[u8], ad_a: &[u8], ad_b: &[u8]| {
            let mut rng = Rng::from_seed([6; 32]);
            let (a, ya) = CpaceInitiator::start(b"password", b"ci", b"sid", &mut rng);
            let (yb, of_b) = respond(prs, ci, sid, ad_b, &ya, ad_a, &mut rng).unwrap();
            a.finish(b"A", &yb, b"B").unwrap() == of_b
        };
        assert!(run(b"password", b"ci", b"sid", b"A", b"B"));
        assert!(!run(b"passwore", b"ci", b"sid", b"A", b"B"));
        assert!(!run(b"password", b"cj", b"sid", b"A", b"B"));
        assert!(!run(b"password", b"ci", b"sie", b"A", b"B"));
        assert!(!run(b"password", b"ci", b"sid", b"X", b"B"));
        assert!(!run(b"password", b"ci", b"sid", b"A", b"X"));
        assert!(!run(b"password", b"ci", b"sid", b"AB", b""));
    }

    #[test]
    fn the_binding_is_known() {
        let prs = code_prs(&[8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!(HEXLOWER.encode(&prs), "11636c656172736b6965732d636f64652d320808090a0b0c0d0e0f");
        let ci = join_ci(&AccessId([1; 32]), &[2; 32]);
        assert_eq!(ci, [&b"\x11clearskies/2/join\x20"[..], &[1; 32], &[32], &[2; 32]].concat());
        assert_eq!(client_ad(b"hello"), b"\x01A\x05hello");
        assert_eq!(server_ad(b"challenge"), b"\x01B\x09challenge");
    }

    #[test]
    fn debug_shows_nothing() {
        let (a, _) = CpaceInitiator::start(b"password", b"", b"", &mut Rng::from_seed([6; 32]));
        assert_eq!(format!("{a:?}"), "CpaceInitiator(..)");
    }

    /// The oracle's group and hash; it brings only the protocol itself.
    #[derive(Clone, PartialEq)]
    struct Group(RistrettoPoint);

    impl CpaceGroup for Group {
        type Scalar = Scalar;

        fn scalar_mul(&self, scalar: &Scalar) -> Self {
            Group(self.0 * scalar)
        }
        fn is_identity(&self) -> bool {
            self.0.is_identity()
        }
        fn to_bytes(&self) -> Vec<u8> {
            self.0.compress().to_bytes().to_vec()
        }
        fn from_bytes(bytes: &[u8]) -> Result<Self, PakeError> {
            let compressed = CompressedRistretto::from_slice(bytes).map_err(|_| PakeError::InvalidPoint)?;
            compressed.decompress().map(Group).ok_or(PakeError::InvalidPoint)
        }
        fn from_uniform_bytes(bytes: &[u8]) -> Result<Self, PakeError> {
            let wide = bytes.try_into().map_err(|_| PakeError::InvalidPoint)?;
            Ok(Group(RistrettoPoint::from_uniform_bytes(wide)))
        }
        fn random_scalar(rng: &mut impl CryptoRng) -> Scalar {
            let mut wide = [0u8; 64];
            rng.fill_bytes(&mut wide);
            Scalar::from_bytes_mod_order_wide(&wide)
        }
        fn add(&self, other: &Self) -> Self {
            Group(self.0 + other.0)
        }
        fn negate(&self) -> Self {
            Group(-self.0)
        }
        fn basepoint_mul(scalar: &Scalar) -> Self {
            Group(RistrettoPoint::mul_base(scalar))
        }
        fn scalar_from_wide_bytes(bytes: &[u8]) -> Result<Scalar, PakeError> {
            let wide = bytes.try_into().map_err(|_| PakeError::InvalidPoint)?;
            Ok(Scalar::from_bytes_mod_order_wide(wide))
        }
        fn scalar_to_bytes(scalar: &Scalar) -> Vec<u8> {
            scalar.to_bytes().to_vec()
        }
    }

    #[derive(Clone)]
    struct Sha512(digest::Context);

    impl Hash for Sha512 {
        const OUTPUT_SIZE: usize = 64;

        fn new() -> Self {
            Sha512(digest::Context::new(&digest::SHA512))
        }
        fn update(&mut self, data: &[u8]) {
            self.0.update(data);
        }
        fn finalize(self) -> Vec<u8> {
            self.0.finish().as_ref().to_vec()
        }
    }

    struct Suite;

    impl CpaceCiphersuite for Suite {
        type Group = Group;
        type Hash = Sha512;
        const DSI: &'static [u8] = b"CPaceRistretto255";
        const HASH_BLOCK_SIZE: usize = 128;
        const FIELD_SIZE_BYTES: usize = 32;
    }

    #[test]
    fn an_independent_implementation_agrees_in_both_directions() {
        // Lengths around the password padding, which ends at 108 bytes, and around one-byte LEB128.
        for len in [0, 1, 8, 32, 107, 108, 109, 127, 128, 300] {
            let (prs, ci, sid) = (vec![1; len], vec![2; len], vec![3; len]);
            let (ad_a, ad_b) = (vec![4; len], vec![5; len]);
            let mut rng = Rng::from_seed([len as u8; 32]);
            let mut theirs = ChaCha20Rng::from_seed([9; 32]);

            let (a, ya) = CpaceInitiator::start(&prs, &ci, &sid, &mut rng);
            let mode = CpaceMode::InitiatorResponder;
            let (yb, out) =
                CpaceResponder::<Suite>::respond(&ya, &prs, &ci, &sid, &ad_a, &ad_b, mode, &mut theirs)
                    .unwrap();
            assert_eq!(a.finish(&ad_a, &yb, &ad_b).unwrap(), out.isk.as_bytes());

            let (ya, state) =
                pakery_cpace::CpaceInitiator::<Suite>::start(&prs, &ci, &sid, &ad_a, &mut theirs).unwrap();
            let (yb, secret) = respond(&prs, &ci, &sid, &ad_b, &ya, &ad_a, &mut rng).unwrap();
            let out = state.finish(&yb, &ad_b, CpaceMode::InitiatorResponder).unwrap();
            assert_eq!(out.isk.as_bytes(), secret);
        }
    }
}
