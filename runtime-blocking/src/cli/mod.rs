//! The program's command line. Owns words for people and exit codes; everything else is asked of the daemon.
//!
//! Exit codes: 0 done, 1 refused or failed (with a sentence on standard error), 2 wrong usage.

mod args;
mod files;
mod logs;
mod progress;
mod share;
mod status;
mod table;

use std::io::{self, Write};
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use serde_json::{Value, json};

use crate::control::client::{Client, Refusal};
use crate::control::request::LISTEN_PORT;
use crate::daemon::home::Home;
use crate::daemon::{self, Start};
use args::{Cli, Command};

/// Why a command failed: a sentence for people.
#[derive(Debug)]
struct Failure(String);

impl From<String> for Failure {
    fn from(sentence: String) -> Failure {
        Failure(sentence)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure(refusal.message)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure(format!("The output cannot be written: {error}"))
    }
}

type Outcome = Result<(), Failure>;

/// Runs the program `clearskies` with this process's arguments.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; nobody may be listening any more.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(sentence)) => {
            daemon::complain(&sentence);
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Outcome {
    let dir = match cli.home {
        Some(dir) => std::path::absolute(&dir).map_err(|error| format!("{}: {error}", dir.display()))?,
        None => Home::default_dir()?,
    };
    let home = &Home::at(dir);
    match cli.command {
        Command::Start(start) => self::start(home, &start),
        Command::Stop => stop(home),
        Command::Restart(listen) => restart(home, &listen),
        Command::Status(status) => status::status(home, &status),
        Command::Logcat => logs::cat(home),
        Command::Logtail => logs::tail(home),
        Command::Pause => simple(home, &json!({ "type": "pause" }), "Paused; `clearskies resume` goes on."),
        Command::Resume => simple(home, &json!({ "type": "resume" }), "Transfers go on."),
        Command::Create { path } => share::create(home, &path),
        Command::List => status::list(home),
        Command::Share(share) => share::share(home, &share),
        Command::Attach(attach) => share::attach(home, &attach),
        Command::Detach { path } => share::detach(home, &path),
        Command::Connect { peer } => connect(home, &peer),
        Command::Peers => status::peers(home),
        Command::Conflicts(conflicts) => files::conflicts(home, &conflicts),
        Command::Deletions(deletions) => files::deletions(home, &deletions),
        Command::Restore(restore) => files::restore(home, &restore),
        Command::Why { path } => files::why(home, &path),
        Command::Config { key, value } => config(home, key, value),
    }
}

fn start(home: &Home, start: &args::Start) -> Outcome {
    let how = Start { listen_port: start.listen.listen_port, no_lan: start.listen.no_lan };
    if start.no_fork {
        return Ok(daemon::run(home.dir(), &how, start.detached)?);
    }
    if daemon::connect(home)?.is_some() {
        return Err(Failure("The daemon runs already. `clearskies restart` starts it anew.".into()));
    }
    let mut client = daemon::launch(home, &how)?;
    started(&mut client)
}

fn started(client: &mut Client) -> Outcome {
    let address = client.ask(&json!({ "type": "address" }))?;
    say(&format!("The daemon runs and listens on port {}.", address["port"]))
}

fn stop(home: &Home) -> Outcome {
    let stopped = daemon::stop(home)?;
    say(if stopped { "The daemon has stopped." } else { "The daemon was not running." })
}

fn restart(home: &Home, listen: &args::Listen) -> Outcome {
    // What was said at the last start still holds; the port is remembered by the daemon itself.
    let no_lan = match daemon::connect(home)? {
        Some(mut client) => client.ask(&json!({ "type": "address" }))?["lan"] == false,
        None => false,
    };
    daemon::stop(home)?;
    let how = Start { listen_port: listen.listen_port, no_lan: listen.no_lan || no_lan };
    started(&mut daemon::launch(home, &how)?)
}

fn connect(home: &Home, peer: &str) -> Outcome {
    let addrs = resolve(peer)?;
    let mut client = daemon::reach(home)?;
    for addr in &addrs {
        client.ask(&json!({ "type": "connect", "address": addr }))?;
    }
    say(&format!(
        "Trying {peer} for every share, now and again later. `clearskies peers` shows who is connected."
    ))
}

