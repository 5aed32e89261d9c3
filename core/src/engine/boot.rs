//! The start: the store's small facts are read, shares come to life, and the store is told from a copy or a backup of
//! itself (protocol §7, Revisions).

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use crate::club::codebook::CodeBook;
use crate::club::identity::PeerKeys;
use crate::club::keys::Club;
use crate::engine::Engine;
use crate::engine::event::Event;
use crate::engine::outbox::Outbox;
use crate::ids::{PeerId, RootId, Token};
use crate::index::codec::PeerTable;
use crate::io::store::{Durability, Row, Space, StoreDone, StoreOp, Write};
use crate::io::{Completion, Output};
use crate::share::folder::ShareFact;
use crate::share::layout::{self, Fact, MetaKey};
use crate::share::progress::Progress;
use crate::share::renewal::Renewal;
use crate::share::{Membership, Share, decode_resume, put_fact};
use crate::time::{Instant, Now, retry_pause};

/// Facts of one look-up.
const PAGE: u32 = 1000;

/// The node's fact that holds the token of this run, and before it the last one's, if the store is of that run: until
/// the host has put the new one beside the store, the old one is there.
const RUN_TOKENS: &str = "run";
/// Prefix of a setting's key.
pub const SETTING: &str = "setting/";

/// A club's facts: number, rest of the key, value.
type Facts = Vec<(u8, Vec<u8>, Vec<u8>)>;

/// How far the start got.
#[derive(Debug)]
pub struct Boot {
    loading: Option<Token>,
    /// The commit that names this run; until it is kept nothing begins.
    naming: Option<Token>,
    /// Whether the host is to name this run beside the store; until it has nothing begins.
    host_names: bool,
    /// Whether the store is another one than this node last wrote.
    renewed: bool,
    failed: Option<String>,
    retry_at: Option<Instant>,
    /// The last pause.
    pause: Option<Duration>,
    node: BTreeMap<String, Vec<u8>>,
    clubs: BTreeMap<RootId, Facts>,
}

impl Boot {
    /// Asks for the first facts.
    pub fn begin(out: &mut Outbox) -> Boot {
        let token = load(out, Vec::new());
        Boot {
            loading: Some(token),
            naming: None,
            host_names: false,
            renewed: false,
            failed: None,
            retry_at: None,
            pause: None,
            node: BTreeMap::new(),
            clubs: BTreeMap::new(),
        }
    }

    /// Whether the engine is at work.
    pub fn is_done(&self) -> bool {
        self.loading.is_none() && self.naming.is_none() && !self.host_names
    }

    /// Why the node cannot work, if so.
    pub fn failed(&self) -> Option<&String> {
        self.failed.as_ref()
    }

    /// When a start that failed is tried again.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.retry_at
    }

    fn take(&mut self, rows: Vec<Row>) {
        for (key, value) in rows {
            match layout::meta_key(&key) {
                Some(MetaKey::Node(name)) => {
                    self.node.insert(String::from_utf8_lossy(name).into_owned(), value);
                }
                Some(MetaKey::Club(root, fact, rest)) => {
                    self.clubs.entry(root).or_default().push((fact, rest.to_vec(), value));
                }
                None => {}
            }
        }
    }
}

fn load(out: &mut Outbox, start: Vec<u8>) -> Token {
    out.store(StoreOp::Load { queries: [layout::meta_page(start, PAGE)].into() })
}

/// What the user is told where the home was in use and the store is new.
const STORE_GONE: &str = "The node's database is gone, and with it what it knew of its shares; a new one was made. No \
    file was touched. Attach each folder again with --merge, with a code from another member; a folder that no other \
    computer has is shared anew.";

