//! What other threads hand to the driver: completions, commands, the wish to stop. Wakes it once per batch.

use std::sync::mpsc::Sender;
use std::sync::{Mutex, PoisonError};

use clearskies_core::engine::command::{Command, CommandError, Reply};
use clearskies_core::ids::Token;
use clearskies_core::io::Completion;

/// A command from another thread and where its outcome goes.
pub(crate) type Ask = (Command, Sender<Result<Reply, CommandError>>);

/// All that came in since the driver looked last.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    pub(crate) completions: Vec<(Token, Completion)>,
    pub(crate) asks: Vec<Ask>,
    pub(crate) stop: bool,
}

impl Mail {
    fn is_empty(&self) -> bool {
        self.completions.is_empty() && self.asks.is_empty() && !self.stop
    }
}

/// The driver's inbox. Its length is bounded by what the engine has put out: one completion per token.
#[derive(Debug)]
pub(crate) struct Inbox {
    mail: Mutex<Mail>,
    waker: mio::Waker,
}

impl Inbox {
    pub(crate) fn new(waker: mio::Waker) -> Inbox {
        Inbox { mail: Mutex::default(), waker }
    }

    pub(crate) fn complete(&self, token: Token, completion: Completion) {
        self.put(|mail| mail.completions.push((token, completion)));
    }

    pub(crate) fn ask(&self, command: Command, sender: Sender<Result<Reply, CommandError>>) {
        self.put(|mail| mail.asks.push((command, sender)));
    }

    pub(crate) fn stop(&self) {
        self.put(|mail| mail.stop = true);
    }

    /// Swaps what came in with `mail`, which must be empty; its vectors are used again.
    pub(crate) fn take(&self, mail: &mut Mail) {
        std::mem::swap(&mut *self.mail.lock().unwrap_or_else(PoisonError::into_inner), mail);
    }

    fn put(&self, change: impl FnOnce(&mut Mail)) {
        let first = {
            let mut mail = self.mail.lock().unwrap_or_else(PoisonError::into_inner);
            let first = mail.is_empty();
            change(&mut mail);
            first
        };
        if first && let Err(error) = self.waker.wake() {
            log::error!("the driver cannot be woken: {error}");
        }
    }
}
