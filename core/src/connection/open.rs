//! Greeting and start: what each side says of itself once the secret is proven, and how it is judged (protocol §5.4).

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use ring::digest::{SHA256, digest};

use crate::club::identity::verify;
use crate::club::level::Level;
use crate::connection::login::{Login, Method};
use crate::connection::{ConnConfig, Ready};
use crate::ids::PeerId;
use crate::time::Now;
use crate::wire::core_msgs::Opening;

const PEER_LABEL: &[u8] = b"clearskies 2 peer";
const WRITER_LABEL: &[u8] = b"clearskies 2 writer";

/// A peer whose opening was found right.
pub(super) struct Peer {
    pub(super) ready: Ready,
    /// A writer proof that needs a key which this side does not know yet.
    pub(super) unchecked_writer: Option<[u8; 64]>,
}

/// What is wrong with an opening.
pub(super) enum OpenFault {
    Protocol(&'static str),
    Auth(&'static str),
    Loopback,
    CopiedHome { name: Option<String> },
}

/// What this side says of itself.
pub(super) fn ours(
    login: &Login,
    config: &ConnConfig,
    extensions: Vec<String>,
    is_client: bool,
    exporter: &[u8; 32],
    now: Now,
) -> Opening {
    let named = login.level != Level::Untrusted && !config.name.is_empty();
    let writer = login.writer.as_ref().filter(|_| login.level < Level::ReadWrite);
    let transport = &config.transport;
    let (peer, ours) = (login.keys.public(), bound(PEER_LABEL, is_client, exporter));
    Opening {
        software: config.software.clone(),
        name: named.then(|| config.name.clone()),
        speaks_protocol: true,
        extensions,
        peer: login.keys.id(),
        peer_key: peer,
        peer_proof: transport.sign(&peer, &ours, |message| login.keys.sign(message)),
        writer: writer.map(|key| key.sign(&bound(WRITER_LABEL, is_client, exporter))),
        run: login.run,
        time: now.wall,
    }
}

/// Judges what the other side says of itself. `is_client` tells which side *we* are.
pub(super) fn judge(
    theirs: Opening,
    login: &Login,
    config: &ConnConfig,
    is_client: bool,
    exporter: &[u8; 32],
) -> Result<Peer, OpenFault> {
    if !theirs.speaks_protocol {
        return Err(OpenFault::Protocol("no protocol version in common"));
    }
    let hash = digest(&SHA256, &theirs.peer_key);
    if PeerId::from_slice(&hash.as_ref()[..PeerId::LEN]) != Some(theirs.peer) {
        return Err(OpenFault::Auth("a peer ID that is not that of its key"));
    }
    let proven = bound(PEER_LABEL, !is_client, exporter);
    if !config.transport.verify(&theirs.peer_key, &proven, &theirs.peer_proof) {
        return Err(OpenFault::Auth("a wrong peer proof"));
    }
    let (mut writer, mut unchecked_writer) = (login.level == Level::ReadWrite, None);
    if let (false, Some(proof)) = (writer, theirs.writer) {
        match &login.writer_public {
            Some(public) if verify_writer(public, &proof, !is_client, exporter) => writer = true,
            Some(_) => return Err(OpenFault::Auth("a wrong writer proof")),
            None => unchecked_writer = Some(proof),
        }
    }
    let name = theirs.name.filter(|_| login.level != Level::Untrusted);
    if theirs.peer == login.keys.id() {
        let same_run = theirs.run == login.run;
        return Err(if same_run { OpenFault::Loopback } else { OpenFault::CopiedHome { name } });
    }
    let extensions =
        config.extensions.iter().filter(|ours| theirs.extensions.contains(ours)).map(String::to_owned);
    Ok(Peer {
        ready: Ready {
            club: login.club,
            level: login.level,
            method: login.method,
            role: login.role,
            code: login.code.filter(|_| login.method == Method::Code),
            peer: theirs.peer,
            peer_public: theirs.peer_key,
            name,
            software: theirs.software,
            run: theirs.run,
            remote_time: theirs.time,
            writer,
            extensions: extensions.collect(),
        },
        unchecked_writer,
    })
}

/// Whether `proof` shows that the client, or the server, of this link holds the private half of `public`.
pub(super) fn verify_writer(
    public: &[u8; 32],
    proof: &[u8; 64],
    by_client: bool,
    exporter: &[u8; 32],
) -> bool {
    verify(public, &bound(WRITER_LABEL, by_client, exporter), proof)
}

fn bound(label: &[u8], by_client: bool, exporter: &[u8; 32]) -> Vec<u8> {
    [label, &[if by_client { 1 } else { 2 }], exporter].concat()
}
