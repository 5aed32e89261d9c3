//! Looks at a world for the checks, which see nothing else of it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use clearskies_core::discovery::dialer::Dialer;
use clearskies_core::engine::command::{Command, Reply};
use clearskies_core::files::path::RelPath;
use clearskies_core::files::row::PathRow;
use clearskies_core::ids::{RootId, Uuid};
use clearskies_core::index::codec::PeerTable;
use clearskies_core::index::record::{EntryContent, Record};
use clearskies_core::io::store::Space;
use clearskies_core::share::layout::{Fact, MetaKey, meta_key, path_key, path_of_key};
use clearskies_core::share::txn::decode_stored_record;

use super::super::check::{self, Checked, Counts, Machine};
use super::super::share::SHARE;
use super::super::users::{Item, Tree};
use super::History;
use super::Manner;
use crate::member::sha256;

const NO_CONTENT: &str = "No connected peer has its content";
const NOT_AVAILABLE: &str = "no connected peer has its content";
/// A clock that users set wrong is told of as well.
const CLOCK: &str = "This computer's clock is not believed";
/// How long something may be about to be noted.
const MOMENT: Duration = Duration::from_secs(5);
/// So many paths of one machine are asked for their reasons at once.
const ASKED_MAX: usize = 20;

impl History {
    pub(super) fn machines(&self) -> Vec<Machine> {
        (0..self.world.nodes.len()).map(|index| self.machine(index)).collect()
    }

    /// The machines without what waits on any of them for a content that is lost: each shows there what it had before,
    /// and a directory stands above it only where it stood once.
    pub(super) fn without_waiting(mut machines: Vec<Machine>) -> Vec<Machine> {
        let pending: BTreeSet<String> =
            machines.iter().flat_map(|machine| machine.pending.iter().cloned()).collect();
        let above = |dir: &str| {
            let beneath = |path: &String| path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
            pending.iter().any(beneath)
        };
        for machine in &mut machines {
            let waits =
                |path: &String, item: &Item| pending.contains(path) || *item == Item::Dir(0) && above(path);
            machine.tree.retain(|path, item| !waits(path, item));
        }
        machines
    }

    /// Whether a liar's records are all that any machine still waits for, but for contents that no machine has.
    pub(super) fn only_lies_wait(&mut self) -> bool {
        let machines = self.machines();
        if self.lied != Some(Manner::Records) || machines.iter().all(|machine| machine.pending.is_empty()) {
            return false;
        }
        let machines = self.without_lies(machines);
        let waiting: BTreeSet<String> =
            machines.iter().flat_map(|machine| machine.pending.iter().cloned()).collect();
        waiting.into_iter().all(|path| {
            // Who has it is in step.
            let all_wait = machines.iter().all(|machine| machine.pending.contains(&path));
            let path = format!("{SHARE}/{path}");
            let why = all_wait.then(|| self.world.ask(0, Command::Why { path }));
            matches!(why, Some(Ok(Reply::Why(why))) if why.iter().any(|why| why.contains(NO_CONTENT)))
        })
    }

    /// The keys that records of which the liar spoke, and their conflict files, have on a machine, and the paths where
    /// their contents lie: it may have given one a key that is no path.
    fn keys_of_lies(&self, index: usize) -> Vec<String> {
        let (live, peers) = (self.world.nodes[index].store.live(), self.peers(index));
        let records =
            live.iter(Space::Record).filter_map(|(_, value)| decode_stored_record(value, &peers).ok());
        let is_lie = |record: &Record| {
            let source = record.conflict_source();
            self.world.lied_of_record(&record.uuid)
                || source.is_some_and(|uuid| self.world.lied_of_record(&uuid))
        };
        let mut keys: Vec<String> =
            records.map(|(record, _)| record).filter(is_lie).map(|record| record.key).collect();
        for (key, value) in live.iter(Space::Path) {
            let base = PathRow::decode(value, &peers).ok().and_then(|row| row.base_uuid());
            if let (Some(path), true) =
                (path_of_key(key), base.is_some_and(|uuid| self.world.lied_of_record(&uuid)))
            {
                keys.push(path.as_str().to_owned());
            }
        }
        keys
    }

    /// The machines without what a liar spoke of, what lies beneath or above that, and conflict files of all these.
    pub(super) fn without_lies(&self, mut machines: Vec<Machine>) -> Vec<Machine> {
        // A user may have moved what it made.
        let mut said = self.world.lied_of();
        (0..machines.len()).for_each(|index| said.extend(self.keys_of_lies(index)));
        let said: Vec<String> = said.iter().map(|key| key.trim_start_matches('/').to_owned()).collect();
        let beneath =
            |path: &str, dir: &str| path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
        let touched =
            |path: &str| said.iter().any(|key| path == key || beneath(path, key) || beneath(key, path));
        let is_doubtful = |path: &String| {
            let mut path = path.clone();
            loop {
                if touched(&path) {
                    return true;
                }
                match check::conflict_of(&path) {
                    Some(original) => path = original,
                    None => return false,
                }
            }
        };
        for machine in &mut machines {
            machine.tree.retain(|path, _| !is_doubtful(path));
            machine.pending.retain(|path| !is_doubtful(path));
        }
        machines
    }

