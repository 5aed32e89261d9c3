//! Carries bytes between engines, by what [`Net`](super::super::net::Net) decides.

use std::net::{IpAddr, SocketAddr};

use clearskies_core::ids::ConnId;

use super::super::net::{Cargo, LinkId, Net};
use super::super::node::LAN_PORT;
use super::lies::is_liar;
use super::{DIAL_TIMEOUT, Due, World};

impl World {
    fn node_at(&self, addr: IpAddr) -> Option<usize> {
        self.nodes.iter().position(|node| node.ip == addr)
    }

    pub(super) fn dial(&mut self, index: usize, conn: ConnId, addr: SocketAddr, waited: bool) {
        if !self.nodes[index].dialing.contains(&conn) {
            return;
        }
        let target = self.node_at(addr.ip()).filter(|target| self.nodes[*target].addr() == addr);
        let reached = target.is_none_or(|target| self.net.joined(index, target));
        if !reached && !waited {
            let (run, at) = (self.nodes[index].run, self.now.plus(DIAL_TIMEOUT));
            return self.at(at, Due::Dial { node: index, run, conn, addr, waited: true });
        }
        self.nodes[index].dialing.remove(&conn);
        let now = self.now_at(index);
        let target = target.filter(|target| reached && self.nodes[*target].engine.is_some());
        let Some(target) = target else {
            self.note(format_args!("n{index} fails to dial {addr}"));
            return self.with(index, |engine| engine.handle_dial_failed(now, conn));
        };
        let from = SocketAddr::new(
            self.nodes[index].ip,
            u16::try_from(40_000 + self.rng.below(20_000)).unwrap_or(1),
        );
        let then = self.now_at(target);
        let accepted =
            self.nodes[target].engine.as_mut().and_then(|engine| engine.handle_accepted(then, from));
        self.note(format_args!("n{index} reaches n{target}, accepted: {}", accepted.is_some()));
        match accepted {
            Some(other) => {
                let link = self.net.connect((index, conn), (target, other));
                self.nodes[index].conns.insert(conn, (link, 0));
                self.nodes[target].conns.insert(other, (link, 1));
                self.with(index, |engine| engine.handle_dialed(now, conn));
            }
            None => {
                self.with(index, |engine| engine.handle_dialed(now, conn));
                self.with(index, |engine| engine.handle_closed(now, conn));
            }
        }
        self.drain(target);
    }

    /// Takes what an engine wants to send, as far as the window allows; whether anything was taken.
    pub(super) fn pump(&mut self, index: usize, conn: ConnId) -> bool {
        let Some((link, side)) = self.nodes[index].conns.get(&conn).copied() else { return false };
        let window = self.net.conditions.window_bytes;
        let mut any = false;
        loop {
            let Some(end) = self.net.end(link, side) else { return any };
            end.writing = true;
            let room = window.saturating_sub(end.unread);
            if room == 0 {
                let now = self.now_at(index);
                if let Some(engine) = self.nodes[index].engine.as_mut() {
                    engine.handle_full(now, conn);
                }
                return any;
            }
            let limit = self.net.piece(room);
            let taken = self.transmit(index, conn, link, side, limit);
            any |= taken > 0;
            if taken == 0 {
                if let Some(end) = self.net.end(link, side) {
                    end.writing = false;
                }
                return any;
            }
        }
    }

    /// Sends everything that is left before a connection is closed.
    pub(super) fn flush(&mut self, index: usize, conn: ConnId) {
        const LAST_BYTES_MAX: usize = 1 << 20;
        let Some((link, side)) = self.nodes[index].conns.get(&conn).copied() else { return };
        let mut sent = 0;
        while sent < LAST_BYTES_MAX {
            match self.transmit(index, conn, link, side, 64 * 1024) {
                0 => break,
                taken => sent += taken,
            }
        }
    }

    fn transmit(&mut self, index: usize, conn: ConnId, link: LinkId, side: usize, limit: usize) -> usize {
        let now = self.now_at(index);
        let mut bytes = Vec::new();
        let Some(engine) = self.nodes[index].engine.as_mut() else { return 0 };
        (self.calls)(true);
        engine.poll_transmit(now, conn, &mut bytes, limit);
        (self.calls)(false);
        self.nodes[index].wakes = None;
        let len = bytes.len();
        if len > 0 {
            if let Some(end) = self.net.end(link, side) {
                end.unread += len;
            }
            self.note(format_args!("n{index} sends {len} on {}", conn.0));
            let at = self.net.arrival(link, side, self.now, len);
            self.at(at, Due::Arrive { link, side: 1 - side, cargo: Cargo::Bytes(bytes) });
        }
        len
    }

    /// One end is done: the other hears of it behind all bytes.
    pub(super) fn hang_up(&mut self, link: LinkId, side: usize) {
        if let Some(end) = self.net.end(link, side) {
            end.open = false;
            let at = self.net.arrival(link, side, self.now, 0);
            self.at(at, Due::Arrive { link, side: 1 - side, cargo: Cargo::End });
        }
        self.net.sweep(link);
    }

    /// Cuts a connection on both sides at once; what was under way is lost.
    pub fn reset(&mut self, link: LinkId) {
        for side in 0..2 {
            let Some(end) = self.net.end(link, side) else { continue };
            let (index, conn, was_open) = (end.node, end.conn, end.open);
            end.open = false;
            if is_liar(index) {
                self.liar_loses(link);
            } else if was_open && self.nodes[index].conns.remove(&conn).is_some() {
                self.note(format_args!("n{index} loses {}", conn.0));
                let now = self.now_at(index);
                self.with(index, |engine| engine.handle_closed(now, conn));
            }
        }
        self.net.sweep(link);
    }

