//! Reading: walks, stamps, hashes and pieces of files.

use clearskies_core::files::path::RelPath;
use clearskies_core::ids::RootId;
use clearskies_core::io::disk::{
    Bytes, DiskDone, DiskError, Entry, Hashed, HashedContent, Kind, Read, Stamp,
};

use super::super::fs::Body;
use super::SimDisk;
use super::{Frame, PRIVATE};

impl SimDisk {
    pub(super) fn walk(
        &mut self,
        root: RootId,
        walk: u64,
        start: RelPath,
        limit: u32,
    ) -> Result<DiskDone, DiskError> {
        let dir = self.opened(root)?;
        let mut entries = Vec::new();
        let mut unobserved = Vec::new();
        let mut unusable = Vec::new();
        let mut frames = match self.open(root)?.walks.remove(&walk) {
            Some(frames) => frames,
            None => {
                let mut frames = Vec::new();
                if let Err(error) = self.enter(root, dir, &start, &mut frames) {
                    unobserved.push((start, error));
                }
                frames
            }
        };
        while entries.len() < limit as usize {
            let Some(frame) = frames.last_mut() else { break };
            let Some(name) = frame.names.pop() else {
                frames.pop();
                continue;
            };
            let Some(path) = std::str::from_utf8(&name).ok().and_then(|name| frame.dir.join(name)) else {
                unusable.push((frame.dir.clone(), String::from_utf8_lossy(&name).into_owned()));
                continue;
            };
            // Gone since its directory was listed: the hint of that follows.
            let Ok(inode) = self.fs.resolve(dir, &path) else { continue };
            let stamp = self.fs.stamp(inode);
            if stamp.kind == Kind::Dir
                && let Err(error) = self.enter(root, dir, &path, &mut frames)
            {
                unobserved.push((path.clone(), error));
            }
            entries.push(Entry { path, stamp });
        }
        let done = frames.iter().all(|frame| frame.names.is_empty());
        if !done {
            self.open(root)?.walks.insert(walk, frames);
        }
        Ok(DiskDone::Walked { entries, unobserved, unusable, done })
    }

    /// Watches a directory, then lists it.
    fn enter(
        &mut self,
        root: RootId,
        top: u64,
        path: &RelPath,
        frames: &mut Vec<Frame>,
    ) -> Result<(), DiskError> {
        self.fail("walk", Some(path))?;
        let inode = self.fs.resolve(top, path)?;
        self.open(root)?.watches.add(inode, path);
        let mut names = self.fs.list(inode)?;
        names.retain(|name| name != PRIVATE);
        names.reverse();
        frames.push(Frame { dir: path.clone(), names });
        Ok(())
    }

    pub(super) fn stat(&mut self, dir: u64, path: &RelPath) -> Result<Stamp, DiskError> {
        self.fail("stat", Some(path))?;
        Ok(self.fs.stamp(self.fs.resolve(dir, path)?))
    }

    pub(super) fn hash(&mut self, dir: u64, path: &RelPath) -> Result<Hashed, DiskError> {
        self.fail("hash", Some(path))?;
        self.hash_inode(self.fs.resolve(dir, path)?)
    }

    pub(super) fn hash_inode(&mut self, inode: u64) -> Result<Hashed, DiskError> {
        let content = match &self.fs.node(inode).body {
            Body::File { .. } => {
                self.hashes += 1;
                HashedContent::File(self.fs.sha256(inode)?)
            }
            Body::Link(target) => {
                let target = String::from_utf8(target.clone()).map_err(|_| DiskError::BadName)?;
                HashedContent::Link(target)
            }
            Body::Dir(_) => HashedContent::Dir,
            Body::Other => return Err(DiskError::WrongKind),
        };
        Ok(Hashed { stamp: self.fs.stamp(inode), content })
    }

    pub(super) fn read(&mut self, dir: u64, read: &Read) -> Result<Bytes, DiskError> {
        self.fail("read", Some(&read.path))?;
        let inode = self.fs.resolve(dir, &read.path)?;
        self.expect(inode, &read.stamp)?;
        let data = self.fs.data(inode)?;
        let start = usize::try_from(read.offset).unwrap_or(usize::MAX).min(data.len());
        let end = start.saturating_add(read.len as usize).min(data.len());
        Ok(Bytes(data[start..end].to_vec()))
    }
}
