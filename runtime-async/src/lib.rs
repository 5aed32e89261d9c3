//! The place of the async-std runtime; it holds no code yet.
