//! What a host decides about an engine before it runs. Everything that a user may change while it runs is a setting,
//! kept in the store.

use alloc::string::String;
use alloc::vec::Vec;

use crate::time::{NANOS_PER_SECOND, WallTime};

/// When this version was released, or a little before: 2026-11-01. A clock that says less is wrong (protocol §7).
pub const RELEASED: WallTime = WallTime(1_793_491_200 * NANOS_PER_SECOND);

/// The limits and names of one engine.
#[derive(Clone, Debug)]
pub struct Config {
    /// What `core.greeting` says of the software, like `clearskies/0.1.0`.
    pub software: String,
    /// What this computer is called toward members, like its host name.
    pub name: String,
    /// The TCP port on which this node listens; 0 if it does not.
    pub listen_port: u16,
    /// Whether LAN discovery is used.
    pub lan: bool,
    /// Where the host keeps keys and store: the absolute path, links resolved, in the system's bytes; empty if there is
    /// none. No share may be at, in or around it.
    pub home: Vec<u8>,
    /// A random token for this run, and the one that the host found beside the store; where the store does not have
    /// that, it is not the one that this node last wrote (protocol §7).
    pub run_token: RunToken,
}

/// How this start relates to the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunToken {
    /// What the file beside the store held; `None` if it was missing.
    pub found: Option<[u8; 16]>,
    /// What the host puts there once the engine has stored it (`Output::NameRun`).
    pub new: [u8; 16],
    /// Whether the machine restarted since the last run and that run left no clean mark.
    pub tail_may_be_lost: bool,
}
