//! Changing what users see: installs, directories, renames, removals, permission bits.

use clearskies_core::files::path::RelPath;
use clearskies_core::ids::RootId;
use clearskies_core::io::disk::{DiskError, Install, Kind, MODE_BITS, Made, Remove, SetMeta, Stamp};

use super::super::fs::UMASK;
use super::PRIVATE;
use super::SimDisk;
use super::temps::temp_name;

impl SimDisk {
    pub(super) fn install(&mut self, dir: u64, item: &Install) -> Result<Stamp, DiskError> {
        self.fail("install", Some(&item.path))?;
        let temps = self.temps_dir(dir)?;
        let name = temp_name(item.temp);
        let inode = self.fs.child(temps, &name)?;
        let parent = self.fs.resolve_parent(dir, &item.path)?;
        let place = item.path.name().as_bytes();
        if let Some(stamp) = &item.replaces {
            let old = self.fs.child(parent, place)?;
            self.expect(old, stamp)?;
            if stamp.kind == Kind::File && self.fs.stamp(old).mode != stamp.mode {
                return Err(DiskError::Changed);
            }
            self.put_away(dir, parent, &item.path, item.archive.as_deref())?;
        } else if self.fs.child(parent, place).is_ok() {
            return Err(DiskError::Exists);
        }
        self.fs.rename((temps, &name), (parent, place))?;
        self.done(parent, place);
        Ok(self.fs.stamp(inode))
    }

    /// Moves a file or link to the archive, or drops it.
    fn put_away(
        &mut self,
        dir: u64,
        parent: u64,
        path: &RelPath,
        archive: Option<&str>,
    ) -> Result<(), DiskError> {
        let place = path.name().as_bytes();
        let Some(folder) = archive else {
            return self.fs.remove(parent, place);
        };
        let private = self.fs.make_dir(dir, PRIVATE, 0o700)?.0;
        let archive = self.fs.make_dir(private, b"archive", 0o700)?.0;
        // One path twice in one folder: the second gets a folder beside it, so that neither is lost.
        for attempt in 0u32.. {
            let name = if attempt == 0 { folder.to_owned() } else { format!("{folder}~{attempt}") };
            let folder = self.fs.make_dir(archive, name.as_bytes(), 0o700)?.0;
            let above = path.parent().ok_or(DiskError::Denied)?;
            let Ok(target) = self.fs.make_dirs(folder, &above, 0o700) else { continue };
            match self.fs.rename((parent, place), (target, place)) {
                Err(DiskError::Exists) => {}
                done => return done.map(|_| ()),
            }
        }
        Err(DiskError::Io)
    }

    pub(super) fn make_dir(
        &mut self,
        root: RootId,
        dir: u64,
        path: &RelPath,
        mode: Option<u32>,
    ) -> Result<Made, DiskError> {
        self.fail("make_dirs", Some(path))?;
        let parent = self.fs.resolve_parent(dir, path)?;
        let mode = mode.unwrap_or(!UMASK) & MODE_BITS;
        let (inode, made) = self.fs.make_dir(parent, path.name().as_bytes(), mode)?;
        if made {
            self.touched(parent, path.name().as_bytes());
            self.open(root)?.watches.add(inode, path);
        }
        Ok(Made { stamp: self.fs.stamp(inode), empty: made })
    }

    pub(super) fn rename(
        &mut self,
        dir: u64,
        from: &RelPath,
        to: &RelPath,
        stamp: Stamp,
    ) -> Result<Stamp, DiskError> {
        self.fail("rename", Some(from))?;
        let parent = self.fs.resolve_parent(dir, from)?;
        self.expect(self.fs.child(parent, from.name().as_bytes())?, &stamp)?;
        let target = self.fs.resolve_parent(dir, to)?;
        let inode = self.fs.rename((parent, from.name().as_bytes()), (target, to.name().as_bytes()))?;
        self.done(parent, from.name().as_bytes());
        self.done(target, to.name().as_bytes());
        Ok(self.fs.stamp(inode))
    }

    pub(super) fn remove(&mut self, dir: u64, item: &Remove) -> Result<(), DiskError> {
        self.fail("remove", Some(&item.path))?;
        let parent = self.fs.resolve_parent(dir, &item.path)?;
        let place = item.path.name().as_bytes();
        let inode = self.fs.child(parent, place)?;
        self.expect(inode, &item.stamp)?;
        if item.stamp.kind != Kind::Dir {
            self.put_away(dir, parent, &item.path, item.archive.as_deref())?;
            self.done(parent, place);
        } else if self.fs.is_empty_dir(inode) {
            self.fs.remove(parent, place)?;
            self.touched(parent, place);
        } else {
            return Err(DiskError::NotEmpty);
        }
        Ok(())
    }

    pub(super) fn set_meta(&mut self, dir: u64, item: &SetMeta) -> Result<Stamp, DiskError> {
        self.fail("set_meta", Some(&item.path))?;
        let inode = self.fs.resolve(dir, &item.path)?;
        self.expect(inode, &item.stamp)?;
        if item.stamp.kind != Kind::Link {
            let own = self.fs.stamp(inode).mode & !MODE_BITS;
            self.fs.set_meta(inode, item.mode.map(|mode| mode & MODE_BITS | own), item.mtime_ns);
            if let Ok(parent) = self.fs.resolve_parent(dir, &item.path) {
                self.altered(parent, item.path.name().as_bytes());
            }
        }
        Ok(self.fs.stamp(inode))
    }
}
