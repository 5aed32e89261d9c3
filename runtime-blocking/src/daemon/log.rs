//! The daemon's log: one file, and one old one when it has grown. Never holds secrets; that is up to who writes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::utc;

/// Bytes in the log before it becomes the old one.
pub(crate) const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Bytes of one message; the rest is cut.
const MESSAGE_BYTES_MAX: usize = 4096;

/// The environment variable that says how much to log: `error`, `warn`, `info`, `debug` or `trace`.
const LEVEL_VARIABLE: &str = "CLEARSKIES_LOG";

/// A file that moves itself aside when it has grown.
#[derive(Debug)]
struct Rotating {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
}

impl Rotating {
    fn open(path: &Path, bytes_max: u64) -> io::Result<Rotating> {
        let file = open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Rotating { path: path.to_owned(), file, bytes, bytes_max })
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        let bytes = line.len() as u64;
        if self.bytes + bytes > self.bytes_max && self.bytes > 0 {
            let mut old = self.path.clone().into_os_string();
            old.push(".old");
            fs::rename(&self.path, old)?;
            self.file = open(&self.path)?;
            self.bytes = 0;
        }
        self.file.write_all(line.as_bytes())?;
        self.bytes += bytes;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).mode(0o600).open(path)
}

/// The logger of the daemon's process.
#[derive(Debug)]
struct Logger {
    file: Mutex<Rotating>,
    /// Whether standard error gets the lines too.
    echo: bool,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = line(&utc::format(utc::now()), record.level(), &record.args().to_string());
        if self.echo {
            // Nobody may be listening any more.
            let _ = io::stderr().write_all(line.as_bytes());
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // A full disk must not stop the sync; there is nowhere else to say it.
        let _ = file.write(&line);
    }

    fn flush(&self) {}
}

/// One line. Control characters are escaped: names come from elsewhere and must not forge lines.
fn line(time: &str, level: Level, message: &str) -> String {
    let mut end = message.len().min(MESSAGE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    let mut line = format!("{time} {level:<5} ");
    for c in message[..end].chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line.push('\n');
    line
}

/// Sends this process's log to a file, and to standard error if `echo`. To be called once.
pub(crate) fn start(path: &Path, echo: bool) -> io::Result<()> {
    let file = Mutex::new(Rotating::open(path, LOG_BYTES_MAX)?);
    let level = std::env::var(LEVEL_VARIABLE).ok().and_then(|level| level.parse().ok());
    log::set_max_level(level.unwrap_or(LevelFilter::Info));
    log::set_boxed_logger(Box::new(Logger { file, echo })).map_err(io::Error::other)?;
    // A panic is a bug; its place belongs in the log, as standard error may lead nowhere.
    std::panic::set_hook(Box::new(|panic| log::error!("this is a bug: {panic}")));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_becomes_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let old = dir.path().join("log.old");
        let mut log = Rotating::open(&path, 20).unwrap();
        log.write("0123456789\n").unwrap();
        log.write("12345678\n").unwrap();
        assert!(!old.exists(), "20 bytes fit");
        log.write("x\n").unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "0123456789\n12345678\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "x\n");
        log.write("a line beyond the limit is kept whole\n").unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "x\n");
        drop(log);
        let mut log = Rotating::open(&path, 1000).unwrap();
        log.write("more\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a line beyond the limit is kept whole\nmore\n");
    }

    #[test]
    fn a_name_cannot_forge_a_line() {
        let line = line("T", Level::Info, "from a\n2026 ERROR \u{1b}[2Jpeer");
        assert_eq!(line, "T INFO  from a\\n2026 ERROR \\u{1b}[2Jpeer\n");
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let line = line("T", Level::Warn, &"ä".repeat(MESSAGE_BYTES_MAX));
        assert!(line.len() <= MESSAGE_BYTES_MAX + 16);
    }
}
