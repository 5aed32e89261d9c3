//! Short ways to act on one machine, for tests.

use std::time::Duration;

use clearskies_core::club::level::Level;
use clearskies_core::engine::command::{Command, CommandError, Existing, Reply};

use super::super::disk::SimDisk;
use super::super::users::Tree;
use super::World;

/// One machine of a world, for tests to act on; what cannot be done fails the test.
#[derive(Debug)]
pub struct At<'a> {
    pub(super) world: &'a mut World,
    pub(super) index: usize,
}

impl At<'_> {
    /// Gives a command and waits for its outcome.
    pub fn ask(&mut self, command: Command) -> Result<Reply, CommandError> {
        self.world.ask(self.index, command)
    }

    /// Makes a share of a folder, which is made first where it is missing.
    pub fn share(&mut self, path: &str) {
        self.mkdir(path);
        match self.ask(Command::CreateShare { path: path.into() }) {
            Ok(Reply::Share { .. }) => {}
            other => panic!("n{} cannot share {path}: {other:?}\n{}", self.index, self.world.trace.tail(40)),
        }
    }

    /// Makes a code for read_write.
    pub fn invite(&mut self, path: &str) -> String {
        let valid_for = Some(Duration::from_secs(86_400));
        let invite =
            Command::Invite { path: path.into(), level: Level::ReadWrite, valid_for, multi_use: false };
        match self.ask(invite) {
            Ok(Reply::Code { code, .. }) => code.to_text(),
            other => panic!("n{} makes no code: {other:?}", self.index),
        }
    }

    /// Joins with a code, dialling a machine of the world.
    pub fn attach(
        &mut self,
        code: &str,
        path: &str,
        existing: Existing,
        peer: usize,
    ) -> Result<Reply, CommandError> {
        let peers = vec![self.world.nodes[peer].addr()];
        self.ask(Command::Attach { code: code.into(), path: path.into(), existing, peers })
    }

    /// Changes the disk as a user does, and lets the watcher hear of it.
    pub fn disk<T>(&mut self, change: impl FnOnce(&mut SimDisk, i64) -> T) -> T {
        let wall_ns = self.world.wall_ns(self.index);
        let disk = &mut self.world.nodes[self.index].disk;
        let done = change(disk, wall_ns);
        // What a user did counts as safe: losing it in a power cut would not be the engine's doing.
        disk.fs.sync_names();
        self.world.gather_hints(self.index);
        done
    }

    fn user(
        &mut self,
        what: &str,
        change: impl FnOnce(&mut SimDisk, i64) -> Result<(), clearskies_core::io::DiskError>,
    ) {
        self.world.note(format_args!("n{} user: {what}", self.index));
        if let Err(error) = self.disk(change) {
            panic!("n{} user: {what}: {error:?}", self.index);
        }
    }

    /// Writes a file.
    pub fn write(&mut self, path: &str, content: &[u8]) {
        self.user(&format!("writes {path}"), |disk, at| disk.write(at, path, content));
    }

    /// Opens a file, as [`SimDisk::open_file`].
    pub fn open_file(&mut self, path: &str) -> u64 {
        let index = self.index;
        self.disk(|disk, _| disk.open_file(path))
            .unwrap_or_else(|error| panic!("n{index} opens {path}: {error:?}"))
    }

    /// Writes to a file that was opened.
    pub fn write_open(&mut self, inode: u64, content: &[u8]) {
        self.user(&format!("writes to open file {inode}"), |disk, at| disk.write_open(at, inode, content));
    }

    /// Saves a file as editors do.
    pub fn save(&mut self, path: &str, content: &[u8]) {
        self.user(&format!("saves {path}"), |disk, at| disk.save(at, path, content));
    }

    /// Appends to a file.
    pub fn append(&mut self, path: &str, content: &[u8]) {
        self.user(&format!("appends to {path}"), |disk, at| disk.append(at, path, content));
    }

    /// Makes a directory with its parents.
    pub fn mkdir(&mut self, path: &str) {
        self.user(&format!("makes {path}"), |disk, at| disk.mkdir(at, path));
    }

    /// Removes whatever is there.
    pub fn remove(&mut self, path: &str) {
        self.user(&format!("removes {path}"), |disk, at| disk.remove_path(at, path));
    }

    /// Renames.
    pub fn rename(&mut self, from: &str, to: &str) {
        self.user(&format!("renames {from} to {to}"), |disk, at| disk.rename_path(at, from, to));
    }

    /// Sets permission bits.
    pub fn chmod(&mut self, path: &str, mode: u32) {
        self.user(&format!("chmods {path} {mode:o}"), |disk, at| disk.chmod(at, path, mode));
    }

    /// Makes a link.
    pub fn symlink(&mut self, path: &str, target: &str) {
        self.user(&format!("links {path}"), |disk, at| disk.symlink(at, path, target));
    }

    /// A folder's tree.
    pub fn tree(&self, path: &str) -> Tree {
        self.world.nodes[self.index].disk.tree(path)
    }

    /// A file's bytes.
    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.world.nodes[self.index].disk.read_file(path)
    }

    /// What the archive of a share keeps.
    pub fn archive(&self, path: &str) -> Vec<(String, Vec<u8>)> {
        self.world.nodes[self.index].disk.archive(path)
    }
}
