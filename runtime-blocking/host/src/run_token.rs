//! The file beside the store that tells whether the store is the one that this node last wrote (protocol §7).
//!
//! Four lines: a name with a version, the token in hex, the machine's boot, and `running` or `clean`. Replaced
//! atomically and synced at each start, once the store has the token, and once more at a clean end.

use std::io;
use std::path::{Path, PathBuf};

use clearskies_core::config::RunToken;
use clearskies_core::ids::Uuid;

use crate::durable;

/// What the file begins with.
const HEADER: &str = "clearskies-run 1";

/// The longest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 512;

/// The kernel's name for this boot; it differs after every restart of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// This run's mark on disk.
#[derive(Debug)]
pub struct RunFile {
    path: PathBuf,
    token: [u8; 16],
    boot: String,
    /// Whether the file is this run's.
    written: bool,
}

/// What the last run left.
struct Last {
    token: [u8; 16],
    boot: String,
    clean: bool,
}

impl RunFile {
    /// Reads what the last run left. `new` names this one.
    ///
    /// # Errors
    /// The file could not be read.
    pub fn open(path: &Path, new: [u8; 16]) -> io::Result<(RunFile, RunToken)> {
        let boot = match durable::read(Path::new(BOOT_ID), 64) {
            Ok(Some(bytes)) => String::from_utf8_lossy(&bytes).trim().to_owned(),
            // Unknown, and so never the same as the last one.
            _ => String::new(),
        };
        Self::open_in_boot(path, new, boot)
    }

    fn open_in_boot(path: &Path, new: [u8; 16], boot: String) -> io::Result<(RunFile, RunToken)> {
        let last = durable::read(path, FILE_BYTES_MAX)?.and_then(|bytes| parse(&bytes));
        let tail_may_be_lost =
            last.as_ref().is_some_and(|last| !last.clean && (boot.is_empty() || last.boot != boot));
        let token = RunToken { found: last.map(|last| last.token), new, tail_may_be_lost };
        Ok((RunFile { path: path.to_owned(), token: new, boot, written: false }, token))
    }

    /// Marks the beginning of this run, durably. To be called once the store has its token. False if the file could not
    /// be replaced, and says what the last run left; why is logged.
    pub fn begin(&mut self) -> bool {
        let written = self.write("running");
        if let Err(error) = &written {
            log::error!("{} cannot be written: {error}", self.path.display());
        }
        self.written |= written.is_ok();
        written.is_ok()
    }

    /// Marks a clean end, if the beginning was marked. To be called after the store was closed and synced.
    ///
    /// # Errors
    /// The file could not be replaced; the next start then takes this end for a crash, which is safe.
    pub fn end(self) -> io::Result<()> {
        if self.written { self.write("clean") } else { Ok(()) }
    }

    fn write(&self, state: &str) -> io::Result<()> {
        let token = Uuid(self.token).to_hex();
        durable::replace(&self.path, format!("{HEADER}\n{token}\n{}\n{state}\n", self.boot).as_bytes())
    }
}

/// `None` for anything that was not written by [`RunFile::write`].
fn parse(bytes: &[u8]) -> Option<Last> {
    let mut lines = std::str::from_utf8(bytes).ok()?.split('\n');
    if lines.next()? != HEADER {
        return None;
    }
    let token = Uuid::from_hex(lines.next()?)?.0;
    let boot = lines.next()?.to_owned();
    let clean = match lines.next()? {
        "clean" => true,
        "running" => false,
        _ => return None,
    };
    Some(Last { token, boot, clean })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, new: u8, boot: &str) -> (RunFile, RunToken) {
        RunFile::open_in_boot(path, [new; 16], boot.to_owned()).unwrap()
    }

    fn begin(path: &Path, new: u8, boot: &str) -> (RunFile, RunToken) {
        let (mut file, token) = open(path, new, boot);
        assert!(file.begin());
        (file, token)
    }

    #[test]
    fn tells_how_the_last_run_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let (file, token) = begin(&path, 1, "a");
        assert_eq!(token, RunToken { found: None, new: [1; 16], tail_may_be_lost: false });
        drop(file); // A crash of the process alone loses nothing of the store.
        let (file, token) = begin(&path, 2, "a");
        assert_eq!(token, RunToken { found: Some([1; 16]), new: [2; 16], tail_may_be_lost: false });
        drop(file);
        let (file, token) = begin(&path, 3, "b");
        assert!(token.tail_may_be_lost);
        file.end().unwrap();
        let (file, token) = begin(&path, 4, "c");
        assert_eq!(token, RunToken { found: Some([3; 16]), new: [4; 16], tail_may_be_lost: false });
        drop(file);
        let (_, token) = begin(&path, 5, "");
        assert!(token.tail_may_be_lost, "an unknown boot counts as another one");
    }

    #[test]
    fn says_what_the_last_run_left_until_this_one_has_begun() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        drop(begin(&path, 1, "a"));
        let (file, _) = open(&path, 2, "b");
        file.end().unwrap();
        let (_, token) = open(&path, 3, "b");
        assert_eq!(token, RunToken { found: Some([1; 16]), new: [3; 16], tail_may_be_lost: true });
    }

    #[test]
    fn takes_a_damaged_file_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        for bytes in [&b""[..], b"clearskies-run 1\nzz\n", b"\xff\xfe", &[b'a'; 4096]] {
            std::fs::write(&path, bytes).unwrap();
            let (_, token) = RunFile::open(&path, [7; 16]).unwrap();
            assert_eq!(token.found, None);
        }
    }
}
