//! The archive as users see it: listed, and files brought back from it (sync.md, Deletes).

use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::engine::Engine;
use crate::engine::command::{CommandError, Reply};
use crate::engine::commands::queries::Query;
use crate::engine::commands::{AfterCommit, refusal, store_refusal};
use crate::engine::setup::not_shared;
use crate::files::archive_name::{limit_bytes, parse_archive_folder, prune_for_space};
use crate::files::path::RelPath;
use crate::files::reconcile::stamp_matches;
use crate::ids::{CommandId, RootId};
use crate::io::disk::{Archived, Stamp};
use crate::io::store::Durability;
use crate::io::{Completion, DiskDone, DiskError, DiskOp, StoreDone, StoreError};
use crate::share::archive_space::Space;
use crate::share::archived::{KEPT_MAX, Kept, written_late};
use crate::share::restored::Restored;
use crate::share::status;
use crate::time::{Instant, Now};

/// Files of an archive that are listed at most; beyond that the older ones are left out.
const LISTED_MAX: u32 = 100_000;
/// The archives are looked through for what may go so long after the start,
pub(in crate::engine) const PRUNE_FIRST: Duration = Duration::from_secs(600);
/// and this often from then on.
const PRUNE_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// Paths that the disk is asked about at once.
const LOOKED_AT_MAX: usize = 500;
/// Names that are tried for a restored file whose old path is taken.
const NAMES_MAX: u32 = 100;

/// A question whose answer a command waits for.
#[derive(Debug)]
pub(in crate::engine) enum ArchiveAsk {
    /// What the archive holds.
    List(CommandId, RootId),
    /// Where in the archive a file lies.
    Find { id: CommandId, root: RootId, path: RelPath, folder: Option<String> },
    /// A file is being copied back.
    Restore(Restoring),
    /// What lay beneath a directory is being copied back.
    RestoreAll(RestoringAll),
    /// How large the volume is whose archive is to be pruned.
    Space(RootId),
    /// What an archive holds that has this space.
    Prune(RootId, Space),
    /// What the store knows.
    Query(Box<Query>),
    /// Whether a conflict file that is to be kept is still the one that has this stamp.
    Kept(CommandId, RootId, RelPath, Stamp),
}

/// A file that is copied back.
#[derive(Debug)]
pub(in crate::engine) struct Restoring {
    id: CommandId,
    root: RootId,
    folder: String,
    path: RelPath,
    to: RelPath,
    tried: u32,
    stage: Stage,
    /// The inode that it has now, once it was copied.
    inode: u64,
}

/// How far the copying back of files came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// They are being copied.
    Copying,
    /// They are being made durable.
    Flushing,
    /// The store is being told, so that a kill makes nobody take them for what lay there before.
    Noting,
}

/// What lay beneath a directory and is copied back, one after the other, where nothing is now.
#[derive(Debug)]
pub(in crate::engine) struct RestoringAll {
    id: CommandId,
    root: RootId,
    dir: RelPath,
    /// The folder in the archive and the path of each, not looked at yet.
    waiting: VecDeque<(String, RelPath)>,
    /// Those that the disk is asked about.
    asked: Vec<(String, RelPath)>,
    /// Those that are missing; the first is being copied.
    missing: VecDeque<(String, RelPath)>,
    /// Those that were copied, with their inodes now, and are not durable or not noted yet.
    copied: Vec<(RelPath, u64)>,
    stage: Stage,
    back: u64,
    failed: u64,
    /// The first that failed.
    trouble: Option<(RelPath, DiskError)>,
}

impl Engine {
    pub(super) fn list_archive(&mut self, id: CommandId, path: &str) {
        let root = self.share_at(path).ok_or_else(|| not_shared(path));
        match root.and_then(|root| self.open_folder(root).map(|()| root)) {
            Ok(root) => self.ask_archive(root, ArchiveAsk::List(id, root)),
            Err(error) => self.reply(id, Err(error)),
        }
    }

    pub(super) fn restore(&mut self, id: CommandId, path: &str, folder: Option<String>) {
        let place = self.locate_file(path);
        match place.and_then(|(root, path)| self.open_folder(root).map(|()| (root, path))) {
            Ok((root, path)) => self.ask_archive(root, ArchiveAsk::Find { id, root, path, folder }),
            Err(error) => self.reply(id, Err(error)),
        }
    }

