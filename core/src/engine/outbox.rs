//! Where the parts of the engine put what they want done; the one place that numbers tokens.

use alloc::collections::VecDeque;

use crate::engine::event::Event;
use crate::ids::Token;
use crate::io::{DiskOp, Output, StoreOp};

/// Outputs in the order in which they were made.
#[derive(Debug, Default)]
pub struct Outbox {
    next: u64,
    queue: VecDeque<Output>,
}

impl Outbox {
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
        Token(self.next)
    }
}
