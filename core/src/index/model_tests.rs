//! A model of peers that author, send, lose links and go on: holds the invariant of knowledge at every step, and
//! finds all equal and silent at rest (protocol §7). Messages travel as text, stores hold the compact form.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use proptest::prelude::*;

use crate::ids::Uuid;
use crate::index::author::{Author, create, delete, edit, move_to, touch_empty};
use crate::index::clock::Clock;
use crate::index::codec::{PeerTable, decode_record, encode_record};
use crate::index::feed::LinkFeed;
use crate::index::knowledge::{Knowledge, Resume};
use crate::index::merge::merge;
use crate::index::record::{Meta, Record};
use crate::index::testing::{author, file_value, peer};
use crate::time::WallTime;
use crate::wire::database::{DatabaseMessage, write_update};

const NODES: usize = 3;
const RECORDS: u8 = 4;

struct Node {
    author: Author,
    peers: PeerTable,
    records: BTreeMap<Uuid, (u64, Vec<u8>)>,
    arrivals: BTreeMap<u64, Uuid>,
    head: u64,
    knowledge: Knowledge,
    feeds: Vec<LinkFeed>,
    inbox: Vec<VecDeque<(&'static str, Vec<u8>)>>,
    resume: Vec<Option<Resume>>,
}

impl Node {
    fn new(n: usize) -> Node {
        Node {
            author: author(n as u8 + 1),
            peers: PeerTable::default(),
            records: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            head: 0,
            knowledge: Knowledge::default(),
            feeds: (0..NODES).map(|_| LinkFeed::new()).collect(),
            inbox: (0..NODES).map(|_| VecDeque::new()).collect(),
            resume: alloc::vec![None; NODES],
        }
    }

    fn token(&self) -> [u8; 16] {
        self.author.peer.0
    }

    fn get(&self, uuid: Uuid) -> Option<Record> {
        let (_, bytes) = self.records.get(&uuid)?;
        Some(decode_record(&mut bytes.as_slice(), &self.peers).unwrap())
    }

    fn put(&mut self, record: &Record) {
        let mut bytes = Vec::new();
        encode_record(record, &mut self.peers, &mut bytes);
        self.head += 1;
        if let Some((old, _)) = self.records.insert(record.uuid, (self.head, bytes)) {
            self.arrivals.remove(&old);
        }
        self.arrivals.insert(self.head, record.uuid);
    }

    fn change(&mut self, what: u8, which: u8) -> Option<Record> {
        let (me, uuid) = (&mut self.author.clone(), Uuid([which; 16]));
        let size = me.rev + 1;
        let made = match (self.get(uuid), what % 4) {
            (None, _) => create(me, uuid, "/a".into(), file_value(size), Meta::default(), None),
            (Some(old), 0) => edit(me, &old, file_value(size), None),
            (Some(old), 1) => delete(me, &old),
            (Some(old), 2) => move_to(me, &old, alloc::format!("/{size}")),
            (Some(old), _) => touch_empty(me, &old),
        };
        let record = made.ok()?;
        self.author = *me;
        self.put(&record);
        self.knowledge.raise(record.update.peer, record.update.rev);
        Some(record)
    }

    /// What goes out next toward `to`, if anything. Asks for knowledge first, so that the feed has to hold it back.
    fn pump(&mut self, to: usize) -> Option<(&'static str, Vec<u8>)> {
        let (token, head) = (self.token(), self.head);
        if let Some(knowledge) = self.feeds[to].take_knowledge(self.knowledge.clock(), head) {
            return Some(("database.knowledge", body(&DatabaseMessage::Knowledge { knowledge })));
        }
        if let Some(knowledge) = self.feeds[to].take_current(head) {
            return Some(("database.current", body(&DatabaseMessage::Current { knowledge })));
        }
        let from = self.feeds[to].wants_more(head)?;
        let Some((&arrival, &uuid)) = self.arrivals.range(from..).next() else {
            self.feeds[to].advance(head);
            return self.pump(to);
        };
        let record = self.get(uuid).unwrap();
        let wanted = self.feeds[to].offer(arrival, &record);
        self.feeds[to].advance(arrival);
        if !wanted {
            return self.pump(to);
        }
        let mut body = Vec::new();
        write_update(&record, Some(Resume { token, arrival }), &mut body);
        Some(("database.update", body))
    }

    fn receive(&mut self, from: usize, message: DatabaseMessage) {
        match message {
            DatabaseMessage::GetUpdates { since, resume } => {
                let (token, head, known) = (self.token(), self.head, self.knowledge.clock().clone());
                let asker = peer(from as u8 + 1);
                self.feeds[from].subscribe(asker, since, resume, token, head, &known);
            }
            DatabaseMessage::Update { record, at } => {
                let stored = self.get(record.uuid);
                let merged = stored.as_ref().map(|stored| merge(stored, &record));
                assert!(merged.as_ref().is_none_or(|m| m.fault.is_none()));
                let answers = merged.as_ref().is_some_and(|m| m.answers);
                if merged.as_ref().is_none_or(|m| m.changed) {
                    self.put(&merged.map_or(*record, |m| m.record));
                    if !answers {
                        self.feeds[from].note_from_link(self.head);
                    }
                }
                self.resume[from] = at;
            }
            DatabaseMessage::Current { knowledge } | DatabaseMessage::Knowledge { knowledge } => {
                self.feeds[from].peer_knows(&knowledge);
                self.knowledge.max(&knowledge);
            }
            DatabaseMessage::Updates { .. }
            | DatabaseMessage::Looking { .. }
            | DatabaseMessage::Digest { .. }
            | DatabaseMessage::Unknown => {
                unreachable!()
            }
        }
    }
}

fn body(message: &DatabaseMessage) -> Vec<u8> {
    let mut body = Vec::new();
    message.write(&mut body);
    body
}

struct Model {
    nodes: Vec<Node>,
    /// Every version that was authored.
    versions: Vec<Record>,
    sent: usize,
}

impl Model {
    fn new() -> Model {
        let mut model = Model { nodes: (0..NODES).map(Node::new).collect(), versions: Vec::new(), sent: 0 };
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            model.open(a, b);
        }
        model
    }

