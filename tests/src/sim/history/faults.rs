//! What is nobody's wish: programs that end, power that fails, lines that break, disks, clocks and stores that are not
//! what they were.

use std::collections::BTreeSet;
use std::time::Duration;

use clearskies_core::club::level::Level;
use clearskies_core::engine::command::{Command, Existing, Reply};
use clearskies_core::files::path::RelPath;
use clearskies_core::io::{Noticed, StoreError};

use super::super::disk::Hint;
use super::super::net::Conditions;
use super::super::script::{CLOCK_TURN, Step, Verb};
use super::super::share::SHARE;
use super::super::store::Image;
use super::super::world::{Ambush, Manner, Moment};
use super::{ASIDE, History, ROOM, liar_of};

/// Room that is left on a volume that is full.
const SCRAPS: u64 = 10;

/// The slowest that a flush can be made.
const SLOWEST_MS: u64 = 60_000;

/// A line as a script names it.
fn line(number: u64) -> Conditions {
    let good = Conditions::default();
    match number % 4 {
        0 => good,
        1 => Conditions { resets_per_million: 20_000, ..Conditions::lossy() },
        2 => Conditions { piece_bytes_max: 40, ..good },
        _ => Conditions { bytes_per_second: 4000, window_bytes: 4096, ..good },
    }
}

impl History {
    pub(super) fn fault(&mut self, step: &Step) {
        let node = step.node;
        if matches!(step.verb, Verb::Kill | Verb::Stop) {
            self.ledger.ended(node);
        }
        match step.verb {
            Verb::Kill if self.runs(node) => self.world.crash(node),
            Verb::Stop if self.runs(node) => self.world.stop(node),
            Verb::Power if self.runs(node) => {
                self.ledger.forgot(node);
                self.cut = true;
                self.world.power_cut(node);
                let files = self.files(node);
                self.world.nodes[node]
                    .disk
                    .shown
                    .extend(files.into_iter().map(|(path, data)| (path, data.into())));
            }
            Verb::Die => {
                let moment = match step.size % 3 {
                    0 => Moment::Before,
                    1 => Moment::After,
                    _ => Moment::Torn,
                };
                self.world.ambush = Some(Ambush { node, output: step.number, moment });
                self.dying = Some((node, step.size));
            }
            Verb::Start if !self.runs(node) => self.world.start(node),
            Verb::Part => self.world.partition(&[node]),
            Verb::Deaf if node != step.other => self.world.net.block(node, step.other),
            Verb::Half if node != step.other => {
                self.halved = true;
                self.world.half_close(node, step.other);
            }
            Verb::Mend => self.world.heal(),
            Verb::Reset => self.world.reset_all(),
            Verb::Line => self.world.net.conditions = line(step.number),
            Verb::Errors => self.errors(node, step.number),
            Verb::StoreFails => {
                let faults = (0..step.number.min(5)).map(|_| StoreError::NoSpace);
                self.world.nodes[node].store.faults.extend(faults);
            }
            Verb::Slow => {
                self.world.nodes[node].flush_delay = Duration::from_millis(step.number.min(SLOWEST_MS))
            }
            Verb::Full => {
                let fs = &mut self.world.nodes[node].disk.fs;
                fs.capacity = if step.number == 0 { ROOM } else { fs.used() + SCRAPS };
            }
            Verb::Hints => {
                let per_mille = u32::try_from(step.number).unwrap_or(1000);
                self.world.hints_lost_per_mille = per_mille;
                self.world.hints_strange_per_mille = per_mille;
            }
            Verb::Closes => self.world.hints_done_per_mille = u32::try_from(step.number).unwrap_or(1000),
            Verb::Prompt => self.world.hints_prompt_per_mille = u32::try_from(step.number).unwrap_or(1000),
            Verb::Wrong => {
                if let Some(path) = self.typed(node, &step.path).and_then(|path| RelPath::new(&path)) {
                    self.world.node(node).disk(|disk, _| {
                        let roots = disk.open_roots();
                        roots
                            .into_iter()
                            .for_each(|root| disk.hint(Hint::Seen(root, path.clone(), Noticed::Changed)));
                    });
                }
            }
            Verb::Unplug => {
                self.world.nodes[node].disk.unplugged.insert(SHARE.into());
            }
            Verb::Plug => self.world.nodes[node].disk.unplugged.clear(),
            Verb::Vanish => self.vanish(node),
            Verb::Return => self.give_back(node),
            Verb::Clock => {
                let seconds = i64::try_from(step.number % CLOCK_TURN).expect("32 bits");
                let sign = if step.number >= CLOCK_TURN { -1 } else { 1 };
                self.misdated = true;
                self.world.nodes[node].clock_offset_ns = sign * seconds * 1_000_000_000;
            }
            Verb::Wipe => self.wipe(node),
            // What is not a member yet and is put back later would never become one: nobody gives it a code again.
            Verb::Backup if self.is_member(node) && !self.outsiders.contains(&node) => {
                self.backups.insert(node, self.world.nodes[node].home_backup());
            }
            Verb::Rollback => {
                if let Some(backup) = self.backups.get(&node).cloned() {
                    self.end(node);
                    self.ledger.forgot(node);
                    self.ledger.confused = true;
                    self.world.nodes[node].put_home_back(backup);
                    // What it does not know and somebody deletes passes for new (sync.md, Known gaps).
                    let files = self.whole_folder(node);
                    self.ledger.handled(&self.unseen(node, &files));
                    self.lose_codes(node);
                    self.world.start(node);
                }
            }
            Verb::Lie if self.runs(node) => {
                let manner = if step.number.is_multiple_of(2) { Manner::Contents } else { Manner::Records };
                if self.lied != Some(Manner::Records) {
                    self.lied = Some(manner);
                }
                self.world.lie(liar_of(step), node, manner, step.number);
            }
            Verb::Clone if node != step.other => self.clone_machine(node, step.other),
            _ => {}
        }
    }

