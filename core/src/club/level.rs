//! Access levels and their names on the wire.

/// What a member of a club may do. Ordered: higher levels are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Stores and serves ciphertext.
    Untrusted,
    /// Reads everything, changes nothing.
    ReadOnly,
    /// Reads and changes everything.
    ReadWrite,
}

impl Level {
    /// Every level, the highest first, as in `core.club` (protocol §2).
    pub const ALL: [Level; 3] = [Level::ReadWrite, Level::ReadOnly, Level::Untrusted];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Level::ReadWrite => "read_write",
            Level::ReadOnly => "read_only",
            Level::Untrusted => "untrusted",
        }
    }

    /// The level of this name; `None` for one that this version does not know.
    pub fn from_name(name: &str) -> Option<Level> {
        Level::ALL.into_iter().find(|level| level.name() == name)
    }

    /// Where it stands in [`Level::ALL`].
    pub(crate) fn place(self) -> usize {
        match self {
            Level::ReadWrite => 0,
            Level::ReadOnly => 1,
            Level::Untrusted => 2,
        }
    }

    /// The number that the store keeps.
    pub(crate) fn number(self) -> u8 {
        match self {
            Level::Untrusted => 0,
            Level::ReadOnly => 1,
            Level::ReadWrite => 2,
        }
    }

    /// The level of a number from the store.
    pub(crate) fn from_number(number: u8) -> Option<Level> {
        Level::ALL.into_iter().find(|level| level.number() == number)
    }
}

impl core::fmt::Display for Level {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_go_both_ways() {
        for level in Level::ALL {
            assert_eq!(Level::from_name(level.name()), Some(level));
            assert_eq!(Level::from_number(level.number()), Some(level));
            assert_eq!(Level::ALL[level.place()], level);
        }
        assert_eq!(Level::from_name("Read_Write"), None);
        assert_eq!(Level::from_number(3), None);
        assert!(Level::ReadWrite > Level::ReadOnly && Level::ReadOnly > Level::Untrusted);
    }
}