    /// Cuts the link of two nodes, with all that was on its way, and opens it again.
    fn open(&mut self, a: usize, b: usize) {
        for (me, other) in [(a, b), (b, a)] {
            let node = &mut self.nodes[me];
            node.feeds[other] = LinkFeed::new();
            let since = node.knowledge.clock().clone();
            let ask = body(&DatabaseMessage::GetUpdates { since, resume: node.resume[other] });
            self.nodes[other].inbox[me] = VecDeque::from([("database.get_updates", ask)]);
        }
    }

    fn send(&mut self, from: usize, to: usize) -> bool {
        let Some(message) = self.nodes[from].pump(to) else { return false };
        self.sent += 1;
        self.nodes[to].inbox[from].push_back(message);
        true
    }

    fn deliver(&mut self, from: usize, to: usize) -> bool {
        let Some((name, body)) = self.nodes[to].inbox[from].pop_front() else { return false };
        self.nodes[to].receive(from, DatabaseMessage::read(name, &body).unwrap());
        true
    }

    /// Knowledge covers nothing that is not held.
    fn check(&self) -> Result<(), TestCaseError> {
        for node in &self.nodes {
            for version in &self.versions {
                if node.knowledge.clock().covers_dot(version.update.peer, version.update.rev) {
                    let held = node.get(version.uuid).is_some_and(|r| r.clock.covers(&version.clock));
                    prop_assert!(held, "{:?} lacks {:?}", node.author.peer, version.update);
                }
            }
        }
        Ok(())
    }

    fn settle(&mut self) {
        loop {
            let mut busy = false;
            for (a, b) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
                while self.send(a, b) | self.deliver(a, b) {
                    busy = true;
                }
            }
            if !busy {
                return;
            }
        }
    }

    fn state(&self, node: usize) -> (Clock, Vec<Record>) {
        let node = &self.nodes[node];
        let records = node.records.keys().map(|uuid| node.get(*uuid).unwrap()).collect();
        (node.knowledge.clock().clone(), records)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Change { node: usize, what: u8, which: u8, wall: i64 },
    Send(usize, usize),
    Deliver(usize, usize),
    Cut(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let link = || (0..NODES, 1..NODES).prop_map(|(a, by)| (a, (a + by) % NODES));
    prop_oneof![
        3 => (0..NODES, any::<u8>(), 0..RECORDS, -9i64..9)
                .prop_map(|(node, what, which, wall)| Step::Change { node, what, which, wall }),
        5 => link().prop_map(|(a, b)| Step::Send(a, b)),
        5 => link().prop_map(|(a, b)| Step::Deliver(a, b)),
        1 => link().prop_map(|(a, b)| Step::Cut(a, b)),
    ]
}

proptest! {
    #[test]
    fn knowledge_holds_at_every_step_and_all_are_equal_at_rest(steps in proptest::collection::vec(step(), 0..120)) {
        let mut model = Model::new();
        for step in steps {
            match step {
                Step::Change { node, what, which, wall } => {
                    let node = &mut model.nodes[node];
                    node.author.wall = WallTime(1000 + wall);
                    model.versions.extend(node.change(what, which));
                }
                Step::Send(a, b) => _ = model.send(a, b),
                Step::Deliver(a, b) => _ = model.deliver(a, b),
                Step::Cut(a, b) => model.open(a, b),
            }
            model.check()?;
        }
        model.settle();
        model.check()?;
        let rest = model.state(0);
        for node in 1..NODES {
            prop_assert_eq!(&rest, &model.state(node));
        }
        for n in 0..NODES {
            let own = model.nodes[n].author;
            prop_assert_eq!(rest.0.get(peer(n as u8 + 1)), own.rev);
        }
        // Links that open between equals carry a vector each way, and what each last wrote itself.
        let sent = model.sent;
        model.open(0, 1);
        model.settle();
        prop_assert!((2..=4).contains(&(model.sent - sent)), "{}", model.sent - sent);
    }
}

#[test]
fn a_record_goes_over_each_link_once() {
    let mut model = Model::new();
    model.settle();
    let sent = model.sent;
    model.versions.extend(model.nodes[0].change(0, 1));
    // 0 → 1 and 0 → 2 a record and a vector; 1 and 2 have both before they look at one another.
    for to in [1, 2] {
        while model.send(0, to) | model.deliver(0, to) {}
    }
    assert_eq!(model.sent - sent, 4);
    model.settle();
    assert!(model.sent - sent <= 10, "{}", model.sent - sent);
}
