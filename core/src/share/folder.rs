//! The share's folder as a whole: whether it is there, is the right one, and may be worked in (sync.md, "Deletes").

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use crate::club::code::{AccessCode, Invitation};
use crate::engine::command::Existing;
use crate::engine::outbox::Outbox;
use crate::files::reconcile::GRAIN_DEFAULT;
use crate::ids::{RootId, Token};
use crate::io::{DiskDone, DiskError, DiskOp};
use crate::rng::Rng;
use crate::share::place::{self, Misplaced};
use crate::time::{Instant, Now};

/// How long a folder that is not in order is left alone before it is looked for again.
const RETRY: Duration = Duration::from_secs(10);

/// Why a folder may not be worked in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It cannot be opened.
    Unreachable(DiskError),
    /// `.clearskies/share` is missing: another folder, or a volume that is not mounted.
    NoMarker,
    /// `.clearskies/share` names another share.
    OtherMarker,
    /// No share may be there.
    Misplaced(Misplaced),
}

#[derive(Debug)]
enum State {
    Closed,
    Opening(Token),
    Open,
    Trouble(Trouble),
}

/// A share's folder.
#[derive(Debug)]
pub struct Folder {
    /// Its number at the host.
    pub root: RootId,
    /// Absolute path.
    pub path: String,
    /// What `.clearskies/share` must hold; empty until joining has succeeded.
    pub marker: Vec<u8>,
    /// What becomes of contents that the folder had when it was attached.
    pub policy: Existing,
    /// As in [`DiskDone::Opened`].
    pub grain: Duration,
    state: State,
    retry_at: Option<Instant>,
    told: Option<Trouble>,
}

/// What joining needs until it has succeeded.
#[derive(Clone, PartialEq, Eq)]
pub struct Joining {
    /// The code.
    pub code: AccessCode,
    /// What the club's key must hash to, if the code's URL said so.
    pub fingerprint: Option<[u8; 16]>,
}

impl core::fmt::Debug for Joining {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Joining(..)")
    }
}

/// A new marker: the club's public id, and a random number that no other folder has.
pub fn new_marker(marker_id: [u8; 16], rng: &mut Rng) -> Vec<u8> {
    let random: [u8; 16] = rng.bytes();
    alloc::format!("{}\n{}\n", HEXLOWER.encode(&marker_id), HEXLOWER.encode(&random)).into_bytes()
}

impl Folder {
    /// A folder that is not open yet.
    pub fn new(root: RootId, path: String, marker: Vec<u8>, policy: Existing) -> Folder {
        Folder {
            root,
            path,
            marker,
            policy,
            grain: GRAIN_DEFAULT,
            state: State::Closed,
            retry_at: None,
            told: None,
        }
    }

    /// Whether it is open and the right one.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Whether something is wrong with it, or was when it was last tried.
    pub fn is_doubtful(&self) -> bool {
        self.trouble().is_some() || self.told.is_some()
    }

    /// What is wrong with it.
    pub fn trouble(&self) -> Option<Trouble> {
        match self.state {
            State::Trouble(trouble) => Some(trouble),
            _ => None,
        }
    }

    /// The host has it open already, and it was found in order.
    pub fn opened(&mut self) {
        self.state = State::Open;
        self.retry_at = None;
    }

    /// Asks the host to open it.
    pub fn open(&mut self, out: &mut Outbox) {
        let op = DiskOp::OpenRoot { root: self.root, path: self.path.clone(), create: false };
        self.state = State::Opening(out.disk(op));
        self.retry_at = None;
    }

    /// Something is wrong with it: nothing more is done in it until it is back.
    pub fn lost(&mut self, trouble: Trouble, now: Now) {
        self.state = State::Trouble(trouble);
        self.retry_at = Some(now.mono.plus(RETRY));
    }

    /// Takes the end of opening; `Some(true)` when the folder has just come into order.
    pub fn handle_disk(
        &mut self,
        token: Token,
        result: &Result<DiskDone, DiskError>,
        home: &[u8],
        now: Now,
    ) -> Option<Result<(), Trouble>> {
        match self.state {
            State::Opening(t) if t == token => {}
            _ => return None,
        }
        let found = match result {
            Ok(DiskDone::Opened { marker, path, grain, .. }) => {
                self.grain = *grain;
                let placed = place::judge(path, home).map_err(Trouble::Misplaced);
                placed.and_then(|()| self.judge_marker(marker.as_deref()))
            }
            Ok(_) => Err(Trouble::Unreachable(DiskError::Io)),
            Err(error) => Err(Trouble::Unreachable(*error)),
        };
        match found {
            Ok(()) => {
                self.told = None;
                self.state = State::Open;
            }
            Err(trouble) => self.lost(trouble, now),
        }
        Some(found)
    }

    /// Whether a marker is this share's.
    pub fn judge_marker(&self, found: Option<&[u8]>) -> Result<(), Trouble> {
        match found {
            _ if self.marker.is_empty() => Ok(()),
            Some(found) if found == self.marker => Ok(()),
            Some(_) => Err(Trouble::OtherMarker),
            None => Err(Trouble::NoMarker),
        }
    }

    /// Whether the user is to be told of a trouble: each is told once.
    pub fn tell(&mut self, trouble: Trouble) -> bool {
        self.told.replace(trouble) != Some(trouble)
    }

    /// When the folder is looked for again.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Looks for the folder again, if it is time.
    pub fn handle_timeout(&mut self, now: Now, out: &mut Outbox) {
        if self.retry_at.is_some_and(|at| at <= now.mono) {
            self.open(out);
        }
    }
}

/// The stored form of a share; one fact.
#[derive(Serialize, Deserialize)]
pub struct ShareFact {
    /// Absolute path.
    pub path: String,
    /// The marker, in hex.
    pub marker: String,
    /// What becomes of contents: `refuse`, `merge` or `replace`.
    pub existing: String,
    /// While joining: the invitation as a URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joining: Option<String>,
}

impl ShareFact {
    /// Of a folder.
    pub fn new(folder: &Folder, joining: Option<&Joining>) -> ShareFact {
        let existing = match folder.policy {
            Existing::Refuse => "refuse",
            Existing::Merge => "merge",
            Existing::Replace => "replace",
        };
        let joining = joining.map(|joining| {
            let fingerprint = joining.fingerprint;
            Invitation { code: joining.code.clone(), addrs: Vec::new(), fingerprint }.to_url()
        });
        ShareFact {
            path: folder.path.clone(),
            marker: HEXLOWER.encode(&folder.marker),
            existing: existing.into(),
            joining,
        }
    }

    /// As it lies in the store.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings alone always make JSON")
    }

    /// From the store.
    pub fn decode(bytes: &[u8]) -> Option<ShareFact> {
        serde_json::from_slice(bytes).ok()
    }

    /// The folder that it describes.
    pub fn folder(&self, root: RootId) -> Option<Folder> {
        let policy = match self.existing.as_str() {
            "merge" => Existing::Merge,
            "replace" => Existing::Replace,
            _ => Existing::Refuse,
        };
        let marker = HEXLOWER.decode(self.marker.as_bytes()).ok()?;
        Some(Folder::new(root, self.path.clone(), marker, policy))
    }

    /// What joining needs, if it has not succeeded yet.
    pub fn joining(&self) -> Option<Joining> {
        let invitation = Invitation::parse(self.joining.as_ref()?).ok()?;
        Some(Joining { code: invitation.code, fingerprint: invitation.fingerprint })
    }
}
