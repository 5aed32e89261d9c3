//! The engine: routes inputs to clubs, connections and shares, and collects what they want done.

pub mod command;
pub mod event;
