//! Finds where on the disk a content lies, for serving it: many requests with two look-ups, and a short memory for
//! files that are asked for piece by piece. Never reads a file.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::engine::outbox::Outbox;
use crate::files::fetch::SMALL_BYTES_MAX;
use crate::files::path::RelPath;
use crate::files::row::{Base, DiskState, PathRow};
use crate::ids::{ConnId, RootId, Sha256, Token};
use crate::index::codec::PeerTable;
use crate::index::record::EntryContent;
use crate::io::disk::Stamp;
use crate::io::store::{Query, Row, Space};
use crate::io::{StoreDone, StoreError, StoreOp};

/// At most this many files with one content are looked at.
pub const PLACES_MAX: u32 = 4;
/// At most this many requests are looked up together.
pub const FIND_MAX: usize = 256;
/// At most this many look-ups at once.
pub const FIND_BATCHES_MAX: usize = 2;
/// Where this many large contents lie is remembered.
pub const REMEMBERED_MAX: usize = 64;

/// The key of a row of `Space::Content`: this file has this content.
pub fn content_key(root: RootId, sha256: &Sha256, path: &RelPath) -> Vec<u8> {
    let mut key = content_prefix(root, sha256);
    key.reserve_exact(path.as_str().len());
    path.push_sort_key(&mut key);
    key
}

fn content_prefix(root: RootId, sha256: &Sha256) -> Vec<u8> {
    let mut key = Vec::with_capacity(64);
    key.extend_from_slice(&root.0.to_be_bytes());
    key.extend_from_slice(&sha256.0);
    key
}

fn path_key(root: RootId, path: &RelPath) -> Vec<u8> {
    let mut key = Vec::with_capacity(4 + path.as_str().len());
    key.extend_from_slice(&root.0.to_be_bytes());
    path.push_sort_key(&mut key);
    key
}

/// A file that has a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: RelPath,
    pub(super) stamp: Stamp,
}

/// Where a content lies.
#[derive(Debug)]
pub(super) struct Located {
    pub(super) size: u64,
    /// At least one.
    pub(super) places: Vec<Place>,
}

/// The outcome of one request's look-up.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) conn: ConnId,
    pub(super) sha: Sha256,
    pub(super) range: Option<(u64, u64)>,
    /// `None`: the club has no such content here. An error is the code for the peer.
    pub(super) at: Result<Option<Arc<Located>>, &'static str>,
    /// Whether the store was asked, or memory.
    pub(super) fresh: bool,
}

#[derive(Debug)]
struct Sought {
    conn: ConnId,
    sha: Sha256,
    range: Option<(u64, u64)>,
}

#[derive(Debug)]
enum Step {
    /// The contents asked for, in the order of the queries.
    Contents(Vec<Sha256>),
    /// The files asked for, in the order of the queries, each with the content it should have.
    Paths(Vec<(Sha256, RelPath)>),
}

#[derive(Debug)]
struct Batch {
    sought: Vec<Sought>,
    step: Step,
}

/// Looks contents up.
#[derive(Debug)]
pub(super) struct Finder {
    root: RootId,
    queue: VecDeque<Sought>,
    batches: BTreeMap<Token, Batch>,
    /// The one used last is in front.
    remembered: VecDeque<(Sha256, Arc<Located>)>,
}

impl Finder {
    pub(super) fn new(root: RootId) -> Finder {
        Finder { root, queue: VecDeque::new(), batches: BTreeMap::new(), remembered: VecDeque::new() }
    }

    pub(super) fn owns(&self, token: Token) -> bool {
        self.batches.contains_key(&token)
    }

    pub(super) fn push(&mut self, conn: ConnId, sha: Sha256, range: Option<(u64, u64)>) {
        self.queue.push_back(Sought { conn, sha, range });
    }

    pub(super) fn conn_down(&mut self, conn: ConnId) {
        self.queue.retain(|sought| sought.conn != conn);
    }

    pub(super) fn cached(&mut self, sha: &Sha256) -> Option<Arc<Located>> {
        let at = self.remembered.iter().position(|(other, _)| other == sha)?;
        if at > 0 {
            let entry = self.remembered.remove(at)?;
            self.remembered.push_front(entry);
        }
        self.remembered.front().map(|(_, located)| located.clone())
    }

    pub(super) fn forget(&mut self, sha: &Sha256) {
        self.remembered.retain(|(other, _)| other != sha);
    }

    pub(super) fn path_changed(&mut self, path: &RelPath) {
        self.remembered.retain(|(_, located)| located.places.iter().all(|place| place.path != *path));
    }

