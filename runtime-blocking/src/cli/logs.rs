//! Printing the daemon's log, which is read as a file: it must be readable most of all when no daemon answers.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::{Failure, Outcome};
use crate::daemon::home::Home;

/// Lines shown before what comes.
const LINES: usize = 10;
/// The part of the log in which those lines are sought.
const TAIL_BYTES: u64 = 64 * 1024;
/// How often the log is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Prints the log.
pub(super) fn cat(home: &Home) -> Outcome {
    let mut file = open(home)?;
    finish(io::copy(&mut file, &mut io::stdout()))
}

/// Prints the end of the log, and what comes, until interrupted.
pub(super) fn tail(home: &Home) -> Outcome {
    let mut file = open(home)?;
    let end = file.metadata()?.len();
    file.seek(SeekFrom::Start(end.saturating_sub(TAIL_BYTES)))?;
    let mut last = Vec::new();
    (&file).take(TAIL_BYTES).read_to_end(&mut last)?;
    let lines: Vec<&[u8]> = last.split_inclusive(|byte| *byte == b'\n').collect();
    let mut out = io::stdout();
    for line in &lines[lines.len().saturating_sub(LINES)..] {
        out.write_all(line)?;
    }
    loop {
        out.flush()?;
        if finish(io::copy(&mut file, &mut out)).is_err() {
            return Ok(());
        }
        std::thread::sleep(LOOK_EVERY);
        // When the log has become the old one, its rest is printed before the new one is begun.
        if let Ok(new) = File::open(home.log())
            && new.metadata()?.ino() != file.metadata()?.ino()
        {
            io::copy(&mut file, &mut out)?;
            file = new;
        }
    }
}

fn open(home: &Home) -> Result<File, Failure> {
    File::open(home.log()).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure("There is no log: the daemon has never run.".into()),
        _ => Failure(format!("{}: {error}", home.log().display())),
    })
}

/// Whoever read our output may have had enough of it.
fn finish(copied: io::Result<u64>) -> Outcome {
    match copied {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        copied => Ok(copied.map(drop)?),
    }
}
