//! Questions that only the store can answer: the conflict files, and why a path is not in step. Each is asked in
//! steps, so that nothing waits for a large share.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::club::keys::Club;
use crate::club::level::Level;
use crate::engine::Engine;
use crate::engine::command::{CommandError, Conflict, Existing, Reply};
use crate::engine::commands::archive::ArchiveAsk;
use crate::engine::commands::{refusal, store_refusal};
use crate::files::conflict;
use crate::files::path::RelPath;
use crate::files::plan::{self, Policy, Reason, Step, Target, View};
use crate::files::row::Base;
use crate::files::why::{self, Problem};
use crate::ids::{CommandId, RootId};
use crate::index::merge;
use crate::index::record::Record;
use crate::io::StoreError;
use crate::io::disk::Stamp;
use crate::io::store::{Query as Lookup, Row, Space, StoreOp};
use crate::share::kept::kept_for;
use crate::share::resolve::NOT_HERE;
use crate::share::txn::{Miss, Txn, decode_stored_record};
use crate::share::{Membership, Share, known_name, layout, short_id, status, work};
use crate::time::{Instant, Now};

/// Records of one look-up.
const PAGE: u32 = 500;
/// Conflict files that are listed at most.
const CONFLICTS_MAX: usize = 10_000;

/// A question to the store.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one or two of them wait at a time")]
pub(in crate::engine) enum Query {
    /// All conflict files.
    Conflicts(Conflicts),
    /// About one path.
    OfPath(OfPath),
}

impl Query {
    /// The command that waits for it.
    pub(super) fn id(&self) -> CommandId {
        match self {
            Query::Conflicts(asked) => asked.id,
            Query::OfPath(asked) => asked.id,
        }
    }
}

/// The conflict files found so far.
#[derive(Debug)]
pub(in crate::engine) struct Conflicts {
    id: CommandId,
    roots: VecDeque<RootId>,
    found: Vec<Conflict>,
    /// Conflict records of the last page, while the records that they lost to are loaded.
    lost: Vec<(RelPath, Record)>,
    /// Where the next page of the first share begins; `None` at its beginning.
    next: Option<Vec<u8>>,
}

/// What is known of one path so far.
#[derive(Debug)]
pub(in crate::engine) struct OfPath {
    id: CommandId,
    root: RootId,
    path: RelPath,
    txn: Txn,
    what: What,
}

/// What is asked about a path.
#[derive(Clone, Copy, Debug)]
enum What {
    /// Why it is not in step.
    Why,
    /// Whether it is a conflict file, which is then kept or dropped.
    Resolve(bool),
}

impl Engine {
    pub(super) fn list_conflicts(&mut self, id: CommandId, path: Option<&str>) {
        match self.roots_at(path) {
            Ok(roots) => {
                let roots = roots.into();
                self.next_conflicts(Conflicts { id, roots, found: Vec::new(), lost: Vec::new(), next: None });
            }
            Err(error) => self.reply(id, Err(error)),
        }
    }

    pub(super) fn why(&mut self, now: Now, id: CommandId, path: &str) {
        let (root, rest) = match self.locate(path) {
            Ok(place) => place,
            Err(error) => return self.reply(id, Err(error)),
        };
        let Some(share) = self.shares.get_mut(&root) else { return self.reply(id, Err(detached())) };
        if let Err(why) = RelPath::check(rest) {
            let sentences = why::why(&Step::Nothing, &[Problem::Path(why)]);
            return self.reply(id, Ok(Reply::Why(sentences)));
        }
        let path = RelPath::new(rest).filter(|path| !path.is_root());
        let (Some(path), Membership::Member) = (path, &share.membership) else {
            let sentences = share_sentences(share, now.mono);
            return self.reply(id, Ok(Reply::Why(sentences)));
        };
        share.survey.hint_asked(&path, now);
        let txn = Txn::new(root, share.progress.totals, share.progress.arrival);
        self.look(now, OfPath { id, root, path, txn, what: What::Why });
    }

    pub(super) fn resolve(&mut self, now: Now, id: CommandId, path: &str, keep: bool) {
        let (root, path) = match self.locate_file(path) {
            Ok(place) => place,
            Err(error) => return self.reply(id, Err(error)),
        };
        let Some(share) = self.shares.get(&root) else { return self.reply(id, Err(detached())) };
        if share.club.as_ref().map(Club::level) != Some(Level::ReadWrite) {
            let message = "Conflicts are resolved by members who may write; this node may not.";
            return self.reply(id, Err(refusal("level", message)));
        }
        let txn = Txn::new(root, share.progress.totals, share.progress.arrival);
        self.look(now, OfPath { id, root, path, txn, what: What::Resolve(keep) });
    }

