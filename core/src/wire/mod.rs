//! What travels over an authenticated link: frames and the messages in them (protocol §4). Knows bytes and types,
//! nothing of links, clubs or stores.

pub mod cbor;
pub mod compact;
pub mod core_msgs;
pub mod database;
pub mod directory;
pub mod frame;
pub mod json;
pub mod keys;
pub mod message;
pub mod rsync;
pub mod time;
