//! Making a share of a folder, and attaching one: the steps until the share exists (issue: nothing is written before
//! the folder was found fit).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::club::code::{Invitation, PeerAddress};
use crate::club::identity::PeerKeys;
use crate::club::keys::Club;
use crate::discovery::dialer::Source;
use crate::engine::Engine;
use crate::engine::command::{CommandError, Existing, Reply};
use crate::engine::commands::AfterCommit;
use crate::engine::event::Event;
use crate::ids::{CommandId, RootId, Token};
use crate::io::store::Durability;
use crate::io::{Completion, DiskDone, DiskError, DiskOp};
use crate::share::folder::{self, Folder, Joining, ShareFact};
use crate::share::layout::Fact;
use crate::share::{Membership, Share, place, put_fact, status};
use crate::time::Now;

/// A share that is being made.
#[derive(Debug)]
pub struct Setup {
    id: CommandId,
    path: String,
    kind: Kind,
    token: Token,
}

#[derive(Debug)]
enum Kind {
    Create,
    Marking(alloc::boxed::Box<Share>),
    Attach { joining: Joining, existing: Existing, peers: Vec<SocketAddr> },
}

impl Engine {
    /// The share at a path.
    pub(super) fn share_at(&self, path: &str) -> Option<RootId> {
        self.shares.iter().find(|(_, share)| share.folder.path == path).map(|(&root, _)| root)
    }

    /// Why a folder cannot become a share, where the home and the shares that exist are.
    fn overlap(&self, path: &str) -> Option<CommandError> {
        if let Err(why) = place::judge(path, &self.config.home) {
            return Some(CommandError { code: "misplaced", message: place::sentence(path, why) });
        }
        let taken = self.shares.values().map(|share| &share.folder.path);
        let taken = taken.chain(self.setups.values().map(|setup| &setup.path));
        for other in taken {
            let inside = |inner: &str, outer: &str| place::lies_in(inner.as_bytes(), outer.as_bytes());
            let message = if path == other {
                format!("{path} is shared already; detach it first to start anew.")
            } else if inside(path, other) {
                format!(
                    "{path} lies inside {other}, which is shared already. A share cannot lie inside another one."
                )
            } else if inside(other, path) {
                format!(
                    "{other}, which is shared already, lies inside {path}. A share cannot lie inside another one."
                )
            } else {
                continue;
            };
            return Some(CommandError { code: "path_taken", message });
        }
        None
    }

    /// Makes a share of a folder; one that exists is fine as it is.
    pub(super) fn create_share(&mut self, id: CommandId, path: String) {
        if self.share_at(&path).is_some() {
            return self.reply(id, Ok(Reply::Share { path, new: false }));
        }
        self.begin_setup(id, path, Kind::Create, false);
    }

    /// Attaches a folder with a code.
    pub(super) fn attach(
        &mut self,
        id: CommandId,
        code: &str,
        path: String,
        existing: Existing,
        mut peers: Vec<SocketAddr>,
    ) {
        let invitation = match Invitation::parse(code) {
            Ok(invitation) => invitation,
            Err(error) => {
                let message = error.to_string();
                return self.reply(id, Err(CommandError { code: "invalid_code", message }));
            }
        };
        peers.extend(invitation.addrs.iter().filter_map(|addr| match addr {
            PeerAddress::Socket(addr) => Some(*addr),
            PeerAddress::Name { .. } => None,
        }));
        let own =
            self.shares.values().any(|share| share.codes.iter().any(|(_, e)| *e.code() == invitation.code));
        if own {
            let message = "This code was made by this very node; use it on another computer.".to_string();
            return self.reply(id, Err(CommandError { code: "own_code", message }));
        }
        let named = |club: &Club| invitation.fingerprint == Some(club.fingerprint());
        if let Some(other) = self.share_of(named) {
            let message = has_it_already(other);
            return self.reply(id, Err(CommandError { code: "joined_already", message }));
        }
        let joining = Joining { code: invitation.code, fingerprint: invitation.fingerprint };
        let same =
            |share: &&Share| matches!(&share.membership, Membership::Joining(it) if it.code == joining.code);
        if let Some(other) = self.shares.values().find(same) {
            let message = format!(
                "{} joins with this code already. Wait for it, or detach it first.",
                other.folder.path
            );
            return self.reply(id, Err(CommandError { code: "joined_already", message }));
        }
        self.begin_setup(id, path, Kind::Attach { joining, existing, peers }, true);
    }

