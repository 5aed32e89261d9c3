//! What a user may ask of the engine. Each command returns an id at once; its outcome is [`Event::Done`].
//!
//! [`Event::Done`]: crate::engine::event::Event::Done

use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use crate::club::code::AccessCode;
use crate::club::level::Level;

/// A request of the user.
#[derive(Clone, Debug)]
pub enum Command {
    /// Makes a share of an existing folder. Outcome: [`Reply::Share`].
    CreateShare {
        /// Absolute path of the folder.
        path: String,
    },
    /// Makes an access code for a share. Outcome: [`Reply::Code`].
    Invite {
        /// The share's path.
        path: String,
        /// The level that the code grants.
        level: Level,
        /// How long it is valid; `None`: for ever.
        valid_for: Option<Duration>,
        /// Whether more than one peer may use it.
        multi_use: bool,
    },
    /// Joins a share with a code. The share exists from then on and waits for a peer that knows the code.
    /// Outcome: [`Reply::Share`] as soon as it is stored, not when a peer was found.
    Attach {
        /// The code, as typed (see [`AccessCode::parse`]).
        code: String,
        /// Absolute path of the folder; made where it is missing.
        path: String,
        /// What to do with a folder that has contents.
        existing: Existing,
        /// Where a member may be, besides what the code itself says.
        peers: Vec<SocketAddr>,
    },
    /// Ends sharing of a folder here. Files stay. Outcome: [`Reply::Done`].
    Detach {
        /// The share's path.
        path: String,
    },
    /// Tries a peer's address for every share, now and again later. Outcome: [`Reply::Done`].
    Connect {
        /// Where.
        addr: SocketAddr,
    },
    /// Stops all transfers and closes all connections until resumed. Outcome: [`Reply::Done`].
    Pause,
    /// The opposite. Outcome: [`Reply::Done`].
    Resume,
    /// The state of everything. Outcome: [`Reply::Status`].
    Status,
    /// Known peers. Outcome: [`Reply::Peers`].
    Peers,
    /// Conflict files. Outcome: [`Reply::Conflicts`].
    Conflicts {
        /// The share's path; `None` for all.
        path: Option<String>,
    },
    /// Resolves a conflict file: keeps it in place of the file it lost to, or drops it. Outcome: [`Reply::Done`].
    Resolve {
        /// Absolute path of the conflict file.
        path: String,
        /// True: its content becomes the original's; false: it is deleted.
        keep: bool,
    },
    /// Deletes that are held back. Outcome: [`Reply::Deletions`].
    Deletions {
        /// The share's path; `None` for all.
        path: Option<String>,
    },
    /// Decides about held deletes. Outcome: [`Reply::Done`].
    DecideDeletions {
        /// The share's path.
        path: String,
        /// True: they are sent; false: the files are brought back.
        confirm: bool,
    },
    /// What the archive holds. Outcome: [`Reply::Archive`].
    Archive {
        /// The share's path.
        path: String,
    },
    /// Brings an archived file back beside or at its old path, or of a directory all that is not there now. Outcome:
    /// [`Reply::Restored`] or [`Reply::RestoredAll`].
    Restore {
        /// Absolute path that the file or directory had.
        path: String,
        /// Folder in the archive; `None`: the newest that has it.
        folder: Option<String>,
    },
    /// Why a path is not in step. Outcome: [`Reply::Why`].
    Why {
        /// Absolute path.
        path: String,
    },
    /// Reads a setting, or all. Outcome: [`Reply::Settings`].
    ReadSettings {
        /// The setting; `None` for all.
        key: Option<String>,
    },
    /// Changes a setting. Outcome: [`Reply::Done`].
    WriteSetting {
        /// The setting.
        key: String,
        /// Its new value, as text.
        value: String,
    },
    /// Changes several settings: all of them, or none where one is refused. Outcome: [`Reply::Done`].
    WriteSettings {
        /// Names and new values.
        settings: Vec<(String, String)>,
    },
    /// Says goodbye to all peers, stores what is to be stored. [`Event::Stopped`] follows.
    ///
    /// [`Event::Stopped`]: crate::engine::event::Event::Stopped
    Stop,
}

/// What to do with the contents of a folder that is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// The folder must be missing or empty.
    Refuse,
    /// Contents of both sides are united; files that differ under one name become a conflict file.
    Merge,
    /// The club's contents win: what differs here goes to the archive.
    Replace,
}

