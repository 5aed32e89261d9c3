//! Where on the local network somebody looks for the maker of an access code, and what the next dial of it proves:
//! a joiner knows nothing but the code; a member has the code as well, and takes a level key.

use alloc::collections::BTreeMap;
use core::net::SocketAddr;

use crate::ids::{AccessId, RootId};

/// Addresses that are remembered; any more are met when they dial.
const SEEKERS_MAX: usize = 1024;

#[derive(Clone, Copy, Debug)]
struct Seeker {
    code: AccessId,
    /// Whether the next dial is by the code: what was not accepted gives way to the other.
    by_code: bool,
}

/// Who looks for the maker of a code.
#[derive(Debug, Default)]
pub struct Seekers(BTreeMap<(RootId, SocketAddr), Seeker>);

impl Seekers {
    /// Somebody there looks for the maker of a code; `None` if it is none that can be used.
    pub fn note(&mut self, club: RootId, addr: SocketAddr, code: Option<AccessId>) {
        let place = (club, addr);
        let Some(code) = code else {
            self.0.remove(&place);
            return;
        };
        let known = self.0.get(&place);
        if known.is_none_or(|known| known.code != code) && (known.is_some() || self.0.len() < SEEKERS_MAX) {
            self.0.insert(place, Seeker { code, by_code: true });
        }
    }

    /// The code to prove in the next dial; `None` if it is to be by a level key.
    pub fn code(&self, club: RootId, addr: SocketAddr) -> Option<&AccessId> {
        self.0.get(&(club, addr)).filter(|seeker| seeker.by_code).map(|seeker| &seeker.code)
    }

    /// Somebody there answered, and did not accept what was to be proven.
    pub fn refused(&mut self, club: RootId, addr: SocketAddr) {
        if let Some(seeker) = self.0.get_mut(&(club, addr)) {
            seeker.by_code = !seeker.by_code;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUB: RootId = RootId(1);
    const CODE: AccessId = AccessId([1; 32]);
    const OTHER: AccessId = AccessId([2; 32]);

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 168, 1, 2], port))
    }

    #[test]
    fn what_was_refused_gives_way_to_the_other() {
        let mut seekers = Seekers::default();
        seekers.note(CLUB, addr(1), Some(CODE));
        assert_eq!(seekers.code(CLUB, addr(1)), Some(&CODE));
        seekers.refused(CLUB, addr(1));
        // Announced again it is what it was.
        seekers.note(CLUB, addr(1), Some(CODE));
        assert_eq!(seekers.code(CLUB, addr(1)), None);
        seekers.refused(CLUB, addr(1));
        assert_eq!(seekers.code(CLUB, addr(1)), Some(&CODE));
        // Another code begins anew.
        seekers.refused(CLUB, addr(1));
        seekers.note(CLUB, addr(1), Some(OTHER));
        assert_eq!(seekers.code(CLUB, addr(1)), Some(&OTHER));
        seekers.note(CLUB, addr(1), None);
        assert_eq!(seekers.code(CLUB, addr(1)), None);
    }

    #[test]
    fn no_more_are_remembered_than_are_allowed() {
        let mut seekers = Seekers::default();
        let ports = 1..=u16::try_from(SEEKERS_MAX).unwrap() + 1;
        ports.clone().for_each(|port| seekers.note(CLUB, addr(port), Some(CODE)));
        assert_eq!(seekers.0.len(), SEEKERS_MAX);
        assert_eq!(seekers.code(CLUB, addr(*ports.end())), None);
        // One that is known may still look for another.
        seekers.note(CLUB, addr(1), Some(OTHER));
        assert_eq!(seekers.code(CLUB, addr(1)), Some(&OTHER));
    }
}