    fn begin_setup(&mut self, id: CommandId, path: String, kind: Kind, create: bool) {
        if let Some(error) = self.overlap(&path) {
            return self.reply(id, Err(error));
        }
        let root = RootId(self.next_root);
        self.next_root += 1;
        self.out.set_owner(None);
        let token = self.out.disk(DiskOp::OpenRoot { root, path: path.clone(), create });
        self.setups.insert(root, Setup { id, path, kind, token });
    }

    /// Takes a completion that may be a set-up's; gives it back if it is not.
    pub(super) fn setup_completion(
        &mut self,
        now: Now,
        token: Token,
        completion: Completion,
    ) -> Option<Completion> {
        let Some(root) = self.setups.iter().find(|(_, setup)| setup.token == token).map(|(&root, _)| root)
        else {
            return Some(completion);
        };
        let setup = self.setups.remove(&root)?;
        let Completion::Disk(result) = completion else { return None };
        match (setup.kind, result) {
            (Kind::Marking(share), Ok(_)) => self.found(setup.id, *share),
            (kind, Ok(DiskDone::Opened { empty, path, marker, grain })) => {
                let marked = marker.is_some().then(|| self.heed_mark(&path, &kind)).flatten();
                if let Some(error) = self.overlap(&path).or(marked) {
                    self.abandon(root, setup.id, error);
                    return None;
                }
                let mut folder = Folder::new(root, path, Vec::new(), Existing::Merge);
                folder.grain = grain;
                self.opened(now, setup.id, kind, folder, empty);
            }
            (_, Ok(_)) => {}
            (_, Err(error)) => {
                let message = open_sentence(&setup.path, error);
                self.abandon(root, setup.id, CommandError { code: "path", message });
            }
        }
        None
    }

    /// A folder has the mark of another share, as one of another node on this computer has: that one would come to a
    /// stop. It is taken over only where the user said what becomes of what the folder holds.
    fn heed_mark(&mut self, path: &str, kind: &Kind) -> Option<CommandError> {
        if let Kind::Attach { existing: Existing::Merge | Existing::Replace, .. } = kind {
            let message = "The folder had the mark of another share, which this one's replaces. A node that has that \
                           share stops it here.";
            self.out.event(Event::Notice { share: Some(path.into()), message: message.into() });
            return None;
        }
        let instead = match kind {
            Kind::Attach { .. } => ", or say --merge or --replace to put this share in its place",
            _ => "",
        };
        let message = format!(
            "{path} has the mark of another share: another node of this computer (another --home) keeps it in step, or \
             one that is gone did. Detach it there{instead}. If that node is gone for good, delete \
             {path}/.clearskies/share and try again."
        );
        Some(CommandError { code: "marked", message })
    }

    fn abandon(&mut self, root: RootId, id: CommandId, error: CommandError) {
        self.out.set_owner(None);
        let token = self.out.disk(DiskOp::CloseRoot { root });
        self.commits.insert(token, AfterCommit::Nothing);
        self.reply(id, Err(error));
    }

    fn opened(&mut self, now: Now, id: CommandId, kind: Kind, mut folder: Folder, empty: bool) {
        let (root, path) = (folder.root, folder.path.clone());
        match kind {
            Kind::Create => {
                let club = Club::create(&mut self.rng);
                let marker = folder::new_marker(club.marker_id(), &mut self.rng);
                folder.marker.clone_from(&marker);
                let keys = Arc::new(PeerKeys::generate(&mut self.rng));
                let mut share = Share::new(root, folder, Membership::Member, keys, &mut self.rng);
                share.club = Some(club);
                // The maker of a share need not wait for anybody.
                share.progress.caught_up = true;
                self.out.set_owner(None);
                let token = self.out.disk(DiskOp::WriteMarker { root, marker });
                let kind = Kind::Marking(alloc::boxed::Box::new(share));
                self.setups.insert(root, Setup { id, path, kind, token });
            }
            Kind::Attach { joining, existing, peers } => {
                if !empty && existing == Existing::Refuse {
                    let message = format!(
                        "{path} is not empty. Say --merge to unite its contents with the share's (files that differ \
                         are kept beside each other), or --replace to take the share's contents alone (what differs \
                         here goes to the archive, .clearskies/archive)."
                    );
                    return self.abandon(root, id, CommandError { code: "not_empty", message });
                }
                folder.policy = existing;
                let keys = Arc::new(PeerKeys::generate(&mut self.rng));
                let share = Share::new(root, folder, Membership::Joining(joining), keys, &mut self.rng);
                for addr in peers {
                    self.dialer.add(root, addr, Source::Invitation, now.mono);
                }
                self.found(id, share);
            }
            Kind::Marking(_) => {}
        }
    }