/// How a command ended well.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Done; nothing to tell.
    Done,
    /// A share was made or attached (or was there already).
    Share {
        /// Its path, links resolved.
        path: String,
        /// False if it was there already.
        new: bool,
    },
    /// A code was made.
    Code {
        /// The code.
        code: AccessCode,
        /// First 16 bytes of SHA-256 over the read_write public key, for the URL form's `k`.
        fingerprint: [u8; 16],
    },
    /// The state of everything.
    Status(NodeStatus),
    /// Known peers.
    Peers(Vec<PeerStatus>),
    /// Conflict files.
    Conflicts(Vec<Conflict>),
    /// Held deletes, as absolute paths.
    Deletions(Vec<HeldDeletions>),
    /// Archived files.
    Archive(Vec<crate::io::disk::Archived>),
    /// A file came back.
    Restored {
        /// Where it is now, absolute.
        path: String,
    },
    /// What was missing beneath a directory came back.
    RestoredAll {
        /// The directory, absolute.
        path: String,
        /// How many files and links.
        files: u64,
    },
    /// Sentences that say why a path is not in step, or that it is.
    Why(Vec<String>),
    /// Settings and their values.
    Settings(Vec<(String, String)>),
}

/// How a command failed: what happened, to which thing, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandError {
    /// A short, stable word for programs.
    pub code: &'static str,
    /// A sentence for people.
    pub message: String,
}

/// The state of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeStatus {
    /// Whether the node is paused.
    pub paused: bool,
    /// Bytes per second sent, over the last few seconds.
    pub upload_rate: u64,
    /// Bytes per second received.
    pub download_rate: u64,
    /// Each share.
    pub shares: Vec<ShareStatus>,
}

/// The state of a share.
#[derive(Clone, Debug, PartialEq)]
pub struct ShareStatus {
    /// Absolute path.
    pub path: String,
    /// In one word.
    pub state: ShareState,
    /// What stands in the way, as sentences; empty if nothing does.
    pub problems: Vec<String>,
    /// Live files known to the club.
    pub files: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Paths that are not here yet.
    pub pending_files: u64,
    /// Bytes still to be received.
    pub pending_bytes: u64,
    /// Paths that failed, and are tried again later.
    pub failed_files: u64,
    /// Paths that cannot be read or synced.
    pub unreadable_files: u64,
    /// Deletions that wait for the user's word.
    pub held_deletions: u64,
    /// Peers connected now.
    pub peers_connected: u32,
    /// Peers ever met.
    pub peers_known: u32,
    /// Live conflict files.
    pub conflicts: u64,
    /// The level held here.
    pub level: Level,
}

/// A share's state in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShareState {
    /// The folder is being opened or looked through.
    Scanning,
    /// Attached, and no member with this code was met yet.
    Joining,
    /// Something is still to be received, stored or sent.
    Syncing,
    /// Something waits for the user, or for another attempt later; see the problems.
    Attention,
    /// Nothing to do, with every connected peer; at least one is connected.
    InSync,
    /// Nothing to do here, and no peer is connected.
    Alone,
    /// Transfers are stopped by the user.
    Paused,
    /// The folder is not there, or not the share's; see the problems.
    Stopped,
}

/// What is known of a peer.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerStatus {
    /// The share's path.
    pub share: String,
    /// Its id in hex.
    pub id: String,
    /// The name that it gave, if any.
    pub name: String,
    /// Whether it is connected now.
    pub connected: bool,
    /// Its address, if known.
    pub addr: Option<SocketAddr>,
    /// The level of the link, if connected.
    pub level: Option<Level>,
    /// Bytes received from it in this run.
    pub received: u64,
    /// Bytes sent to it in this run.
    pub sent: u64,
}

/// A conflict file.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    /// Absolute path of the conflict file.
    pub path: String,
    /// Absolute path of the file that it lost to.
    pub original: String,
    /// When the losing version was made.
    pub time: crate::time::WallTime,
    /// The peer that made it: its name, or its id.
    pub peer: String,
}

/// Deletes that a share holds back.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldDeletions {
    /// The share's path.
    pub share: String,
    /// How many.
    pub count: u64,
    /// The first of them (100 at most), relative to the share.
    pub paths: Vec<String>,
}