    /// Takes the rows that a question asked for.
    pub(super) fn query_loaded(&mut self, now: Now, query: Query, answers: Vec<Vec<Row>>) {
        match query {
            Query::Conflicts(asked) if asked.lost.is_empty() => self.conflict_page(asked, answers),
            Query::Conflicts(asked) => self.conflict_sources(asked, &answers),
            Query::OfPath(mut asked) => {
                let Some(share) = self.shares.get(&asked.root) else {
                    return self.reply(asked.id, Err(detached()));
                };
                match asked.txn.loaded(answers, &share.peers) {
                    Ok(()) => self.look(now, asked),
                    Err(_) => self.reply(asked.id, Err(store_refusal(StoreError::Corrupt))),
                }
            }
        }
    }

    /// Answers a question about a path, or loads what is still missing. Every load brings something that stays, so
    /// this ends.
    fn look(&mut self, now: Now, mut asked: OfPath) {
        let id = asked.id;
        let Some(share) = self.shares.get(&asked.root) else { return self.reply(id, Err(detached())) };
        let mut kept = None;
        let answer = match asked.what {
            What::Why => {
                let why = sentences(share, &asked.path, &mut asked.txn, now.mono);
                why.map(|why| Ok(Reply::Why(why)))
            }
            What::Resolve(keep) => conflict_here(&asked.path, &mut asked.txn).map(|here| {
                let path = self.absolute(asked.root, &asked.path);
                match here {
                    Some(Some(stamp)) => {
                        kept = keep.then_some(stamp);
                        Ok(Reply::Done)
                    }
                    Some(None) if !keep => Ok(Reply::Done),
                    Some(None) => Err(refusal("not_here", format!("{path}: {NOT_HERE}"))),
                    None => {
                        let list = "`clearskies conflicts` lists those that there are.";
                        Err(refusal("no_conflict", format!("{path} is no conflict file; {list}")))
                    }
                }
            }),
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(Miss) => {
                let queries = asked.txn.take_queries();
                return self.ask_store(Query::OfPath(asked), queries);
            }
        };
        if let Some(stamp) = kept {
            return self.look_at_kept(id, asked.root, asked.path, stamp);
        }
        if let (What::Resolve(keep), Ok(_)) = (asked.what, &answer)
            && let Some((share, mut ctx)) = self.share_ctx(now, asked.root)
        {
            share.resolve(asked.path, keep);
            share.pump(&mut ctx);
        }
        self.reply(id, answer);
    }

    fn ask_store(&mut self, query: Query, queries: Vec<Lookup>) {
        self.out.set_owner(None);
        let token = self.out.store(StoreOp::Load { queries });
        self.archives.insert(token, ArchiveAsk::Query(Box::new(query)));
    }

    fn next_conflicts(&mut self, mut asked: Conflicts) {
        let Some(&root) = asked.roots.front().filter(|_| asked.found.len() < CONFLICTS_MAX) else {
            asked.found.sort_by(|a, b| a.path.cmp(&b.path));
            return self.reply(asked.id, Ok(Reply::Conflicts(asked.found)));
        };
        let (first, end) = layout::club_range(root);
        let start = asked.next.take().unwrap_or(first);
        let query = Lookup::Range { space: Space::Record, start, end, limit: PAGE };
        self.ask_store(Query::Conflicts(asked), [query].into());
    }

    /// A page of records: those of conflict files are kept until the records are known that they lost to.
    fn conflict_page(&mut self, mut asked: Conflicts, mut answers: Vec<Vec<Row>>) {
        let rows = answers.pop().unwrap_or_default();
        let place = asked.roots.front().copied();
        let Some((root, share)) = place.and_then(|root| Some((root, self.shares.get(&root)?))) else {
            // It was detached meanwhile.
            asked.roots.pop_front();
            return self.next_conflicts(asked);
        };
        let mut sources = Vec::new();
        for (_, value) in &rows {
            let Ok((record, _)) = decode_stored_record(value, &share.peers) else { continue };
            let (Some(source), false) = (record.conflict_source(), record.deleted()) else { continue };
            if let Some(path) = RelPath::from_key(&record.key) {
                asked.lost.push((path, record));
                sources.push(Lookup::Get { space: Space::Record, key: layout::record_key(root, source) });
            }
        }
        let full = rows.len() == PAGE as usize;
        asked.next = rows.into_iter().next_back().filter(|_| full).map(|(mut key, _)| {
            key.push(0);
            key
        });
        if sources.is_empty() {
            return self.page_done(asked);
        }
        self.ask_store(Query::Conflicts(asked), sources);
    }

