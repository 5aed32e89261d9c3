//! Tests of deltas: against the library's own, and at their limits.

use clearskies_core::files::rsync::{BLOCK_BYTES_MIN, Command, Commands, is_delta, window_bytes};
use proptest::prelude::*;

use super::*;

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = 2 * seed + 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn signature(old: &[u8], block: u32) -> Signature {
    let head = Head { block, hash: 8 };
    Signature::of([&head.encode()[..], &sums(old, head)].concat()).unwrap()
}

/// All of `new` as deltas, window by window; each with the bytes that it makes.
fn deltas(old: &[u8], new: &[u8], block: u32, window: usize) -> Vec<(Vec<u8>, usize)> {
    let signature = signature(old, block);
    let (mut at, mut expected, mut all) = (0, 0, Vec::new());
    while at < new.len() {
        let end = new.len().min(at + window);
        let piece = delta(&new[at..end], end == new.len(), expected, &signature);
        assert!(piece.len > 0 && is_delta(&piece.delta, old.len() as u64, piece.len as u64));
        (at, expected) = (at + piece.len, piece.next);
        all.push((piece.delta, piece.len));
    }
    all
}

fn patched(old: &[u8], deltas: &[(Vec<u8>, usize)]) -> Vec<u8> {
    let mut made = Vec::new();
    for (delta, _) in deltas {
        for command in Commands::of(delta) {
            match command.unwrap() {
                Command::Literal(range) => made.extend_from_slice(&delta[range]),
                Command::Copy { from, len } => {
                    made.extend_from_slice(&old[from as usize..(from + len) as usize])
                }
            }
        }
    }
    made
}

fn literals(deltas: &[(Vec<u8>, usize)]) -> usize {
    let commands = deltas.iter().flat_map(|(delta, _)| Commands::of(delta));
    let new = |command| if let Ok(Command::Literal(range)) = command { range.len() } else { 0 };
    commands.map(new).sum()
}

#[test]
fn sums_are_the_librarys() {
    let data = noise(1, 5000);
    let head = Head { block: 1024, hash: 8 };
    let ours = [&head.encode()[..], &sums(&data[..2048], head), &sums(&data[2048..], head)].concat();
    assert_eq!(ours, library::signature(&data, head));
    for len in [1, 300, 1024, 5000] {
        let head = Head { block: len as u32, hash: 8 };
        assert_eq!(sums(&data[..len], head)[..4], Rolling::of(&data[..len]).sum().to_be_bytes(), "{len}");
    }
    let mut rolling = Rolling::of(&data[..700]);
    (0..1000).for_each(|at| rolling.roll(data[at], data[at + 700]));
    assert_eq!(rolling.sum(), Rolling::of(&data[1000..1700]).sum());
}

#[test]
fn edits_in_place_insertions_and_appended_bytes_cost_about_themselves() {
    let old = noise(2, 400_000);
    let block = 1024;
    let cost = |new: &[u8]| {
        let all = deltas(&old, new, block, 50_000);
        assert_eq!(patched(&old, &all), new);
        literals(&all)
    };
    assert_eq!(cost(&old), 0);
    let mut edited = old.clone();
    edited[100_000..100_100].fill(0);
    assert!(cost(&edited) <= 2 * block as usize);
    let inserted = [&noise(3, 100)[..], &old].concat();
    // The last block is a short one, which is known in its place alone.
    assert!(cost(&inserted) <= 100 + block as usize);
    assert_eq!(cost(&[&old[..], &noise(4, 5000)].concat()), 5000 + old.len() % 1024);
    assert_eq!(cost(&old[1024..]), 0);
    assert!(cost(&old[100..]) <= 1024);
    assert_eq!(cost(&noise(5, 100_000)), 100_000);
    assert_eq!(cost(&[&old[200 * 1024..300 * 1024], &old[..200 * 1024]].concat()), 0);
}

#[test]
fn a_delta_has_so_many_new_bytes_and_no_more() {
    let max = LITERAL_BYTES_MAX as usize;
    let signature = signature(&noise(16, 10_000), 1024);
    for (len, is_end, taken) in
        [(max, true, max), (max + 1, true, max), (max, false, max - 1023), (max + 2000, false, max)]
    {
        let piece = delta(&noise(7, len), is_end, 0, &signature);
        assert_eq!(piece.len, taken);
    }
}

#[test]
fn sums_that_are_alike_without_end_end() {
    // Zeros have one sum wherever a block begins; the signature has it, with another MD4.
    let head = Head { block: BLOCK_BYTES_MIN, hash: 8 };
    let mut entry = sums(&[0; 256], head);
    entry[4] ^= 1;
    let signature = Signature::of([&head.encode()[..], &entry.repeat(1000)].concat()).unwrap();
    let mut index = Index::of(&signature);
    let zeros = vec![0; 512 * 1024];
    assert_eq!(index.find(&zeros, usize::MAX), (zeros.len() - 255, None));
    assert_eq!(index.missed, MISS_BYTES_MAX + 256);
}

proptest! {
    #[test]
    fn any_delta_makes_what_it_was_made_of(
        pieces in proptest::collection::vec((0..8usize, 0..3000usize, 1..3000usize), 0..8),
        block in 256..700u32,
        window in 0..5000usize,
    ) {
        let old = noise(8, 8000);
        let mut new = Vec::new();
        for (kind, from, len) in pieces {
            match kind {
                0 => new.extend(noise(from as u64, len)),
                1 => new.extend(vec![0; len]),
                _ => new.extend_from_slice(&old[from * 2..(from * 2 + len).min(old.len())]),
            }
        }
        let all = deltas(&old, &new, block, 2 * block as usize + window);
        prop_assert_eq!(&patched(&old, &all), &new);
        // The library's patcher is of the same mind.
        let mut theirs = Vec::new();
        for (delta, _) in &all {
            library::patch(&old, delta, &mut theirs);
        }
        prop_assert_eq!(&theirs, &new);
        prop_assert!(window_bytes(block) >= 2 * u64::from(block));
    }
}
