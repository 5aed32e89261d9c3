//! A node on a thread of its own, for programs that embed one. Owns the thread; never touches the engine.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;

use clearskies_core::engine::command::{Command, CommandError, Reply};

use crate::driver::{Driver, Inbox};
use crate::options::{EventSink, Options, StartError};

/// The outcome of one command; it arrives once, or the channel closes because the node ended.
pub type Answer = Receiver<Result<Reply, CommandError>>;

/// A running node. Dropping it stops the node and waits for its end.
#[derive(Debug)]
pub struct Node {
    inbox: Arc<Inbox>,
    thread: Option<JoinHandle<()>>,
    port: u16,
}

impl Node {
    /// Starts a node. Its news (all but the outcomes of commands) go to `events`, on the node's thread.
    pub fn start(options: Options, events: EventSink) -> Result<Node, StartError> {
        let driver = Driver::open(options, events)?;
        let (inbox, port) = (driver.inbox(), driver.port());
        let run = move || {
            if let Err(error) = driver.run() {
                log::error!("the node ended: {error}");
            }
        };
        let thread = std::thread::Builder::new()
            .name("clearskies".into())
            .spawn(run)
            .map_err(|error| StartError::Io("cannot start a thread", error))?;
        Ok(Node { inbox, thread: Some(thread), port })
    }

    /// Gives the node a command.
    pub fn command(&self, command: Command) -> Answer {
        let (sender, receiver) = mpsc::channel();
        self.inbox.ask(command, sender);
        receiver
    }

    /// The TCP port on which the node listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops the node cleanly and waits for its end (some seconds at most).
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.inbox.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the node's thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}