impl Engine {
    /// Takes a completion that may be the start's; false if it is not.
    pub(super) fn boot_completion(&mut self, now: Now, token: Token, completion: &mut Completion) -> bool {
        if self.boot.naming.take_if(|naming| *naming == token).is_some() {
            match completion {
                Completion::Store(Ok(_)) => {
                    self.boot.host_names = true;
                    self.out.push(Output::NameRun);
                }
                _ => self.boot_failed(now),
            }
            return true;
        }
        if self.boot.loading != Some(token) {
            return false;
        }
        let rows = match completion {
            Completion::Store(Ok(StoreDone::Loaded(answers))) => answers.pop().unwrap_or_default(),
            _ => {
                self.boot_failed(now);
                return true;
            }
        };
        let next = rows.last().filter(|_| rows.len() == PAGE as usize).map(|(key, _)| {
            let mut key = key.clone();
            key.push(0);
            key
        });
        self.boot.take(rows);
        if let Some(start) = next {
            self.out.set_owner(None);
            self.boot.loading = Some(load(&mut self.out, start));
            return true;
        }
        self.boot.loading = None;
        self.name_run();
        true
    }

    /// The host has put the token of this run beside the store, or could not.
    pub(super) fn run_named(&mut self, now: Now, done: bool) {
        if core::mem::take(&mut self.boot.host_names) {
            if done { self.begun(now) } else { self.boot_failed(now) }
        }
    }

    /// The store and the file beside it know of this run: the node goes to work.
    fn begun(&mut self, now: Now) {
        if self.boot.failed.take().is_some() {
            let message = "The node's database can be used again.".into();
            self.out.event(Event::Notice { share: None, message });
        }
        self.come_to_life(now);
        self.run_early(now);
    }

    /// The store could not be read, or it or the file beside it did not take the name of this run: the start begins
    /// anew after a while.
    fn boot_failed(&mut self, now: Now) {
        let why = "The node's database cannot be used; see the log. Nothing is synced until it can; it is tried again.";
        if self.boot.failed.replace(why.into()).is_none() {
            self.out.event(Event::Notice { share: None, message: why.into() });
        }
        self.boot.loading = None;
        self.boot.node.clear();
        self.boot.clubs.clear();
        let pause = retry_pause(self.boot.pause);
        self.boot.retry_at = Some(now.mono.plus(pause));
        self.boot.pause = Some(pause);
        self.run_early(now);
    }

    /// Tries a start that failed again, if it is time.
    pub(super) fn boot_timeout(&mut self, now: Now) {
        if self.boot.retry_at.take_if(|at| *at <= now.mono).is_some() && !self.stopping {
            self.out.set_owner(None);
            self.boot.loading = Some(load(&mut self.out, Vec::new()));
        }
    }

    fn run_early(&mut self, now: Now) {
        while let Some((id, command)) = self.early.pop_front() {
            self.command(now, id, command);
        }
    }

    /// Tells this store from a copy of it, and has that kept.
    fn name_run(&mut self) {
        let run = self.config.run_token;
        let stored = self.boot.node.get(RUN_TOKENS);
        let is_last =
            |tokens: &Vec<u8>| run.found.is_some_and(|found| tokens.chunks(found.len()).any(|t| t == found));
        // Else a backup, a copy, or one whose tail a crash of the machine took.
        let is_ours = stored.is_none_or(is_last);
        self.boot.renewed = !is_ours || (run.tail_may_be_lost && stored.is_some());
        // A start that is cut off before the host has named it leaves a store that is as much this node's as it was.
        let last = run.found.filter(|_| stored.is_some() && is_ours);
        let tokens = last.into_iter().chain([run.new]).flatten().collect();
        let name = Write::Put { space: Space::Meta, key: layout::node_key(RUN_TOKENS), value: tokens };
        let due = self.boot.clubs.keys().filter(|_| self.boot.renewed);
        let due = due.map(|&root| put_fact(root, Fact::Renewal, Vec::new()));
        let writes = [name].into_iter().chain(due).collect();
        self.boot.naming = Some(self.commit(writes, Durability::Now));
    }

