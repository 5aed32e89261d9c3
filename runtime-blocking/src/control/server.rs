//! Serving the control socket inside the driver's loop: lines in, lines out, each client's requests one after another.
//! Never decides what a request means: it gives the engine its commands, and answers what concerns the daemon alone.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use clearskies_core::engine::Engine;
use clearskies_core::engine::command::{CommandError, Reply};
use clearskies_core::ids::CommandId;
use clearskies_core::time::Now;
use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use serde_json::Value;

use super::reply;
use super::request::{self, Request, Shape};
use super::socket;
use crate::daemon::home::Home;

/// Clients at once; with the listener's own number all fit below the connections' tokens.
const CLIENTS_MAX: usize = 256;
/// Bytes of a request, without its line end.
const LINE_BYTES_MAX: usize = 1024 * 1024;
/// Requests of one client that wait for their reply before more are read.
const PIPELINE_MAX: usize = 64;
/// Bytes of replies that a client has not taken before more of its requests are read.
const UNSENT_BYTES_MAX: usize = 1024 * 1024;
/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;
/// How long the last replies may take when the node ends.
const LAST_WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// Names one request: its client, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asker {
    client: u64,
    number: u64,
}

/// What the engine does not know of the node.
#[derive(Debug)]
pub(crate) struct Here<'a> {
    /// The TCP port.
    pub(crate) port: u16,
    /// The machine's addresses.
    pub(crate) addrs: &'a [(IpAddr, u8)],
    /// Whether peers are sought on the local network.
    pub(crate) lan: bool,
}

/// What came of carrying out requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// There were none.
    Nothing,
    /// They were carried out or handed to the engine.
    Some,
    /// The same, and one of them asked the node to stop.
    Stop,
}

/// A reply that is due.
#[derive(Debug)]
enum Slot {
    /// The request waits until all before it were answered: what it asks for may depend on what they did.
    Queued(Request),
    /// The request was handed out.
    Asked,
    /// The engine carries the request out.
    Waiting(Shape),
    /// The line to be sent.
    Ready(String),
}

/// The control socket and its clients.
#[derive(Debug)]
pub(crate) struct Server {
    listener: UnixListener,
    first: Token,
    home: Home,
    /// By their mio token, counted from the listener's.
    clients: BTreeMap<usize, Client>,
    next_client: u64,
    commands: HashMap<CommandId, Asker>,
    requests: VecDeque<(Asker, Request)>,
}

impl Server {
    /// Opens the socket. Only for who holds the home's lock: what a killed node left is removed.
    pub(crate) fn open(registry: &Registry, home: &Home, token: Token) -> Result<Server, String> {
        let fail = |error: io::Error| {
            format!("{}: the control socket cannot be opened: {error}", home.control().display())
        };
        home.remove_stale_socket().map_err(fail)?;
        let mut listener = socket::short(&home.control(), |path| UnixListener::bind(path)).map_err(fail)?;
        fs::set_permissions(home.control(), fs::Permissions::from_mode(0o600)).map_err(fail)?;
        registry.register(&mut listener, token, Interest::READABLE).map_err(fail)?;
        Ok(Server {
            listener,
            first: token,
            home: home.clone(),
            clients: BTreeMap::new(),
            next_client: 0,
            commands: HashMap::new(),
            requests: VecDeque::new(),
        })
    }

    /// Readiness of the listener (number 0) or of a client.
    pub(crate) fn ready(&mut self, registry: &Registry, number: usize, event: &mio::event::Event) {
        if number == 0 {
            return self.accept(registry);
        }
        if let Some(client) = self.clients.get_mut(&number) {
            client.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
            client.writable |= event.is_writable();
            self.advance(number);
        }
    }

