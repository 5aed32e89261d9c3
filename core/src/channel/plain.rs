//! A channel without protection, for simulators: both sides send a random nonce first and derive from the two what a
//! real channel's exporter would be. Never part of a shipped program.

use alloc::vec::Vec;
use core::fmt::Debug;

use ring::digest::{Context, SHA256};

use crate::channel::ChannelFault;

const NONCE_LEN: usize = 32;

/// Signs for the ends of links that are in one process, and tells their other ends, which are in it as well, what was
/// signed: neither needs arithmetic. What was not signed here is checked as anywhere else.
pub trait Signatures: Debug + Send + Sync {
    /// The holder of `public` signs a message.
    fn sign(&self, public: &[u8; 32], message: &[u8]) -> [u8; 64];
    /// Whether exactly this was signed so.
    fn holds(&self, public: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool;
}

/// One end of an unprotected link.
#[derive(Debug)]
pub struct PlainChannel {
    is_client: bool,
    own: [u8; NONCE_LEN],
    /// The other side's length byte and nonce, as far as they have come.
    theirs: Vec<u8>,
    nonce_sent: bool,
    exporter: Option<[u8; 32]>,
    received: Vec<u8>,
    taken: usize,
}

impl PlainChannel {
    /// A new channel; `nonce` is random.
    pub fn new(is_client: bool, nonce: [u8; NONCE_LEN]) -> PlainChannel {
        let (theirs, received) = (Vec::new(), Vec::new());
        PlainChannel { is_client, own: nonce, theirs, nonce_sent: false, exporter: None, received, taken: 0 }
    }

    pub(super) fn feed(&mut self, input: &mut &[u8]) -> Result<(), ChannelFault> {
        let missing = (1 + NONCE_LEN - self.theirs.len()).min(input.len());
        let (nonce, rest) = input.split_at(missing);
        self.theirs.extend_from_slice(nonce);
        if self.theirs.first().is_some_and(|length| usize::from(*length) != NONCE_LEN) {
            return Err(ChannelFault("a nonce of the wrong length"));
        }
        if self.exporter.is_none() {
            self.exporter = self.export();
        }
        self.received.drain(..self.taken);
        self.taken = 0;
        self.received.extend_from_slice(rest);
        *input = &[];
        Ok(())
    }

    pub(super) fn plaintext(&mut self) -> &[u8] {
        &self.received[self.taken..]
    }

    pub(super) fn consume(&mut self, length: usize) {
        self.taken = self.received.len().min(self.taken + length);
    }

    pub(super) fn exporter(&self) -> Option<[u8; 32]> {
        self.exporter
    }

    fn export(&self) -> Option<[u8; 32]> {
        let theirs = self.theirs.get(1..1 + NONCE_LEN)?;
        let (client, server) = if self.is_client { (&self.own[..], theirs) } else { (theirs, &self.own[..]) };
        let mut context = Context::new(&SHA256);
        context.update(b"plain channel");
        context.update(client);
        context.update(server);
        context.finish().as_ref().try_into().ok()
    }

    pub(super) fn is_ended(&self) -> bool {
        false
    }

    pub(super) fn flush(&mut self, out: &mut Vec<u8>) {
        if !self.nonce_sent {
            self.nonce_sent = true;
            out.push(NONCE_LEN as u8);
            out.extend_from_slice(&self.own);
        }
    }

    pub(super) fn seal(&mut self, parts: &[&[u8]], out: &mut Vec<u8>) -> Result<(), ChannelFault> {
        for part in parts {
            out.extend_from_slice(part);
        }
        Ok(())
    }

    pub(super) fn close(&mut self) {}
}