    /// Ends the connections of two machines for the first of them alone: what the other sends goes nowhere, and it
    /// hears nothing more.
    pub fn half_close(&mut self, node: usize, other: usize) {
        for link in self.net.links() {
            let at = |net: &mut Net, side| net.end(link, side).map(|end| end.node);
            for side in 0..2 {
                if at(&mut self.net, side) != Some(node) || at(&mut self.net, 1 - side) != Some(other) {
                    continue;
                }
                let Some(end) = self.net.end(link, side).filter(|end| end.open) else { continue };
                end.open = false;
                let conn = end.conn;
                self.note(format_args!("n{node} alone loses {}", conn.0));
                self.nodes[node].conns.remove(&conn);
                let now = self.now_at(node);
                self.with(node, |engine| engine.handle_closed(now, conn));
            }
        }
    }

    /// Cuts every connection.
    pub fn reset_all(&mut self) {
        for link in self.net.links() {
            self.reset(link);
        }
    }

    /// Parts machines into two groups that do not hear each other.
    pub fn partition(&mut self, group: &[usize]) {
        for a in 0..self.nodes.len() {
            for b in (0..self.nodes.len()).filter(|b| group.contains(&a) != group.contains(b)) {
                self.net.block(a, b);
            }
        }
        self.note(format_args!("partition of {group:?}"));
    }

    /// Mends the network; what waited arrives.
    pub fn heal(&mut self) {
        self.net.unblock_all();
        self.note(format_args!("the network heals"));
        for link in self.net.links() {
            for side in 0..2 {
                let held =
                    self.net.end(link, side).map(|end| std::mem::take(&mut end.held)).unwrap_or_default();
                for cargo in held {
                    self.at(self.now, Due::Arrive { link, side, cargo });
                }
            }
        }
    }

    pub(super) fn arrive(&mut self, link: LinkId, side: usize, cargo: Cargo) {
        let Some(from) = self.net.end(link, 1 - side).map(|end| end.node) else { return };
        let Some(to) = self.net.end(link, side).map(|end| end.node) else { return };
        let reached = self.net.reaches(from, to);
        let carries = matches!(&cargo, Cargo::Bytes(bytes) if !bytes.is_empty());
        if carries && reached && self.net.resets() {
            self.note(format_args!("reset between n{from} and n{to}"));
            return self.reset(link);
        }
        let Some(end) = self.net.end(link, side) else { return };
        match cargo {
            cargo if !reached || !end.held.is_empty() => end.held.push_back(cargo),
            Cargo::Bytes(bytes) => end.inbox.extend(bytes),
            Cargo::End => end.ended = true,
        }
        self.deliver(link, side);
    }

    /// Gives an engine what has arrived, as long as it takes it.
    fn deliver(&mut self, link: LinkId, side: usize) {
        loop {
            let Some(end) = self.net.end(link, side) else { return };
            let (index, conn) = (end.node, end.conn);
            if is_liar(index) {
                return self.liar_hears(link);
            }
            if !end.open || !end.reading {
                return;
            }
            let now = self.now_at(index);
            let waiting = self.net.end(link, side).map_or(0, |end| end.inbox.len());
            if waiting == 0 {
                let ended = self.net.end(link, side).is_some_and(|end| end.ended);
                if ended {
                    if let Some(end) = self.net.end(link, side) {
                        end.open = false;
                    }
                    self.nodes[index].conns.remove(&conn);
                    self.note(format_args!("n{index} hears the end of {}", conn.0));
                    self.with(index, |engine| engine.handle_closed(now, conn));
                    self.net.sweep(link);
                }
                return;
            }
            let piece = self.net.piece(waiting);
            let Some(end) = self.net.end(link, side) else { return };
            let bytes = end.take(piece);
            self.note(format_args!("n{index} receives {piece} on {}", conn.0));
            self.with(index, |engine| engine.handle_received(now, conn, &bytes));
            let Some(sender) = self.net.end(link, 1 - side) else { return };
            sender.unread = sender.unread.saturating_sub(piece);
            let (other, other_conn, wants) = (sender.node, sender.conn, sender.writing && sender.open);
            if wants && is_liar(other) {
                self.pump_liar(link);
            } else if wants && self.pump(other, other_conn) {
                self.drain(other);
            }
        }
    }

    pub(super) fn datagram(&mut self, index: usize, addr: SocketAddr, bytes: &[u8]) {
        assert!(bytes.len() <= 512, "a datagram of {} bytes", bytes.len());
        let to_all = match addr.ip() {
            IpAddr::V4(ip) => ip.is_broadcast() || ip.is_multicast() || ip.octets()[3] == 255,
            IpAddr::V6(ip) => ip.is_multicast(),
        };
        let from = SocketAddr::new(self.nodes[index].ip, LAN_PORT);
        for node in 0..self.nodes.len() {
            let meant = to_all || self.nodes[node].ip == addr.ip();
            if node == index || !meant || !self.net.reaches(index, node) || self.net.loses_datagram() {
                continue;
            }
            let at = self.now.plus(self.net.delay());
            self.at(at, Due::Datagram { node, from, bytes: bytes.to_vec() });
        }
    }
}
