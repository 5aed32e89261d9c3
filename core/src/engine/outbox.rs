//! Where the parts of the engine put what they want done; the one place that numbers tokens and knows whose they are.

use alloc::collections::{BTreeMap, VecDeque};

use crate::engine::event::Event;
use crate::ids::{RootId, Token};
use crate::io::{DiskOp, Output, StoreOp};

/// Outputs in the order in which they were made.
#[derive(Debug, Default)]
pub struct Outbox {
    next: u64,
    queue: VecDeque<Output>,
    owner: Option<RootId>,
    owners: BTreeMap<Token, Option<RootId>>,
}

impl Outbox {
    /// Whose tokens the following ones are: a share's, or the engine's own.
    pub fn set_owner(&mut self, owner: Option<RootId>) {
        self.owner = owner;
    }

    /// Whose a token is; `None` for one that was never given out or is completed already.
    pub fn take_owner(&mut self, token: Token) -> Option<Option<RootId>> {
        self.owners.remove(&token)
    }

    /// How many outputs were not completed yet.
    pub fn outstanding(&self) -> usize {
        self.owners.len()
    }

    /// Puts out work for the disk and returns the token of its completion.
    pub fn disk(&mut self, op: DiskOp) -> Token {
        let token = self.token();
        self.queue.push_back(Output::Disk { token, op });
        token
    }

    /// Puts out work for the store and returns the token of its completion.
    pub fn store(&mut self, op: StoreOp) -> Token {
        let token = self.token();
        self.queue.push_back(Output::Store { token, op });
        token
    }

    /// Puts out news.
    pub fn event(&mut self, event: Event) {
        self.queue.push_back(Output::Event(event));
    }

    /// Puts out anything that has no token.
    pub fn push(&mut self, output: Output) {
        self.queue.push_back(output);
    }

    /// Takes the oldest output.
    pub fn pop(&mut self) -> Option<Output> {
        self.queue.pop_front()
    }

    fn token(&mut self) -> Token {
        self.next += 1;
        let token = Token(self.next);
        self.owners.insert(token, self.owner);
        token
    }
}
