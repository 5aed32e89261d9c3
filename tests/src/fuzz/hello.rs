//! Authentication (protocol §5.3): strangers who say anything to either role, and somebody between two honest sides.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use clearskies_core::channel::{Channel, Transport};
use clearskies_core::club::identity::PeerKeys;
use clearskies_core::club::level::Level;
use clearskies_core::connection::auth::hello_tag;
use clearskies_core::connection::login::{Login, Logins, Method, Role, Secret};
use clearskies_core::connection::pack::Deflating;
use clearskies_core::connection::reason::CloseReason;
use clearskies_core::connection::{
    ConnConfig, ConnEvent, Connection, HANDSHAKE_TIMEOUT, PING_TIMEOUT_DEFAULT, Ready, TLS_HANDSHAKE_MAX,
    UNREADY_MAX,
};
use clearskies_core::ids::{AccessId, RootId};
use clearskies_core::rng::Rng;
use clearskies_core::time::{Instant, Now, WallTime};

use super::choices::Choices;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ID: [u8; 32] = [0x11; 32];
/// What a simulated channel sends first: a length and a nonce.
const NONCE_BYTES: usize = 33;
/// Magic, version, method, role, tag, nonce, and the length of a PAKE element.
const HELLO_BYTES: usize = 4 + 3 + 32 + 32 + 2;
/// Role, nonce, and the length of a PAKE element.
const CHALLENGE_BYTES: usize = 1 + 32 + 2;
const PAKE_BYTES: usize = 32;
const PROOF_BYTES: usize = 32;
/// Bytes that may be on their way at once; whoever is between could double them at each act.
const LINE_BYTES_MAX: usize = 32 << 10;
/// Acts of whoever is between.
const ACTS_MAX: usize = 256;
/// What a stranger may make a side take in before it is ready, and then some.
const FLOOD_BYTES: usize = 2 * (TLS_HANDSHAKE_MAX + 2 * UNREADY_MAX + 17 * 1024);

/// One way to log in: the client's side of it, and what it proves.
#[derive(Clone, Copy)]
struct Way(Method, Role);

const WAYS: [Way; 3] =
    [Way(Method::Key, Role::Member), Way(Method::Code, Role::Member), Way(Method::Code, Role::Joiner)];

/// The first bytes choose the scene, the rest play it.
pub fn hello(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let way = *choices.pick(&WAYS);
    match choices.below(3) {
        0 => stranger_calls(way, choices),
        1 => stranger_answers(way, choices),
        _ => between(way, choices),
    }
}

fn login(way: Way, client: bool) -> Login {
    let Way(method, of_client) = way;
    let role = match (method, client) {
        (Method::Code, false) if of_client == Role::Member => Role::Joiner,
        (Method::Code, false) => Role::Member,
        _ => of_client,
    };
    let seed = if client { 1 } else { 2 };
    Login {
        club: RootId(7),
        level: Level::ReadWrite,
        method,
        role,
        id: ID,
        secret: match method {
            Method::Key => Secret::LevelKey([0x22; 32]),
            Method::Code => Secret::Password(b"password".to_vec()),
        },
        code: (method == Method::Code).then_some(AccessId(ID)),
        keys: Arc::new(PeerKeys::from_seed(&[seed; 32])),
        run: [seed; 16],
        writer: None,
        writer_public: None,
    }
}

struct Book {
    login: Option<Login>,
    wrong: usize,
}

impl Logins for Book {
    fn find(
        &mut self,
        method: Method,
        _: Role,
        tag: &[u8; 32],
        exporter: &[u8; 32],
        _: IpAddr,
    ) -> Option<Login> {
        self.login.clone().filter(|login| login.method == method && hello_tag(&login.id, exporter) == *tag)
    }

    fn wrong_proof(&mut self, _: &Login, _: IpAddr) {
        self.wrong += 1;
    }
}

struct Side {
    connection: Connection,
    book: Book,
    rng: Rng,
    now: Now,
    is_client: bool,
    ready: Option<Box<Ready>>,
    closed: Option<CloseReason>,
    /// All that it sent, and all that it was given.
    sent: Vec<u8>,
    received: Vec<u8>,
}

