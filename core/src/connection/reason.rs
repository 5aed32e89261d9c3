//! Why a connection ended, as a fact and as a sentence.

use alloc::string::String;
use core::fmt;

use crate::error::Malformed;
use crate::ids::RootId;

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// This side closed it.
    ByUs {
        /// A word of protocol §5.7.
        code: String,
        /// What the other side was told.
        message: String,
    },
    /// The other side closed it.
    ByPeer {
        /// A word of protocol §5.7.
        code: String,
        /// Its words; at most some hundred bytes, to be shown as data.
        message: String,
    },
    /// The other side broke the protocol; nothing of what broke it was acted on.
    Protocol(Malformed),
    /// The channel could not be established or broke.
    Channel(&'static str),
    /// The other side does not know the secret.
    WrongProof,
    /// The other side is not who it says it is.
    Auth(&'static str),
    /// The other side ended the link when it saw our proof: it does not know our key or code, or no longer.
    Refused,
    /// The link was not ready in time.
    HandshakeTimeout,
    /// The other side was silent for too long.
    Silence,
    /// The other side sent more than a stranger may.
    TooMuch,
    /// The other side said that it sends nothing more.
    Ended,
    /// This node reached itself.
    Loopback,
    /// Another node runs with this one's identity: one is a copy of the other.
    CopiedHome {
        /// The club in which it does; an accepted link that ends so was never ready to name one.
        club: RootId,
        /// What the other computer is called.
        name: Option<String>,
    },
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::ByUs { message, .. } => write!(f, "we closed the connection: {message}"),
            CloseReason::ByPeer { code, message } => {
                write!(
                    f,
                    "the other side closed the connection ({}): {}",
                    code.escape_debug(),
                    message.escape_debug()
                )
            }
            CloseReason::Protocol(fault) => write!(f, "the other side broke the protocol: {fault}"),
            CloseReason::Channel(fault) => write!(f, "the secure channel failed: {fault}"),
            CloseReason::WrongProof => {
                f.write_str("the other side does not hold the key or code that it names")
            }
            CloseReason::Auth(fault) => write!(f, "the other side is not who it says it is: {fault}"),
            CloseReason::Refused => f.write_str("the other side did not accept our key or code"),
            CloseReason::HandshakeTimeout => f.write_str("the other side took too long to prove itself"),
            CloseReason::Silence => f.write_str("the other side has been silent for too long"),
            CloseReason::TooMuch => f.write_str("the other side sent too much before it had proven itself"),
            CloseReason::Ended => f.write_str("the other side ended the connection"),
            CloseReason::Loopback => f.write_str("this node reached itself"),
            CloseReason::CopiedHome { name: Some(name), .. } => {
                write!(f, "{} runs a copy of this node's data", name.escape_debug())
            }
            CloseReason::CopiedHome { name: None, .. } => {
                f.write_str("another node runs a copy of this node's data")
            }
        }
    }
}