    /// Carries out all requests that came in.
    pub(crate) fn carry_out(&mut self, engine: &mut Engine, now: Now, here: &Here<'_>) -> Served {
        let mut served = Served::Nothing;
        while let Some((asker, request)) = self.requests.pop_front() {
            if served == Served::Nothing {
                served = Served::Some;
            }
            let result = match request {
                Request::Engine { command, shape } => {
                    let command = engine.handle_command(now, command);
                    self.fill(asker, Slot::Waiting(shape));
                    self.commands.insert(command, asker);
                    continue;
                }
                Request::Stop => {
                    served = Served::Stop;
                    Ok(reply::done())
                }
                Request::Address => Ok(reply::address(here.port, here.addrs, here.lan)),
                Request::ReadListenPort => Ok(reply::port(here.port)),
                Request::WriteListenPort(port) => {
                    self.home.write_port(port).map(|()| reply::done()).map_err(|error| CommandError {
                        code: "io",
                        message: format!("the port cannot be remembered: {error}"),
                    })
                }
            };
            self.answer(asker, result);
        }
        served
    }

    /// A request was answered at once.
    fn answer(&mut self, asker: Asker, result: Result<Value, CommandError>) {
        let line = match result {
            Ok(value) => value.to_string(),
            Err(error) => reply::error(&error).to_string(),
        };
        self.fill(asker, Slot::Ready(line));
    }

    /// A command of the engine ended.
    pub(crate) fn done(&mut self, command: CommandId, outcome: Result<Reply, CommandError>) {
        let Some(asker) = self.commands.remove(&command) else { return };
        let Some((_, client)) = self.client(asker.client) else { return };
        let Some(Slot::Waiting(shape)) = client.slot(asker.number) else { return };
        let shape = shape.clone();
        self.answer(asker, outcome.map(|outcome| reply::reply(&shape, outcome)));
    }

    /// Writes out what is ready, waiting a little: the node ends after this.
    pub(crate) fn flush_all(&mut self) {
        for client in std::mem::take(&mut self.clients).into_values() {
            if client.out.is_empty() {
                continue;
            }
            let stream = std::os::unix::net::UnixStream::from(client.stream);
            let _ = stream.set_nonblocking(false);
            let _ = stream.set_write_timeout(Some(LAST_WRITE_TIMEOUT));
            // Who does not take its reply now does not get it.
            let _ = (&stream).write_all(&client.out);
        }
    }

    fn accept(&mut self, registry: &Registry) {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.add(registry, stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return log::warn!("a control client cannot be served: {error}"),
            }
        }
    }

    fn add(&mut self, registry: &Registry, mut stream: UnixStream) {
        let Some(number) = (1..=CLIENTS_MAX).find(|number| !self.clients.contains_key(number)) else {
            // A line fits the buffer of a socket to which nothing was written yet.
            let _ = writeln!(stream, "{}", reply::crowded(CLIENTS_MAX));
            return log::warn!("there are {CLIENTS_MAX} control clients, and no more are served");
        };
        let token = Token(self.first.0 + number);
        if let Err(error) = registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE) {
            return log::warn!("a control client cannot be served: {error}");
        }
        self.next_client += 1;
        let mut client = Client::new(self.next_client, stream);
        client.push_line(&reply::greeting().to_string());
        self.clients.insert(number, client);
        self.advance(number);
    }

    fn client(&mut self, id: u64) -> Option<(usize, &mut Client)> {
        self.clients.iter_mut().find(|(_, client)| client.id == id).map(|(number, client)| (*number, client))
    }

    fn fill(&mut self, asker: Asker, filled: Slot) {
        let Some((number, client)) = self.client(asker.client) else { return };
        if let Some(slot) = client.slot(asker.number) {
            *slot = filled;
            self.advance(number);
        }
    }

    fn advance(&mut self, number: usize) {
        if let Some(client) = self.clients.get_mut(&number)
            && !client.advance(&mut self.requests)
            && let Some(client) = self.clients.remove(&number)
        {
            client.leave(&mut self.requests);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.home.remove_stale_socket() {
            log::warn!("the control socket was not removed: {error}");
        }
    }
}

