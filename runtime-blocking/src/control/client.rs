//! The other end of the control socket, for the command line: one request, one reply. Waits where it must.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::Value;

use super::socket;
use crate::daemon::home::Home;

/// The longest reply that is read.
const REPLY_BYTES_MAX: u64 = 1 << 30;
/// How long a daemon may take for its greeting.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to a daemon.
#[derive(Debug)]
pub(crate) struct Client {
    stream: BufReader<UnixStream>,
}

/// A request that failed.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// A short, stable word.
    pub(crate) code: String,
    /// A sentence for people.
    pub(crate) message: String,
}

impl Client {
    /// Connects to the daemon of a home; `None` if none is running.
    pub(crate) fn connect(home: &Home) -> io::Result<Option<Client>> {
        let stream = match socket::short(&home.control(), |path| UnixStream::connect(path)) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            stream => stream?,
        };
        stream.set_read_timeout(Some(GREETING_TIMEOUT))?;
        let mut client = Client { stream: BufReader::new(stream) };
        let greeting = match client.read() {
            // A daemon that ends just now says nothing any more.
            Ok(None) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
            greeting => greeting?.unwrap_or_default(),
        };
        if let Some(said) = greeting["message"].as_str() {
            return Err(io::Error::other(said.to_owned()));
        }
        if greeting["service"] != super::SERVICE || greeting["protocol"] != super::PROTOCOL {
            return Err(io::Error::other("another program, or another version of this one, answers there"));
        }
        client.stream.get_ref().set_read_timeout(None)?;
        Ok(Some(client))
    }

    /// Sends a request and waits for its reply.
    pub(crate) fn ask(&mut self, request: &Value) -> Result<Value, Refusal> {
        let lost = |error: io::Error| Refusal {
            code: "lost".into(),
            message: format!("The daemon went away: {error}. Its log may say why: clearskies logcat"),
        };
        let line = format!("{request}\n");
        self.stream.get_mut().write_all(line.as_bytes()).map_err(lost)?;
        let reply = self.read().map_err(lost)?;
        let reply = reply.ok_or_else(|| lost(ErrorKind::UnexpectedEof.into()))?;
        match reply["error"].as_str() {
            None => Ok(reply),
            Some(code) => Err(Refusal {
                code: code.into(),
                message: reply["message"].as_str().unwrap_or(code).to_owned(),
            }),
        }
    }

    /// Waits until the daemon closes the connection.
    pub(crate) fn wait_for_end(mut self, at_most: Duration) {
        let _ = self.stream.get_ref().set_read_timeout(Some(at_most));
        let _ = io::copy(&mut self.stream, &mut io::sink());
    }

    /// Reads one line; `None` at the end.
    fn read(&mut self) -> io::Result<Option<Value>> {
        let mut line = Vec::new();
        let n = (&mut self.stream).take(REPLY_BYTES_MAX).read_until(b'\n', &mut line)?;
        if n == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&line)?))
    }
}
