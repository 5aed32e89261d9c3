//! A share's side of one open link: what the peer says, and what it is sent.
//!
//! Records go out as the socket takes them, read from the store in arrival order, so that a slow peer never makes a
//! queue grow.

use alloc::string::ToString;
use alloc::vec::Vec;

use crate::engine::links::SEND_QUEUE_BYTES;
use crate::files::fetch::{Abilities, Misbehaved};
use crate::files::large::Word;
use crate::files::serve::Answer;
use crate::ids::{ConnId, PeerId, Token, Uuid};
use crate::index::clock::Clock;
use crate::index::feed::LinkFeed;
use crate::index::knowledge::Resume;
use crate::index::record::Record;
use crate::io::store::{Query, Row, Space, StoreOp};
use crate::share::clock::ClockSample;
use crate::share::pipeline::Op;
use crate::share::sums::Sums;
use crate::share::{Asked, Ctx, Share, layout, txn};
use crate::time::Instant;
use crate::wire::database::DatabaseMessage;
use crate::wire::directory::DirectoryMessage;
use crate::wire::message::Message;
use crate::wire::rsync::RsyncMessage;

/// Arrivals of one look-up.
const FEED_PAGE: u32 = 256;

/// What a payload belongs to.
#[derive(Clone, Copy, Debug)]
enum Receiving {
    Data,
    Signature,
    Patch,
}

/// One open link.
#[derive(Debug)]
pub struct PeerLink {
    /// The peer at its other end.
    pub peer: PeerId,
    /// Whether its word raises our knowledge: it holds the read_write key.
    pub writer: bool,
    /// What it is sent.
    pub feed: LinkFeed,
    /// Whether its answer to `database.get_updates` is complete.
    pub caught_up: bool,
    /// What it last said that it knows.
    pub knowledge: Option<Clock>,
    /// Whether it goes through its folder for the first time, so that more may come than it knows of.
    pub looking: bool,
    /// Whether it was told so of this side.
    told_looking: bool,
    /// Its operations that wait in the pipeline.
    pub queued: usize,
    /// Whether a page for it is being loaded.
    loading: bool,
    /// Whose payload is under way.
    receiving: Option<Receiving>,
    /// What both sides say of all that they hold.
    pub(super) sums: Sums,
    /// When it was opened.
    pub since: Instant,
    /// What its clock said when it introduced itself, and when that was; `None` once the two times cannot be compared
    /// any more.
    pub clock: Option<ClockSample>,
}

impl PeerLink {
    /// A link that was just opened.
    pub fn new(peer: PeerId, writer: bool, since: Instant) -> PeerLink {
        PeerLink {
            peer,
            writer,
            feed: LinkFeed::new(),
            caught_up: false,
            knowledge: None,
            looking: false,
            told_looking: false,
            queued: 0,
            loading: false,
            receiving: None,
            sums: Sums::default(),
            since,
            clock: None,
        }
    }

    /// Sends those of a page's records that the peer lacks; everything up to `to` was seen then.
    fn send_page<'a>(
        &mut self,
        ctx: &mut Ctx<'_>,
        conn: ConnId,
        records: impl Iterator<Item = (u64, &'a Record)>,
        token: [u8; 16],
        to: u64,
    ) {
        let (mut wanted, mut at) = (Vec::new(), None);
        for (arrival, record) in records {
            let offered = self.feed.offer(arrival, record);
            if offered {
                wanted.push(record);
            }
            at = offered.then_some(Resume { token, arrival });
        }
        if !wanted.is_empty() {
            ctx.links.send_records(conn, &wanted, at);
        }
        self.feed.advance(to);
    }
}

impl Share {
    /// A link to a proven peer is open at a level.
    pub fn link_opened(&mut self, ctx: &mut Ctx<'_>, conn: ConnId, peer: PeerId, writer: bool) {
        let mut link = PeerLink::new(peer, writer, ctx.now.mono);
        link.clock = ctx.links.all.get(&conn).and_then(|link| link.clock);
        self.links.insert(conn, link);
        let rsync = ctx.links.all.get(&conn).is_some_and(|link| link.rsync);
        self.work.fetcher.source_up(conn, peer, Abilities { writer, rsync }, ctx.now, ctx.out);
        self.work.retry_all();
        let message = DatabaseMessage::GetUpdates {
            since: self.progress.asks_since(self.keys.id(), self.heard_from.contains(&peer)),
            resume: self.resumes.get(&peer).copied(),
        };
        ctx.links.send(conn, &Message::Database(message));
    }