    fn ask_archive(&mut self, root: RootId, ask: ArchiveAsk) {
        self.out.set_owner(None);
        let token = self.out.disk(DiskOp::ListArchive { root, limit: LISTED_MAX });
        self.archives.insert(token, ask);
    }

    /// Refuses work in a folder that is not in order.
    fn open_folder(&self, root: RootId) -> Result<(), CommandError> {
        let Some(share) = self.shares.get(&root) else {
            return Err(refusal("no_such_share", "The share was detached meanwhile."));
        };
        if share.folder.is_open() {
            return Ok(());
        }
        let path = &share.folder.path;
        Err(match share.folder.trouble() {
            Some(trouble) => refusal("folder", status::folder_sentence(trouble, path)),
            None => refusal("folder", format!("{path} is being opened; try again in a moment.")),
        })
    }

    /// Takes the answer to a question.
    pub(super) fn answered(&mut self, now: Now, ask: ArchiveAsk, completion: Completion) {
        match (ask, completion) {
            (ArchiveAsk::Query(query), Completion::Store(result)) => {
                let rows = match result {
                    Ok(StoreDone::Loaded(answers)) => Ok(answers),
                    Ok(StoreDone::Committed) => Err(StoreError::Io),
                    Err(error) => Err(error),
                };
                match rows {
                    Ok(answers) => self.query_loaded(now, *query, answers),
                    Err(error) => self.reply(query.id(), Err(store_refusal(error))),
                }
            }
            (ArchiveAsk::Query(query), Completion::Disk(_)) => {
                self.reply(query.id(), Err(store_refusal(StoreError::Io)));
            }
            (ArchiveAsk::List(id, root), completion) => {
                let listed = archived(completion).map(Reply::Archive);
                let listed = listed.map_err(|error| self.archive_refusal(root, error));
                self.reply(id, listed);
            }
            (ArchiveAsk::Find { id, root, path, folder }, completion) => match archived(completion) {
                Ok(files) => self.found_archived(id, root, path, folder.as_deref(), &files),
                Err(error) => {
                    let error = self.archive_refusal(root, error);
                    self.reply(id, Err(error));
                }
            },
            (ArchiveAsk::Kept(id, root, path, stamp), completion) => {
                self.keep(now, id, root, path, &stamp, completion);
            }
            (ArchiveAsk::Restore(restoring), completion) => self.restored(now, restoring, completion),
            (ArchiveAsk::RestoreAll(all), completion) => self.restored_one(now, all, completion),
            (ArchiveAsk::Space(root), Completion::Disk(Ok(DiskDone::Space { free, total }))) => {
                let limit = limit_bytes(total, self.settings.archive_percent());
                let wanted = self.shares.get(&root).map_or(0, |share| share.progress.totals.pending_bytes);
                let space = Space { free, total, limit, wanted };
                self.ask_archive(root, ArchiveAsk::Prune(root, space));
            }
            (ArchiveAsk::Prune(root, space), Completion::Disk(Ok(DiskDone::Archived(files)))) => {
                self.prune(now, root, space, &files);
            }
            (ask @ (ArchiveAsk::Space(_) | ArchiveAsk::Prune(..)), completion) => {
                log::warn!("{ask:?}: the archive is left as it is: {completion:?}");
            }
        }
    }

    /// When archives are looked through next.
    pub(in crate::engine) fn prune_timeout(&self) -> Option<Instant> {
        let open = self.shares.values().filter(|share| share.folder.is_open());
        let soon = open.filter_map(|share| share.archive_space.look_at()).min();
        let next = soon.map_or(self.prune_at, |soon| soon.min(self.prune_at));
        (!self.shares.is_empty() && !self.stopping).then_some(next)
    }