    fn machine(&self, index: usize) -> Machine {
        let node = &self.world.nodes[index];
        Machine {
            tree: self.tree(index),
            archive: node.disk.archive(SHARE),
            outside: node.disk.names(""),
            temps: node.disk.temps(SHARE),
            intents: node.store.live().rows(Space::Intent),
            pending: self.pending(index),
        }
    }

    /// A machine's tree. A directory that stands only for what lies beneath has no record, so that nobody agreed on its
    /// permissions; nor did anybody where a liar's record says nothing of them.
    fn tree(&self, index: usize) -> Tree {
        let node = &self.world.nodes[index];
        let mut tree = node.disk.tree(SHARE);
        for (key, value) in node.store.live().iter(Space::Path) {
            // Such a row has no base, so that it names no peers.
            let row = PathRow::decode(value, &PeerTable::default());
            if let (Some(path), true) =
                (path_of_key(key), row.is_ok_and(|row| row.implied || row.is_left_dir()))
                && let Some(Item::Dir(mode)) = tree.get_mut(path.as_str())
            {
                *mode = 0;
            }
        }
        if self.lied.is_some() {
            self.leave_out_bits(index, &mut tree);
        }
        tree
    }

    /// Takes the permission bits out where a record has none.
    fn leave_out_bits(&self, index: usize, tree: &mut Tree) {
        let (live, peers) = (self.world.nodes[index].store.live(), self.peers(index));
        let records =
            live.iter(Space::Record).filter_map(|(_, value)| decode_stored_record(value, &peers).ok());
        let without = records.map(|(record, _)| record).filter(|record| record.meta.unix_mode.is_none());
        let without: BTreeSet<Uuid> = without.map(|record| record.uuid).collect();
        for (key, value) in live.iter(Space::Path) {
            let base = PathRow::decode(value, &peers).ok().and_then(|row| row.base_uuid());
            let item = path_of_key(key).and_then(|path| tree.get_mut(path.as_str()));
            if let (Some(Item::Dir(mode) | Item::File(mode, _)), Some(uuid)) = (item, base)
                && without.contains(&uuid)
            {
                *mode = 0;
            }
        }
    }

    /// Whether a machine's program holds a club's keys.
    pub(super) fn is_member(&self, index: usize) -> bool {
        let is_club =
            |key: &[u8]| matches!(meta_key(key), Some(MetaKey::Club(_, fact, _)) if fact == Fact::Club as u8);
        self.world.nodes[index].store.live().iter(Space::Meta).any(|(key, _)| is_club(key))
    }

    /// The addresses that a machine has stored.
    pub(super) fn addresses(&self, index: usize) -> BTreeSet<SocketAddr> {
        let mut dialer = Dialer::default();
        for (key, value) in self.world.nodes[index].store.live().iter(Space::Meta) {
            if let Some(MetaKey::Club(root, fact, _)) = meta_key(key)
                && fact == Fact::Addresses as u8
            {
                dialer.decode(root, value, self.world.now());
                return dialer.addresses(root).map(|(addr, ..)| addr).collect();
            }
        }
        BTreeSet::new()
    }

    /// Those of a machine's files of which its program has not stored that it saw them.
    pub(super) fn unseen(&self, index: usize, files: &[(String, Vec<u8>)]) -> Vec<Vec<u8>> {
        let is_unseen = |(path, data): &&(String, Vec<u8>)| match self.row(index, path) {
            None => true,
            Some(row) => row.content().is_some() && !self.is_known(index, path, data),
        };
        files.iter().filter(is_unseen).map(|(_, data)| data.clone()).collect()
    }

    /// Whether a machine's store knows that something is at a path.
    pub(super) fn knows(&self, index: usize, path: &str) -> bool {
        self.row(index, path).is_some_and(|row| row.disk.is_some())
    }

    /// Whether a machine's store knows that this content is at a path.
    pub(super) fn is_known(&self, index: usize, path: &str, content: &[u8]) -> bool {
        let row = self.row(index, path);
        match row.as_ref().and_then(PathRow::content) {
            Some(EntryContent::File { sha256: known, size }) => {
                *size == content.len() as u64 && *known == sha256(content)
            }
            _ => false,
        }
    }

