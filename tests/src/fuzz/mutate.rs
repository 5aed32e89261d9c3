//! Changes corpus files in the ways in which fuzzers do, from a seed: what the replay on a stable toolchain uses in the
//! place of a fuzzer. Sees nothing of what is covered.

use crate::sim::Rng;

/// No changed file is longer, in bytes.
const BYTES_MAX: usize = 16 << 10;

/// Numbers at which limits lie.
const EDGES: [&[u8]; 8] = [
    b"0",
    b"-1",
    b"18446744073709551615",
    b"9223372036854775808",
    b"16777217",
    b"\xff\xff\xff\xff",
    b"\0",
    b"\"\\u0000\"",
];

/// A changed copy of `file`; `other` is another file of the corpus, of which it may take parts.
pub fn mutate(rng: &mut Rng, file: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = file.to_vec();
    for _ in 0..rng.between(1, 6) {
        change(rng, &mut bytes, other);
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

fn change(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    let place = |rng: &mut Rng, len: usize| usize::try_from(rng.below(len as u64)).unwrap_or(0);
    let at = place(rng, bytes.len());
    match rng.below(9) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rng.below(8);
            }
        }
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = rng.number() as u8;
            }
        }
        2 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = byte.wrapping_add(rng.between(1, 4) as u8);
            }
        }
        3 => bytes.insert(at, rng.number() as u8),
        4 => {
            let end = (at + 1 + place(rng, 16)).min(bytes.len());
            bytes.drain(at..end);
        }
        5 => {
            let end = (at + 1 + place(rng, 64)).min(bytes.len());
            let copy = bytes[at..end].to_vec();
            let to = place(rng, bytes.len() + 1);
            bytes.splice(to..to, copy);
        }
        6 => {
            let from = place(rng, other.len());
            let end = (from + 1 + place(rng, 64)).min(other.len());
            bytes.splice(at..at, other[from.min(end)..end].iter().copied());
        }
        7 => {
            let edge = rng.pick(&EDGES).copied().unwrap_or_default();
            bytes.splice(at..at, edge.iter().copied());
        }
        _ => bytes.truncate(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_changes_alike_and_nothing_grows_without_end() {
        let mut file = b"m2{}".to_vec();
        let (mut a, mut b) = (Rng::new(1), Rng::new(1));
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..2000 {
            let changed = mutate(&mut a, &file, b"other");
            assert_eq!(changed, mutate(&mut b, &file, b"other"));
            assert!(changed.len() <= BYTES_MAX);
            if !changed.is_empty() {
                file.clone_from(&changed);
            }
            seen.insert(changed);
        }
        assert!(seen.len() > 1500, "{}", seen.len());
    }
}
