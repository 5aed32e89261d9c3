//! Lines of the control protocol: each is read as the daemon reads it, and what it asks for is given to an engine.

use std::time::Duration;

use clearskies_blocking::read_request;
use clearskies_core::engine::command::{Command, CommandError};

use super::host::Host;
use crate::sim::{SimDisk, SimStore};

/// Lines that are looked at.
const LINES_MAX: usize = 16;
/// Addresses that one request may carry, as `docs/control.md` says.
const PEERS_MAX: usize = 16;
/// Settings that one request may change.
const SETTINGS_MAX: usize = 256;
/// The folder that the lines may make a share of.
const FOLDER: &str = "/a";
/// Orders until a command is given up.
const ORDERS_MAX: usize = 2000;

/// A line is refused with a word and a sentence, or its command is within limits and answered exactly once.
pub fn control(bytes: &[u8]) {
    let mut host: Option<Host> = None;
    for line in bytes.split(|byte| *byte == b'\n').take(LINES_MAX) {
        match read_request(line) {
            Err(CommandError { code, message }) => {
                assert!(["bad_request", "not_understood"].contains(&code) && !message.is_empty());
            }
            Ok(None) => {}
            Ok(Some(command)) => {
                // The same line is always read alike.
                let again = read_request(line);
                assert_eq!(format!("{:?}", again), format!("Ok(Some({command:?}))"));
                within_limits(&command);
                if opens_elsewhere(&command) {
                    continue;
                }
                host.get_or_insert_with(started).ask(command);
            }
        }
    }
    if let Some(host) = &mut host {
        for _ in 0..20 {
            host.complete_all(ORDERS_MAX);
            host.pass(Duration::from_secs(2));
        }
        assert!(host.asked.is_empty(), "never answered: {:?}", host.asked);
        for reply in host.replies.values() {
            let Err(error) = reply else { continue };
            assert!(!error.code.is_empty() && !error.message.is_empty());
        }
    }
}

fn started() -> Host {
    let mut disk = SimDisk::default();
    let now = Host::begin();
    disk.mkdir(now.wall.0, FOLDER).expect("the disk is empty");
    disk.write(now.wall.0, &format!("{FOLDER}/x"), b"x").expect("the folder was made");
    Host::boot(disk, SimStore::default(), now, None, &[FOLDER])
}

/// The host lets the engine open one folder alone.
fn opens_elsewhere(command: &Command) -> bool {
    match command {
        Command::CreateShare { path } | Command::Attach { path, .. } => path != FOLDER,
        _ => false,
    }
}

fn within_limits(command: &Command) {
    let absolute = |path: &String| assert!(path.starts_with('/') && !path.contains('\0'), "{path:?}");
    match command {
        Command::Attach { path, peers, .. } => {
            absolute(path);
            assert!(peers.len() <= PEERS_MAX && peers.iter().all(|peer| peer.port() != 0));
        }
        Command::CreateShare { path }
        | Command::Invite { path, .. }
        | Command::Detach { path }
        | Command::Resolve { path, .. }
        | Command::DecideDeletions { path, .. }
        | Command::Archive { path }
        | Command::Restore { path, .. }
        | Command::Why { path } => absolute(path),
        Command::Conflicts { path } | Command::Deletions { path } => path.iter().for_each(absolute),
        Command::Connect { addr } => assert_ne!(addr.port(), 0),
        Command::WriteSettings { settings } => assert!(settings.len() <= SETTINGS_MAX),
        Command::Pause
        | Command::Resume
        | Command::Status
        | Command::Peers
        | Command::ReadSettings { .. }
        | Command::WriteSetting { .. }
        | Command::Stop => {}
    }
}
