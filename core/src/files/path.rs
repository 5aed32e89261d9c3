//! Paths within a share, and which of them may exist (protocol §8).

use alloc::string::String;
use core::fmt;

/// A path relative to a share's root: UTF-8 components joined by `/`, no leading or trailing slash; empty for the
/// root itself. No component is empty, `.`, `..`, `.clearskies`, or holds NUL. Ordered component by component, so
/// that a directory comes right before everything beneath it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RelPath(String);

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