impl Side {
    fn new(way: Way, client: bool, knows: bool) -> Side {
        let now = Now { mono: Instant(0), wall: WallTime(1_800_000_000_000_000_000) };
        let config = ConnConfig {
            transport: Transport::Plain,
            software: "clearskies-fuzz/0".into(),
            name: "desk".into(),
            extensions: Arc::new([]),
            deflating: Deflating::default(),
            ping_timeout: PING_TIMEOUT_DEFAULT,
        };
        let mut rng = Rng::from_seed([if client { 3 } else { 4 }; 32]);
        let connection = if client {
            Connection::dial(now, HERE, login(way, true), &config, &mut rng)
        } else {
            Connection::accept(now, HERE, &config, &mut rng)
        };
        let connection = connection.expect("a simulated channel always opens");
        let book = Book { login: (knows && !client).then(|| login(way, false)), wrong: 0 };
        Side {
            connection,
            book,
            rng,
            now,
            is_client: client,
            ready: None,
            closed: None,
            sent: Vec::new(),
            received: Vec::new(),
        }
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
        self.connection.handle_received(self.now, bytes, &mut self.book, &mut self.rng);
        self.events();
    }

    fn pass(&mut self, time: Duration) {
        self.now.mono = self.now.mono.plus(time);
        self.connection.handle_timeout(self.now);
        self.events();
    }

    fn events(&mut self) {
        while let Some(event) = self.connection.poll_event() {
            assert!(self.closed.is_none(), "something after the end: {event:?}");
            match event {
                ConnEvent::Ready(ready) => assert!(self.ready.replace(ready).is_none()),
                ConnEvent::Closed(reason) => self.closed = Some(reason),
                ConnEvent::Message(_) | ConnEvent::Payload { .. } => assert!(self.ready.is_some()),
            }
        }
        assert!(self.closed.is_none() || self.connection.is_closed());
    }

    /// What it has to send now.
    fn transmit(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while self.connection.poll_transmit(&mut out, 1 << 16) {}
        self.sent.extend_from_slice(&out);
        out
    }
}

/// Nobody proves anything without the secret, nobody is told whether an ID is known, and nobody sends without end.
fn stranger_calls(way: Way, choices: Choices<'_>) {
    let known = meet(way, Side::new(way, false, true), choices);
    let unknown = meet(way, Side::new(way, false, false), choices);
    assert_eq!(known.sent.len(), unknown.sent.len(), "the answer tells whether the ID is known");
    assert_eq!(known.closed, unknown.closed, "the end tells whether the ID is known");
    assert!(known.book.wrong <= 1 && unknown.book.wrong == 0);
}

fn stranger_answers(way: Way, choices: Choices<'_>) {
    meet(way, Side::new(way, true, true), choices);
}

