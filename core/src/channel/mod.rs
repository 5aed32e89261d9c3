//! Channels: what turns bytes off a socket into plaintext and back, and names itself by a secret that both ends share
//! (protocol §5.1, §5.2). Know nothing of who is at the other end.

#[cfg(any(test, feature = "simulator"))]
pub mod plain;
pub mod tls;

#[cfg(any(test, feature = "simulator"))]
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

use crate::club::identity::verify;
use crate::rng::Rng;

#[cfg(any(test, feature = "simulator"))]
use plain::PlainChannel;
use tls::{TlsChannel, TlsIdentity};

/// Plaintext bytes that one record of a channel holds: what [`Channel::seal`] is best given at once.
pub const RECORD_MAX: usize = 16_384;

/// Why a channel cannot go on; all of it is the other side's doing or the network's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelFault(pub &'static str);

/// The transport that connections use.
#[derive(Clone, Debug)]
pub enum Transport {
    /// TLS 1.3. The identity is for accepting; it is to be replaced each UTC day.
    Tls(TlsIdentity),
    /// No protection at all, for simulators.
    #[cfg(any(test, feature = "simulator"))]
    Plain,
    /// As [`Transport::Plain`], between ends in one process that signs for them.
    #[cfg(any(test, feature = "simulator"))]
    PlainHere(Arc<dyn plain::Signatures>),
}

impl Transport {
    /// Signs with a key of this side, for the other end of a link.
    pub fn sign(&self, _public: &[u8; 32], message: &[u8], sign: impl FnOnce(&[u8]) -> [u8; 64]) -> [u8; 64] {
        match self {
            #[cfg(any(test, feature = "simulator"))]
            Transport::PlainHere(signatures) => signatures.sign(_public, message),
            _ => sign(message),
        }
    }

    /// Whether the holder of `public` has signed this.
    pub fn verify(&self, public: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        let known = match self {
            #[cfg(any(test, feature = "simulator"))]
            Transport::PlainHere(signatures) => signatures.holds(public, message, signature),
            _ => false,
        };
        known || verify(public, message, signature)
    }

    /// A channel for a connection that this side opens.
    pub fn dial(&self, to: IpAddr, _rng: &mut Rng) -> Result<Channel, ChannelFault> {
        match self {
            Transport::Tls(identity) => identity.dial(to).map(Channel::Tls),
            #[cfg(any(test, feature = "simulator"))]
            Transport::Plain | Transport::PlainHere(_) => {
                Ok(Channel::Plain(PlainChannel::new(true, _rng.bytes())))
            }
        }
    }

    /// A channel for a connection that this side accepted.
    pub fn accept(&self, _rng: &mut Rng) -> Result<Channel, ChannelFault> {
        match self {
            Transport::Tls(identity) => identity.accept().map(Channel::Tls),
            #[cfg(any(test, feature = "simulator"))]
            Transport::Plain | Transport::PlainHere(_) => {
                Ok(Channel::Plain(PlainChannel::new(false, _rng.bytes())))
            }
        }
    }
}

/// One end of a protected link. An enum, so that the bytes of a transfer cross no virtual call.
#[derive(Debug)]
pub enum Channel {
    /// See [`tls`].
    Tls(TlsChannel),
    /// See [`plain`].
    #[cfg(any(test, feature = "simulator"))]
    Plain(PlainChannel),
}

/// Calls the same method of either kind.
macro_rules! either {
    ($channel:expr, $inner:ident => $call:expr) => {
        match $channel {
            Channel::Tls($inner) => $call,
            #[cfg(any(test, feature = "simulator"))]
            Channel::Plain($inner) => $call,
        }
    };
}

impl Channel {
    /// Takes some bytes off the front of `input`: at least one, unless it is empty or the other side has closed. What
    /// came of them is to be taken by [`Channel::plaintext`] before the next call.
    pub fn feed(&mut self, input: &mut &[u8]) -> Result<(), ChannelFault> {
        either!(self, channel => channel.feed(input))
    }

    /// Plaintext that has arrived; empty if there is none for now.
    pub fn plaintext(&mut self) -> &[u8] {
        either!(self, channel => channel.plaintext())
    }

    /// Drops the first `length` bytes of what [`Channel::plaintext`] gave.
    pub fn consume(&mut self, length: usize) {
        either!(self, channel => channel.consume(length));
    }

    /// The secret that only the two ends of this very channel share; `None` until it is established.
    pub fn exporter(&self) -> Option<[u8; 32]> {
        either!(self, channel => channel.exporter())
    }

    /// Whether the other side said that it sends nothing more.
    pub fn is_ended(&self) -> bool {
        either!(self, channel => channel.is_ended())
    }

    /// Appends what the channel itself wants sent.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        either!(self, channel => channel.flush(out));
    }

    /// Seals `parts`, joined, and appends the result. Only once established.
    pub fn seal(&mut self, parts: &[&[u8]], out: &mut Vec<u8>) -> Result<(), ChannelFault> {
        either!(self, channel => channel.seal(parts, out))
    }

    /// Says to the other side that nothing more comes; [`Channel::flush`] gives the bytes.
    pub fn close(&mut self) {
        either!(self, channel => channel.close());
    }
}