    /// All files of a machine's share, also while another folder is in its place or its volume is away.
    fn whole_folder(&mut self, node: usize) -> Vec<(String, Vec<u8>)> {
        let place = if self.vanished.contains(&node) { ASIDE } else { SHARE };
        let disk = &mut self.world.nodes[node].disk;
        let unplugged = std::mem::take(&mut disk.unplugged);
        let entries = disk.entries(place).into_iter();
        let files = entries.filter_map(|(path, (_, data))| Some((path, data?.to_vec()))).collect();
        self.world.nodes[node].disk.unplugged = unplugged;
        files
    }

    fn end(&mut self, node: usize) {
        if self.runs(node) {
            self.world.crash(node);
        }
    }

    /// An empty folder takes the place of the share's.
    fn vanish(&mut self, node: usize) {
        if self.vanished.contains(&node) || self.world.nodes[node].disk.unplugged.contains(SHARE) {
            return;
        }
        // Before it has joined, its program has put no mark into the folder that it was given: any will do.
        if !self.is_member(node) {
            return;
        }
        self.vanished.insert(node);
        let done = self.world.node(node).disk(|disk, now| {
            disk.rename_path(now, SHARE, ASIDE)?;
            disk.mkdir(now, SHARE)
        });
        assert_eq!(done, Ok(()), "nothing stands in the way of a folder at the top");
    }

    /// The share's folder is back; what was written in its stead is thrown away.
    pub(super) fn give_back(&mut self, node: usize) {
        if !self.vanished.remove(&node) {
            return;
        }
        self.world.nodes[node].disk.unplugged.clear();
        let thrown: Vec<Vec<u8>> = self.files(node).into_iter().map(|(_, data)| data).collect();
        self.ledger.replaced(&thrown);
        self.ledger.handled(&thrown);
        let done = self.world.node(node).disk(|disk, now| {
            disk.remove_path(now, SHARE)?;
            disk.rename_path(now, ASIDE, SHARE)
        });
        assert_eq!(done, Ok(()), "nothing stands in the way of a folder at the top");
    }