    /// Begins to look through the archives for what may go, if it is time.
    pub(in crate::engine) fn prune_archives(&mut self, now: Now) {
        if self.prune_timeout().is_none_or(|at| at > now.mono) {
            return;
        }
        let all = self.prune_at <= now.mono;
        if all {
            self.prune_at = now.mono.plus(PRUNE_EVERY);
        }
        self.out.set_owner(None);
        for (&root, share) in self.shares.iter_mut().filter(|(_, share)| share.folder.is_open()) {
            if all || share.archive_space.look_at().is_some_and(|at| at <= now.mono) {
                share.archive_space.looking(now.mono);
                let token = self.out.disk(DiskOp::Space { root });
                self.archives.insert(token, ArchiveAsk::Space(root));
            }
        }
    }

    fn prune(&mut self, now: Now, root: RootId, space: Space, files: &[Archived]) {
        let Some(share) = self.shares.get(&root) else { return };
        // What a peer writes that may not author stays in the archive.
        let author = share.may_author();
        let folders: Vec<(&str, u64)> = files
            .chunk_by(|a, b| a.folder == b.folder)
            .filter_map(|files| {
                let size = files.iter().fold(0u64, |sum, file| sum.saturating_add(file.stamp.size));
                Some((files.first()?.folder.as_str(), size))
            })
            .collect();
        let sum = |from: &str| {
            let folders = folders.iter().filter(|(name, _)| *name >= from);
            folders.fold(0u64, |sum, (_, size)| sum.saturating_add(*size))
        };
        let (used, days) = (sum(""), self.settings.archive_days());
        // By a clock that is not believed nothing is old: one set ahead would empty the archive.
        let before = if share.clock.is_believed() {
            prune_for_space(folders.iter().copied(), now.wall, days, space.keep_max(used))
        } else {
            String::new()
        };
        let full = space.must_wait(sum(&before), used);
        let late = files.iter().filter(|_| author).filter(|file| {
            let archived = parse_archive_folder(&file.folder);
            archived.is_some_and(|archived| written_late(archived, &file.stamp))
        });
        let late: Vec<Archived> = late.take(KEPT_MAX).cloned().collect();
        let spared = late.iter().any(|file| file.folder < before);
        self.bring_back(now, root, late);
        if let Some((share, mut ctx)) = self.share_ctx(now, root) {
            share.archive_judged(&mut ctx, space.limit, sum(&before), full);
        }
        if spared {
            // Nothing is pruned before what was written late is out of the archive.
            self.prune_at = self.prune_at.min(now.mono.plus(PRUNE_FIRST));
        } else if !files.is_empty() {
            self.out.set_owner(None);
            let token = self.out.disk(DiskOp::PruneArchive { root, before });
            self.commits.insert(token, AfterCommit::Nothing);
        }
    }

    /// Has files that were written after they were archived brought back beside their paths.
    fn bring_back(&mut self, now: Now, root: RootId, late: Vec<Archived>) {
        if late.is_empty() {
            return;
        }
        if let Some((share, mut ctx)) = self.share_ctx(now, root) {
            if share.may_work() {
                late.into_iter().for_each(|file| share.late.take(Kept { file, content: None, source: None }));
            }
            share.pump(&mut ctx);
        }
    }

    /// Looks at a conflict file that is to be kept: a user may have changed or deleted it a moment ago.
    pub(super) fn look_at_kept(&mut self, id: CommandId, root: RootId, path: RelPath, stamp: Stamp) {
        let op = DiskOp::Stat { root, paths: [path.clone()].into() };
        self.put_out(root, None, op, ArchiveAsk::Kept(id, root, path, stamp));
    }

    fn keep(
        &mut self,
        now: Now,
        id: CommandId,
        root: RootId,
        path: RelPath,
        stamp: &Stamp,
        completion: Completion,
    ) {
        let same = match &completion {
            Completion::Disk(Ok(DiskDone::Stamps(stamps))) => {
                stamps.iter().any(|now| now.as_ref().is_ok_and(|now| stamp_matches(now, stamp)))
            }
            _ => false,
        };
        let shown = self.absolute(root, &path);
        if let Some((share, mut ctx)) = self.share_ctx(now, root) {
            if same {
                share.resolve(path, true);
            } else {
                share.survey.hint(path, now);
            }
            share.pump(&mut ctx);
        }
        let message =
            || format!("{shown}: it was changed a moment ago; try again when that has been noticed.");
        self.reply(id, if same { Ok(Reply::Done) } else { Err(refusal("not_here", message())) });
    }

