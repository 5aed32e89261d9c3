//! A line between two real daemons: passes bytes on, and delays, slows, splits, spoils or cuts them as it is told.
//! Knows nothing of what they mean.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::sim::Rng;

/// How often a pump that has nothing to do looks whether the line still is.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Bytes that are read at once.
const CHUNK: usize = 16 << 10;

/// How a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Each chunk is held so long.
    pub delay: Duration,
    /// A chunk is passed on in pieces of at most so many bytes.
    pub piece_max: usize,
    /// Of a thousand chunks so many end the connection in their middle.
    pub cut_per_mille: u32,
    /// Of a thousand chunks so many arrive with one bit changed.
    pub spoil_per_mille: u32,
}

impl Line {
    /// Passes everything on at once.
    pub const GOOD: Line =
        Line { delay: Duration::ZERO, piece_max: CHUNK, cut_per_mille: 0, spoil_per_mille: 0 };

    /// A line as a script names it: 0 good, 1 breaking and spoiling, 2 in tiny pieces, 3 slow.
    pub fn named(number: u64) -> Line {
        match number % 4 {
            0 => Line::GOOD,
            1 => Line { cut_per_mille: 20, spoil_per_mille: 10, ..Line::GOOD },
            2 => Line { piece_max: 40, ..Line::GOOD },
            _ => Line { delay: Duration::from_millis(80), ..Line::GOOD },
        }
    }
}

#[derive(Debug)]
struct Shared {
    line: Mutex<Line>,
    /// Whether anything passes; what comes while it does not is refused.
    open: AtomicBool,
    /// Grows with each cut: a connection of an earlier number ends.
    cuts: AtomicU64,
    ended: AtomicBool,
    /// Bytes passed on.
    passed: AtomicU64,
}

/// A listener that passes each connection on to one address; ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.cut();
    }
}

impl Proxy {
    /// Begins to listen; what comes goes to `to`.
    pub fn new(to: String, seed: u64) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        listener.set_nonblocking(true).expect("a socket can be made so");
        let addr = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            line: Mutex::new(Line::GOOD),
            open: AtomicBool::new(true),
            cuts: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            passed: AtomicU64::new(0),
        });
        let proxy = Proxy { addr, shared: shared.clone() };
        std::thread::spawn(move || accept(&listener, &to, &shared, Rng::new(seed)));
        proxy
    }

    /// Where it listens.
    pub fn addr(&self) -> String {
        self.addr.to_string()
    }

    /// Changes the line, also for connections that there are.
    pub fn set_line(&self, line: Line) {
        *self.shared.line.lock().unwrap_or_else(PoisonError::into_inner) = line;
    }

    /// Ends all connections.
    pub fn cut(&self) {
        self.shared.cuts.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets connections through, or ends them all and refuses new ones.
    pub fn set_open(&self, open: bool) {
        self.shared.open.store(open, Ordering::Relaxed);
        if !open {
            self.cut();
        }
    }

    /// Bytes passed on so far, in both directions.
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::Relaxed)
    }
}

fn accept(listener: &TcpListener, to: &str, shared: &Arc<Shared>, mut rng: Rng) {
    while !shared.ended.load(Ordering::Relaxed) {
        let Ok((near, _)) = listener.accept() else {
            std::thread::sleep(LOOK_EVERY);
            continue;
        };
        // Whoever is refused sees the connection end.
        if !shared.open.load(Ordering::Relaxed) {
            continue;
        }
        let cuts = shared.cuts.load(Ordering::Relaxed);
        let Ok(far) = TcpStream::connect(to) else { continue };
        let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) else { continue };
        for (from, to) in [(near, far), (far_too, near_too)] {
            let pump = Pump { from, to, shared: shared.clone(), cuts, rng: rng.fork() };
            std::thread::spawn(move || pump.run());
        }
    }
}

/// One direction of a connection.
struct Pump {
    from: TcpStream,
    to: TcpStream,
    shared: Arc<Shared>,
    cuts: u64,
    rng: Rng,
}

impl Pump {
    fn run(mut self) {
        self.pass();
        // Both directions end together: half a connection is of no use to either daemon.
        let _ = self.from.shutdown(Shutdown::Both);
        let _ = self.to.shutdown(Shutdown::Both);
    }

    /// Passes bytes on until the connection ends.
    fn pass(&mut self) {
        let blocking = self.from.set_nonblocking(false).and(self.from.set_read_timeout(Some(LOOK_EVERY)));
        if blocking.is_err() || self.to.set_nonblocking(false).is_err() {
            return;
        }
        let mut chunk = [0; CHUNK];
        while self.shared.cuts.load(Ordering::Relaxed) == self.cuts {
            let len = match self.from.read(&mut chunk) {
                Ok(0) => return,
                Ok(len) => len,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(_) => return,
            };
            let line = *self.shared.line.lock().unwrap_or_else(PoisonError::into_inner);
            std::thread::sleep(line.delay);
            let bytes = &mut chunk[..len];
            let cut = self.rng.per_mille(line.cut_per_mille);
            if self.rng.per_mille(line.spoil_per_mille) {
                let at = self.rng.below(len as u64 * 8) as usize;
                bytes[at / 8] ^= 1 << (at % 8);
            }
            let passed = if cut { len / 2 } else { len };
            for piece in bytes[..passed].chunks(line.piece_max) {
                if self.to.write_all(piece).is_err() {
                    return;
                }
                self.shared.passed.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
            if cut {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let addr = listener.local_addr().expect("it is bound").to_string();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                std::thread::spawn(move || {
                    let mut bytes = [0; 1000];
                    while let Ok(len @ 1..) = stream.read(&mut bytes) {
                        let _ = stream.write_all(&bytes[..len]);
                    }
                });
            }
        });
        addr
    }

    fn say(proxy: &Proxy, text: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(proxy.addr()).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time");
        let _ = stream.write_all(text);
        let mut answer = vec![0; text.len()];
        let mut have = 0;
        while have < text.len() {
            match stream.read(&mut answer[have..]) {
                Ok(len @ 1..) => have += len,
                _ => break,
            }
        }
        answer.truncate(have);
        answer
    }

    #[test]
    fn a_line_does_what_it_is_told() {
        let proxy = Proxy::new(echo(), 1);
        let text = [b'x'; 300];
        assert_eq!(say(&proxy, &text), text);
        proxy.set_line(Line::named(2));
        assert_eq!(say(&proxy, &text), text);
        proxy.set_line(Line { spoil_per_mille: 1000, ..Line::GOOD });
        let spoilt = say(&proxy, &text);
        assert_eq!(spoilt.len(), text.len());
        assert_ne!(spoilt, text);
        proxy.set_line(Line { cut_per_mille: 1000, ..Line::GOOD });
        assert!(say(&proxy, &text).len() < text.len());
        proxy.set_line(Line::GOOD);
        proxy.set_open(false);
        assert_eq!(say(&proxy, &text), b"");
        proxy.set_open(true);
        assert_eq!(say(&proxy, &text), text);
        assert!(proxy.passed() > 1200);
    }
}
