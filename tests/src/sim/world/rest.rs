//! Commands and their outcomes, and waiting until all is at rest.

use std::time::Duration;

use clearskies_core::engine::command::{Command, CommandError, NodeStatus, Reply, ShareState, ShareStatus};
use clearskies_core::ids::CommandId;
use clearskies_core::io::store::Space;

use super::super::users::Tree;
use super::{ANSWER_MAX, QUIET, World};

/// After so long it is looked again whether all is at rest, at first,
const LOOK_AGAIN_FIRST: Duration = Duration::from_secs(4);
/// and at last.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(60);

/// After so long without a write a look takes machines for being at rest though they are apart. Histories look four
/// times, for seven minutes in all, before a look is so long: who found nobody tries again after five.
const APART_MAX: Duration = Duration::from_secs(4 * 60);

impl World {
    /// Gives a command; its outcome will be in the replies of its node.
    pub fn command(&mut self, index: usize, command: Command) -> CommandId {
        let now = self.now_at(index);
        let engine = self.nodes[index].engine.as_mut().expect("the machine runs");
        let id = engine.handle_command(now, command);
        self.drain(index);
        id
    }

    /// Gives a command and waits for its outcome. A machine that died meanwhile answers nothing.
    pub fn ask(&mut self, index: usize, command: Command) -> Result<Reply, CommandError> {
        if self.nodes[index].engine.is_none() {
            return Err(CommandError { code: "no_answer", message: format!("n{index} does not run") });
        }
        let id = self.command(index, command);
        let until = self.now.plus(ANSWER_MAX);
        loop {
            if let Some(result) = self.nodes[index].replies.remove(&id) {
                return result;
            }
            if self.now >= until || !self.step() {
                let message = format!("n{index} never answered command {}", id.0);
                return Err(CommandError { code: "no_answer", message });
            }
        }
    }

    /// The state of a machine.
    pub fn status(&mut self, index: usize) -> NodeStatus {
        match self.ask(index, Command::Status) {
            Ok(Reply::Status(status)) => status,
            other => panic!("n{index} gives no status: {other:?}\n{}", self.trace.tail(40)),
        }
    }

    /// Writes so far, of all machines: stored rows, changed files.
    fn activity(&self) -> Vec<(u64, u64)> {
        self.nodes.iter().map(|node| (node.store.commits, node.disk.changes)).collect()
    }

    /// Runs until every share is in step with its peers and nothing was written for some time; at `deadline` says
    /// what is not. Machines that are members of one club are to be `linked`, too, or apart for long.
    pub fn try_quiet(&mut self, linked: bool, deadline: Duration) -> Result<(), String> {
        let end = self.now.plus(deadline);
        let mut last = self.activity();
        let mut quiet_since = self.now;
        let mut pause = LOOK_AGAIN_FIRST;
        loop {
            self.run_for(Duration::from_secs(1));
            if self.activity() != last {
                last = self.activity();
                quiet_since = self.now;
            }
            let quiet = self.now.since(quiet_since);
            if self.now < end && quiet < QUIET {
                continue;
            }
            let mut unquiet = self.unquiet();
            if unquiet.is_empty() && quiet >= QUIET && (!linked || quiet >= APART_MAX || self.is_linked()) {
                return Ok(());
            }
            if self.now >= end {
                unquiet.push(format!("last write {quiet:?} ago"));
                return Err(unquiet.join("\n"));
            }
            // It waits for something: nobody need look at it each second, and less and less often.
            self.run_for(pause.min(end.since(self.now)));
            pause = (pause * 2).min(LOOK_AGAIN_MAX);
        }
    }

