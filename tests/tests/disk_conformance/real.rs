//! The real disk pool as a bench, on a temporary folder.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clearskies_core::ids::Token;
use clearskies_core::io::{DiskDone, DiskError, DiskOp};
use clearskies_host::disk::DiskPool;
use clearskies_host::watch::Inotify;

use crate::Bench;

/// How long one operation may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// A pool and a folder.
pub(crate) struct Real {
    pool: DiskPool,
    done: Receiver<(Token, Result<DiskDone, DiskError>)>,
    next: u64,
    top: tempfile::TempDir,
}

impl Real {
    /// A pool with an empty folder.
    pub(crate) fn new() -> Real {
        let (sender, done) = channel();
        let sender = Mutex::new(sender);
        let watcher = Arc::new(Inotify::new().unwrap());
        let pool = DiskPool::with_watcher(2, Some(watcher), move |token, result| {
            // The bench is gone when its test has failed; nobody waits then.
            let _ = sender.lock().unwrap().send((token, result));
        });
        let pool = pool.unwrap();
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir(top.path().join("share")).unwrap();
        Real { pool, done, next: 0, top }
    }

    fn absolute(&self, path: &str) -> PathBuf {
        let top = self.top.path().canonicalize().unwrap();
        match path.strip_prefix("../") {
            Some(beside) => top.join(beside),
            None => top.join("share").join(path),
        }
    }
}

impl Bench for Real {
    fn run(&mut self, op: DiskOp) -> Result<DiskDone, DiskError> {
        self.next += 1;
        self.pool.submit(Token(self.next), op);
        let (token, result) = self.done.recv_timeout(DEADLINE).expect("each operation is answered");
        assert_eq!(token, Token(self.next));
        result
    }

    fn folder(&self) -> String {
        self.absolute("").to_str().unwrap().trim_end_matches('/').to_owned()
    }

    fn wait(&mut self) {
        // Longer than a tick of the slowest common kernel.
        std::thread::sleep(Duration::from_millis(25));
    }

    fn write(&mut self, path: &str, content: &[u8]) {
        std::fs::write(self.absolute(path), content).unwrap();
    }

    fn mkdir(&mut self, path: &str) {
        std::fs::create_dir_all(self.absolute(path)).unwrap();
    }

    fn symlink(&mut self, path: &str, target: &str) {
        symlink(target, self.absolute(path)).unwrap();
    }

    fn write_raw(&mut self, name: &[u8]) {
        std::fs::write(self.absolute("").join(std::ffi::OsStr::from_bytes(name)), b"").unwrap();
    }

    fn rename(&mut self, from: &str, to: &str) {
        std::fs::rename(self.absolute(from), self.absolute(to)).unwrap();
    }

    fn chmod(&mut self, path: &str, mode: u32) {
        std::fs::set_permissions(self.absolute(path), PermissionsExt::from_mode(mode)).unwrap();
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        let path = self.absolute(path);
        match path.symlink_metadata().ok()? {
            meta if meta.is_symlink() => Some(std::fs::read_link(path).ok()?.as_os_str().as_bytes().to_vec()),
            meta if meta.is_file() => std::fs::read(path).ok(),
            _ => None,
        }
    }

    fn exists(&self, path: &str) -> bool {
        self.absolute(path).symlink_metadata().is_ok()
    }
}
