//! Whether this computer's wall clock is believed in a share, and what the user is told where it is not (protocol §7,
//! Time). Decides nothing about records: the times of changes follow from [`WallCheck`].

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::config::RELEASED;
use crate::engine::event::Event;
use crate::ids::ConnId;
use crate::index::author::{Doubt, WALL_MAX, WallCheck};
use crate::share::link::PeerLink;
use crate::share::{Ctx, Share};
use crate::time::{Instant, Now, WallTime};

/// How many clocks are remembered after the last link is gone.
const REMEMBERED_MAX: usize = 16;

/// What a peer's clock said once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockSample {
    /// What it said.
    pub wall: WallTime,
    /// When.
    pub at: Instant,
}

impl ClockSample {
    /// What it says now, if nobody has set it since.
    fn says(&self, now: Instant) -> WallTime {
        let passed = i64::try_from(now.since(self.at).as_nanos()).unwrap_or(i64::MAX);
        WallTime(self.wall.0.saturating_add(passed))
    }
}

/// What is thought of the wall clock.
#[derive(Debug, Default)]
pub struct ClockWatch {
    doubt: Option<Doubt>,
    /// The clocks that the doubt came from. A doubt outlasts the links that brought it: a computer whose clock is a
    /// year ahead must not win against everybody as soon as it is alone.
    remembered: Vec<ClockSample>,
}

impl ClockWatch {
    /// What the clocks say now that this one is measured against: those of the connected writers; while none is
    /// connected, those that the present doubt came from.
    pub fn peers(&self, now: Now, links: &BTreeMap<ConnId, PeerLink>) -> Vec<WallTime> {
        let mut says: Vec<WallTime> = samples(links).map(|clock| clock.says(now.mono)).collect();
        if says.is_empty() && self.doubt == Some(Doubt::FarFromPeers) {
            says.extend(self.remembered.iter().map(|clock| clock.says(now.mono)));
        }
        says
    }

    /// Takes the newest verdict; true if it is another one than before.
    fn judge(&mut self, doubt: Option<Doubt>, links: &BTreeMap<ConnId, PeerLink>) -> bool {
        if doubt == Some(Doubt::FarFromPeers) && samples(links).next().is_some() {
            self.remembered = samples(links).take(REMEMBERED_MAX).collect();
        }
        core::mem::replace(&mut self.doubt, doubt) != doubt
    }

    /// Whether nothing speaks against it.
    pub fn is_believed(&self) -> bool {
        self.doubt.is_none()
    }

    /// What is wrong, and what to do.
    pub fn problem(&self) -> Option<String> {
        self.doubt.map(sentence)
    }
}

fn samples(links: &BTreeMap<ConnId, PeerLink>) -> impl Iterator<Item = ClockSample> {
    links.values().filter(|link| link.writer).filter_map(|link| link.clock)
}

/// The check of a call's clock. The latest stored time is the caller's to fill in.
pub fn check<'p>(ctx: &Ctx<'_>, peers: &'p [WallTime]) -> WallCheck<'p> {
    let confirmed = ctx.clock_trusted;
    WallCheck { now: ctx.now.wall, release: RELEASED, peers, latest: WallTime::default(), confirmed }
}

/// The latest time that it may be where the clock is not believed, as far as records and peers know.
fn latest(doubt: Doubt, stored: WallTime, clock: WallTime, peers: &[WallTime]) -> WallTime {
    let clock = Some(clock).filter(|_| doubt != Doubt::AfterMax);
    let peers = peers.iter().copied().filter(|peer| *peer <= WALL_MAX);
    peers.chain(clock).fold(stored.max(RELEASED), WallTime::max)
}

fn sentence(doubt: Doubt) -> String {
    let (what, which) = match doubt {
        Doubt::BeforeRelease => ("it says a day before this program was made", "it"),
        Doubt::AfterMax => ("it says the year 2100 or later", "it"),
        Doubt::FarFromPeers => (
            "it is more than a day away from the clock of every other member that was reached",
            "the wrong one",
        ),
    };
    format!(
        "This computer's clock is not believed, because {what}. Changes made here are dated just after the newest one \
         that is known. Set {which} right; if this computer's is right as it is, `clearskies config clock trusted` \
         says so."
    )
}

impl Share {
    /// Judges the clock anew and tells the user where that changes something.
    pub fn heed_clock(&mut self, ctx: &mut Ctx<'_>) {
        let peers = self.clock.peers(ctx.now, &self.links);
        let doubt = check(ctx, &peers).doubt();
        let judged = self.clock.judge(doubt, &self.links);
        let latest = doubt.map(|doubt| latest(doubt, self.progress.latest, ctx.now.wall, &peers));
        self.work.set_archive_time(latest, ctx.now);
        if !judged {
            return;
        }
        let path = &self.folder.path;
        let message = match doubt {
            Some(doubt) => sentence(doubt),
            None => String::from("This computer's clock is believed again."),
        };
        log::warn!("{path}: {message}");
        ctx.out.event(Event::Notice { share: Some(path.clone()), message });
    }

    /// This computer's clock was set, or time passed that was not measured: what peers' clocks said cannot be compared
    /// with it any more.
    pub fn forget_clocks(&mut self) {
        for link in self.links.values_mut() {
            link.clock = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_clock_goes_on() {
        let sample = ClockSample { wall: WallTime(100), at: Instant(5) };
        assert_eq!(sample.says(Instant(5)), WallTime(100));
        assert_eq!(sample.says(Instant(25)), WallTime(120));
        assert_eq!(sample.says(Instant(0)), WallTime(100));
        let last = ClockSample { wall: WallTime(i64::MAX), at: Instant(0) };
        assert_eq!(last.says(Instant(u64::MAX)), WallTime(i64::MAX));
    }

    #[test]
    fn it_is_as_late_as_anybody_says() {
        let at = |days: i64| WallTime(RELEASED.0 + days * 86_400_000_000_000);
        let before = |stored, peers: &[WallTime]| latest(Doubt::BeforeRelease, stored, at(-9), peers);
        assert_eq!(before(at(-3), &[]), at(0));
        assert_eq!(before(at(3), &[at(2)]), at(3));
        assert_eq!(before(at(3), &[at(2), at(7)]), at(7));
        assert_eq!(before(at(3), &[WALL_MAX, WallTime(WALL_MAX.0 + 1)]), WALL_MAX);
        assert_eq!(latest(Doubt::FarFromPeers, at(1), at(9), &[at(4)]), at(9));
        assert_eq!(latest(Doubt::AfterMax, at(1), WallTime(i64::MAX), &[]), at(1));
    }

    #[test]
    fn sentences_say_what_to_do() {
        for doubt in [Doubt::BeforeRelease, Doubt::AfterMax, Doubt::FarFromPeers] {
            let sentence = sentence(doubt);
            assert!(sentence.contains("clearskies config clock trusted"), "{sentence}");
            assert!(sentence.ends_with('.') && !sentence.contains("  "), "{sentence}");
        }
    }
}
