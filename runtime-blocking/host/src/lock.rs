//! One node per home: a locked file that names its holder. Says nothing of who may use the home.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// The file's name within the home.
const NAME: &str = "lock";

/// Holds a home until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct HomeLock {
    _file: File,
}

/// Why a home could not be locked.
#[derive(Debug)]
pub enum LockError {
    /// Another process has it.
    Held {
        /// That process, if it said so.
        pid: Option<u32>,
    },
    /// The file could not be opened or locked.
    Io(io::Error),
}

impl std::fmt::Display for LockError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LockError::Held { pid: Some(pid) } => {
                write!(f, "ClearSkies already runs here (process {pid}); stop it first, or use another home")
            }
            LockError::Held { pid: None } => {
                f.write_str("ClearSkies already runs here; stop it first, or use another home")
            }
            LockError::Io(error) => write!(f, "could not lock the home: {error}"),
        }
    }
}

impl std::error::Error for LockError {}

impl HomeLock {
    /// Locks a home, which is an existing directory; does not wait.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn acquire(home: &Path) -> Result<HomeLock, LockError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(home.join(NAME))
            .map_err(LockError::Io)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(LockError::Held { pid: holder(&mut file) }),
            Err(error) => return Err(LockError::Io(error.into())),
        }
        // The number is for people; the lock itself does not depend on it.
        let named = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
        named.map_err(LockError::Io)?;
        Ok(HomeLock { _file: file })
    }
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_second_holder_and_names_the_first() {
        let home = tempfile::tempdir().unwrap();
        let first = HomeLock::acquire(home.path()).unwrap();
        match HomeLock::acquire(home.path()) {
            Err(LockError::Held { pid }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(first);
        HomeLock::acquire(home.path()).unwrap();
    }
}
