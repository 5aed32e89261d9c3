//! What a node is started with, and why it may not start.

use std::io;
use std::path::PathBuf;

use clearskies_core::config::{Config, RunToken};
use clearskies_core::engine::event::Event;
use clearskies_host::net;

use crate::daemon::home::Home;

/// Where news goes: every event of the engine but the outcomes of commands.
pub type EventSink = Box<dyn FnMut(Event) + Send>;

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the node keeps its state; made (mode 0700) where it is missing.
    pub home: PathBuf,
    /// The TCP port to listen on, 0 for any; `None`: that of the last run, or any if it is taken.
    pub listen_port: Option<u16>,
    /// Whether peers are sought on the local network.
    pub lan: bool,
    /// What this computer is called toward members; empty for its host name.
    pub name: String,
    /// Whether to serve the control protocol on a socket in the home.
    pub control: bool,
}

impl Options {
    /// What the engine is told of them, and of what was found at the start.
    pub(crate) fn config(&self, home: &Home, listen_port: u16, run_token: RunToken) -> Config {
        let name = if self.name.is_empty() { net::host_name() } else { self.name.clone() };
        Config {
            software: crate::SOFTWARE.into(),
            name,
            listen_port,
            lan: self.lan,
            home: home.dir().as_os_str().as_encoded_bytes().to_vec(),
            run_token,
        }
    }
}

/// Why a node cannot start.
#[derive(Debug)]
pub enum StartError {
    /// The home folder cannot be used; a sentence.
    Home(String),
    /// The TCP port cannot be listened on.
    Listen(u16, io::Error),
    /// Anything else that the system refused: what was tried, and its answer.
    Io(&'static str, io::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StartError::Home(sentence) => f.write_str(sentence),
            StartError::Listen(port, error) => write!(
                f,
                "TCP port {port} cannot be listened on: {error}. Choose another one with --listen-port, \
                 or 0 for any that is free."
            ),
            StartError::Io(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}
