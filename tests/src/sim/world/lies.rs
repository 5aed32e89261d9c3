//! A member of the club that lies: it has neither folder nor store, calls one machine at a time, and says what numbers
//! choose (`fuzz/liar.rs`). Nobody calls it, and what it was never asked it has never promised.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use clearskies_core::club::level::Level;
use clearskies_core::engine::command::{Command, Reply};
use clearskies_core::ids::{ConnId, Uuid};

use super::super::net::{Cargo, LinkId};
use super::super::rng::Rng;
use super::{Due, World};
use crate::fuzz::choices::Choices;
use crate::fuzz::liar::{Keys, Liar};
use crate::member::sha256;

/// Its number in the network, behind those of all machines.
pub(super) const LIAR: usize = usize::MAX;
/// From where it calls.
const FROM: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 1, 1)), 40_000);
/// How long joining may take.
const JOINS: Duration = Duration::from_secs(20);
/// What is taken from it at once.
const TAKEN_BYTES: usize = 64 * 1024;
/// Bytes that choose what it says when it is told to speak once.
const SPEECH_BYTES: usize = 96;

/// How it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// What it says of files is right in form, and its own; the contents that it gives are often not.
    Contents,
    /// Its records and clocks are nonsense as well, and it changes what others made.
    Records,
}

/// The liar and its place in the network.
#[derive(Debug)]
pub struct Seat {
    liar: Liar,
    keys: Keys,
    rng: Rng,
    link: Option<LinkId>,
    calls: u64,
}

impl World {
    /// Has the liar join the share of the first machine.
    pub fn admit_liar(&mut self, share: &str) {
        let invite = Command::Invite {
            path: share.into(),
            level: Level::ReadWrite,
            valid_for: None,
            multi_use: false,
        };
        let code = match self.ask(0, invite) {
            Ok(Reply::Code { code, .. }) => code,
            other => panic!("n0 makes no code: {other:?}"),
        };
        let (liar, rng) = (Liar::join(self.now_at(0), &code), self.rng.fork());
        self.liar = Some(Seat { liar, keys: Keys::default(), rng, link: None, calls: 0 });
        self.call(0);
        let until = self.now.plus(JOINS);
        let keys = |world: &World| world.liar.as_ref().and_then(|seat| seat.liar.keys());
        while keys(self).is_none() && self.now < until && self.step() {}
        let keys = keys(self).expect("it was let in");
        // What it has to say of that goes out first.
        self.run_for(Duration::from_secs(1));
        self.silence_liar();
        if let Some(seat) = &mut self.liar {
            seat.keys = keys;
        }
    }

    /// The liar calls a machine, unless it is connected to it, and says what a number chooses.
    pub fn lie(&mut self, target: usize, manner: Manner, number: u64) {
        let now = self.now_at(target);
        let there = self.liar.as_ref().and_then(|seat| seat.link).and_then(|link| self.net.end(link, 1));
        if there.is_none_or(|end| end.node != target || !end.open) {
            self.silence_liar();
            if let Some(seat) = &mut self.liar {
                seat.liar.again(now, &seat.keys);
            }
            self.call(target);
            // Messages flow once both have proven who they are.
            self.run_for(Duration::from_millis(200));
        }
        if let Some(seat) = &mut self.liar {
            let bytes = Rng::new(number).bytes(SPEECH_BYTES);
            let mut choices = Choices::new(&bytes);
            while !choices.is_empty() {
                match manner {
                    Manner::Contents => seat.liar.speak_of_contents(&mut choices),
                    Manner::Records => seat.liar.speak(&mut choices),
                }
            }
        }
        self.pump_liar();
    }

    fn call(&mut self, target: usize) {
        let now = self.now_at(target);
        let accepted =
            self.nodes[target].engine.as_mut().and_then(|engine| engine.handle_accepted(now, FROM));
        self.note(format_args!("the liar reaches n{target}, accepted: {}", accepted.is_some()));
        let (Some(conn), Some(seat)) = (accepted, &mut self.liar) else { return };
        seat.calls += 1;
        let link = self.net.connect((LIAR, ConnId(seat.calls)), (target, conn));
        seat.link = Some(link);
        self.nodes[target].conns.insert(conn, (link, 1));
        self.pump_liar();
        self.drain(target);
    }

    /// The liar hangs up.
    pub fn silence_liar(&mut self) {
        if let Some(link) = self.liar.as_mut().and_then(|seat| seat.link.take()) {
            self.note(format_args!("the liar hangs up"));
            self.hang_up(link, 0);
        }
    }

    /// The liar's connection is gone.
    pub(super) fn liar_loses(&mut self, link: LinkId) {
        if let Some(seat) = self.liar.as_mut().filter(|seat| seat.link == Some(link)) {
            seat.link = None;
        }
    }

    /// Sends what the liar has to say, as far as the window allows.
    pub(super) fn pump_liar(&mut self) {
        let window = self.net.conditions.window_bytes;
        while let Some(seat) = &mut self.liar
            && let Some(link) = seat.link
        {
            let Some(end) = self.net.end(link, 0) else { return };
            end.writing = true;
            let room = window.saturating_sub(end.unread).min(TAKEN_BYTES);
            if room == 0 {
                return;
            }
            let mut bytes = Vec::new();
            seat.liar.transmit(&mut bytes, room);
            if bytes.is_empty() {
                end.writing = false;
                return;
            }
            end.unread += bytes.len();
            let at = self.net.arrival(link, 0, self.now, bytes.len());
            self.at(at, Due::Arrive { link, side: 1, cargo: Cargo::Bytes(bytes) });
        }
    }

    /// The liar takes what has arrived, and answers some of it.
    pub(super) fn liar_hears(&mut self, link: LinkId) {
        loop {
            let now = self.now_at(0);
            let Some(end) = self.net.end(link, 0).filter(|end| end.open) else { return };
            let bytes: Vec<u8> = end.inbox.drain(..).collect();
            if bytes.is_empty() {
                if end.ended {
                    end.open = false;
                    self.liar_loses(link);
                    self.net.sweep(link);
                }
                return;
            }
            let Some(seat) = self.liar.as_mut().filter(|seat| seat.link == Some(link)) else { return };
            seat.liar.receive(now, &bytes);
            while seat.liar.asked() > 0 && !seat.rng.per_mille(200) {
                let choices = seat.rng.bytes(8);
                seat.liar.answer(&mut Choices::new(&choices));
            }
            self.pump_liar();
            let Some(sender) = self.net.end(link, 1) else { return };
            sender.unread = sender.unread.saturating_sub(bytes.len());
            let (other, conn, wants) = (sender.node, sender.conn, sender.writing && sender.open);
            if wants && self.pump(other, conn) {
                self.drain(other);
            }
        }
    }

    /// Whether the liar ever said that there is such a content.
    pub fn was_announced(&self, content: &[u8]) -> bool {
        self.liar.as_ref().is_some_and(|seat| seat.liar.announced.contains(&sha256(content)))
    }

    /// The keys of all records that the liar spoke of.
    pub fn lied_of(&self) -> BTreeSet<String> {
        self.liar.as_ref().map(|seat| seat.liar.keys_said.clone()).unwrap_or_default()
    }

    /// Whether the liar spoke of this record.
    pub fn lied_of_record(&self, uuid: &Uuid) -> bool {
        self.liar.as_ref().is_some_and(|seat| seat.liar.uuids_said.contains(uuid))
    }
}