    fn come_to_life(&mut self, now: Now) {
        let node = core::mem::take(&mut self.boot.node);
        for (key, value) in &node {
            if let Some(name) = key.strip_prefix(SETTING) {
                self.settings.restore(name, &String::from_utf8_lossy(value));
            }
        }
        self.paused = self.settings.paused();
        if !node.contains_key(RUN_TOKENS) && self.config.run_token.found.is_some() {
            self.out.event(Event::Notice { share: None, message: STORE_GONE.into() });
        }
        for (root, facts) in core::mem::take(&mut self.boot.clubs) {
            self.next_root = self.next_root.max(root.0 + 1);
            let path = facts.iter().find(|(fact, ..)| *fact == Fact::Share as u8);
            let path = path.and_then(|(_, _, value)| ShareFact::decode(value)).map(|fact| fact.path);
            let renewed = self.boot.renewed || facts.iter().any(|(fact, ..)| *fact == Fact::Renewal as u8);
            match self.revive(now, root, facts) {
                Some(mut share) => {
                    share.paused = self.paused;
                    let forgotten = if renewed { share.restored.forget_all() } else { Vec::new() };
                    if !forgotten.is_empty() {
                        self.commit(forgotten, Durability::Soon);
                    }
                    self.shares.insert(root, share);
                }
                None => {
                    let message = format!(
                        "What the database holds about the share {} cannot be read; attach or share the folder again.",
                        path.as_deref().unwrap_or("?")
                    );
                    self.out.event(Event::Notice { share: path, message });
                    continue;
                }
            }
            let Some((share, mut ctx)) = self.share_ctx(now, root) else { continue };
            if renewed {
                share.begin_renewal(Renewal::StrangeStore);
                share.doubt_store();
            }
            share.folder.open(ctx.out);
            share.pump(&mut ctx);
        }
    }

    fn revive(&mut self, now: Now, root: RootId, facts: Facts) -> Option<Share> {
        let single = |wanted: Fact| {
            facts.iter().find(|(fact, ..)| *fact == wanted as u8).map(|(_, _, value)| value.as_slice())
        };
        let per_peer = |wanted: Fact| {
            facts
                .iter()
                .filter(move |(fact, ..)| *fact == wanted as u8)
                .filter_map(|(_, rest, value)| Some((PeerId::from_slice(rest)?, value.as_slice())))
        };
        let fact = ShareFact::decode(single(Fact::Share)?)?;
        let folder = fact.folder(root)?;
        let seed: [u8; 32] = single(Fact::Identity)?.try_into().ok()?;
        let keys = Arc::new(PeerKeys::from_seed(&seed));
        let club = match single(Fact::Club) {
            Some(bytes) => Some(Club::decode(bytes)?),
            None => None,
        };
        let membership = match (&club, fact.joining()) {
            (Some(_), _) => Membership::Member,
            (None, Some(joining)) => Membership::Joining(joining),
            (None, None) => return None,
        };
        let peers = match single(Fact::Peers) {
            Some(bytes) => PeerTable::decode(bytes).ok()?,
            None => PeerTable::default(),
        };
        let progress = match single(Fact::Progress) {
            Some(bytes) => Progress::decode(bytes, &peers).ok()?,
            None => Progress::default(),
        };
        let restored = facts.iter().filter(|(fact, ..)| *fact == Fact::Restored as u8);
        let mut share = Share::new(root, folder, membership, keys, &mut self.rng);
        share.restored.load(restored.map(|(_, rest, value)| (rest.as_slice(), value.as_slice())));
        share.club = club;
        share.codes = match single(Fact::Codes) {
            Some(bytes) => CodeBook::decode(bytes)?,
            None => CodeBook::default(),
        };
        share.set_peers(peers);
        share.resume_from(progress);
        share.names = per_peer(Fact::Name)
            .map(|(peer, name)| (peer, String::from_utf8_lossy(name).into_owned()))
            .collect();
        share.resumes =
            per_peer(Fact::Resume).filter_map(|(peer, at)| Some((peer, decode_resume(at)?))).collect();
        if let Some(bytes) = single(Fact::Addresses) {
            self.dialer.decode(root, bytes, now.mono);
        }
        Some(share)
    }
}