    /// A link is gone.
    pub fn link_closed(&mut self, ctx: &mut Ctx<'_>, conn: ConnId) {
        if let Some(link) = self.links.remove(&conn) {
            self.peer_left(link.peer, ctx.now.mono);
        }
        self.work.fetcher.source_down(conn, ctx.now, ctx.out);
        self.server.conn_down(conn);
    }

    /// A message of the database or directory extension came.
    pub fn handle_message(
        &mut self,
        ctx: &mut Ctx<'_>,
        conn: ConnId,
        message: Message,
    ) -> Result<(), &'static str> {
        match message {
            Message::Database(message) => self.handle_database(conn, message),
            Message::Directory(message) => self.handle_directory(ctx, conn, message),
            Message::Rsync(message) => self.handle_rsync(ctx, conn, message),
            _ => Ok(()),
        }
    }

    fn handle_database(&mut self, conn: ConnId, message: DatabaseMessage) -> Result<(), &'static str> {
        let Some(link) = self.links.get_mut(&conn) else { return Ok(()) };
        match message {
            DatabaseMessage::GetUpdates { since, resume } => {
                self.pipeline.push(Op::Asked { conn, since, resume });
            }
            DatabaseMessage::Update { record, at } => {
                link.sums.more_came();
                link.queued += 1;
                self.pipeline.push(Op::Remote { conn, record: record.into(), at });
            }
            DatabaseMessage::Updates { records, at } => {
                let count = records.len();
                link.sums.more_came();
                link.queued += count;
                for (index, record) in records.into_iter().enumerate() {
                    // Only the last says how far the sender is.
                    let at = at.filter(|_| index + 1 == count);
                    self.pipeline.push(Op::Remote { conn, record: record.into(), at });
                }
            }
            DatabaseMessage::Current { knowledge } => {
                link.sums.more_came();
                link.queued += 1;
                self.pipeline.push(Op::Knowledge { conn, knowledge, current: true });
            }
            DatabaseMessage::Knowledge { knowledge } => {
                link.sums.more_came();
                link.queued += 1;
                self.pipeline.push(Op::Knowledge { conn, knowledge, current: false });
            }
            DatabaseMessage::Looking { looking } => link.looking = looking,
            DatabaseMessage::Digest { digest } => link.sums.said(digest),
            _ => {}
        }
        Ok(())
    }

    fn handle_directory(
        &mut self,
        ctx: &mut Ctx<'_>,
        conn: ConnId,
        message: DirectoryMessage,
    ) -> Result<(), &'static str> {
        match message {
            DirectoryMessage::Get { sha256, range } => {
                let taken = self.server.handle_get(conn, sha256, range, ctx.out);
                taken.map_err(|Misbehaved(why)| why)
            }
            DirectoryMessage::Data { sha256, range } => {
                if let Some(link) = self.links.get_mut(&conn) {
                    link.receiving = Some(Receiving::Data);
                }
                let started = self.work.fetcher.handle_data_start(conn, sha256, range, ctx.now);
                started.map_err(|Misbehaved(why)| why)
            }
            // A peer that could not read it now may be able to at the next try.
            DirectoryMessage::NotPresent { sha256 } | DirectoryMessage::GetError { sha256, .. } => {
                self.work.fetcher.handle_not_present(conn, sha256, ctx.now, ctx.out);
                Ok(())
            }
            DirectoryMessage::Present { sha256 } => {
                self.work.fetcher.handle_present(conn, sha256, ctx.now, ctx.out);
                Ok(())
            }
            DirectoryMessage::GetPresence => {
                // "Ask and see": what is here changes faster than a filter could follow.
                let message = DirectoryMessage::BloomFilter { k_value: 1 };
                ctx.links.send_with_payload(conn, &Message::Directory(message), [0xff].to_vec());
                Ok(())
            }
            DirectoryMessage::BloomFilter { .. } => Ok(()),
        }
    }

    fn handle_rsync(
        &mut self,
        ctx: &mut Ctx<'_>,
        conn: ConnId,
        message: RsyncMessage,
    ) -> Result<(), &'static str> {
        let Some(link) = self.links.get_mut(&conn) else { return Ok(()) };
        let (receiving, taken) = match message {
            RsyncMessage::Signature { sha256, start, .. } => {
                (Receiving::Signature, self.server.handle_signature(conn, sha256, start))
            }
            RsyncMessage::Patch { sha256, range } => {
                (Receiving::Patch, self.work.fetcher.handle_patch_start(conn, sha256, range, ctx.now))
            }
            RsyncMessage::End { sha256 } => {
                // Both ends may have sent a signature for it: then the other end's is over as well, and what it still
                // wants it fetches otherwise.
                self.server.handle_end(conn, sha256);
                self.work.fetcher.handle_patch_end(conn, sha256, ctx.now, ctx.out);
                return Ok(());
            }
        };
        link.receiving = Some(receiving);
        taken.map_err(|Misbehaved(why)| why)
    }

    /// A piece of the payload that follows a message.
    pub fn handle_payload(
        &mut self,
        ctx: &mut Ctx<'_>,
        conn: ConnId,
        bytes: Vec<u8>,
        last: bool,
    ) -> Result<(), &'static str> {
        let Some(link) = self.links.get_mut(&conn) else { return Ok(()) };
        let Some(receiving) = link.receiving else { return Ok(()) };
        if last {
            link.receiving = None;
        }
        let fetcher = &mut self.work.fetcher;
        let taken = match receiving {
            Receiving::Data => fetcher.handle_payload(conn, bytes, last, ctx.now, ctx.out),
            Receiving::Patch => fetcher.handle_patch_payload(conn, &bytes, last, ctx.now, ctx.out),
            Receiving::Signature => self.server.handle_signature_payload(conn, &bytes, last, ctx.out),
        };
        taken.map_err(|Misbehaved(why)| why)
    }

    /// Whether the engine should read from this link's socket.
    pub fn wants_read(&self, conn: ConnId) -> bool {
        !self.pipeline.is_full() && self.work.fetcher.wants_read(conn)
    }

    /// Sends what each link can take.
    pub fn pump_links(&mut self, ctx: &mut Ctx<'_>) {
        while let Some((conn, sha256, range)) = self.work.fetcher.poll_request() {
            let range = Some(range);
            ctx.links.send(conn, &Message::Directory(DirectoryMessage::Get { sha256, range }));
        }
        while let Some((conn, word)) = self.work.fetcher.poll_rsync() {
            match word {
                Word::Signature { sha256, old_sha256, start, signature } => {
                    let message = Message::Rsync(RsyncMessage::Signature { sha256, old_sha256, start });
                    ctx.links.send_with_payload(conn, &message, signature.0);
                }
                Word::Stop { sha256 } => ctx.links.send(conn, &Message::Rsync(RsyncMessage::End { sha256 })),
            }
        }
        while let Some((peer, sha256)) = self.work.fetcher.poll_lie() {
            log::warn!(
                "{}: what {} sent is not what it was said to be: its SHA-256 is not {sha256}. It was thrown away, and \
                 is not asked for there for some hours.",
                self.folder.path,
                super::shown_name(&self.names, peer)
            );
        }
        for &conn in self.links.keys() {
            let room = SEND_QUEUE_BYTES.saturating_sub(ctx.links.queued_bytes(conn));
            self.server.set_room(conn, room as u64, ctx.out);
        }
        while let Some((conn, answer)) = self.server.poll_answer() {
            match answer {
                Answer::Data { sha256, start, bytes } => {
                    let range = (start, bytes.0.len() as u64);
                    let message = Message::Directory(DirectoryMessage::Data { sha256, range });
                    ctx.links.send_with_payload(conn, &message, bytes.0);
                }
                Answer::Patch { sha256, range, delta } => {
                    let message = Message::Rsync(RsyncMessage::Patch { sha256, range });
                    ctx.links.send_with_payload(conn, &message, delta.0);
                }
                Answer::End { sha256 } => {
                    ctx.links.send(conn, &Message::Rsync(RsyncMessage::End { sha256 }));
                }
                Answer::NotPresent { sha256 } => {
                    ctx.links.send(conn, &Message::Directory(DirectoryMessage::NotPresent { sha256 }));
                }
                Answer::Error { sha256, code } => {
                    let message = DirectoryMessage::GetError { sha256, code: code.to_string() };
                    ctx.links.send(conn, &Message::Directory(message));
                }
            }
        }
        self.feed_links(ctx);
        self.compare_sums(ctx);
    }

    /// A peer's question was taken up: it is sent what it lacks.
    pub(super) fn answer(&mut self, conn: ConnId, since: Clock, resume: Option<Resume>) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        let progress = &self.progress;
        let resume = resume.and_then(|at| progress.resume_at(at));
        let doubted = progress.doubted(self.keys.id());
        let told = doubted.as_ref().unwrap_or(&progress.knowledge);
        link.feed.subscribe(link.peer, since, resume, progress.token, progress.arrival, told);
    }

    /// A page for a link could not be read.
    pub(super) fn not_loaded(&mut self, conn: ConnId) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.loading = false;
        }
    }

    fn feed_links(&mut self, ctx: &mut Ctx<'_>) {
        if self.retry_store_at.is_some() {
            return;
        }
        let head = self.progress.arrival;
        let doubted = self.progress.doubted(self.keys.id());
        let looking = self.is_looking();
        let token = self.progress.token;
        let say = |looking| Message::Database(DatabaseMessage::Looking { looking });
        for (&conn, link) in &mut self.links {
            if looking && link.feed.subscribed() && !link.told_looking {
                link.told_looking = true;
                ctx.links.send(conn, &say(true));
            }
            while !link.loading
                && !is_full(ctx, conn)
                && let Some(from) = link.feed.wants_more(head)
            {
                if let Some(records) = self.fresh.range(from..=head, FEED_PAGE as usize) {
                    let records: Vec<_> = records.collect();
                    let to = seen_to(records.last().map(|(arrival, _)| *arrival), records.len(), head);
                    let records = records.into_iter().map(|(arrival, record)| (arrival, &**record));
                    link.send_page(ctx, conn, records, token, to);
                    continue;
                }
                let start = layout::arrival_key(self.root, from);
                let end = layout::arrival_key(self.root, head + 1);
                let query = Query::Range { space: Space::Arrival, start, end, limit: FEED_PAGE };
                let asked: Token = ctx.out.store(StoreOp::Load { queries: [query].into() });
                self.tokens.insert(asked, Asked::Arrivals(conn, head));
                link.loading = true;
            }
            if link.loading || is_full(ctx, conn) {
                continue;
            }
            if let Some(knowledge) = link.feed.take_current(head) {
                link.sums.tell_again();
                ctx.links.send(conn, &Message::Database(DatabaseMessage::Current { knowledge }));
            }
            let told = doubted.as_ref().filter(|_| !link.caught_up).unwrap_or(&self.progress.knowledge);
            if let Some(knowledge) = link.feed.take_knowledge(told, head) {
                link.sums.tell_again();
                ctx.links.send(conn, &Message::Database(DatabaseMessage::Knowledge { knowledge }));
            }
            // All that was found has gone before it.
            if link.told_looking && !looking {
                link.told_looking = false;
                ctx.links.send(conn, &say(false));
            }
        }
    }

    /// The arrivals that a link is to be sent next: their records are loaded.
    pub(super) fn arrivals_loaded(&mut self, ctx: &mut Ctx<'_>, conn: ConnId, head: u64, rows: Vec<Row>) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        let mut arrivals = Vec::with_capacity(rows.len());
        let mut queries = Vec::with_capacity(rows.len());
        let count = rows.len();
        for (key, value) in rows {
            let (Some(arrival), Some(uuid)) = (key.last_chunk::<8>(), Uuid::from_slice(&value)) else {
                continue;
            };
            arrivals.push(u64::from_be_bytes(*arrival));
            queries.push(Query::Get { space: Space::Record, key: layout::record_key(self.root, uuid) });
        }
        let to = seen_to(arrivals.last().copied(), count, head);
        if queries.is_empty() {
            link.loading = false;
            link.feed.advance(to);
            return self.feed_links(ctx);
        }
        let token = ctx.out.store(StoreOp::Load { queries });
        self.tokens.insert(token, Asked::Records(conn, arrivals, to));
    }

    /// The records that a link is to be sent next.
    pub(super) fn records_loaded(
        &mut self,
        ctx: &mut Ctx<'_>,
        conn: ConnId,
        arrivals: &[u64],
        to: u64,
        answers: Vec<Vec<Row>>,
    ) {
        let token = self.progress.token;
        let Some(link) = self.links.get_mut(&conn) else { return };
        link.loading = false;
        let mut records = Vec::with_capacity(answers.len());
        for (&arrival, rows) in arrivals.iter().zip(&answers) {
            let Some((_, value)) = rows.first() else { continue };
            let Ok((record, now_at)) = txn::decode_stored_record(value, &self.peers) else { continue };
            // A record that changed meanwhile comes again under its new number.
            if now_at == arrival {
                records.push((arrival, record));
            }
        }
        let records = records.iter().map(|(arrival, record)| (*arrival, record));
        link.send_page(ctx, conn, records, token, to);
        self.feed_links(ctx);
    }
}

/// Whether a link is to take what is queued before it gets more.
fn is_full(ctx: &Ctx<'_>, conn: ConnId) -> bool {
    ctx.links.queued_bytes(conn) >= SEND_QUEUE_BYTES / 2
}

/// Up to where a page shows what there is, whether or not records with these numbers still exist: to its last arrival
/// if there may be more, and otherwise to the end.
fn seen_to(last: Option<u64>, count: usize, head: u64) -> u64 {
    last.filter(|_| count == FEED_PAGE as usize).unwrap_or(head)
}
