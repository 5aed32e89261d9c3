//! The archive of a share.

use clearskies_core::files::path::RelPath;
use clearskies_core::io::disk::{Archived, DiskDone, DiskError, Hashed, Kind, Stamp};

use super::super::fs::UMASK;
use super::PRIVATE;
use super::SimDisk;

impl SimDisk {
    fn archive_dir(&self, dir: u64) -> Option<u64> {
        self.fs.resolve_names(dir, &[PRIVATE, b"archive"]).ok()
    }

    pub(super) fn list_archive(&self, dir: u64, limit: u32) -> Vec<Archived> {
        let mut found = Vec::new();
        let Some(archive) = self.archive_dir(dir) else { return found };
        let folders = self.fs.list(archive).unwrap_or_default();
        for name in folders.into_iter().rev() {
            let Ok(folder) = self.fs.child(archive, &name) else { continue };
            let name = String::from_utf8_lossy(&name).into_owned();
            self.collect(folder, &RelPath::root(), &mut |path, stamp| {
                found.push(Archived { folder: name.clone(), path, stamp });
            });
        }
        found.truncate(limit as usize);
        found
    }

    /// Names every file and link beneath a directory, in preorder.
    pub(in super::super) fn collect(&self, dir: u64, path: &RelPath, each: &mut impl FnMut(RelPath, Stamp)) {
        for name in self.fs.list(dir).unwrap_or_default() {
            let Some(path) = std::str::from_utf8(&name).ok().and_then(|name| path.join(name)) else {
                continue;
            };
            let Ok(inode) = self.fs.child(dir, &name) else { continue };
            match self.fs.stamp(inode) {
                stamp if stamp.kind == Kind::Dir => self.collect(inode, &path, each),
                stamp => each(path, stamp),
            }
        }
    }

    pub(super) fn restore(
        &mut self,
        dir: u64,
        folder: &str,
        path: &RelPath,
        to: &RelPath,
    ) -> Result<Stamp, DiskError> {
        self.fail("restore", Some(to))?;
        let archive = self.archive_dir(dir).ok_or(DiskError::NotFound)?;
        let source = self.fs.resolve(self.fs.child(archive, folder.as_bytes())?, path)?;
        let node = self.fs.node(source).clone();
        let parent = self.directory_for(dir, to)?;
        if self.fs.child(parent, to.name().as_bytes()).is_ok() {
            return Err(DiskError::Exists);
        }
        let inode = self.fs.make(node.body, node.mode)?;
        self.fs.attach(parent, to.name().as_bytes(), inode)?;
        self.done(parent, to.name().as_bytes());
        Ok(self.fs.stamp(inode))
    }

    /// The directory that a path beneath `dir` gets, made where it is missing.
    fn directory_for(&mut self, mut dir: u64, path: &RelPath) -> Result<u64, DiskError> {
        let above = path.parent().ok_or(DiskError::Denied)?;
        for name in above.components() {
            let (inode, made) = self.fs.make_dir(dir, name.as_bytes(), 0o777 & !UMASK)?;
            if made {
                self.touched(dir, name.as_bytes());
            }
            dir = inode;
        }
        Ok(dir)
    }

    fn archived(&self, dir: u64, folder: &str, path: &RelPath) -> Result<(u64, u64), DiskError> {
        let archive = self.archive_dir(dir).ok_or(DiskError::NotFound)?;
        let place = self.fs.resolve_parent(self.fs.child(archive, folder.as_bytes())?, path)?;
        Ok((place, self.fs.child(place, path.name().as_bytes())?))
    }

    pub(super) fn check_archived(&mut self, dir: u64, file: &Archived) -> Result<Option<Hashed>, DiskError> {
        self.fail("check_archived", Some(&file.path))?;
        let (_, inode) = self.archived(dir, &file.folder, &file.path)?;
        if self.expect(inode, &file.stamp).is_ok() {
            return Ok(None);
        }
        self.hash_inode(inode).map(Some)
    }

    pub(super) fn take_archived(
        &mut self,
        dir: u64,
        folder: &str,
        path: &RelPath,
        to: &RelPath,
    ) -> Result<Stamp, DiskError> {
        self.fail("take_archived", Some(to))?;
        let (place, inode) = self.archived(dir, folder, path)?;
        if self.fs.stamp(inode).kind != Kind::File {
            return Err(DiskError::WrongKind);
        }
        let parent = self.directory_for(dir, to)?;
        self.fs.rename((place, path.name().as_bytes()), (parent, to.name().as_bytes()))?;
        self.done(parent, to.name().as_bytes());
        Ok(self.fs.stamp(inode))
    }

    pub(super) fn prune(&mut self, dir: u64, before: &str) -> Result<DiskDone, DiskError> {
        if let Some(archive) = self.archive_dir(dir) {
            for name in self.fs.list(archive)? {
                if name.as_slice() < before.as_bytes() {
                    self.fs.remove(archive, &name)?;
                }
            }
        }
        Ok(DiskDone::Unit)
    }
}
