//! Signatures and deltas are those of librsync: its program `rdiff` reads ours, and we read its. Where it is not
//! installed the tests say so and pass (`apt-get install rdiff`).

use std::path::Path;
use std::process::{Command as Program, ExitStatus};

use clearskies_core::files::rsync::{Command, Commands, Head, Signature, is_delta, window_bytes};
use clearskies_host::delta;

const BLOCK: u32 = 2048;

fn rdiff(dir: &Path, words: &[&str]) -> Option<ExitStatus> {
    match Program::new("rdiff").args(words).current_dir(dir).status() {
        Ok(status) => Some(status),
        Err(error) => {
            eprintln!("skipped: there is no rdiff ({error})");
            None
        }
    }
}

/// Bytes of which no two parts are alike.
fn content(size: usize, salt: u32) -> Vec<u8> {
    let words = (0..u32::try_from(size / 4).expect("a size"))
        .map(|n| (n ^ salt).wrapping_mul(2_654_435_761).rotate_left(n % 31).to_le_bytes());
    words.flatten().collect()
}

/// An old content, and one of which some is new, moved, cut and appended.
fn versions() -> (Vec<u8>, Vec<u8>) {
    let old = content(1_000_004, 1);
    let mut new = [&old[500_000..], &old[..400_001], b"the end"].concat();
    new.splice(250_000..250_010, content(9000, 2));
    (old, new)
}

/// A signature as it is sent.
fn signature(old: &[u8]) -> Vec<u8> {
    let head = Head { block: BLOCK, hash: 8 };
    // Made piece by piece, as a large file's is.
    let pieces = old.chunks(64 * BLOCK as usize).flat_map(|piece| delta::sums(piece, head));
    head.encode().into_iter().chain(pieces).collect()
}

fn patched(old: &[u8], delta: &[u8]) -> Vec<u8> {
    let mut made = Vec::new();
    for command in Commands::of(delta) {
        match command.expect("a delta") {
            Command::Literal(range) => made.extend_from_slice(&delta[range]),
            Command::Copy { from, len } => {
                let (from, len) =
                    (usize::try_from(from).expect("small"), usize::try_from(len).expect("small"));
                made.extend_from_slice(&old[from..from + len]);
            }
        }
    }
    made
}

#[test]
fn rdiff_makes_the_signature_that_we_make_and_the_delta_that_we_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let (old, new) = versions();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("old"), &old).expect("written");
    std::fs::write(at("new"), &new).expect("written");
    let block = BLOCK.to_string();
    let words = ["-H", "md4", "-R", "rollsum", "-b", &block, "-S", "8", "signature", "old", "signature"];
    let Some(status) = rdiff(dir.path(), &words) else { return };
    assert!(status.success());
    assert!(std::fs::read(at("signature")).expect("read") == signature(&old));

    std::fs::write(at("ours"), signature(&old)).expect("written");
    assert!(rdiff(dir.path(), &["delta", "ours", "new", "delta"]).is_some_and(|status| status.success()));
    let delta = std::fs::read(at("delta")).expect("read");
    assert!(is_delta(&delta, old.len() as u64, new.len() as u64));
    assert!(patched(&old, &delta) == new);
    assert!(delta.len() < 30_000);
}

#[test]
fn rdiff_patches_with_what_we_make_of_its_signature() {
    let dir = tempfile::tempdir().expect("a folder");
    let (old, new) = versions();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("old"), &old).expect("written");
    let block = BLOCK.to_string();
    for hash in ["8", "16"] {
        let words =
            ["-f", "-H", "md4", "-R", "rollsum", "-b", &block, "-S", hash, "signature", "old", "theirs"];
        let Some(status) = rdiff(dir.path(), &words) else { return };
        assert!(status.success());
        let theirs = Signature::of(std::fs::read(at("theirs")).expect("read")).expect("a signature");
        let window = usize::try_from(window_bytes(BLOCK)).expect("small").min(100_000);
        let (mut from, mut expected, mut made, mut sent) = (0, 0, Vec::new(), 0);
        while from < new.len() {
            let end = new.len().min(from + window);
            let piece = delta::delta(&new[from..end], end == new.len(), expected, &theirs);
            std::fs::write(at("delta"), &piece.delta).expect("written");
            let status = rdiff(dir.path(), &["-f", "patch", "old", "delta", "piece"]);
            assert!(status.is_some_and(|status| status.success()));
            made.extend(std::fs::read(at("piece")).expect("read"));
            (from, expected) = (from + piece.len, piece.next);
            sent += piece.delta.len();
        }
        assert!(made == new);
        assert!(sent < 30_000, "{sent} bytes");
    }
}
