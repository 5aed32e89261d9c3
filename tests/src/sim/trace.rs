//! What happened in a world, in order: a digest over all of it, and its newest lines for people.

use std::collections::VecDeque;
use std::fmt::{self, Write};

use clearskies_core::time::Instant;

/// Lines that are kept.
const LINES_MAX: usize = 4000;

/// A log. Two worlds did the same when their digests are equal.
#[derive(Debug)]
pub struct Trace {
    digest: u64,
    count: u64,
    lines: VecDeque<String>,
    /// Whether lines are also printed as they come.
    pub print: bool,
    /// Whether there is a log at all; without one a world is much faster.
    pub on: bool,
}

impl Default for Trace {
    fn default() -> Trace {
        let print = std::env::var_os("SIM_TRACE").is_some();
        Trace { digest: 0xcbf2_9ce4_8422_2325, count: 0, lines: VecDeque::new(), print, on: true }
    }
}

impl Trace {
    /// Adds a line.
    pub fn note(&mut self, at: Instant, line: fmt::Arguments<'_>) {
        if !self.on {
            return;
        }
        let full = self.lines.len() == LINES_MAX;
        let mut text = if full { self.lines.pop_front().unwrap_or_default() } else { String::new() };
        text.clear();
        let micros = at.0 / 1000;
        write!(text, "{:6}.{:06} {line}", micros / 1_000_000, micros % 1_000_000)
            .expect("a string takes all");
        for byte in text.bytes().chain([b'\n']) {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.print {
            println!("{text}");
        }
        self.count += 1;
        self.lines.push_back(text);
    }

    /// A digest of all lines so far.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// How many lines there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The newest lines, oldest first.
    pub fn tail(&self, count: usize) -> String {
        let skip = self.lines.len().saturating_sub(count);
        self.lines.iter().skip(skip).fold(String::new(), |mut all, line| {
            all.push_str(line);
            all.push('\n');
            all
        })
    }
}