    /// Whether all machines that run and reach each other are linked, if need be by way of others. Each part of a club
    /// is in step with itself.
    fn is_linked(&mut self) -> bool {
        let mut parts: Vec<usize> = (0..self.nodes.len()).collect();
        for link in self.net.links() {
            let ends = [0, 1].map(|side| self.net.end(link, side).filter(|end| end.open).map(|end| end.node));
            if let [Some(one), Some(other)] = ends {
                let (from, to) = (parts[one], parts[other]);
                parts.iter_mut().filter(|part| **part == from).for_each(|part| *part = to);
            }
        }
        let runs = |index: &usize| self.nodes[*index].engine.is_some();
        let running: Vec<usize> = (0..self.nodes.len()).filter(runs).collect();
        running.iter().all(|one| {
            running.iter().all(|other| parts[*one] == parts[*other] || !self.net.joined(*one, *other))
        })
    }

    /// The shares that are not at rest, and what they say.
    fn unquiet(&mut self) -> Vec<String> {
        let mut unquiet = Vec::new();
        for index in 0..self.nodes.len() {
            if self.nodes[index].engine.is_none() {
                continue;
            }
            let (id, asked) = (
                self.command(index, Command::Status),
                self.command(index, Command::Deletions { path: None }),
            );
            // Both are answered at once. A node that cannot use its database yet has no shares to tell of, is not at
            // rest, and says so to the second.
            if let Some(Err(error)) = self.nodes[index].replies.remove(&asked) {
                unquiet.push(format!("n{index} {}", error.message));
            }
            match self.nodes[index].replies.remove(&id) {
                Some(Ok(Reply::Status(status))) => {
                    let shares = status.shares.iter().filter(|share| !self.at_rest(index, share));
                    unquiet.extend(shares.map(|share| format!("n{index} {share:?}")));
                    unquiet.extend(status.shares.iter().filter_map(|share| self.left_over(index, share)));
                }
                other => unquiet.push(format!("n{index} gives no status: {other:?}")),
            }
        }
        unquiet
    }

    fn at_rest(&self, index: usize, share: &ShareStatus) -> bool {
        let others = (0..self.nodes.len()).filter(|other| *other != index);
        let reachable = others
            .into_iter()
            .any(|other| self.nodes[other].engine.is_some() && self.net.joined(index, other));
        match share.state {
            ShareState::InSync => true,
            ShareState::Alone => !reachable,
            ShareState::Stopped | ShareState::Paused => true,
            ShareState::Attention => share.pending_files == 0,
            ShareState::Scanning | ShareState::Joining | ShareState::Syncing => false,
        }
    }

    /// What is left of downloads, though nothing is pending that could want it.
    fn left_over(&self, index: usize, share: &ShareStatus) -> Option<String> {
        let wanted =
            share.pending_files > 0 || matches!(share.state, ShareState::Stopped | ShareState::Paused);
        let temps = self.nodes[index].disk.temps(&share.path);
        let partials = self.nodes[index].store.live().rows(Space::Partial);
        (!wanted && temps > 0).then(|| format!("n{index} keeps {temps} temps, {partials} of them by a row"))
    }

    /// Like [`World::try_quiet`], and fails the test with the newest lines of the log.
    pub fn run_until_quiet(&mut self, deadline: Duration) {
        if let Err(unquiet) = self.try_quiet(false, deadline) {
            panic!("not quiet after {deadline:?}:\n{unquiet}\nlast lines:\n{}", self.trace.tail(60));
        }
    }

    /// Fails unless the folder holds the same on all these machines.
    pub fn assert_same_trees(&self, indexes: &[usize], path: &str) {
        let trees: Vec<(usize, Tree)> =
            indexes.iter().map(|i| (*i, self.nodes[*i].disk.tree(path))).collect();
        for pair in trees.windows(2) {
            let ((a, left), (b, right)) = (&pair[0], &pair[1]);
            let keys: std::collections::BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            let differ: Vec<String> = keys
                .into_iter()
                .filter(|key| left.get(*key) != right.get(*key))
                .map(|key| format!("{key}: n{a} {:?}, n{b} {:?}", left.get(key), right.get(key)))
                .collect();
            assert!(differ.is_empty(), "trees differ:\n{}\n{}", differ.join("\n"), self.trace.tail(60));
        }
    }
}