    /// The records that the last page's conflict files lost to.
    fn conflict_sources(&mut self, mut asked: Conflicts, answers: &[Vec<Row>]) {
        let lost = core::mem::take(&mut asked.lost);
        let place = asked.roots.front().copied();
        let Some((root, share)) = place.and_then(|root| Some((root, self.shares.get(&root)?))) else {
            asked.roots.pop_front();
            asked.next = None;
            return self.next_conflicts(asked);
        };
        for ((path, record), rows) in lost.into_iter().zip(answers) {
            let source = rows.first().and_then(|(_, value)| decode_stored_record(value, &share.peers).ok());
            let original = source.and_then(|(source, _)| RelPath::from_key(&source.key));
            asked.found.push(Conflict {
                path: self.absolute(root, &path),
                original: original.map(|original| self.absolute(root, &original)).unwrap_or_default(),
                time: record.value_change.time,
                peer: self.peer_name(share, &record),
            });
        }
        asked.found.truncate(CONFLICTS_MAX);
        self.page_done(asked);
    }

    fn page_done(&mut self, mut asked: Conflicts) {
        if asked.next.is_none() {
            asked.roots.pop_front();
        }
        self.next_conflicts(asked);
    }

    /// Who made a version: a name, or an id where none is known.
    fn peer_name(&self, share: &Share, record: &Record) -> String {
        let peer = record.value_change.peer;
        match known_name(&share.names, peer) {
            Some(name) => name.to_owned(),
            None if peer == share.id() => "this computer".to_owned(),
            None => short_id(peer),
        }
    }
}

/// The refusal of a question about a share that is none any more.
fn detached() -> CommandError {
    refusal("no_such_share", "The share was detached meanwhile.")
}

/// What there is to say of a share as a whole.
fn share_sentences(share: &Share, now: Instant) -> Vec<String> {
    let mut sentences = share.problems(now);
    if share.paused {
        sentences.push("The node is paused; `clearskies resume` goes on.".to_owned());
    }
    if share.membership != Membership::Member && share.join_problem().is_none() {
        sentences.push(
            "No member that knows the access code was met yet; a computer that has the share must be on and reachable."
                .to_owned(),
        );
    }
    if sentences.is_empty() {
        let pending = share.progress.totals.pending;
        sentences.push(match pending {
            0 => "It is in step.".to_owned(),
            1 => "One path in it is not in step yet.".to_owned(),
            _ => format!("{pending} paths in it are not in step yet."),
        });
    }
    sentences
}

/// Whether a conflict file's record lives at a path.
/// The stamp of the conflict file at a path, if its content is on this disk; `None` if there is no conflict file.
fn conflict_here(path: &RelPath, txn: &mut Txn) -> Result<Option<Option<Stamp>>, Miss> {
    let row = txn.row(path)?;
    let live = txn.live_records(&row)?;
    let conflict = live.iter().find(|record| record.conflict_source().is_some());
    let stamp = |record: &Arc<Record>| {
        row.disk.as_ref().filter(|disk| Some(&disk.content) == record.content()).map(|disk| disk.stamp)
    };
    Ok(conflict.map(stamp))
}

