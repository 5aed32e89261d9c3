//! Carries away what engines want done.

use clearskies_core::engine::Engine;
use clearskies_core::engine::event::Event;
use clearskies_core::io::disk::DiskOp;
use clearskies_core::io::{Noticed, Output, StoreOp};
use clearskies_core::time::Instant;

use super::super::disk::{Hint, carried_bytes, op_name, root_of, temp_of};
use super::super::net::Cargo;
use super::{Due, HINT_LATE_MAX, Moment, World};

impl World {
    pub(super) fn drain(&mut self, index: usize) {
        self.nodes[index].wakes = None;
        loop {
            let mut busy = false;
            while let Some(output) = self.nodes[index].engine.as_mut().and_then(Engine::poll_output) {
                busy = true;
                self.carry_out(index, output);
            }
            while let Some(conn) = self.nodes[index].engine.as_mut().and_then(Engine::poll_writable) {
                busy |= self.pump(index, conn);
            }
            if !busy {
                break;
            }
        }
    }

    fn carry_out(&mut self, index: usize, output: Output) {
        let run = self.nodes[index].run;
        match output {
            Output::Disk { token, op } => {
                self.note(format_args!("n{index} disk {} {}", token.0, op_name(&op)));
                self.nodes[index].ordered(token, carried_bytes(&op));
                let mut at = self.soon(self.disk_delay_max);
                if let DiskOp::Hash { paths, .. } = &op {
                    let slow = paths.iter().filter_map(|path| self.slow_to_hash.get(path));
                    at = at.plus(slow.sum());
                }
                if matches!(op, DiskOp::Flush { .. } | DiskOp::FlushTemp { .. }) {
                    at = at.plus(self.nodes[index].flush_delay);
                }
                if let Some(temp) = temp_of(&op) {
                    let free = self.nodes[index].temps_free.entry((root_of(&op), temp)).or_default();
                    at = at.max(*free);
                    *free = at;
                }
                self.order(index, at, |is_torn| {
                    let op = if is_torn { torn(op) } else { op };
                    Due::Disk { node: index, run, token, op }
                });
            }
            Output::Store { token, op } => {
                let writes = match &op {
                    StoreOp::Load { .. } => 0,
                    StoreOp::Commit { writes, .. } => writes.len(),
                };
                self.note(format_args!("n{index} store {} writes {writes}", token.0));
                self.nodes[index].ordered(token, 0);
                let at = self.soon(self.store_delay_max).max(self.nodes[index].store_free);
                self.nodes[index].store_free = at;
                self.order(index, at, |_| Due::Store { node: index, run, token, op });
            }
            Output::NameRun => {
                self.note(format_args!("n{index} names its run"));
                let at = self.soon(self.disk_delay_max);
                self.order(index, at, |_| Due::NameRun { node: index, run });
            }
            Output::Dial { conn, addr } => {
                self.note(format_args!("n{index} dials {addr}"));
                self.nodes[index].dialing.insert(conn);
                let at = self.now.plus(self.net.delay() * 2);
                self.at(at, Due::Dial { node: index, run, conn, addr, waited: false });
            }
            Output::Close { conn } => {
                self.note(format_args!("n{index} closes {}", conn.0));
                self.nodes[index].dialing.remove(&conn);
                if self.nodes[index].conns.contains_key(&conn) {
                    self.flush(index, conn);
                }
                if let Some((link, side)) = self.nodes[index].conns.remove(&conn) {
                    self.hang_up(link, side);
                }
            }
            Output::Interest { conn, read } => {
                if let Some((link, side)) = self.nodes[index].conns.get(&conn).copied() {
                    let Some(end) = self.net.end(link, side) else { return };
                    let resumes = read && !end.reading;
                    end.reading = read;
                    if resumes {
                        // Not from here, where the engine is being drained: as an arrival of nothing.
                        self.at(self.now, Due::Arrive { link, side, cargo: Cargo::Bytes(Vec::new()) });
                    }
                }
            }
            Output::Datagram { addr, bytes } => self.datagram(index, addr, &bytes),
            Output::Event(event) => self.event(index, event),
        }
    }

