//! How many bytes an engine holds while members of its club send it more than it can take, and nonsense
//! (docs/testing.md, property 11). Counted is what is allocated while the engine is called and not freed yet; what the
//! simulated machine hands it, the payloads of disk and store, is not: orders are counted elsewhere.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use clearskies_core::io::StoreError;
use clearskies_tests::fuzz::liar::Flood;
use clearskies_tests::sim::World;
use clearskies_tests::sim::share::SHARE;
use clearskies_tests::sim::world::{LIARS_MAX, Manner};

/// What an engine with one share may hold, whatever the members of its club say (docs/architecture.md).
const ENGINE_BYTES_MAX: usize = 32 << 20;

/// How long it is listened to.
const SPEAKS: Duration = Duration::from_secs(20);

static IN_ENGINE: AtomicBool = AtomicBool::new(false);
static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, with a note before each piece of memory that says whether an engine took it.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The place of what was asked for behind its note, and the layout of both together.
fn with_note(layout: Layout) -> Option<(usize, Layout)> {
    let note = layout.align().max(align_of::<usize>() * 2);
    Some((note, Layout::from_size_align(layout.size().checked_add(note)?, note).ok()?))
}

// SAFETY: each piece is one of the system's that is larger by the note before it, whose size is a multiple of the
// alignment; nobody else knows of the note.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some((note, whole)) = with_note(layout) else { return std::ptr::null_mut() };
        // SAFETY: `whole` is not empty, as the note is not.
        let base = unsafe { System.alloc(whole) };
        if base.is_null() {
            return base;
        }
        let counted = IN_ENGINE.load(Relaxed);
        if counted {
            let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
            MOST.fetch_max(held, Relaxed);
        }
        // SAFETY: the note has room for a word right before what is handed out, and is aligned for two.
        unsafe {
            let piece = base.add(note);
            piece.cast::<usize>().sub(1).write(usize::from(counted));
            piece
        }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        let Some((note, whole)) = with_note(layout) else { return };
        // SAFETY: `alloc` was asked for this layout, and put the note before the piece.
        unsafe {
            if piece.cast::<usize>().sub(1).read() == 1 {
                HELD.fetch_sub(layout.size(), Relaxed);
            }
            System.dealloc(piece.sub(note), whole);
        }
    }
}

/// The most that the engine of one machine held while this happened to it, and what it held in the end.
fn held_while(what: &str, happens: impl FnOnce(&mut World)) -> usize {
    let mut world = World::new(1, 1);
    world.node(0).share(SHARE);
    world.node(0).write(&format!("{SHARE}/a"), b"a");
    world.admit_liars(SHARE, LIARS_MAX);
    // From here on its program is a new one, all of whose memory counts.
    world.calls = |begins| IN_ENGINE.store(begins, Relaxed);
    let before = HELD.load(Relaxed);
    MOST.store(before, Relaxed);
    happens(&mut world);
    let most = MOST.load(Relaxed) - before;
    println!("{what}: {most} bytes at most, {} in the end", HELD.load(Relaxed).saturating_sub(before));
    assert!(world.nodes[0].engine.is_some());
    most
}

fn flood(world: &mut World, flood: Flood, count: u64) {
    (0..LIARS_MAX).for_each(|which| world.flood(which, 0, flood, count));
    world.run_for(SPEAKS);
}

/// One test, as one allocator counts for all that run at once.
#[test]
fn an_engine_holds_no_more_than_it_may_whatever_members_say() {
    let mut most = vec![
        held_while("records that the store does not take", |world| {
            let refusals = (0..10_000).map(|_| StoreError::NoSpace);
            world.nodes[0].store.faults.extend(refusals);
            flood(world, Flood::Records, 20_000);
        }),
        held_while("records of contents that nobody gives", |world| flood(world, Flood::Records, 300)),
        held_while("one record over and over", |world| flood(world, Flood::Moves, 100)),
        held_while("clocks of many peers", |world| flood(world, Flood::Clocks, 3000)),
        held_while("requests for what nobody has", |world| flood(world, Flood::Requests, 20_000)),
    ];
    most.push(held_while("nonsense", |world| {
        for number in 0..60 {
            world.lie(number % LIARS_MAX, 0, Manner::Records, number as u64);
            world.run_for(Duration::from_millis(500));
        }
    }));
    assert!(most.iter().all(|most| *most < ENGINE_BYTES_MAX), "{most:?}");
}