    /// The folder is fit: the share is stored, and exists from then on.
    fn found(&mut self, id: CommandId, mut share: Share) {
        let root = share.root;
        let joining = match &share.membership {
            Membership::Joining(joining) => Some(joining),
            Membership::Member => None,
        };
        let mut writes = Vec::from([
            put_fact(root, Fact::Share, ShareFact::new(&share.folder, joining).encode()),
            put_fact(root, Fact::Identity, share.keys.seed().to_vec()),
            put_fact(root, Fact::Addresses, self.dialer.encode(root)),
        ]);
        if let Some(club) = &share.club {
            writes.push(put_fact(root, Fact::Club, club.encode().to_vec()));
        }
        let progress = share.encode_progress();
        writes.push(put_fact(root, Fact::Progress, progress));
        let token = self.commit(writes, Durability::Now);
        let path = share.folder.path.clone();
        self.commits.insert(token, AfterCommit::Reply(id, Reply::Share { path, new: true }, Some(root)));
        share.folder.opened();
        share.paused = self.paused;
        self.shares.insert(root, share);
    }

    /// A share was stored: it comes to life.
    pub(super) fn share_stored(&mut self, now: Now, root: RootId) {
        if let Some((share, mut ctx)) = self.share_ctx(now, root) {
            share.pump(&mut ctx);
        }
    }

    /// Ends sharing of a folder here; its files stay.
    pub(super) fn detach(&mut self, now: Now, id: CommandId, path: &str) {
        let Some(root) = self.share_at(path) else { return self.reply(id, Err(not_shared(path))) };
        let conns: Vec<_> = self
            .links
            .all
            .iter()
            .filter(|(_, link)| link.club == Some(root))
            .map(|(&conn, _)| conn)
            .collect();
        for conn in conns {
            self.links.close(conn, "shutdown", "the folder is not shared here any more");
            self.forget(now, conn);
        }
        let Some(share) = self.shares.remove(&root) else { return };
        self.dialer.remove(root);
        self.out.set_owner(None);
        // Only a folder that is still this share's loses its marker.
        let marked = share.folder.is_open() && !share.folder.marker.is_empty();
        let token = self.commit(status::forget_writes(root), Durability::Now);
        self.commits.insert(token, AfterCommit::Forgotten { id, root, marked });
    }

    /// The store holds nothing of a share any more: its folder is let go, and may be shared anew once that is told.
    pub(super) fn let_go(&mut self, root: RootId, marked: bool, after: AfterCommit) {
        self.out.set_owner(None);
        let (op, after) = if marked {
            (DiskOp::RemoveMarker { root }, AfterCommit::Unmarked { root, after: after.into() })
        } else {
            (DiskOp::CloseRoot { root }, after)
        };
        let token = self.out.disk(op);
        self.commits.insert(token, after);
    }
}

/// The refusal of a command that names a folder which is not shared.
pub(super) fn not_shared(path: &str) -> CommandError {
    CommandError {
        code: "no_such_share",
        message: format!("{path} is not shared by this node; `clearskies list` shows what is."),
    }
}

/// Why a share cannot be joined a second time here.
pub(super) fn has_it_already(path: &str) -> String {
    format!(
        "This node has that share already, in {path}, and cannot have it twice. The code is still good for another \
         computer, or for another node of this one (--home)."
    )
}

/// Why a folder cannot be opened, and what to do.
fn open_sentence(path: &str, error: DiskError) -> String {
    match error {
        DiskError::NotFound => format!("{path} does not exist. Make the folder first, or check the name."),
        DiskError::WrongKind => format!("{path} is not a folder; only folders can be shared."),
        DiskError::Denied => {
            format!("{path} may not be read or written by this user; change its permissions.")
        }
        DiskError::NoSpace => format!("{path} cannot be prepared: its volume is full."),
        _ => format!("{path} cannot be opened; the log says more."),
    }
}