    fn archive_refusal(&self, root: RootId, error: DiskError) -> CommandError {
        let path = self.shares.get(&root).map_or("The folder", |share| share.folder.path.as_str());
        refusal("archive", format!("The archive of {path} cannot be read: {}", status::disk_sentence(error)))
    }

    /// The list is newest first, so the first that fits is the one.
    fn found_archived(
        &mut self,
        id: CommandId,
        root: RootId,
        path: RelPath,
        folder: Option<&str>,
        files: &[Archived],
    ) {
        let listed = files.iter().filter(|file| folder.is_none_or(|folder| file.folder == folder));
        match listed.clone().find(|file| file.path.starts_with(&path)) {
            Some(file) if file.path == path => {
                let (folder, to) = (file.folder.clone(), path.clone());
                self.copy_back(Restoring {
                    id,
                    root,
                    folder,
                    path,
                    to,
                    tried: 0,
                    stage: Stage::Copying,
                    inode: 0,
                });
            }
            Some(_) => {
                let mut known = BTreeSet::new();
                let newest =
                    listed.filter(|file| file.path.is_beneath(&path) && known.insert(file.path.clone()));
                let waiting = newest.map(|file| (file.folder.clone(), file.path.clone())).collect();
                self.copy_on(RestoringAll {
                    id,
                    root,
                    dir: path,
                    waiting,
                    asked: Vec::new(),
                    missing: VecDeque::new(),
                    copied: Vec::new(),
                    stage: Stage::Copying,
                    back: 0,
                    failed: 0,
                    trouble: None,
                });
            }
            None => {
                let path = self.absolute(root, &path);
                let place = folder.map(|folder| format!(" under {folder}")).unwrap_or_default();
                let message = format!(
                    "The archive holds no {path}{place}; `clearskies restore` without a path lists what it holds."
                );
                self.reply(id, Err(refusal("not_archived", message)));
            }
        }
    }

    fn copy_back(&mut self, restoring: Restoring) {
        let Restoring { root, folder, path, to, .. } = &restoring;
        let op = DiskOp::RestoreArchived {
            root: *root,
            folder: folder.clone(),
            path: path.clone(),
            to: to.clone(),
        };
        self.put_out(restoring.root, Some(restoring.to.clone()), op, ArchiveAsk::Restore(restoring));
    }

    /// Puts out an operation on a share's disk. A path that it brings back is looked at by nobody before
    /// [`Engine::look_at_restored`]: what has a record before it is durable, and is gone after a power cut, would pass
    /// for deleted by a user.
    fn put_out(&mut self, root: RootId, to: Option<RelPath>, op: DiskOp, ask: ArchiveAsk) {
        if let (Some(share), Some(to)) = (self.shares.get_mut(&root), to) {
            share.work.hold(to);
        }
        self.out.set_owner(None);
        let token = self.out.disk(op);
        self.archives.insert(token, ask);
    }

    /// Has the store keep what was brought back, as much as there is room for, unless the share is gone.
    fn note_restored(&mut self, now: Now, root: RootId, copied: &[(RelPath, u64)], ask: ArchiveAsk) {
        let room = self.shares.get(&root).map_or(0, |share| share.restored.room());
        if room == 0 {
            return self.answered(now, ask, Completion::Store(Ok(StoreDone::Committed)));
        }
        let kept = copied.iter().take(room);
        let writes = kept.map(|(path, inode)| Restored::kept(root, path, *inode)).collect();
        let token = self.commit(writes, Durability::Now);
        self.archives.insert(token, ask);
    }