/// One client.
#[derive(Debug)]
struct Client {
    id: u64,
    stream: UnixStream,
    readable: bool,
    writable: bool,
    /// What was read and is no request yet; up to `searched` it holds no line end.
    input: Vec<u8>,
    searched: usize,
    /// No more requests come.
    ended: bool,
    /// The number of the first slot.
    answered: u64,
    slots: VecDeque<Slot>,
    out: Vec<u8>,
}

impl Client {
    fn new(id: u64, stream: UnixStream) -> Client {
        Client {
            id,
            stream,
            // Neither edge may be lost: both are tried at once.
            readable: true,
            writable: true,
            input: Vec::new(),
            searched: 0,
            ended: false,
            answered: 0,
            slots: VecDeque::new(),
            out: Vec::new(),
        }
    }

    fn slot(&mut self, number: u64) -> Option<&mut Slot> {
        let place = usize::try_from(number.checked_sub(self.answered)?).ok()?;
        self.slots.get_mut(place)
    }

    fn push_line(&mut self, line: &str) {
        self.out.extend_from_slice(line.as_bytes());
        self.out.push(b'\n');
    }

    /// Reads and writes what it can; false when the client is done with.
    fn advance(&mut self, requests: &mut VecDeque<(Asker, Request)>) -> bool {
        loop {
            self.take_replies();
            self.hand_out(requests);
            if self.write().is_err() {
                return false;
            }
            if self.slots.len() >= PIPELINE_MAX || self.out.len() >= UNSENT_BYTES_MAX {
                return true;
            }
            if self.take_line() {
                continue;
            }
            if self.ended {
                return !self.slots.is_empty() || !self.out.is_empty();
            }
            if !self.readable {
                return true;
            }
            self.read();
        }
    }

    /// Moves replies into the output, in the order of the requests.
    fn take_replies(&mut self) {
        while let Some(Slot::Ready(_)) = self.slots.front() {
            if let Some(Slot::Ready(line)) = self.slots.pop_front() {
                self.push_line(&line);
            }
            self.answered += 1;
        }
    }

    /// Hands out the request whose turn it is.
    fn hand_out(&mut self, requests: &mut VecDeque<(Asker, Request)>) {
        let asker = Asker { client: self.id, number: self.answered };
        if let Some(first @ Slot::Queued(_)) = self.slots.front_mut()
            && let Slot::Queued(request) = std::mem::replace(first, Slot::Asked)
        {
            requests.push_back((asker, request));
        }
    }

    /// Nobody takes the replies any more; what was asked for is done all the same.
    fn leave(self, requests: &mut VecDeque<(Asker, Request)>) {
        for (number, slot) in (self.answered..).zip(self.slots) {
            if let Slot::Queued(request) = slot {
                requests.push_back((Asker { client: self.id, number }, request));
            }
        }
    }

    /// Takes one request from the input; false if there is no whole one.
    fn take_line(&mut self) -> bool {
        let end = self.input[self.searched..].iter().position(|byte| *byte == b'\n');
        let bytes = end.map_or(self.input.len(), |end| self.searched + end);
        if bytes > LINE_BYTES_MAX {
            self.refuse_line();
            return true;
        }
        if end.is_none() {
            self.searched = bytes;
            return false;
        }
        let line: Vec<u8> = self.input.drain(..=bytes).collect();
        self.searched = 0;
        let line = line.trim_ascii();
        if !line.is_empty() {
            self.slots.push_back(match request::parse(line) {
                Ok(request) => Slot::Queued(request),
                Err(error) => Slot::Ready(reply::error(&error).to_string()),
            });
        }
        true
    }

    /// Nothing can be told apart after a line without end, so it is the last.
    fn refuse_line(&mut self) {
        let message = format!("A request has at most {LINE_BYTES_MAX} bytes.");
        let error = reply::error(&CommandError { code: "too_long", message });
        self.slots.push_back(Slot::Ready(error.to_string()));
        self.input = Vec::new();
        self.searched = 0;
        self.ended = true;
    }

