//! The place of the C interface; it holds no code yet.