fn config(home: &Home, key: Option<String>, value: Option<String>) -> Outcome {
    let mut client = daemon::reach(home)?;
    match (key, value) {
        (Some(key), Some(value)) => {
            client.ask(&json!({ "type": "set_config_value", "key": key, "value": value }))?;
            if key == LISTEN_PORT {
                say("The port changes at the next start: clearskies restart")?;
            }
            Ok(())
        }
        (Some(key), None) => {
            let reply = client.ask(&json!({ "type": "get_config_value", "key": key }))?;
            match reply["value"].as_str() {
                Some(value) => say(value),
                None => Err(Failure(format!("There is no setting {key:?}; `clearskies config` lists them."))),
            }
        }
        _ => {
            let reply = client.ask(&json!({ "type": "get_config" }))?;
            let port = client.ask(&json!({ "type": "get_config_value", "key": LISTEN_PORT }))?;
            let mut rows = vec![[LISTEN_PORT.to_owned(), text(&port["value"])]];
            let config = reply["config"].as_object().into_iter().flatten();
            rows.extend(config.map(|(key, value)| [key.clone(), text(value)]));
            rows.sort();
            say(&table::table(&rows, &[]))
        }
    }
}

/// A request that has nothing to tell but that it was done.
fn simple(home: &Home, request: &Value, done: &str) -> Outcome {
    daemon::reach(home)?.ask(request)?;
    say(done)
}

/// Prints a line on standard output.
fn say(line: &str) -> Outcome {
    Ok(writeln!(io::stdout(), "{line}")?)
}

/// A member of a reply as text; empty if it is missing.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The objects of a list in a reply.
fn items<'a>(reply: &'a Value, list: &str) -> &'a [Value] {
    reply[list].as_array().map_or(&[], Vec::as_slice)
}

/// Makes a path absolute without following it itself: the daemon lives elsewhere, and a file may be gone.
fn absolute(path: &Path) -> Result<String, Failure> {
    let fail = |error: io::Error| Failure(format!("{}: {error}", path.display()));
    let full = std::path::absolute(path).map_err(fail)?;
    let full = match (full.parent(), full.file_name()) {
        (Some(parent), Some(name)) => match parent.canonicalize() {
            Ok(parent) => parent.join(name),
            Err(_) => full,
        },
        _ => full,
    };
    utf8(full)
}

/// Makes a folder's path absolute and resolves its links, so that it is the path that the share has.
fn folder(path: &Path) -> Result<String, Failure> {
    match path.canonicalize() {
        Ok(full) => utf8(full),
        Err(_) => absolute(path),
    }
}

fn utf8(path: PathBuf) -> Result<String, Failure> {
    path.into_os_string().into_string().map_err(|path| {
        Failure(format!("The path {} is not UTF-8 and cannot be synced; rename it.", path.to_string_lossy()))
    })
}

/// Looks up `HOST:PORT`, as the daemon takes only addresses.
fn resolve(peer: &str) -> Result<Vec<String>, Failure> {
    /// Addresses of one name that are worth a try.
    const ADDRESSES_MAX: usize = 4;
    let addrs = peer.to_socket_addrs().map_err(|error| {
        Failure(format!("{peer}: this address cannot be looked up: {error}. It is written HOST:PORT."))
    })?;
    let addrs: Vec<String> = addrs.take(ADDRESSES_MAX).map(|addr| addr.to_string()).collect();
    if addrs.is_empty() { Err(Failure(format!("{peer}: this name has no address."))) } else { Ok(addrs) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_absolute() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        std::fs::create_dir(real.join("d")).unwrap();
        std::os::unix::fs::symlink(real.join("d"), real.join("link")).unwrap();
        let shown = |path: PathBuf| path.to_str().unwrap().to_owned();
        assert_eq!(folder(&real.join("link")).unwrap(), shown(real.join("d")));
        assert_eq!(folder(&real.join("d/../d")).unwrap(), shown(real.join("d")));
        assert_eq!(folder(&real.join("missing")).unwrap(), shown(real.join("missing")));
        assert_eq!(absolute(&real.join("link/gone")).unwrap(), shown(real.join("d/gone")));
        assert_eq!(absolute(&real.join("link")).unwrap(), shown(real.join("link")), "a link stays one");
        assert_eq!(absolute(&real.join("a/b/c")).unwrap(), shown(real.join("a/b/c")));
    }

    #[test]
    fn addresses_are_looked_up() {
        assert_eq!(resolve("127.0.0.1:5").unwrap(), ["127.0.0.1:5"]);
        assert_eq!(resolve("[::1]:5").unwrap(), ["[::1]:5"]);
        assert!(resolve("127.0.0.1").unwrap_err().0.contains("HOST:PORT"));
    }
}