    /// The row of a path.
    fn row(&self, index: usize, path: &str) -> Option<PathRow> {
        let live = self.world.nodes[index].store.live();
        // Of whatever share: what follows its number is the same.
        let wanted = path_key(RootId(0), &RelPath::new(path)?).split_off(size_of::<RootId>());
        let mut rows = live.iter(Space::Path);
        let (_, value) = rows.find(|(key, _)| key.get(size_of::<RootId>()..) == Some(&wanted[..]))?;
        Some(PathRow::decode(value, &self.peers(index)).expect("what the engine stored can be read"))
    }

    /// The numbers that a machine has given to peers.
    fn peers(&self, index: usize) -> PeerTable {
        let live = self.world.nodes[index].store.live();
        let fact = Fact::Peers as u8;
        let is_peers =
            |key: &[u8]| matches!(meta_key(key), Some(MetaKey::Club(_, found, _)) if found == fact);
        let peers = live.iter(Space::Meta).find(|(key, _)| is_peers(key));
        peers.and_then(|(_, value)| PeerTable::decode(value).ok()).unwrap_or_default()
    }

    fn pending(&self, index: usize) -> Vec<String> {
        let rows = self.world.nodes[index].store.live().iter(Space::Pending);
        rows.filter_map(|(key, _)| path_of_key(key)).map(|path| path.as_str().to_owned()).collect()
    }

    pub(super) fn counts(&self) -> Counts {
        let nodes = self.world.nodes.iter();
        let work = nodes.map(|node| (node.store.commits, node.disk.changes, node.disk.hashes)).collect();
        Counts { work, bytes: self.world.net.bytes_sent }
    }

    /// Each path of a machine that is not in step, before and after it was asked, has said why.
    pub(super) fn why(&mut self, index: usize) -> Checked {
        for path in self.pending(index).into_iter().take(ASKED_MAX) {
            if !self.runs(index) {
                break;
            }
            // What is noted as undone at this very moment is looked at again.
            let first = self.says_why(index, &path);
            if first.is_err() {
                self.world.run_for(MOMENT);
                self.says_why(index, &path)?;
            }
        }
        Ok(())
    }

    fn says_why(&mut self, index: usize, path: &str) -> Checked {
        if !self.pending(index).iter().any(|pending| pending == path) || !self.runs(index) {
            return Ok(());
        }
        match self.world.ask(index, Command::Why { path: format!("{SHARE}/{path}") }) {
            Ok(Reply::Why(sentences)) if self.pending(index).iter().any(|pending| pending == path) => {
                check::says_why(index, path, &sentences)
            }
            _ => Ok(()),
        }
    }

    /// Whether nothing but contents is missing that no machine has any more, and that each machine says so: after power
    /// failed, a record comes back whose content its only holder deleted before the store knew it again. Or a program
    /// ended that would have taken back what was kept, and thrown away before it was in its place.
    pub(super) fn only_lost_contents(&self, unquiet: &str) -> bool {
        let mut shares = unquiet.lines().filter(|line| line.contains("ShareStatus"));
        let told = |line: &str| {
            let problems = line.split("problems: [").nth(1).and_then(|rest| rest.split(']').next());
            problems.is_some_and(|problems| {
                // Clocks stay as they were set, and stand in nobody's way.
                let others = problems.split("\", \"").filter(|problem| !problem.contains(CLOCK));
                let mut others = others.peekable();
                others.peek().is_some_and(|first| !first.is_empty())
                    && others.all(|problem| problem.contains(NOT_AVAILABLE))
            })
        };
        // Who meets nobody says the same of what others have.
        let may_be = self.ledger.forgetful || self.ledger.forgot_kept || self.lied.is_some();
        may_be && shares.all(|line| told(line) && !line.contains("state: Alone"))
    }

    /// What every machine says of every path that differs or is not in step.
    pub(super) fn whys(&mut self) -> String {
        let mut all = String::new();
        let trees: Vec<Tree> = (0..self.world.nodes.len()).map(|index| self.tree(index)).collect();
        let mut names: BTreeSet<String> = trees.iter().flat_map(|tree| tree.keys().cloned()).collect();
        names.retain(|name| trees.windows(2).any(|pair| pair[0].get(name) != pair[1].get(name)));
        names.extend((0..trees.len()).flat_map(|index| self.pending(index)));
        for (index, tree) in trees.iter().enumerate() {
            for name in &names {
                let why = self.world.ask(index, Command::Why { path: format!("{SHARE}/{name}") });
                let item = tree.get(name).map_or_else(String::new, |item| format!("{item:?}"));
                let _ = writeln!(all, "n{index} {name}: {item} {why:?}");
            }
        }
        all
    }
}
