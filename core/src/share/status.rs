//! What a share says of itself: its state in one word, what stands in its way, and the sentences for errors of disk
//! and store.

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::club::keys::Club;
use crate::club::level::Level;
use crate::engine::command::{ShareState, ShareStatus};
use crate::files::path::RelPath;
use crate::ids::{ConnId, PeerId, RootId};
use crate::io::DiskError;
use crate::io::store::{Space, StoreError, Write};
use crate::share::folder::Trouble;
use crate::share::link::PeerLink;
use crate::share::{Ctx, Membership, Share, faults, layout, place, work};
use crate::time::Instant;

/// Paths that cannot be read and are named in a status.
const NAMED_MAX: usize = 5;

/// An archive smaller than this is not named where a volume is full, in bytes.
const ARCHIVE_NAMED_MIN: u64 = 1_000_000;

/// Why replacing waits, and what to do.
pub const ARCHIVE_FULL: &str = "what was replaced or deleted within the last day fills the archive, and the volume has \
    little space left; replacing and deleting wait until the oldest of it is a day old. Free some space to let it go \
    on now.";

/// What there is to say of a directory inside a share on which another volume is mounted, and of what is to go there.
pub const OTHER_VOLUME: &str =
    "another volume is mounted there; files on it are not synced. Unmount it, or share it by itself.";

/// What an error of the disk means for a path, and what to do.
pub fn disk_sentence(error: DiskError) -> &'static str {
    match error {
        DiskError::NotFound => "it vanished meanwhile; it is looked at again.",
        DiskError::Exists => "something else appeared in its place; it is looked at again.",
        DiskError::NotEmpty => "the directory is not empty, so it stays.",
        DiskError::WrongKind => {
            "a file or a link stands where a directory is needed, or the other way round; rename one."
        }
        DiskError::Denied => {
            "the system does not permit it; check the permissions of the file and its directory."
        }
        DiskError::OtherVolume => OTHER_VOLUME,
        DiskError::NoSpace => "the volume or your quota is full; free some space.",
        DiskError::BadName => "the file system here cannot hold this name; rename it on another computer.",
        DiskError::RootMissing => {
            "the share's folder is gone, or is not the share's; nothing is deleted meanwhile."
        }
        DiskError::Changed => "it changed while it was read or replaced; it is looked at again.",
        DiskError::Io => "the disk reported an error; the log has the details.",
    }
}

/// What an error of the store means, and what to do.
pub fn store_sentence(error: StoreError) -> &'static str {
    match error {
        StoreError::NoSpace => {
            "The volume that holds the node's database is full. Nothing is recorded or received until there is room; \
             free some space."
        }
        StoreError::Corrupt => {
            "The node's database is damaged. Stop the node, move its database away, and attach the shares again with \
             --merge; the files in the folders stay as they are."
        }
        StoreError::Io => {
            "The node's database cannot be read or written. It is tried again; check the disk it lies on, the log has \
             the details."
        }
    }
}

/// What is wrong with a share's folder, and what to do.
pub fn folder_sentence(trouble: Trouble, path: &str) -> String {
    match trouble {
        Trouble::Unreachable(DiskError::RootMissing) => format!(
            "{path} is gone, or another folder is in its place. Mount its volume or bring the folder back, or detach \
             the share; nothing is deleted meanwhile."
        ),
        Trouble::Unreachable(DiskError::NotFound) => format!(
            "{path} is not there. Mount its volume or bring the folder back, or detach the share; nothing is deleted \
             meanwhile."
        ),
        Trouble::Unreachable(DiskError::WrongKind) => {
            format!("{path} is not a folder any more. Bring the folder back, or detach the share.")
        }
        Trouble::Unreachable(DiskError::Denied) => {
            format!("{path} may not be read or written by this user; change its permissions.")
        }
        Trouble::Unreachable(DiskError::NoSpace) => {
            format!("{path} cannot be used: its volume is full; free some space.")
        }
        Trouble::Unreachable(_) => {
            format!("{path} cannot be opened; it is tried again, and the log says more.")
        }
        Trouble::NoMarker => format!(
            "{path} holds no .clearskies/share: it is another folder, or its volume is not mounted. Bring the right \
             one back, or detach the share and attach it again; nothing is deleted meanwhile."
        ),
        Trouble::OtherMarker => format!(
            "{path} belongs to another share. Bring the right folder back, or detach the share and attach it again; \
             nothing is deleted meanwhile."
        ),
        Trouble::Misplaced(why) => place::sentence(path, why),
    }
}

