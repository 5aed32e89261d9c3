//! One engine with a share, a member that lies, and a user: bytes choose messages, splits, completions, failures, time,
//! kills, and what the user does (protocol §5 to §8).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use clearskies_core::channel::Transport;
use clearskies_core::club::level::Level;
use clearskies_core::engine::command::{Command, Reply};
use clearskies_core::files::path::RelPath;
use clearskies_core::ids::ConnId;
use clearskies_core::io::disk::Kind;
use clearskies_core::io::{DiskError, Noticed, StoreError};
use clearskies_core::time::Now;

use super::choices::Choices;
use super::host::Host;
use super::liar::{Keys, Liar, SEED};
use crate::member::sha256;
use crate::sim::share::{SHARE, at};
use crate::sim::store::Image;
use crate::sim::users::{Entries, Item, Tree};
use crate::sim::{SimDisk, SimStore};

/// Steps of one run.
const STEPS_MAX: usize = 400;
/// Time that the steps may take in all, so that the archive keeps what it holds.
const TIME_MAX: Duration = Duration::from_secs(20 * 24 * 3600);
/// Orders that are carried out at once.
const ORDERS_MAX: usize = 20_000;
/// What lies beside the share.
const OUTSIDE: &str = "/outside";

const FROM: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 6)), 40_000);
const PATHS: [&str; 12] =
    ["a", "b", "d", "d/a", "d/b", "d/d", "d/d/a", "A", "link", "new", "d/new", "a.CONFLICT.ABCDEFGH"];
const TIMES: [Duration; 8] = [
    Duration::from_millis(1),
    Duration::from_millis(20),
    Duration::from_secs(1),
    Duration::from_secs(6),
    Duration::from_secs(61),
    Duration::from_secs(700),
    Duration::from_secs(4000),
    Duration::from_secs(100_000),
];
const ERRORS: [DiskError; 10] = [
    DiskError::NotFound,
    DiskError::Exists,
    DiskError::NotEmpty,
    DiskError::WrongKind,
    DiskError::Denied,
    DiskError::NoSpace,
    DiskError::BadName,
    DiskError::RootMissing,
    DiskError::Changed,
    DiskError::Io,
];

/// An engine at rest whose share a liar has joined.
struct Start {
    image: Image,
    disk: SimDisk,
    keys: Keys,
    now: Now,
    rev: u64,
}

thread_local! {
    /// Made once: the joining costs more than most runs.
    static START: Start = start();
}

/// Whatever is said: nothing outside the share changes, what the user did not replace or remove is there or in the
/// archive, each file that shows is one that the user wrote or that was announced, and commands are answered.
pub fn engine(bytes: &[u8]) {
    START.with(|start| play(start, bytes, Run::look).end());
}

/// A run in which the bytes have chosen what happens, and in which it was looked after each step.
fn play<'a>(start: &'a Start, bytes: &[u8], look: impl Fn(&mut Run<'a>)) -> Run<'a> {
    let mut run = Run::new(start);
    let mut choices = Choices::new(bytes);
    for _ in 0..STEPS_MAX {
        if choices.is_empty() {
            break;
        }
        run.step(&mut choices);
        look(&mut run);
    }
    run
}

/// How far a run came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Orders under way, the folder, and what is in the archive at the end, as text.
    pub end: String,
    /// Contents that the liar announced and that showed in the folder.
    pub placed: usize,
    /// Files in the archive.
    pub archived: usize,
    /// Conflict files in the folder.
    pub conflicts: usize,
    /// Requests for contents that the liar did not answer.
    pub asked: usize,
}

/// Plays a run and tells how far it came: the same bytes come to the same, because the engine asks nobody for time or
/// chance.
pub fn outcome(bytes: &[u8]) -> Reached {
    START.with(|start| {
        let mut run = play(start, bytes, |_| {});
        run.host.complete_all(ORDERS_MAX);
        let (tree, archive) = (run.host.disk.tree(SHARE), run.host.disk.archive(SHARE));
        let shown = run.host.disk.shown.iter().filter(|(_, data)| run.liar.announced.contains(&sha256(data)));
        Reached {
            placed: shown.count(),
            archived: archive.len(),
            conflicts: tree.keys().filter(|name| name.contains(".CONFLICT.")).count(),
            asked: run.liar.asked(),
            end: format!("{:?}\n{tree:?}\n{archive:?}", run.host.orders),
        }
    })
}