/// Why a path is not in step.
fn sentences(share: &Share, path: &RelPath, txn: &mut Txn, now: Instant) -> Result<Vec<String>, Miss> {
    let row = txn.row(path)?;
    let live = txn.live_records(&row);
    let base = txn.base_of(&row);
    let base_now = row.base_uuid().map(|uuid| txn.record(uuid)).transpose();
    let dead = txn.dead_records(&row);
    let beneath = txn.live_beneath(path);
    let (live, base, base_now, dead) = (live?, base?, base_now?.flatten(), dead?);
    let live: Vec<&Record> = live.iter().map(Arc::as_ref).collect();
    let dead: Vec<&Record> = dead.iter().map(Arc::as_ref).collect();
    let implied_dir = beneath? && !live.iter().any(|record| record.is_dir());
    let conflict_made = match (&base, &base_now) {
        (Some(base), Some(now)) if merge::conflicts(now, base) => {
            let (_, uuid) = conflict::conflict_id(base.uuid, &base.value_change);
            txn.record(uuid)?.is_some()
        }
        _ => false,
    };
    let mut problems = problems(share, path);
    if row.is_empty() && !implied_dir && problems.is_empty() {
        let known = "Nothing is known of it: no peer has told of it, and it was not found here. A new file is looked \
                     at within a moment of its last change; this path is looked at now.";
        return Ok([known.to_owned()].into());
    }
    let author = share.club.as_ref().map(Club::level) == Some(Level::ReadWrite);
    let awaiting = share.awaiting(now);
    let mut versions = live.iter().copied().chain(base_now.as_deref());
    let missing = versions.find_map(|record| awaiting.missing(&share.progress.knowledge, record).next());
    let known = missing.is_none();
    let policy = Policy { author, caught_up: share.progress.caught_up, known, ..Policy::FULL };
    let view = View {
        path,
        row: &row,
        shown: conflict::shown(&live, implied_dir),
        implied_dir,
        base: base.as_deref(),
        base_now: base_now.as_deref(),
        target: Target::Free,
        dead: &dead,
        conflict_made,
        policy,
    };
    let replaced = share.folder.policy == Existing::Replace && row.base == Base::None;
    let step = match plan::plan(&view) {
        Step::LocalChange if replaced => plan::put_back(&view),
        Step::LocalChange if !author => {
            problems.push(Problem::ReadOnly);
            plan::put_back(&view)
        }
        // The disk is as it should be, but of two records under the name one is still to be given another; so is a file
        // where a directory stands for what lies beneath.
        Step::Nothing if live.len() > 1 || implied_dir && !live.is_empty() => {
            Step::Wait(if known { Reason::Hidden } else { Reason::NotKnown })
        }
        step => step,
    };
    if let (Step::Wait(Reason::NotKnown), Some((peer, _))) = (&step, missing) {
        problems.push(Problem::Share(share.wait_sentence(peer, now)));
    }
    let takes_away = matches!(step, Step::Remove { .. })
        || matches!(
            step,
            Step::BringFile { replaces: Some(_), .. } | Step::PutLink { replaces: Some(_), .. }
        );
    if let (true, Some(base), Some(now)) = (takes_away, &base, &base_now) {
        problems.extend(kept_for(txn, path, base, now, author)?.map(Problem::NeededFor));
    }
    if step != Step::Nothing || !problems.is_empty() {
        problems.extend(stopped(share).map(Problem::Share));
    }
    Ok(why::why(&step, &problems))
}

/// What stands in the way of one path.
fn problems(share: &Share, path: &RelPath) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(failure) = share.work.failure(path) {
        problems.push(match failure.trouble {
            work::Trouble::Disk(error) => Problem::Disk(error),
            work::Trouble::NotAvailable => Problem::NoSource,
            work::Trouble::WrongContent => Problem::WrongContent,
            work::Trouble::ArchiveFull => Problem::ArchiveFull,
            work::Trouble::Unseen => Problem::Unobserved,
        });
    }
    let unreadable = &share.survey.unreadable;
    if let Some(why) = unreadable.get(path) {
        problems.push(Problem::Share(format!("It cannot be synced: {why}")));
    } else if let Some((dir, why)) = path.ancestors().find_map(|dir| unreadable.get_key_value(&dir)) {
        problems.push(match why.as_str() {
            status::OTHER_VOLUME => Problem::Share(format!("{}: {why}", dir.as_str())),
            _ => Problem::Unobserved,
        });
    }
    if share.survey.special.contains(path) {
        problems.push(Problem::SpecialFile);
    }
    problems.extend(share.survey.unusable.in_dir(path).map(Problem::Share));
    if share.survey.held.contains(path) {
        problems.push(Problem::DeleteHeld);
    }
    problems
}

/// Why nothing moves in the whole share, if so.
fn stopped(share: &Share) -> Option<String> {
    if let Some(trouble) = share.folder.trouble() {
        return Some(status::folder_sentence(trouble, &share.folder.path));
    }
    if let Some(error) = share.store_trouble {
        return Some(status::store_sentence(error).to_owned());
    }
    if share.paused {
        return Some("The node is paused; `clearskies resume` goes on.".to_owned());
    }
    let looking = share.progress.caught_up && !share.survey.looked || !share.folder.is_open();
    looking.then(|| "The share is still being looked through.".to_string())
}
