//! The ClearSkies engine: a pure state machine that keeps folders in step between computers.
//!
//! The engine takes bytes, events and the time, and returns what to send, store, read and write. It opens no
//! socket and no file, starts no thread and asks nobody for the time, so the same inputs always give the same
//! outputs. See `docs/architecture.md` for the map and `docs/protocol.md` for the wire.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod channel;
pub mod club;
pub mod config;
pub mod connection;
pub mod discovery;
pub mod engine;
pub mod error;
pub mod files;
pub mod ids;
pub mod index;
pub mod io;
pub mod rng;
pub mod share;
pub mod time;
pub mod wire;
