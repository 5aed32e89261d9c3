//! Access codes: short secrets that let a new peer in (protocol §3).

/// An access code.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessCode([u8; 16]);

impl core::fmt::Debug for AccessCode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("AccessCode(..)")
    }
}
