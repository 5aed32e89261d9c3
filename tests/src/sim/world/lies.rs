//! Members of the club that lie: each has neither folder nor store, calls one machine at a time, and says what numbers
//! choose (`fuzz/liar.rs`). Nobody calls them, and what they were never asked they have never promised.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use clearskies_core::channel::Transport;
use clearskies_core::club::level::Level;
use clearskies_core::engine::command::{Command, Reply};
use clearskies_core::ids::{ConnId, Uuid};

use super::super::net::{Cargo, LinkId};
use super::super::rng::Rng;
use super::{Due, World};
use crate::fuzz::choices::Choices;
use crate::fuzz::liar::{Flood, Keys, Liar, SEED};
use crate::member::sha256;

/// How many liars there may be.
pub const LIARS_MAX: usize = 3;
/// The number of the last one in the network, behind those of all machines.
const LAST: usize = usize::MAX;
/// The port from which they call.
const PORT: u16 = 40_000;
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

/// Whether a number in the network is a liar's.
pub(super) fn is_liar(node: usize) -> bool {
    LAST - node < LIARS_MAX
}

/// A liar and its place in the network.
#[derive(Debug)]
pub struct Seat {
    liar: Liar,
    keys: Keys,
    rng: Rng,
    link: Option<LinkId>,
    calls: u64,
}

impl World {
    /// Has so many liars join the share of the first machine.
    pub fn admit_liars(&mut self, share: &str, count: usize) {
        (0..count.min(LIARS_MAX)).for_each(|which| self.admit_liar(share, which));
    }

    fn admit_liar(&mut self, share: &str, which: usize) {
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
        let seed = SEED + u8::try_from(which).expect("few");
        let transport = Transport::PlainHere(self.signed.clone());
        let (liar, rng) = (Liar::join(self.now_at(0), &code, transport, seed), self.rng.fork());
        self.liars.push(Seat { liar, keys: Keys::default(), rng, link: None, calls: 0 });
        self.call(which, 0);
        let until = self.now.plus(JOINS);
        let keys = |world: &World| world.liars[which].liar.keys();
        while keys(self).is_none() && self.now < until && self.step() {}
        let keys = keys(self).expect("it was let in");
        // What it has to say of that goes out first.
        self.run_for(Duration::from_secs(1));
        self.silence(which);
        self.liars[which].keys = keys;
    }

    /// A liar calls a machine, unless it is connected to it, and says what a number chooses.
    pub fn lie(&mut self, which: usize, target: usize, manner: Manner, number: u64) {
        self.reach(which, target);
        let bytes = Rng::new(number).bytes(SPEECH_BYTES);
        let mut choices = Choices::new(&bytes);
        while !choices.is_empty() {
            match manner {
                Manner::Contents => self.liars[which].liar.speak_of_contents(&mut choices),
                Manner::Records => self.liars[which].liar.speak(&mut choices),
            }
        }
        self.pump_seat(which);
    }

    /// A liar calls a machine, unless it is connected to it, and says more than that can take.
    pub fn flood(&mut self, which: usize, target: usize, flood: Flood, count: u64) {
        self.reach(which, target);
        self.liars[which].liar.flood(flood, count);
        self.pump_seat(which);
    }

    fn reach(&mut self, which: usize, target: usize) {
        let now = self.now_at(target);
        let there = self.liars[which].link.and_then(|link| self.net.end(link, 1));
        if there.is_none_or(|end| end.node != target || !end.open) {
            self.silence(which);
            let seat = &mut self.liars[which];
            seat.liar.again(now, &seat.keys);
            self.call(which, target);
            // Messages flow once both have proven who they are.
            self.run_for(Duration::from_millis(200));
        }
    }

    fn pump_seat(&mut self, which: usize) {
        if let Some(link) = self.liars[which].link {
            self.pump_liar(link);
        }
    }

    fn call(&mut self, which: usize, target: usize) {
        let now = self.now_at(target);
        let from = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 1, 1 + which as u8)), PORT);
        let accepted =
            self.nodes[target].engine.as_mut().and_then(|engine| engine.handle_accepted(now, from));
        self.note(format_args!("liar {which} reaches n{target}, accepted: {}", accepted.is_some()));
        let (Some(conn), seat) = (accepted, &mut self.liars[which]) else { return };
        seat.calls += 1;
        let link = self.net.connect((LAST - which, ConnId(seat.calls)), (target, conn));
        seat.link = Some(link);
        self.nodes[target].conns.insert(conn, (link, 1));
        self.pump_liar(link);
        self.drain(target);
    }

    /// All liars hang up.
    pub fn silence_liars(&mut self) {
        (0..self.liars.len()).for_each(|which| self.silence(which));
    }

    fn silence(&mut self, which: usize) {
        if let Some(link) = self.liars[which].link.take() {
            self.note(format_args!("liar {which} hangs up"));
            self.hang_up(link, 0);
        }
    }

    /// A liar's connection is gone.
    pub(super) fn liar_loses(&mut self, link: LinkId) {
        if let Some(seat) = self.seat(link) {
            seat.link = None;
        }
    }

    fn seat(&mut self, link: LinkId) -> Option<&mut Seat> {
        self.liars.iter_mut().find(|seat| seat.link == Some(link))
    }

    /// Sends what a liar has to say over a connection, as far as the window allows.
    pub(super) fn pump_liar(&mut self, link: LinkId) {
        let window = self.net.conditions.window_bytes;
        while let Some(seat) = self.liars.iter_mut().find(|seat| seat.link == Some(link)) {
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

    /// A liar takes what has arrived, and answers some of it.
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
            let Some(seat) = self.seat(link) else { return };
            seat.liar.receive(now, &bytes);
            while seat.liar.asked() > 0 && !seat.rng.per_mille(200) {
                let choices = seat.rng.bytes(8);
                seat.liar.answer(&mut Choices::new(&choices));
            }
            self.pump_liar(link);
            let Some(sender) = self.net.end(link, 1) else { return };
            sender.unread = sender.unread.saturating_sub(bytes.len());
            let (other, conn, wants) = (sender.node, sender.conn, sender.writing && sender.open);
            if wants && self.pump(other, conn) {
                self.drain(other);
            }
        }
    }

    /// Whether a liar ever said that there is such a content.
    pub fn was_announced(&self, content: &[u8]) -> bool {
        let digest = sha256(content);
        self.liars.iter().any(|seat| seat.liar.announced.contains(&digest))
    }

    /// The keys of all records that liars spoke of.
    pub fn lied_of(&self) -> BTreeSet<String> {
        self.liars.iter().flat_map(|seat| seat.liar.keys_said.iter().cloned()).collect()
    }

    /// Whether a liar spoke of this record.
    pub fn lied_of_record(&self, uuid: &Uuid) -> bool {
        self.liars.iter().any(|seat| seat.liar.uuids_said.contains(uuid))
    }
}
