//! The system's generator of random bytes. Holds nothing.

use ring::rand::{SecureRandom, SystemRandom};

/// The system gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoEntropy;

impl std::fmt::Display for NoEntropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the system gives no random bytes; without them no key is safe, so nothing was started")
    }
}

impl std::error::Error for NoEntropy {}

/// 32 fresh bytes to seed an engine with. Waits until the system's generator is ready.
///
/// # Errors
/// The system has no generator.
pub fn seed() -> Result<[u8; 32], NoEntropy> {
    let mut seed = [0; 32];
    fill(&mut seed)?;
    Ok(seed)
}

/// Fills a buffer with fresh bytes.
///
/// # Errors
/// The system has no generator.
pub fn fill(out: &mut [u8]) -> Result<(), NoEntropy> {
    SystemRandom::new().fill(out).map_err(|_| NoEntropy)
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds_differ() {
        let (a, b) = (super::seed().unwrap(), super::seed().unwrap());
        assert_ne!(a, b);
        assert_ne!(a, [0; 32]);
    }
}