    /// Begins look-ups; returns what memory could answer.
    pub(super) fn drive(&mut self, out: &mut Outbox) -> Vec<Found> {
        let mut found = Vec::new();
        while self.batches.len() < FIND_BATCHES_MAX && !self.queue.is_empty() {
            let mut sought = Vec::new();
            while sought.len() < FIND_MAX
                && let Some(next) = self.queue.pop_front()
            {
                let Sought { conn, sha, range } = next;
                match self.cached(&sha) {
                    Some(at) => found.push(Found { conn, sha, range, at: Ok(Some(at)), fresh: false }),
                    None => sought.push(next),
                }
            }
            let mut contents: Vec<Sha256> = sought.iter().map(|sought| sought.sha).collect();
            contents.sort_unstable();
            contents.dedup();
            if contents.is_empty() {
                continue;
            }
            let queries = contents.iter().map(|sha| self.query(sha)).collect();
            let batch = Batch { sought, step: Step::Contents(contents) };
            self.batches.insert(out.store(StoreOp::Load { queries }), batch);
        }
        found
    }

    fn query(&self, sha: &Sha256) -> Query {
        let start = content_prefix(self.root, sha);
        // Paths are UTF-8, which has no byte ff.
        let mut end = start.clone();
        end.push(0xff);
        Query::Range { space: Space::Content, start, end, limit: PLACES_MAX }
    }

    pub(super) fn handle_store(
        &mut self,
        token: Token,
        result: Result<StoreDone, StoreError>,
        peers: &PeerTable,
        out: &mut Outbox,
    ) -> Vec<Found> {
        let Some(Batch { sought, step }) = self.batches.remove(&token) else { return Vec::new() };
        let Ok(StoreDone::Loaded(rows)) = result else {
            return answer(sought, |_| Err("io"));
        };
        match step {
            Step::Contents(contents) => {
                let paths = self.paths(&contents, &rows);
                if paths.is_empty() {
                    return answer(sought, |_| Ok(None));
                }
                let queries = paths
                    .iter()
                    .map(|(_, path)| Query::Get { space: Space::Path, key: path_key(self.root, path) });
                let token = out.store(StoreOp::Load { queries: queries.collect() });
                self.batches.insert(token, Batch { sought, step: Step::Paths(paths) });
                Vec::new()
            }
            Step::Paths(paths) => {
                let located = locate(paths, &rows, peers);
                for (sha, at) in &located {
                    // Small files are asked for once; pieces of large ones come in numbers.
                    if at.size > SMALL_BYTES_MAX {
                        self.forget(sha);
                        self.remembered.push_front((*sha, at.clone()));
                        self.remembered.truncate(REMEMBERED_MAX);
                    }
                }
                answer(sought, |sha| Ok(located.get(sha).cloned()))
            }
        }
    }

    fn paths(&self, contents: &[Sha256], rows: &[Vec<Row>]) -> Vec<(Sha256, RelPath)> {
        let mut paths = Vec::new();
        for (sha, rows) in contents.iter().zip(rows) {
            let prefix = content_prefix(self.root, sha);
            let keys = rows.iter().filter_map(|(key, _)| key.strip_prefix(&*prefix));
            paths.extend(keys.filter_map(RelPath::from_sort_key).map(|path| (*sha, path)));
        }
        paths
    }
}

fn answer(
    sought: Vec<Sought>,
    at: impl Fn(&Sha256) -> Result<Option<Arc<Located>>, &'static str>,
) -> Vec<Found> {
    let found = sought.into_iter().map(|Sought { conn, sha, range }| {
        let at = at(&sha);
        Found { conn, sha, range, at, fresh: true }
    });
    found.collect()
}

/// Keeps the files that have the content and were in step with the club when they did.
fn locate(
    paths: Vec<(Sha256, RelPath)>,
    rows: &[Vec<Row>],
    peers: &PeerTable,
) -> BTreeMap<Sha256, Arc<Located>> {
    let mut located: BTreeMap<Sha256, Located> = BTreeMap::new();
    for ((sha, path), rows) in paths.into_iter().zip(rows) {
        let Some((_, value)) = rows.first() else { continue };
        let Ok(PathRow { disk: Some(DiskState { stamp, content, .. }), base, .. }) =
            PathRow::decode(value, peers)
        else {
            continue;
        };
        match content {
            EntryContent::File { size, sha256 } if sha256 == sha && base != Base::None => {
                let at = located.entry(sha).or_insert(Located { size, places: Vec::new() });
                at.places.push(Place { path, stamp });
            }
            _ => {}
        }
    }
    located.into_iter().map(|(sha, at)| (sha, Arc::new(at))).collect()
}