    fn restored(&mut self, now: Now, mut restoring: Restoring, completion: Completion) {
        let Restoring { id, root, stage, .. } = restoring;
        let result = match completion {
            // What the store did not take is there all the same.
            Completion::Store(_) if stage == Stage::Noting => Ok(()),
            Completion::Disk(Ok(DiskDone::Unit)) if stage == Stage::Flushing => {
                restoring.stage = Stage::Noting;
                let noted = [(restoring.to.clone(), restoring.inode)];
                return self.note_restored(now, root, &noted, ArchiveAsk::Restore(restoring));
            }
            Completion::Disk(Ok(DiskDone::Stamps(mut stamps))) if stage == Stage::Copying => {
                match stamps.pop().unwrap_or(Err(DiskError::Io)) {
                    Ok(stamp) => {
                        (restoring.stage, restoring.inode) = (Stage::Flushing, stamp.inode);
                        let ask = ArchiveAsk::Restore(restoring);
                        return self.put_out(root, None, DiskOp::Flush { root }, ask);
                    }
                    Err(error) => Err(error),
                }
            }
            Completion::Disk(Err(error)) => Err(error),
            _ => Err(DiskError::Io),
        };
        let copied = (stage != Stage::Copying).then_some(restoring.inode);
        self.look_at_restored(now, root, &restoring.to, copied);
        match result {
            Ok(()) => {
                let path = self.absolute(root, &restoring.to);
                self.reply(id, Ok(Reply::Restored { path }));
            }
            Err(DiskError::Exists) if restoring.tried < NAMES_MAX => {
                restoring.tried += 1;
                match restored_name(&restoring.path, restoring.tried) {
                    Some(to) => {
                        restoring.to = to;
                        self.copy_back(restoring);
                    }
                    None => self.restore_failed(&restoring, DiskError::BadName),
                }
            }
            Err(error) => self.restore_failed(&restoring, error),
        }
    }

    /// The next of many: what is there already is left alone.
    fn copy_on(&mut self, mut all: RestoringAll) {
        self.out.set_owner(None);
        let root = all.root;
        if let Some((folder, path)) = all.missing.front().cloned() {
            let op = DiskOp::RestoreArchived { root, folder, to: path.clone(), path: path.clone() };
            self.put_out(root, Some(path), op, ArchiveAsk::RestoreAll(all));
        } else if !all.copied.is_empty() {
            all.stage = Stage::Flushing;
            self.put_out(root, None, DiskOp::Flush { root }, ArchiveAsk::RestoreAll(all));
        } else if !all.waiting.is_empty() {
            let rest = all.waiting.split_off(all.waiting.len().min(LOOKED_AT_MAX));
            all.asked = core::mem::replace(&mut all.waiting, rest).into();
            let paths = all.asked.iter().map(|(_, path)| path.clone()).collect();
            let token = self.out.disk(DiskOp::Stat { root, paths });
            self.archives.insert(token, ArchiveAsk::RestoreAll(all));
        } else {
            let path = self.absolute(root, &all.dir);
            let files = all.back;
            let reply = match &all.trouble {
                None => Ok(Reply::RestoredAll { path, files }),
                Some((first, error)) => {
                    let first = self.absolute(root, first);
                    let (failed, why) = (all.failed, status::disk_sentence(*error));
                    let message = format!(
                        "Files that came back: {files}. Files that cannot be restored: {failed}; {first}: {why}"
                    );
                    Err(refusal("restore", message))
                }
            };
            self.reply(all.id, reply);
        }
    }

