//! Where a peer's answer is gone on with, after a record of it made a new identity due.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::*;
use crate::engine::command::Existing;
use crate::files::fixture::file_record;
use crate::index::clock::Clock;
use crate::io::Output;
use crate::io::store::StoreOp;
use crate::time::{Instant, WallTime};
use crate::wire::database::DatabaseMessage;
use crate::wire::message::Message;

const ROOT: RootId = RootId(1);
const CONN: ConnId = ConnId(1);
const PEER: PeerId = PeerId([7; 16]);

struct Rig {
    share: Share,
    out: Outbox,
    links: Links,
    rng: Rng,
}

impl Rig {
    fn new() -> Rig {
        let mut rng = Rng::from_seed([1; 32]);
        let folder = Folder::new(ROOT, "/share".into(), Vec::new(), Existing::Refuse);
        let keys = Arc::new(PeerKeys::generate(&mut rng));
        let share = Share::new(ROOT, folder, Membership::Member, keys, &mut rng);
        let mut rig = Rig { share, out: Outbox::default(), links: Links::default(), rng };
        rig.with(|share, ctx| share.link_opened(ctx, CONN, PEER, true));
        rig
    }

    fn with(&mut self, call: impl FnOnce(&mut Share, &mut Ctx<'_>)) {
        let now = Now { mono: Instant(1), wall: WallTime(1_800_000_000_000_000_000) };
        let Rig { share, out, links, rng } = self;
        call(share, &mut Ctx { now, out, links, rng, clock_trusted: false, home: b"/home" });
    }

    /// Records come, the last of which says where the answer stands; returns what is stored for good.
    fn receive(&mut self, records: Vec<Record>, arrival: u64) -> Vec<Write> {
        let last = records.len() - 1;
        for (n, record) in records.into_iter().enumerate() {
            let at = (n == last).then_some(Resume { token: [3; 16], arrival });
            let update = Message::Database(DatabaseMessage::Update { record: record.into(), at });
            self.with(|share, ctx| share.handle_message(ctx, CONN, update).expect("it is no fault"));
        }
        let go_on = |share: &mut Share, ctx: &mut Ctx<'_>| {
            if !share.renew_if_due(ctx) {
                share.pump_pipeline(ctx);
            }
        };
        self.with(go_on);
        let mut stored = Vec::new();
        while let Some(output) = self.out.pop() {
            let Output::Store { token, op } = output else { continue };
            let done = match op {
                StoreOp::Load { queries } => StoreDone::Loaded(queries.iter().map(|_| Vec::new()).collect()),
                StoreOp::Commit { writes, .. } => {
                    stored.extend(writes);
                    StoreDone::Committed
                }
            };
            self.with(|share, ctx| share.handle_store(ctx, token, Ok(done)));
            self.with(go_on);
        }
        stored
    }
}

fn marks(writes: &[Write]) -> Vec<bool> {
    let mark = layout::peer_fact_key(ROOT, Fact::Resume, PEER);
    let of = |write: &Write| match write {
        Write::Put { key, .. } if *key == mark => Some(true),
        Write::Delete { key, .. } if *key == mark => Some(false),
        _ => None,
    };
    writes.iter().filter_map(of).collect()
}

#[test]
fn an_answer_goes_on_behind_what_was_stored_only() {
    let mut rig = Rig::new();
    let stored = rig.receive([file_record(1, "/a", 1, 1)].into(), 10);
    assert_eq!(marks(&stored), [true]);
    assert_eq!(rig.share.resumes.get(&PEER).map(|at| at.arrival), Some(10));
    // A change of the own identity that this store does not know comes between others: all of them are taken again
    // under a new identity, and only then is the place noted.
    let own = rig.share.id();
    let mut lost = file_record(2, "/b", 1, 1);
    lost.clock.join(&Clock::of(own, 5));
    let stored = rig.receive([file_record(3, "/c", 1, 1), lost, file_record(4, "/d", 1, 1)].into(), 20);
    assert_ne!(rig.share.id(), own);
    assert_eq!(marks(&stored), [false, true], "the earlier mark goes first");
    let records = stored.iter().filter(|write| matches!(write, Write::Put { space: Space::Record, .. }));
    assert_eq!(records.count(), 3);
}
