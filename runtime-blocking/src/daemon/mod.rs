//! The daemon: starting it in the foreground or detached, and stopping it.

pub(crate) mod home;
pub(crate) mod log;

use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clearskies_core::engine::event::Event;
use clearskies_host::lock::{HomeLock, LockError};
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::control::client::Client;
use crate::driver::Driver;
use crate::options::Options;
use home::Home;

/// How long a daemon may take until its control socket answers: a large store is checked first.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// After a start was refused because another daemon is just starting, that one is waited for so long.
const OTHER_START_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a daemon may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(20);
/// How often it is looked whether something has come about.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Bytes of a failed daemon's last words.
const LAST_WORDS_BYTES_MAX: u64 = 64 * 1024;

/// How a daemon is started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Start {
    pub(crate) listen_port: Option<u16>,
    pub(crate) no_lan: bool,
}

/// Runs a daemon in this process until it is stopped. `detached`: it was started by another one of ours and leaves
/// its terminal.
pub(crate) fn run(home: &Path, start: &Start, detached: bool) -> Result<(), String> {
    if detached {
        leave_terminal();
    }
    let home = Home::prepare(home)?;
    log::start(&home.log(), !detached)
        .map_err(|error| format!("{}: the log cannot be opened: {error}", home.log().display()))?;
    let options = Options {
        home: home.dir().to_owned(),
        listen_port: start.listen_port,
        lan: !start.no_lan,
        name: String::new(),
        control: true,
    };
    let result = Driver::open(options, Box::new(tell)).map_err(|error| error.to_string());
    let result = result.and_then(|driver| {
        stop_on_signals(&driver).map_err(|error| format!("Signals cannot be caught: {error}"))?;
        driver.run().map_err(|error| error.to_string())
    });
    if detached && let Err(sentence) = &result {
        ::log::error!("{sentence}");
    }
    result
}

/// TERM and INT end the node in good order.
fn stop_on_signals(driver: &Driver) -> io::Result<()> {
    let inbox = driver.inbox();
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let wait = move || signals.forever().for_each(|_| inbox.stop());
    std::thread::Builder::new().name("signals".into()).spawn(wait).map(|_| ())
}

/// News for people go to the log.
fn tell(event: Event) {
    if let Event::Notice { share, message } = event {
        ::log::info!("{}", notice_line(share.as_deref(), &message));
    }
}

/// A notice as the log has it. What is wrong with a share's folder begins with its path already.
fn notice_line(share: Option<&str>, message: &str) -> String {
    match share {
        Some(share) if !message.starts_with(share) => format!("{share}: {message}"),
        _ => message.to_owned(),
    }
}

/// A daemon must not end with the terminal that started it, nor keep a folder busy.
fn leave_terminal() {
    // Fails only for the leader of a process group, and a child of ours is none.
    let _ = rustix::process::setsid();
    let _ = std::env::set_current_dir("/");
}

/// Connects to the daemon, and starts one first if none is running.
pub(crate) fn reach(home: &Home) -> Result<Client, String> {
    match connect(home)? {
        Some(client) => Ok(client),
        None => launch(home, &Start::default()),
    }
}

/// Connects to the daemon; `None` if none is running.
pub(crate) fn connect(home: &Home) -> Result<Option<Client>, String> {
    Client::connect(home)
        .map_err(|error| format!("The daemon cannot be reached at {}: {error}", home.control().display()))
}

/// Starts a daemon in the background and waits until it answers.
pub(crate) fn launch(home: &Home, start: &Start) -> Result<Client, String> {
    let mut child = spawn(home, start).map_err(|error| format!("The daemon cannot be started: {error}"))?;
    let begun = Instant::now();
    while begun.elapsed() < START_TIMEOUT {
        if let Some(client) = connect(home)? {
            return Ok(client);
        }
        match child.try_wait() {
            Ok(None) => std::thread::sleep(LOOK_EVERY),
            Ok(Some(_)) => return after_refusal(home, last_words(&mut child)),
            Err(error) => return Err(format!("The daemon cannot be started: {error}")),
        }
    }
    Err(format!(
        "The daemon did not answer for {} seconds; it may still be starting. `clearskies logtail` shows what it does.",
        START_TIMEOUT.as_secs()
    ))
}

/// The daemon that we started gave up. If another one holds the home, that one is as good.
fn after_refusal(home: &Home, words: String) -> Result<Client, String> {
    let begun = Instant::now();
    while begun.elapsed() < OTHER_START_TIMEOUT && held(home) {
        if let Some(client) = connect(home)? {
            return Ok(client);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Err(words)
}

fn spawn(home: &Home, start: &Start) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--home").arg(home.dir()).args(["start", "--no-fork", "--detached"]);
    if let Some(port) = start.listen_port {
        command.arg("--listen-port").arg(port.to_string());
    }
    if start.no_lan {
        command.arg("--no-lan");
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
}

/// What an ended daemon said on standard error, without the program's name in front.
fn last_words(child: &mut Child) -> String {
    let mut words = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        // What cannot be read is not told.
        let _ = stderr.take(LAST_WORDS_BYTES_MAX).read_to_end(&mut words);
    }
    let words = String::from_utf8_lossy(&words);
    let words = words.trim().trim_start_matches("clearskies: ");
    if words.is_empty() {
        return "The daemon ended at once. `clearskies logcat` may say why.".into();
    }
    words.to_owned()
}

/// Whether a daemon holds the home.
fn held(home: &Home) -> bool {
    home.dir().is_dir() && matches!(HomeLock::acquire(home.dir()), Err(LockError::Held { .. }))
}

/// Stops the daemon and waits until it is gone; false if none was running.
pub(crate) fn stop(home: &Home) -> Result<bool, String> {
    let Some(mut client) = connect(home)? else {
        if !held(home) {
            return Ok(false);
        }
        // It is just starting, or just ending.
        return wait_until_free(home).map(|()| true);
    };
    match client.ask(&json!({ "type": "stop" })) {
        // It was ending already.
        Err(refusal) if refusal.code == "lost" => {}
        Err(refusal) => return Err(refusal.message),
        Ok(_) => {}
    }
    client.wait_for_end(END_TIMEOUT);
    wait_until_free(home)?;
    Ok(true)
}

fn wait_until_free(home: &Home) -> Result<(), String> {
    let begun = Instant::now();
    while held(home) {
        if begun.elapsed() > END_TIMEOUT {
            return Err("The daemon does not end; its log may say why: clearskies logcat".into());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// Says on standard error why the program ends; nobody may be listening any more.
pub(crate) fn complain(sentence: &str) {
    let line = format!("clearskies: {sentence}\n");
    match io::Write::write_all(&mut io::stderr(), line.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            ::log::debug!("standard error is closed: {error}");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_names_its_share_once() {
        assert_eq!(notice_line(None, "The clock is wrong."), "The clock is wrong.");
        assert_eq!(notice_line(Some("/d"), "Joined."), "/d: Joined.");
        assert_eq!(notice_line(Some("/d"), "/d is not there."), "/d is not there.");
    }
}
