//! Temps: what is being received, before it has its place.

use clearskies_core::files::path::RelPath;
use clearskies_core::files::rsync::{Command, Commands};
use clearskies_core::ids::{RootId, TempId};
use clearskies_core::io::disk::{DiskDone, DiskError, MODE_BITS, Stage, StageContent, Staged, Stamp};

use super::super::fs::{Body, UMASK, digest};
use super::SimDisk;

/// A name in the directory for temps that no temp has: where it is gone, somebody else emptied the directory.
const MARK: &str = "mark";

/// How many of the names in a directory for temps are temps.
pub fn count_temps(names: &[String]) -> usize {
    names.iter().filter(|name| *name != MARK).count()
}

impl SimDisk {
    pub(super) fn stage(&mut self, dir: u64, file: Stage) -> Result<Staged, DiskError> {
        let temps = self.make_temps_dir(dir)?;
        let name = temp_name(file.temp);
        let (body, sha256, is_link) = match file.content {
            StageContent::File(bytes) => {
                let sha256 = digest(&bytes);
                (file_body(bytes), sha256, false)
            }
            StageContent::Link(target) => {
                let sha256 = digest(target.as_bytes());
                (Body::Link(target.into_bytes()), sha256, true)
            }
            StageContent::Copy { from, stamp } => {
                self.fail("stage", Some(&from))?;
                let inode = self.fs.resolve(dir, &from)?;
                self.expect(inode, &stamp)?;
                let data = self.fs.data(inode)?;
                let sha256 = self.fs.sha256(inode)?;
                (Body::File { data, sha256: Some(sha256), flushed: false }, sha256, false)
            }
        };
        if self.fs.child(temps, &name).is_ok() {
            self.fs.remove(temps, &name)?;
        }
        let mode = if is_link { 0o777 } else { file.mode.unwrap_or(0o666 & !UMASK) & MODE_BITS };
        let inode = self.fs.make(body, mode)?;
        self.fs.attach(temps, &name, inode)?;
        self.fs.set_meta(inode, None, file.mtime_ns);
        Ok(Staged { sha256, stamp: self.fs.stamp(inode) })
    }

    pub(super) fn open_temp(&mut self, root: RootId, dir: u64, temp: TempId) -> Result<DiskDone, DiskError> {
        let temps = self.make_temps_dir(dir)?;
        let name = temp_name(temp);
        let existing = match self.fs.child(temps, &name) {
            Ok(inode) => self.fs.data(inode)?.len() as u64,
            Err(_) => {
                let inode = self.fs.make(file_body(Vec::new()), 0o600)?;
                self.fs.attach(temps, &name, inode)?;
                0
            }
        };
        self.open(root)?.temps.insert(temp);
        Ok(DiskDone::TempOpened { existing })
    }

    pub(super) fn temp_open(&mut self, root: RootId, dir: u64, temp: TempId) -> Result<u64, DiskError> {
        if !self.open(root)?.temps.contains(&temp) {
            return Err(DiskError::NotFound);
        }
        self.fs.child(self.temps_dir(dir)?, &temp_name(temp))
    }

    /// What a delta makes out of a file.
    pub(super) fn patched(
        &mut self,
        dir: u64,
        from: &RelPath,
        stamp: Stamp,
        delta: &[u8],
    ) -> Result<Vec<u8>, DiskError> {
        self.fail("patch_temp", Some(from))?;
        let inode = self.fs.resolve(dir, from)?;
        self.expect(inode, &stamp)?;
        let old = self.fs.data(inode)?;
        let mut made = Vec::new();
        for command in Commands::of(delta) {
            match command.map_err(|_| DiskError::Io)? {
                Command::Literal(range) => made.extend_from_slice(&delta[range]),
                Command::Copy { from, len } => {
                    let piece = old.get(from as usize..(from + len) as usize).ok_or(DiskError::Changed)?;
                    made.extend_from_slice(piece);
                }
            }
        }
        Ok(made)
    }

    pub(super) fn has_temp(&self, dir: u64, temp: TempId) -> bool {
        self.temps_dir(dir).is_ok_and(|temps| self.fs.child(temps, &temp_name(temp)).is_ok())
    }

    /// Makes the mark in the directory for temps; whether it was missing.
    pub(super) fn mark_temps(&mut self, dir: u64) -> Result<bool, DiskError> {
        let Ok(temps) = self.temps_dir(dir) else { return Ok(true) };
        let missing = self.fs.child(temps, MARK.as_bytes()).is_err();
        if missing {
            let mark = self.fs.make(file_body(Vec::new()), 0o600)?;
            self.fs.attach(temps, MARK.as_bytes(), mark)?;
        }
        Ok(missing)
    }

    pub(super) fn remove_temps(
        &mut self,
        root: RootId,
        dir: u64,
        gone: impl Fn(TempId) -> bool,
    ) -> Result<(), DiskError> {
        let Ok(temps) = self.temps_dir(dir) else { return Ok(()) };
        for name in self.fs.list(temps)? {
            if name != MARK.as_bytes() && temp_id(&name).is_none_or(&gone) {
                self.fs.remove(temps, &name)?;
            }
        }
        self.open(root)?.temps.retain(|temp| !gone(*temp));
        Ok(())
    }
}

/// A new file that is not flushed.
pub(super) fn file_body(bytes: Vec<u8>) -> Body {
    Body::File { data: bytes.into(), sha256: None, flushed: false }
}

pub(super) fn temp_name(temp: TempId) -> Vec<u8> {
    format!("{:016x}", temp.0).into_bytes()
}

fn temp_id(name: &[u8]) -> Option<TempId> {
    u64::from_str_radix(std::str::from_utf8(name).ok()?, 16).ok().map(TempId)
}
