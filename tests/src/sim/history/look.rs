//! Looks at a world for the checks, which see nothing else of it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use clearskies_core::engine::command::{Command, Reply};
use clearskies_core::files::row::PathRow;
use clearskies_core::index::codec::PeerTable;
use clearskies_core::io::store::Space;
use clearskies_core::share::layout::path_of_key;

use super::super::check::{self, Checked, Counts, Machine};
use super::super::share::SHARE;
use super::super::users::{Item, Tree};
use super::History;

const NOT_AVAILABLE: &str = "no connected peer has its content";
/// How long something may be about to be noted.
const MOMENT: Duration = Duration::from_secs(5);
/// So many paths of one machine are asked for their reasons at once.
const ASKED_MAX: usize = 20;

impl History {
    pub(super) fn machines(&self) -> Vec<Machine> {
        (0..self.world.nodes.len()).map(|index| self.machine(index)).collect()
    }

    fn machine(&self, index: usize) -> Machine {
        let node = &self.world.nodes[index];
        Machine {
            tree: self.tree(index),
            archive: node.disk.archive(SHARE),
            outside: node.disk.names(""),
            temps: node.disk.names(&format!("{SHARE}/.clearskies/tmp")).len(),
            intents: node.store.live().rows(Space::Intent),
            pending: self.pending(index),
        }
    }

    /// A machine's tree. A directory that stands only for what lies beneath has no record, so that nobody agreed on its
    /// permissions.
    fn tree(&self, index: usize) -> Tree {
        let node = &self.world.nodes[index];
        let mut tree = node.disk.tree(SHARE);
        for (key, value) in node.store.live().iter(Space::Path) {
            // Such a row has no base, so that it names no peers.
            let row = PathRow::decode(value, &PeerTable::default());
            if let (Some(path), true) =
                (path_of_key(key), row.is_ok_and(|row| row.implied || row.is_left_dir()))
                && let Some(item) = tree.get_mut(path.as_str())
            {
                *item = Item::Dir(0);
            }
        }
        tree
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
    /// failed, a record comes back whose content its only holder deleted before the store knew it again.
    pub(super) fn only_lost_contents(&self, unquiet: &str) -> bool {
        let mut shares = unquiet.lines().filter(|line| line.contains("ShareStatus"));
        let told = |line: &str| {
            let problems = line.split("problems: [").nth(1).and_then(|rest| rest.split(']').next());
            problems.is_some_and(|problems| {
                !problems.is_empty()
                    && problems.split("\", \"").all(|problem| problem.contains(NOT_AVAILABLE))
            })
        };
        self.ledger.forgetful && shares.all(told)
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