/// What remains of a failed path in one sentence.
pub fn failure_sentence(trouble: work::Trouble) -> &'static str {
    match trouble {
        work::Trouble::Disk(error) => disk_sentence(error),
        work::Trouble::NotAvailable => {
            "no connected peer has its content; it comes when one that has it is connected."
        }
        work::Trouble::ArchiveFull => ARCHIVE_FULL,
        work::Trouble::Unseen => {
            "what stands above it could not be read here, so it cannot be put there; check the permissions."
        }
        work::Trouble::WrongContent => {
            "what was received did not match its SHA-256 and was thrown away; it is asked for again."
        }
    }
}

/// The writes that make the store forget a share.
pub fn forget_writes(root: RootId) -> Vec<Write> {
    let (start, end) = layout::club_range(root);
    let spaces = Space::ALL.into_iter().filter(|space| *space != Space::Meta);
    let ranges = spaces.map(|space| Write::DeleteRange { space, start: start.clone(), end: end.clone() });
    let (start, end) = layout::fact_range(root);
    ranges.chain([Write::DeleteRange { space: Space::Meta, start, end }]).collect()
}

impl Share {
    /// The state in one word.
    pub fn state(&self) -> ShareState {
        if self.folder.trouble().is_some() || self.store_trouble.is_some() {
            ShareState::Stopped
        } else if self.paused {
            ShareState::Paused
        } else if self.membership != Membership::Member {
            ShareState::Joining
        } else if self.progress.tail_lost && !self.progress.caught_up && self.links.is_empty() {
            ShareState::Alone
        } else if !self.progress.caught_up {
            // The folder is looked at once it is known what the club has.
            ShareState::Syncing
        } else if !self.folder.is_open() || !self.survey.looked {
            ShareState::Scanning
        } else if self.store_trouble.is_some() {
            ShareState::Attention
        } else if self.is_syncing() {
            ShareState::Syncing
        } else if self.needs_attention() {
            ShareState::Attention
        } else if self.links.is_empty() {
            ShareState::Alone
        } else {
            ShareState::InSync
        }
    }

    fn is_syncing(&self) -> bool {
        let busy =
            self.is_reclaiming() || self.survey.is_busy() || !self.work.is_idle() || !self.pipeline.is_idle();
        busy || self.links.values().any(|link| self.is_behind(link))
    }

    /// Whether something stays as it is until the user does something, or until it is tried again. What only waits for
    /// a peer is no matter of the user's while none is there.
    fn needs_attention(&self) -> bool {
        let held = self.survey.held.count();
        let waits = self.progress.totals.pending > 0;
        let alone = self.links.is_empty();
        let failed = self.work.failures().any(|(_, failed)| failed.trouble != work::Trouble::NotAvailable);
        held > 0 || !self.survey.unreadable.is_empty() || waits && (failed || !alone)
    }

    /// How many of the pending paths failed, and wait for another attempt.
    fn failed_count(&self) -> u64 {
        // Failures of paths that came into step some other way are forgotten by the next sweep, and told no more.
        let failed = u64::try_from(self.work.failures().count()).unwrap_or(u64::MAX);
        failed.min(self.progress.totals.pending)
    }

    /// Whether something is still to be sent to a peer, or to be received from it.
    fn is_behind(&self, link: &PeerLink) -> bool {
        // The answer of a peer that is no writer says nothing of what is to come.
        let heard = link.caught_up || !link.writer;
        let sent = link.feed.subscribed() && link.feed.wants_more(self.progress.arrival).is_none();
        let known = link.knowledge.as_ref().is_some_and(|peer| peer.covers(&self.progress.knowledge));
        !heard || !sent || !known || link.queued > 0 || link.looking
    }