    fn read(&mut self) {
        let mut buffer = [0; READ_BYTES];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.ended = true,
            Ok(n) => self.input.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => self.ended = true,
        }
    }

    fn write(&mut self) -> io::Result<()> {
        while self.writable && !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => drop(self.out.drain(..n)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client with no driver: what it asks for is in the queue.
    fn client() -> (Client, std::os::unix::net::UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let theirs = std::os::unix::net::UnixStream::from(theirs);
        theirs.set_nonblocking(false).unwrap();
        (Client::new(1, ours), theirs)
    }

    #[test]
    fn requests_are_carried_out_and_answered_in_their_order() {
        let (mut client, mut peer) = client();
        let mut requests = VecDeque::new();
        let mut turn = |client: &mut Client| {
            let alive = client.advance(&mut requests);
            let numbers: Vec<u64> = requests.drain(..).map(|(asker, _)| asker.number).collect();
            (alive, numbers)
        };
        peer.write_all(b"{\"type\":\"pause\"}\n{\"type\":\"address\"}\n\n{\"type\":\"x\"}\n{\"type\":")
            .unwrap();
        assert_eq!(turn(&mut client), (true, vec![0]));
        assert_eq!(turn(&mut client), (true, vec![]), "the second waits for the first");
        assert!(client.out.is_empty() && client.slots.len() == 3);
        *client.slot(0).unwrap() = Slot::Ready("first".into());
        assert_eq!(turn(&mut client), (true, vec![1]));
        *client.slot(1).unwrap() = Slot::Ready("second".into());
        client.readable = true;
        peer.write_all(b"\"peers\"}\n").unwrap();
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(turn(&mut client), (true, vec![3]), "one reply is still due");
        *client.slot(3).unwrap() = Slot::Ready("fourth".into());
        assert_eq!(turn(&mut client), (false, vec![]), "all is said, and no more will come");
        drop(client);
        let mut said = String::new();
        peer.read_to_string(&mut said).unwrap();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[..2], ["first", "second"]);
        assert!(lines[2].contains("not_understood"));
        assert_eq!(lines[3..], ["fourth"]);
    }

    #[test]
    fn what_a_client_that_went_away_asked_for_is_done() {
        let (mut client, mut peer) = client();
        let mut requests = VecDeque::new();
        peer.write_all(b"{\"type\":\"pause\"}\n{\"type\":\"resume\"}\n{\"type\":\"peers\"}\n").unwrap();
        assert!(client.advance(&mut requests));
        drop(peer);
        *client.slot(0).unwrap() = Slot::Ready("first".into());
        client.readable = true;
        while client.advance(&mut requests) {
            std::thread::yield_now();
        }
        client.leave(&mut requests);
        assert_eq!(requests.iter().map(|(asker, _)| asker.number).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn a_line_may_have_the_limit_and_not_one_byte_more() {
        for (bytes, fits) in [(LINE_BYTES_MAX, true), (LINE_BYTES_MAX + 1, false)] {
            let (mut client, mut peer) = client();
            let mut requests = VecDeque::new();
            let writer = std::thread::spawn(move || {
                let mut line = b"{\"type\":\"peers\"}".to_vec();
                line.resize(bytes, b' ');
                line.push(b'\n');
                let _ = peer.write_all(&line);
            });
            while requests.is_empty() && client.advance(&mut requests) {
                client.readable = true;
                std::thread::yield_now();
            }
            assert_eq!(requests.len() == 1, fits);
            drop(client);
            writer.join().unwrap();
        }
    }

    #[test]
    fn a_client_that_gets_no_replies_is_not_read_for_ever() {
        let (mut client, mut peer) = client();
        let mut requests = VecDeque::new();
        peer.write_all(&b"{\"type\":\"peers\"}\n".repeat(PIPELINE_MAX + 1)).unwrap();
        assert!(client.advance(&mut requests));
        assert_eq!((client.slots.len(), client.answered), (PIPELINE_MAX, 0));
        *client.slot(0).unwrap() = Slot::Ready("first".into());
        assert!(client.advance(&mut requests));
        assert_eq!((client.slots.len(), client.answered), (PIPELINE_MAX, 1));
    }
}