    /// Has what an engine ordered carried out at a time, or as far as it gets if this is the output at which the engine
    /// dies; `due` is told whether it is torn then.
    fn order(&mut self, index: usize, at: Instant, due: impl FnOnce(bool) -> Due) {
        let moment = self.strike(index);
        if moment == Some(Moment::Before) {
            return self.fall(index, self.now, Moment::Before);
        }
        self.at(at, due(moment == Some(Moment::Torn)));
        if let Some(moment) = moment {
            self.fall(index, at, moment);
        }
    }

    /// Whether this output to disk, store or the file beside it is the one at which the engine dies.
    fn strike(&mut self, index: usize) -> Option<Moment> {
        self.nodes[index].outputs += 1;
        let ambush = self.ambush.as_mut().filter(|ambush| ambush.node == index)?;
        let Some(left) = ambush.output.checked_sub(1) else {
            let moment = ambush.moment;
            self.ambush = None;
            return Some(moment);
        };
        ambush.output = left;
        None
    }

    /// Has the engine die at a time; what is ordered for that time already comes first.
    fn fall(&mut self, index: usize, at: Instant, moment: Moment) {
        let run = self.nodes[index].run;
        self.note(format_args!("n{index} is to die: {moment:?}"));
        self.at(at, Due::Die { node: index, run, moment });
    }

    fn event(&mut self, index: usize, event: Event) {
        match event {
            Event::Done { id, result } => {
                let word = result.as_ref().err().map_or("ok", |error| error.code);
                self.note(format_args!("n{index} command {} {word}", id.0));
                self.nodes[index].replies.insert(id, result);
            }
            Event::Notice { message, .. } => {
                self.note(format_args!("n{index} says: {message}"));
                self.nodes[index].notices.push(message);
            }
            Event::Stopped => self.nodes[index].stopped = true,
        }
    }

    /// What the watcher saw is read soon.
    pub(super) fn gather_hints(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if node.polled != Some(node.run) && node.disk.has_hints() {
            node.polled = Some(node.run);
            let run = node.run;
            let at = self.soon(self.poll_delay_max);
            self.at(at, Due::Poll { node: index, run });
        }
        let prompt = self.hints_prompt_per_mille;
        if prompt > 0 && self.nodes[index].disk.has_hints() && self.rng.per_mille(prompt) {
            self.tell_hints(index);
        }
    }

    /// Reads what the watcher saw.
    pub(super) fn tell_hints(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.polled = None;
        let (run, rng, lost) = (node.run, &mut self.rng, self.hints_lost_per_mille);
        for mut hint in node.disk.poll_hints(|| rng.per_mille(lost)) {
            if let Hint::Seen(_, _, seen @ Noticed::Done) = &mut hint
                && !(self.hints_done_per_mille > 0 && self.rng.per_mille(self.hints_done_per_mille))
            {
                *seen = Noticed::Changed;
            }
            let mut at = self.now;
            if self.hints_strange_per_mille > 0 {
                if self.rng.per_mille(self.hints_strange_per_mille) {
                    self.at(at, Due::Hint { node: index, run, hint: hint.clone() });
                }
                if self.rng.per_mille(self.hints_strange_per_mille) {
                    at = self.soon(HINT_LATE_MAX);
                }
            }
            self.at(at, Due::Hint { node: index, run, hint });
        }
    }
}

/// What is carried out of an operation when the power goes in the middle: the first half of its items, or of its bytes.
fn torn(mut op: DiskOp) -> DiskOp {
    match &mut op {
        DiskOp::Stage { files, .. } => files.truncate(files.len() / 2),
        DiskOp::WriteTemp { data, .. } => data.0.truncate(data.0.len() / 2),
        DiskOp::RemoveTemps { temps, .. } => temps.truncate(temps.len() / 2),
        DiskOp::Install { items, .. } => items.truncate(items.len() / 2),
        DiskOp::MakeDirs { dirs, .. } => dirs.truncate(dirs.len() / 2),
        DiskOp::Remove { items, .. } => items.truncate(items.len() / 2),
        DiskOp::SetMeta { items, .. } => items.truncate(items.len() / 2),
        _ => {}
    }
    op
}