/// A stranger talks to a side: bytes of its own, and parts of right messages.
fn meet(Way(method, role): Way, mut side: Side, mut choices: Choices<'_>) -> Side {
    let mut rng = Rng::from_seed([9; 32]);
    let stranger = if side.is_client {
        Transport::Plain.accept(&mut rng)
    } else {
        Transport::Plain.dial(HERE, &mut rng)
    };
    let mut stranger = stranger.expect("a simulated channel always opens");
    while !choices.is_empty() {
        let heard = side.transmit();
        feed(&mut stranger, &heard);
        let mut say = Vec::new();
        match choices.below(10) {
            0 => stranger.flush(&mut say),
            1 => {
                let exporter = stranger.exporter().unwrap_or_default();
                let method = if method == Method::Key { 1 } else { 2 };
                let role = if role == Role::Member { 1 } else { 2 };
                say.extend_from_slice(b"CSKY");
                say.extend_from_slice(&[2, method, role]);
                say.extend_from_slice(&hello_tag(&ID, &exporter));
            }
            2 => {
                // A challenge's role: what the client expects of its server.
                let joiner = method == Method::Code && role == Role::Member;
                say.push(if joiner { 2 } else { 1 });
            }
            3 => say.extend_from_slice(&[choices.byte(); 32]),
            4 => say.extend_from_slice(&[0, if method == Method::Key { 0 } else { 32 }]),
            // An element that the side itself has sent.
            5 => say.extend_from_slice(heard.last_chunk::<PAKE_BYTES>().map_or(&[][..], |element| element)),
            6 => side.pass(Duration::from_secs(u64::from(choices.byte()))),
            7 => say.extend_from_slice(br#"m16{"type":"a"}     "#),
            8 => {
                let length = choices.short() % 2048;
                say.resize(length, choices.byte());
            }
            _ => {
                let length = choices.below(64);
                say.extend_from_slice(choices.take(length));
            }
        }
        side.receive(&say);
        assert!(side.ready.is_none(), "a stranger got in");
    }
    let most = NONCE_BYTES + HELLO_BYTES.max(CHALLENGE_BYTES) + PAKE_BYTES + PROOF_BYTES;
    side.transmit();
    assert!(side.sent.len() <= most, "{} bytes for a stranger", side.sent.len());
    if side.closed.is_none() {
        let mut late = HANDSHAKE_TIMEOUT.saturating_sub(side.now.mono.since(Instant(0)));
        late += Duration::from_nanos(1);
        side.pass(late);
        assert!(side.closed.is_some(), "a stranger stays beyond {HANDSHAKE_TIMEOUT:?}");
    }
    assert!(side.received.len() <= FLOOD_BYTES || side.closed.is_some());
    side
}

fn feed(channel: &mut Channel, bytes: &[u8]) {
    let mut input = bytes;
    while !input.is_empty() && channel.feed(&mut input).is_ok() {
        let length = channel.plaintext().len();
        channel.consume(length);
    }
}

/// Who changes what either side says before both have proven themselves is found out by both.
fn between(way: Way, mut choices: Choices<'_>) {
    let mut sides = [Side::new(way, true, true), Side::new(way, false, true)];
    // What is on its way to each side.
    let mut lines = [Vec::new(), Vec::new()];
    let mut acts = 0;
    let mut meddled = false;
    loop {
        for at in 0..2 {
            let said = sides[at].transmit();
            lines[1 - at].extend_from_slice(&said);
        }
        if choices.is_empty() || acts == ACTS_MAX {
            break;
        }
        acts += 1;
        let (act, to) = (choices.below(16), choices.below(2));
        let place = choices.byte();
        let line = &mut lines[to];
        match act {
            0..8 => {
                let some: Vec<u8> = line.drain(..line.len().min(usize::from(place) + 1)).collect();
                sides[to].receive(&some);
                continue;
            }
            8 => {
                let Some(byte) = line.get_mut(usize::from(place)) else { continue };
                *byte ^= 1 << choices.below(8);
            }
            9 if !line.is_empty() => {
                line.remove(usize::from(place) % line.len());
            }
            10 => line.insert(usize::from(place).min(line.len()), choices.byte()),
            // Its own words come back to it.
            11 => {
                let own = sides[to].sent.clone();
                line.splice(0..0, own);
            }
            12 => lines.swap(0, 1),
            13 => {
                sides[to].pass(Duration::from_millis(20 * u64::from(place)));
                continue;
            }
            14 => {
                let twice = line.clone();
                line.extend_from_slice(&twice);
            }
            _ => continue,
        }
        meddled = true;
        lines.iter_mut().for_each(|line| line.truncate(LINE_BYTES_MAX));
    }
    for _ in 0..8 {
        for to in 0..2 {
            let line = std::mem::take(&mut lines[to]);
            sides[to].receive(&line);
            let said = sides[to].transmit();
            lines[1 - to].extend_from_slice(&said);
        }
    }
    let [client, server] = &sides;
    let pake = if way.0 == Method::Code { PAKE_BYTES } else { 0 };
    let hello = NONCE_BYTES + HELLO_BYTES + pake;
    let challenge = NONCE_BYTES + CHALLENGE_BYTES + pake;
    let same = |sent: &Side, received: &Side, length: usize| {
        received.received.get(..length).is_some_and(|bytes| sent.sent.get(..length) == Some(bytes))
    };
    if let Some(ready) = &client.ready {
        assert!(same(client, server, hello) && same(server, client, challenge + PROOF_BYTES));
        assert_eq!(ready.peer, login(way, false).keys.id());
    }
    if let Some(ready) = &server.ready {
        assert!(same(client, server, hello + PROOF_BYTES) && same(server, client, challenge));
        assert_eq!(ready.peer, login(way, true).keys.id());
    }
    let late = sides.iter().any(|side| side.now.mono >= Instant(0).plus(HANDSHAKE_TIMEOUT));
    if !meddled && !late {
        assert!(sides.iter().all(|side| side.ready.is_some() && side.closed.is_none()));
    }
}
