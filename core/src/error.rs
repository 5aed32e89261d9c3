//! Faults in what others sent. Says what is wrong, never with whose bytes, so that nothing foreign enters a log.

use core::fmt;

/// Bytes that break the protocol's form; the text names the rule that they break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for Malformed {}