    /// What stands in the way, as sentences.
    pub fn problems(&self, now: Instant) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(trouble) = self.folder.trouble() {
            problems.push(folder_sentence(trouble, &self.folder.path));
        }
        if let Some(error) = self.store_trouble {
            problems.push(store_sentence(error).to_owned());
        }
        problems.extend(self.clock.problem());
        problems.extend(self.join_problem());
        problems.extend(self.newcomer_problem(now));
        let held = self.survey.held.count();
        if held > 0 {
            problems.push(format!(
                "{held} paths are gone at once, so their deletion is held; `clearskies deletions` decides about it."
            ));
        }
        problems.extend(self.wait_problems(now));
        problems.extend(self.failed_paths());
        problems.extend(self.archive_problem());
        problems.extend(match self.progress.totals.pathless {
            0 => None,
            1 => Some(
                "A member told of a path that cannot be; no file comes of it, and the log names it."
                    .to_owned(),
            ),
            count => Some(format!(
                "Members told of {count} paths that cannot be; no files come of them, and the log names some."
            )),
        });
        problems.extend(self.fault_problems());
        let waiting = self.progress.totals.pending.saturating_sub(self.failed_count());
        if waiting > 0 && self.state() == ShareState::Attention {
            problems.push(match waiting {
                1 => "1 path waits for another; `clearskies why PATH` says for which.".to_owned(),
                _ => format!("{waiting} paths wait for others; `clearskies why PATH` says for which."),
            });
        }
        let unreadable = &self.survey.unreadable;
        problems
            .extend(unreadable.iter().take(NAMED_MAX).map(|(path, why)| format!("{}: {why}", shown(path))));
        if let Some(more) = unreadable.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
            problems.push(format!("{more} more paths cannot be read; the log names them."));
        }
        let mut unusable = self.survey.unusable.iter();
        problems.extend(unusable.by_ref().take(NAMED_MAX).map(|(dir, why)| format!("{}: {why}", shown(dir))));
        let more = unusable.count();
        if more > 0 {
            problems.push(format!(
                "{more} more names cannot be synced; `clearskies why` of a directory names them."
            ));
        }
        problems
    }

    /// Why joining does not get on, if a peer was met that could have let this one in.
    pub fn join_problem(&self) -> Option<String> {
        if self.membership == Membership::Member {
            return None;
        }
        if let Some(why) = &self.declined {
            return Some(format!("{why} Detach the folder; nothing was put into it."));
        }
        let addr = self.refused_by?;
        Some(format!(
            "{addr} does not take the access code: it was used already, has expired or was taken back, or the \
             computer there has another share. Ask for a new code, detach the folder and attach it with that one."
        ))
    }

    /// Where the volume is full and the archive has a part in that: how large it is.
    fn archive_problem(&self) -> Option<String> {
        let no_space = work::Trouble::Disk(DiskError::NoSpace);
        let full = self.work.failures().any(|(_, failed)| failed.trouble == no_space);
        let used = self.archive_space.used();
        let pending = self.progress.totals.pending > 0;
        (full && pending && used >= ARCHIVE_NAMED_MIN).then(|| {
            format!(
                "Of the full volume the share's archive takes {}: what was replaced or deleted stays there for a day \
                 at least. What you can spare of it may be deleted from .clearskies/archive.",
                shown_bytes(used)
            )
        })
    }

    /// The peer at the other end of a link, for the log: what it calls its computer, and its address.
    pub(super) fn who(&self, ctx: &Ctx<'_>, conn: ConnId) -> String {
        let Some(link) = ctx.links.all.get(&conn) else { return "a peer that is gone".to_owned() };
        let name = link.peer.and_then(|peer| super::known_name(&self.names, peer));
        name.map_or_else(|| link.addr.to_string(), |name| format!("{name} ({})", link.addr))
    }

    /// Sentences about members from whom much came that contradicts other versions.
    fn fault_problems(&self) -> impl Iterator<Item = String> {
        self.faults
            .told()
            .take(NAMED_MAX)
            .map(|(peer, count)| faults::sentence(&super::shown_name(&self.names, peer), count))
    }

    /// Failed paths, those with one reason in one sentence.
    fn failed_paths(&self) -> impl Iterator<Item = String> {
        let mut reasons: BTreeMap<&'static str, (&RelPath, u64)> = BTreeMap::new();
        // Failures of paths that came into step some other way are forgotten by the next sweep, and told no more.
        for (path, failure) in self.work.failures().filter(|_| self.progress.totals.pending > 0) {
            reasons.entry(failure_sentence(failure.trouble)).or_insert((path, 0)).1 += 1;
        }
        reasons.into_iter().map(|(why, (path, count))| match count {
            0 | 1 => format!("{}: {why}", shown(path)),
            _ => format!("{} and {} more: {why}", shown(path), count - 1),
        })
    }

    /// The peers that were ever met; `dialed` are those whose address is remembered.
    pub fn known_peers(&self, dialed: impl Iterator<Item = PeerId>) -> BTreeSet<PeerId> {
        let linked = self.links.values().map(|link| link.peer);
        let mut known: BTreeSet<PeerId> = self.names.keys().copied().chain(linked).chain(dialed).collect();
        known.extend(self.resumes.keys());
        known.remove(&self.id());
        known
    }

    /// The whole state; `dialed` as in [`Share::known_peers`].
    pub fn status(&self, dialed: impl Iterator<Item = PeerId>, now: Instant) -> ShareStatus {
        let connected: BTreeSet<PeerId> = self.links.values().map(|link| link.peer).collect();
        let totals = self.progress.totals;
        let count = |peers: &BTreeSet<PeerId>| u32::try_from(peers.len()).unwrap_or(u32::MAX);
        ShareStatus {
            path: self.folder.path.clone(),
            state: self.state(),
            problems: self.problems(now),
            files: totals.files,
            bytes: totals.bytes,
            pending_files: totals.pending,
            pending_bytes: totals.pending_bytes.saturating_sub(self.work.arrived_bytes()),
            failed_files: self.failed_count(),
            unreadable_files: u64::try_from(self.survey.unreadable.len()).unwrap_or(u64::MAX),
            held_deletions: self.survey.held.count(),
            peers_connected: count(&connected),
            peers_known: count(&self.known_peers(dialed)),
            conflicts: totals.conflicts,
            level: self.club.as_ref().map_or(Level::ReadWrite, Club::level),
        }
    }
}

