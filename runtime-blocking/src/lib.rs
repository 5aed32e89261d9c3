//! The blocking runtime.