    /// Takes what the disk says of some of many, or of the one that was copied.
    fn restored_one(&mut self, now: Now, mut all: RestoringAll, completion: Completion) {
        match (all.stage, &completion) {
            (Stage::Copying, _) => {}
            (Stage::Flushing, Completion::Disk(Ok(DiskDone::Unit))) => {
                all.stage = Stage::Noting;
                let noted = all.copied.clone();
                return self.note_restored(now, all.root, &noted, ArchiveAsk::RestoreAll(all));
            }
            (stage, _) => {
                all.stage = Stage::Copying;
                let copied = core::mem::take(&mut all.copied);
                for (path, inode) in &copied {
                    self.look_at_restored(now, all.root, path, Some(*inode));
                }
                if stage == Stage::Noting {
                    // What the store did not take is there all the same.
                    all.back += copied.len() as u64;
                } else {
                    all.failed += copied.len() as u64;
                    let error = match completion {
                        Completion::Disk(Err(error)) => error,
                        _ => DiskError::Io,
                    };
                    all.trouble = all.trouble.or_else(|| Some((copied.into_iter().next()?.0, error)));
                }
                return self.copy_on(all);
            }
        }
        let asked = core::mem::take(&mut all.asked);
        let count = asked.len().max(1);
        let mut answers = match completion {
            Completion::Disk(Ok(DiskDone::Stamps(stamps))) if stamps.len() == count => stamps,
            Completion::Disk(Err(error)) => (0..count).map(|_| Err(error)).collect(),
            _ => (0..count).map(|_| Err(DiskError::Io)).collect(),
        };
        if asked.is_empty() {
            let result = answers.pop().unwrap_or(Err(DiskError::Io));
            let Some((_, path)) = all.missing.pop_front() else { return self.copy_on(all) };
            if result.is_err() {
                self.look_at_restored(now, all.root, &path, None);
            }
            match result {
                Ok(stamp) => all.copied.push((path, stamp.inode)),
                // Something has just come there.
                Err(DiskError::Exists) => {}
                Err(DiskError::RootMissing) => {
                    all.failed += 1 + (all.missing.len() + all.waiting.len()) as u64;
                    all.missing.clear();
                    all.waiting.clear();
                    all.trouble.get_or_insert((path, DiskError::RootMissing));
                }
                Err(error) => {
                    all.failed += 1;
                    all.trouble.get_or_insert((path, error));
                }
            }
        } else {
            for (item, answer) in asked.into_iter().zip(answers) {
                match answer {
                    Ok(_) => {}
                    Err(DiskError::NotFound) => all.missing.push_back(item),
                    Err(error) => {
                        all.failed += 1;
                        all.trouble.get_or_insert((item.1, error));
                    }
                }
            }
        }
        self.copy_on(all);
    }

    /// Has a file looked at that was to be restored; where it was, directories that had to be made for it are new as
    /// well. `copied` is the inode of what came there.
    fn look_at_restored(&mut self, now: Now, root: RootId, path: &RelPath, copied: Option<u64>) {
        if let Some((share, mut ctx)) = self.share_ctx(now, root) {
            share.work.release(path);
            if let Some(inode) = copied {
                share.restored.note(path.clone(), inode);
            }
            for dir in path.ancestors().filter(|dir| !dir.is_root()) {
                share.survey.hint(dir, now);
            }
            share.survey.hint(path.clone(), now);
            share.pump(&mut ctx);
        }
    }

    fn restore_failed(&mut self, restoring: &Restoring, error: DiskError) {
        let path = self.absolute(restoring.root, &restoring.to);
        let message = format!("{path} cannot be restored: {}", status::disk_sentence(error));
        self.reply(restoring.id, Err(refusal("restore", message)));
    }
}

fn archived(completion: Completion) -> Result<Vec<Archived>, DiskError> {
    match completion {
        Completion::Disk(Ok(DiskDone::Archived(files))) => Ok(files),
        Completion::Disk(Err(error)) => Err(error),
        _ => Err(DiskError::Io),
    }
}

/// `name.RESTORED.ext` beside a path, the `n`th of them `name.RESTORED-n.ext`; `None` where the name grows too long.
fn restored_name(path: &RelPath, n: u32) -> Option<RelPath> {
    let name = path.name();
    // A dot in front makes a hidden name, not an extension.
    let dot = name.rfind('.').filter(|dot| *dot > 0).unwrap_or(name.len());
    let (stem, extension) = name.split_at(dot);
    let number = if n > 1 { format!("-{n}") } else { String::new() };
    let name = format!("{stem}.RESTORED{number}{extension}");
    path.parent()?.join(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_restored_files() {
        let name = |path: &str, n| restored_name(&RelPath::new(path).unwrap(), n).map(|path| path.to_key());
        assert_eq!(name("a/b.txt", 1).as_deref(), Some("/a/b.RESTORED.txt"));
        assert_eq!(name("a/b.txt", 2).as_deref(), Some("/a/b.RESTORED-2.txt"));
        assert_eq!(name("notes", 1).as_deref(), Some("/notes.RESTORED"));
        assert_eq!(name(".profile", 1).as_deref(), Some("/.profile.RESTORED"));
        let added = ".RESTORED".len();
        let longest = "n".repeat(RelPath::NAME_LEN_MAX - added);
        assert!(name(&longest, 1).is_some());
        assert_eq!(name(&(longest + "n"), 1), None);
        assert_eq!(restored_name(&RelPath::root(), 1), None);
    }
}