fn start() -> Start {
    let mut disk = SimDisk::default();
    let now = Host::begin();
    let wall = now.wall.0;
    let mut make = || {
        disk.mkdir(wall, OUTSIDE)?;
        disk.write(wall, &format!("{OUTSIDE}/secret"), b"nobody's business")?;
        disk.mkdir(wall, SHARE)?;
        disk.mkdir(wall, &at("d"))?;
        disk.mkdir(wall, &at("empty"))?;
        disk.write(wall, &at("a"), b"user's a")?;
        disk.write(wall, &at("d/a"), b"user's d/a")?;
        disk.write(wall, &at("d/b"), &[b'u'; 5000])?;
        disk.symlink(wall, &at("link"), OUTSIDE)
    };
    make().expect("the disk is empty");
    let mut host = Host::boot(disk, SimStore::default(), now, None, &[SHARE]);
    let made = host.answer(Command::CreateShare { path: SHARE.into() });
    assert!(matches!(made, Ok(Reply::Share { new: true, .. })), "{made:?}");
    settle(&mut host);
    let invite =
        Command::Invite { path: SHARE.into(), level: Level::ReadWrite, valid_for: None, multi_use: false };
    let code = match host.answer(invite) {
        Ok(Reply::Code { code, .. }) => code,
        other => panic!("no code: {other:?}"),
    };
    let mut liar = Liar::join(host.now, &code, Transport::Plain, SEED);
    let conn = host.engine.handle_accepted(host.now, FROM).expect("there is room");
    for _ in 0..10 {
        carry(&mut host, &mut liar, conn);
        settle(&mut host);
    }
    let keys = liar.keys().expect("it was let in");
    host.engine.handle_closed(host.now, conn);
    settle(&mut host);
    Start { image: host.store.backup(), disk: host.disk.clone(), keys, now: host.now, rev: liar.rev() }
}

fn settle(host: &mut Host) {
    for _ in 0..20 {
        host.hints();
        host.complete_all(ORDERS_MAX);
        host.pass(Duration::from_millis(500));
    }
}

/// Carries over all that both sides have to say now.
fn carry(host: &mut Host, liar: &mut Liar, conn: ConnId) {
    for _ in 0..10 {
        let mut bytes = Vec::new();
        while liar.transmit(&mut bytes, 1 << 20) {}
        host.engine.handle_received(host.now, conn, &bytes);
        host.complete_all(ORDERS_MAX);
        let mut bytes = Vec::new();
        while host.engine.poll_transmit(host.now, conn, &mut bytes, 1 << 20) {}
        liar.receive(host.now, &bytes);
    }
}

struct Run<'a> {
    start: &'a Start,
    host: Host,
    liar: Liar,
    conn: Option<ConnId>,
    /// What the liar said and the engine has not got yet.
    line: Vec<u8>,
    outside: Tree,
    /// Contents that the user wrote, and those of them that it neither replaced nor removed.
    written: BTreeSet<Vec<u8>>,
    kept: BTreeSet<Vec<u8>>,
    passed: Duration,
}