/// A size of a megabyte and more as people read it, cut after one digit.
fn shown_bytes(bytes: u64) -> String {
    let units = [(1_000_000_000_000, "TB"), (1_000_000_000, "GB")];
    let (unit, name) = units.into_iter().find(|(unit, _)| bytes >= *unit).unwrap_or((1_000_000, "MB"));
    format!("{}.{} {name}", bytes / unit, bytes % unit / (unit / 10))
}

/// A path as a status names it.
fn shown(path: &RelPath) -> &str {
    if path.is_root() { "The share's folder" } else { path.as_str() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::place::Misplaced;

    const DISK: [DiskError; 11] = [
        DiskError::NotFound,
        DiskError::Exists,
        DiskError::NotEmpty,
        DiskError::WrongKind,
        DiskError::Denied,
        DiskError::OtherVolume,
        DiskError::NoSpace,
        DiskError::BadName,
        DiskError::RootMissing,
        DiskError::Changed,
        DiskError::Io,
    ];

    #[test]
    fn sizes_are_cut() {
        let sizes = [0, 999_999, 1_000_000, 999_999_999, 1_000_000_000, u64::MAX].map(shown_bytes);
        assert_eq!(sizes, ["0.0 MB", "0.9 MB", "1.0 MB", "999.9 MB", "1.0 GB", "18446744.0 TB"]);
    }

    #[test]
    fn sentences_are_whole() {
        let misplaced = [Misplaced::InHome, Misplaced::AroundHome, Misplaced::InOwn].map(Trouble::Misplaced);
        let troubles = DISK.map(Trouble::Unreachable).into_iter().chain(misplaced);
        let troubles = troubles.chain([Trouble::NoMarker, Trouble::OtherMarker]);
        for trouble in troubles {
            let sentence = folder_sentence(trouble, "/home/ada/Documents");
            assert!(sentence.starts_with("/home/ada/Documents ") && sentence.ends_with('.'), "{sentence}");
            assert!(!sentence.contains("  "), "{sentence}");
        }
        for error in [StoreError::NoSpace, StoreError::Corrupt, StoreError::Io] {
            let sentence = store_sentence(error);
            assert!(sentence.ends_with('.') && !sentence.contains("  "), "{sentence}");
        }
        for error in DISK {
            assert!(disk_sentence(error).ends_with('.'));
        }
    }

    #[test]
    fn forgetting_covers_every_space_and_no_other_share() {
        let root = RootId(7);
        let writes = forget_writes(root);
        assert_eq!(writes.len(), Space::ALL.len());
        let covers = |write: &Write, in_space: Space, key: &[u8]| match write {
            Write::DeleteRange { space, start, end } => {
                *space == in_space && start.as_slice() <= key && key < end.as_slice()
            }
            _ => false,
        };
        let covered = |space, key: &[u8]| writes.iter().any(|write| covers(write, space, key));
        for fact in [layout::Fact::Share, layout::Fact::Name] {
            assert!(covered(Space::Meta, &layout::fact_key(root, fact)));
            assert!(covered(Space::Meta, &layout::peer_fact_key(root, fact, PeerId([0xff; 16]))));
            assert!(!covered(Space::Meta, &layout::fact_key(RootId(8), fact)));
            assert!(!covered(Space::Meta, &layout::fact_key(RootId(6), fact)));
        }
        assert!(!covered(Space::Meta, &layout::node_key("run")));
        for space in Space::ALL.into_iter().filter(|space| *space != Space::Meta) {
            assert!(covered(space, &layout::arrival_key(root, u64::MAX)));
            assert!(!covered(space, &layout::arrival_key(RootId(8), 0)));
        }
    }
}