    /// A machine's home is lost: it joins again with what is there.
    fn wipe(&mut self, node: usize) {
        if node == 0 {
            return;
        }
        self.give_back(node);
        self.end(node);
        self.ledger.forgot(node);
        self.world.nodes[node].put_home_back((Image::default(), None));
        self.backups.remove(&node);
        self.world.start(node);
        self.outsiders.insert(node);
        self.anew.insert(node);
        self.join();
    }

    /// Machines that lost their home join again, by codes of the first machine, as far as that can be done now.
    pub(super) fn join(&mut self) {
        for node in self.outsiders.clone() {
            // Nobody joins with a folder that is not his; where it comes back it would bear another mark.
            let away = self.vanished.contains(&node) || self.world.nodes[node].disk.unplugged.contains(SHARE);
            if !self.runs(node) || !self.runs(0) || away {
                continue;
            }
            // For more than one use: who loses power as it joins has spent a code for nothing.
            let invite = Command::Invite {
                path: SHARE.into(),
                level: Level::ReadWrite,
                valid_for: None,
                multi_use: true,
            };
            let Ok(Reply::Code { code, .. }) = self.world.ask(0, invite) else { continue };
            let code = code.to_text();
            // It may still be waiting with a code that nobody takes any more.
            let _ = self.world.ask(node, Command::Detach { path: SHARE.into() });
            if self.world.node(node).attach(&code, SHARE, Existing::Merge, 0).is_ok() {
                self.outsiders.remove(&node);
            }
        }
    }

    /// The other machine becomes a copy of this one.
    fn clone_machine(&mut self, node: usize, other: usize) {
        // Where the first machine becomes a copy of one that has not joined, nobody is left who lets anybody in.
        if other == 0 && !self.is_member(node) {
            return;
        }
        self.give_back(node);
        self.give_back(other);
        self.end(other);
        self.ledger.thrown_away(other);
        self.ledger.forgot(other);
        self.ledger.confused = true;
        let fs = self.world.nodes[node].disk.fs.clone();
        let home = self.world.nodes[node].home_backup();
        self.copied = true;
        self.world.nodes[other].disk.fs = fs;
        self.world.nodes[other].put_home_back(home);
        // A home from before would find the folder of another machine, and stop.
        self.backups.remove(&other);
        let mut kept = BTreeSet::new();
        for index in 0..self.world.nodes.len() {
            kept.extend(self.whole_folder(index).into_iter().map(|(_, data)| data));
            // What went to an archive while the clock was wrong may be pruned early (sync.md, Known gaps).
            if !self.misdated {
                kept.extend(self.world.nodes[index].disk.archive(SHARE).into_iter().map(|(_, data)| data));
            }
        }
        self.ledger.bury_all_but(&kept);
        // Copying wrote what the copied program had not seen: to the copy it is new, whatever becomes of it here.
        let files = self.whole_folder(node);
        self.ledger.handled(&self.unseen(node, &files));
        self.made_again.extend(files.into_iter().map(|(_, data)| data));
        if self.anew.contains(&node) {
            self.anew.insert(other);
        }
        self.outsiders.remove(&other);
        if self.outsiders.contains(&node) {
            self.outsiders.insert(other);
        }
        self.lose_codes(other);
        self.world.start(other);
    }

    /// The codes that a machine gave are not in the home that it has now: who has not joined by them needs others.
    fn lose_codes(&mut self, node: usize) {
        if node == 0 {
            let waiting = (1..self.world.nodes.len()).filter(|index| !self.is_member(*index));
            self.outsiders.extend(waiting.collect::<Vec<_>>());
        }
    }
}