impl<'a> Run<'a> {
    fn new(start: &'a Start) -> Run<'a> {
        let mut store = SimStore::default();
        store.put_back(start.image.clone());
        let mut disk = start.disk.clone();
        disk.close_all();
        disk.shown.clear();
        let mut host = Host::boot(disk, store, start.now, Some(Host::token()), &[SHARE]);
        for _ in 0..4 {
            host.complete_all(ORDERS_MAX);
            host.pass(Duration::from_millis(500));
        }
        let contents: BTreeSet<Vec<u8>> =
            files(&host.disk.entries(SHARE)).map(|data| data.to_vec()).collect();
        let liar = Liar::connect(host.now, &start.keys, start.rev, Transport::Plain);
        let outside = host.disk.tree(OUTSIDE);
        let mut run = Run {
            start,
            host,
            liar,
            conn: None,
            line: Vec::new(),
            outside,
            written: contents.clone(),
            kept: contents,
            passed: Duration::ZERO,
        };
        run.connect();
        run
    }

    /// Calls anew, and goes on until messages flow.
    fn connect(&mut self) {
        self.hang_up();
        self.liar.again(self.host.now, &self.start.keys);
        self.line.clear();
        self.conn = self.host.engine.handle_accepted(self.host.now, FROM);
        if let Some(conn) = self.conn {
            carry(&mut self.host, &mut self.liar, conn);
        }
    }

    fn hang_up(&mut self) {
        if let Some(conn) = self.conn.take() {
            self.host.engine.handle_closed(self.host.now, conn);
            self.host.drain();
        }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        // What ends a connection is rare, or nothing else would be reached.
        match choices.below(64) {
            0..16 => {
                if self.conn.is_none() {
                    self.connect();
                }
                self.liar.speak(choices);
                while self.liar.transmit(&mut self.line, 1 << 20) {}
            }
            16..22 => self.deliver(usize::MAX),
            22 | 23 => self.deliver(choices.short()),
            24..27 => self.take(1 << 20),
            27 => self.take(choices.short()),
            28..36 => self.host.complete(choices.short(), None),
            36..48 => {
                self.take(1 << 20);
                self.deliver(usize::MAX);
                self.host.complete_all(ORDERS_MAX);
            }
            48 => {
                let error = (*choices.pick(&ERRORS), *choices.pick(&[StoreError::NoSpace, StoreError::Io]));
                self.host.complete(choices.below(64), Some(error));
            }
            49..53 => self.user(choices),
            53 => self.host.hints(),
            54..57 => {
                let time = *choices.pick(&TIMES);
                if self.passed + time <= TIME_MAX {
                    self.passed += time;
                    self.host.pass(time);
                }
            }
            57 => self.command(choices),
            58 => match choices.below(4) {
                0 => self.connect(),
                1 => self.hang_up(),
                2 => self.restart(),
                _ => self.dialed(choices),
            },
            59 => {
                let length = choices.below(96);
                self.host.engine.handle_datagram(self.host.now, FROM, choices.take(length));
                self.host.drain();
            }
            60 if choices.below(4) == 0 => {
                // Bytes that are no frame, or a part of one.
                let length = choices.below(32);
                self.line.extend_from_slice(choices.take(length));
            }
            61 => {
                let path = RelPath::new(choices.pick::<&str>(&PATHS)).expect("a path");
                for root in self.host.disk.open_roots() {
                    self.host.engine.handle_fs_event(self.host.now, root, &path, Noticed::Changed);
                }
            }
            62 => self.host.disk.overflow(),
            _ => self.host.complete_all(ORDERS_MAX),
        }
        self.closed();
    }

    /// The engine closed the liar's connection: what it still says is fetched, then it is gone.
    fn closed(&mut self) {
        for conn in std::mem::take(&mut self.host.closed) {
            if Some(conn) == self.conn {
                let mut bytes = Vec::new();
                while self.host.engine.poll_transmit(self.host.now, conn, &mut bytes, 1 << 16) {}
                self.liar.receive(self.host.now, &bytes);
                self.conn = None;
            }
            self.host.dials.retain(|dial| *dial != conn);
        }
    }

    fn deliver(&mut self, length: usize) {
        let Some(conn) = self.conn else { return self.line.clear() };
        let some: Vec<u8> = self.line.drain(..length.min(self.line.len())).collect();
        self.host.engine.handle_received(self.host.now, conn, &some);
        self.host.drain();
    }

    fn take(&mut self, limit: usize) {
        let Some(conn) = self.conn else { return };
        let mut bytes = Vec::new();
        self.host.engine.poll_transmit(self.host.now, conn, &mut bytes, limit);
        self.host.drain();
        self.liar.receive(self.host.now, &bytes);
        while self.liar.transmit(&mut self.line, 1 << 20) {}
    }

    fn restart(&mut self) {
        // Nothing can be moved out of a place that is borrowed: an engine that never runs stands in for a moment.
        let empty = Host::boot(SimDisk::default(), SimStore::default(), self.host.now, None, &[]);
        self.host = std::mem::replace(&mut self.host, empty).restart();
        self.host.drain();
        self.conn = None;
        self.line.clear();
    }

    /// How a dial of the engine's ended.
    fn dialed(&mut self, choices: &mut Choices<'_>) {
        let Some(conn) = self.host.dials.pop() else { return };
        match choices.below(3) {
            0 => self.host.engine.handle_dial_failed(self.host.now, conn),
            1 => {
                self.host.engine.handle_dialed(self.host.now, conn);
                let length = choices.below(64);
                self.host.engine.handle_received(self.host.now, conn, choices.take(length));
                self.host.engine.handle_closed(self.host.now, conn);
            }
            _ => self.host.engine.handle_closed(self.host.now, conn),
        }
        self.host.drain();
    }

    fn user(&mut self, choices: &mut Choices<'_>) {
        let (act, path, other) = (choices.below(6), place(choices), place(choices));
        let wall = self.host.now.wall.0;
        let old = files_at(&self.host.disk, &path);
        let disk = &mut self.host.disk;
        let done = match act {
            0 | 1 => {
                let content = format!("user's {}", self.written.len()).into_bytes();
                let written = disk.write(wall, &path, &content);
                if written.is_ok() {
                    self.written.insert(content.clone());
                    self.kept.insert(content);
                }
                written
            }
            2 => disk.remove_path(wall, &path),
            3 => disk.mkdir(wall, &path),
            4 if other != path && !other.starts_with(&format!("{path}/")) => {
                // What a rename replaces is gone, as the user wants it.
                let replaced = files_at(disk, &other);
                let renamed = disk.rename_path(wall, &path, &other);
                if renamed.is_ok() {
                    replaced.iter().for_each(|content| _ = self.kept.remove(content));
                }
                return;
            }
            _ => disk.symlink(wall, &path, OUTSIDE),
        };
        if done.is_ok() {
            old.iter().for_each(|content| _ = self.kept.remove(content));
        }
        if choices.below(4) > 0 {
            self.host.hints();
        }
    }

    fn command(&mut self, choices: &mut Choices<'_>) {
        let path = || SHARE.to_owned();
        let (kind, flag) = (choices.below(12), choices.below(2) == 0);
        let file = place(choices);
        let command = match kind {
            0 => Command::Status,
            1 => Command::Why { path: file },
            2 => Command::Conflicts { path: None },
            3 => {
                // One that is there, if there is one.
                let tree = self.host.disk.tree(SHARE);
                let name = tree.keys().find(|name| name.contains(".CONFLICT."));
                Command::Resolve { path: name.map_or(file, |name| at(name)), keep: flag }
            }
            4 => Command::Deletions { path: None },
            5 => Command::DecideDeletions { path: path(), confirm: flag },
            6 => Command::Archive { path: path() },
            7 => Command::Restore { path: file, folder: None },
            8 => Command::Pause,
            9 => Command::Resume,
            10 => Command::Connect { addr: FROM },
            _ => Command::Peers,
        };
        // Which conflict file is dropped, and what a resolved one replaces, the user decides: it may go for good.
        if let Command::Resolve { path, .. } = &command {
            let dropped = files_at(&self.host.disk, path);
            dropped.iter().for_each(|content| _ = self.kept.remove(content));
        }
        self.host.ask(command);
    }

    /// What holds after each step.
    fn look(&mut self) {
        for (name, data) in std::mem::take(&mut self.host.disk.shown) {
            let known = self.written.contains(&*data) || self.liar.announced.contains(&sha256(&data));
            assert!(known, "{name} shows {} bytes that nobody announced", data.len());
        }
    }

    /// Lets everything come to rest, and looks at what is left.
    fn end(mut self) {
        self.deliver(usize::MAX);
        for _ in 0..6 {
            self.host.hints();
            self.host.complete_all(ORDERS_MAX);
            self.host.pass(Duration::from_secs(11));
            self.closed();
        }
        self.host.complete_all(ORDERS_MAX);
        self.look();
        let resumed = self.host.answer(Command::Resume);
        assert!(resumed.is_ok(), "{resumed:?}");
        assert!(self.host.asked.is_empty(), "never answered: {:?}", self.host.asked);
        assert_eq!(self.host.disk.tree(OUTSIDE), self.outside, "something outside changed");
        let mut found: BTreeSet<Vec<u8>> =
            files(&self.host.disk.entries(SHARE)).map(|data| data.to_vec()).collect();
        found.extend(self.host.disk.archive(SHARE).into_iter().map(|(_, data)| data));
        for content in &self.kept {
            assert!(found.contains(content), "lost: {:?}", String::from_utf8_lossy(content));
        }
    }
}

/// A place in the share.
fn place(choices: &mut Choices<'_>) -> String {
    at(PATHS[choices.below(PATHS.len())])
}

/// The contents of the files in a folder.
fn files(entries: &Entries) -> impl Iterator<Item = Arc<Vec<u8>>> {
    entries.values().filter(|(kind, _)| *kind == Kind::File).filter_map(|(_, data)| data.clone())
}

/// The contents at and beneath a path.
fn files_at(disk: &SimDisk, path: &str) -> Vec<Vec<u8>> {
    let mut found: Vec<Vec<u8>> = disk.read_file(path).into_iter().collect();
    let beneath = disk.tree(path).into_values();
    found.extend(beneath.filter_map(|item| match item {
        Item::File(_, data) => Some(data),
        _ => None,
    }));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::seeds::seeds;

    /// A target that reaches nothing can find nothing.
    #[test]
    fn plays_place_files_archive_them_and_make_conflicts() {
        let mut sum = Reached::default();
        for bytes in seeds("engine") {
            let reached = outcome(&bytes);
            println!("{} {} {} {}", reached.placed, reached.archived, reached.conflicts, reached.asked);
            sum.placed += reached.placed;
            sum.archived += reached.archived;
            sum.conflicts += reached.conflicts;
            sum.asked += reached.asked;
        }
        assert!(sum.placed > 0 && sum.archived > 0 && sum.conflicts > 0 && sum.asked > 0, "{sum:?}");
    }
}
