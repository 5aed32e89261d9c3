//! Discovery: where peers may be, and when to try (protocol §11). Nothing here connects or authenticates.

pub mod dialer;
pub mod lan;
pub mod network;
