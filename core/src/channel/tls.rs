//! TLS 1.3 as the protocol wants it (protocol §5.1), through rustls; the only file that names it. Authenticates nobody:
//! its certificate carries no identity, and the connection binds its own proofs to the exporter instead.
//!
//! rustls draws its own randomness from the operating system. It is given no clock.

extern crate std;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use std::io::{BufRead as _, IoSlice, Write as _};

use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{
    ClientConfig, ClientConnection, Connection, DigitallySignedStruct, Error, ServerConfig, ServerConnection,
    SignatureScheme,
};
use zeroize::Zeroizing;

use crate::channel::ChannelFault;
use crate::rng::Rng;

/// The protocol's name in TLS (protocol §5.1).
const ALPN: &[u8] = b"clearskies/2";

/// Names the exporter (RFC 9266).
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// Both sides' settings, and the certificate that this side shows when it accepts. Cheap to clone.
#[derive(Clone)]
pub struct TlsIdentity {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsIdentity(..)")
    }
}

/// An identity that is made when the first link wants it, and not before: its key and its certificate cost time, and a
/// node without shares, or one that is paused, needs neither.
#[derive(Debug)]
pub struct LazyIdentity {
    drawn: Drawn,
    made: Option<TlsIdentity>,
}

impl LazyIdentity {
    /// Draws what a fresh identity follows from. To be called at start and each UTC day, so that its certificate
    /// follows nobody around.
    pub fn draw(rng: &mut Rng) -> LazyIdentity {
        LazyIdentity { drawn: Drawn::new(rng), made: None }
    }

    /// The identity.
    pub fn get(&mut self) -> TlsIdentity {
        let drawn = &self.drawn;
        self.made.get_or_insert_with(|| TlsIdentity::with_alpn(drawn, vec![ALPN.to_vec()])).clone()
    }
}

impl TlsIdentity {
    /// Makes a fresh certificate.
    pub fn new(rng: &mut Rng) -> TlsIdentity {
        LazyIdentity::draw(rng).get()
    }

    fn with_alpn(drawn: &Drawn, alpn: Vec<Vec<u8>>) -> TlsIdentity {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificate = fresh_certificate(drawn);
        TlsIdentity {
            client: Arc::new(client_config(&provider, alpn.clone())),
            server: Arc::new(server_config(&provider, certificate, alpn)),
        }
    }

    pub(super) fn dial(&self, to: IpAddr) -> Result<TlsChannel, ChannelFault> {
        // An address is never sent as a server name.
        let name = ServerName::IpAddress(to.into());
        let client = ClientConnection::new(Arc::clone(&self.client), name).map_err(|e| fault_of(&e))?;
        Ok(TlsChannel::new(Connection::Client(client)))
    }

    pub(super) fn accept(&self) -> Result<TlsChannel, ChannelFault> {
        let server = ServerConnection::new(Arc::clone(&self.server)).map_err(|e| fault_of(&e))?;
        Ok(TlsChannel::new(Connection::Server(server)))
    }
}

/// One end of a TLS link.
#[derive(Debug)]
pub struct TlsChannel {
    tls: Box<Connection>,
    exporter: Option<[u8; 32]>,
    ended: bool,
}

impl TlsChannel {
    fn new(mut tls: Connection) -> TlsChannel {
        // What is given to it is drained at once by `seal`, so the library's own limit would only refuse.
        tls.set_buffer_limit(None);
        TlsChannel { tls: Box::new(tls), exporter: None, ended: false }
    }

    pub(super) fn feed(&mut self, input: &mut &[u8]) -> Result<(), ChannelFault> {
        if self.ended {
            *input = &[];
            return Ok(());
        }
        let taken = self.tls.read_tls(input).map_err(|_| ChannelFault("TLS records out of measure"))?;
        let state = self.tls.process_new_packets().map_err(|e| fault_of(&e))?;
        self.ended = state.peer_has_closed() || taken == 0;
        if self.exporter.is_none() && !self.tls.is_handshaking() {
            if self.tls.alpn_protocol() != Some(ALPN) {
                return Err(ChannelFault("the other side does not speak clearskies/2"));
            }
            let exported = self.tls.export_keying_material([0; 32], EXPORTER_LABEL, None);
            self.exporter = Some(exported.map_err(|e| fault_of(&e))?);
        }
        Ok(())
    }

    pub(super) fn plaintext(&mut self) -> &[u8] {
        // "Nothing yet" is an error to std::io.
        match self.tls.reader().into_first_chunk() {
            Ok(bytes) => bytes,
            Err(_) => &[],
        }
    }

    pub(super) fn consume(&mut self, length: usize) {
        self.tls.reader().consume(length);
    }

    pub(super) fn exporter(&self) -> Option<[u8; 32]> {
        self.exporter
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn flush(&mut self, out: &mut Vec<u8>) {
        // Writing to memory does not fail.
        while self.tls.wants_write() && self.tls.write_tls(out).is_ok_and(|written| written > 0) {}
    }

    pub(super) fn seal(&mut self, parts: &[&[u8]], out: &mut Vec<u8>) -> Result<(), ChannelFault> {
        let fault = ChannelFault("TLS takes nothing more");
        let written = match parts {
            [one] => self.tls.writer().write(one),
            _ => {
                let parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
                self.tls.writer().write_vectored(&parts)
            }
        };
        if written.map_err(|_| fault)? != parts.iter().map(|part| part.len()).sum::<usize>() {
            return Err(fault);
        }
        self.flush(out);
        Ok(())
    }

    pub(super) fn close(&mut self) {
        self.tls.send_close_notify();
    }
}

fn fault_of(error: &Error) -> ChannelFault {
    ChannelFault(match error {
        Error::NoApplicationProtocol => "the other side does not speak clearskies/2",
        Error::PeerIncompatible(_) => "the other side does not speak TLS 1.3 as we do",
        Error::AlertReceived(_) => "the other side refused the TLS handshake",
        Error::InvalidCertificate(_) => "the other side's TLS signature is wrong",
        Error::FailedToGetRandomBytes | Error::FailedToGetCurrentTime => "the system gave no randomness",
        _ => "the other side broke the rules of TLS",
    })
}

fn client_config(provider: &Arc<CryptoProvider>, alpn: Vec<Vec<u8>>) -> ClientConfig {
    let mut config = ClientConfig::builder_with_details(Arc::clone(provider), Arc::new(NoClock))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has suites and groups for TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(SignatureOnly(Arc::clone(provider))))
        .with_no_client_auth();
    config.alpn_protocols = alpn;
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.enable_early_data = false;
    config
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    certificate: CertifiedKey,
    alpn: Vec<Vec<u8>>,
) -> ServerConfig {
    let mut config = ServerConfig::builder_with_details(Arc::clone(provider), Arc::new(NoClock))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has suites and groups for TLS 1.3")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certificate)));
    config.alpn_protocols = alpn;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    config
}

/// The time that rustls is told: none of what it does here depends on it.
#[derive(Debug)]
struct NoClock;

impl TimeProvider for NoClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(core::time::Duration::ZERO))
    }
}

/// Accepts any certificate whose key made the handshake's signature (protocol §5.1).
#[derive(Debug)]
struct SignatureOnly(Arc<CryptoProvider>);

impl ServerCertVerifier for SignatureOnly {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// PKCS#8 version 1 of an Ed25519 key (RFC 8410), up to its seed.
const PKCS8_HEAD: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// The signed part of the certificate up to the serial number: version 3.
const TBS_HEAD: &[u8] = b"\x30\x81\x92\xa0\x03\x02\x01\x02\x02\x08";

/// From behind the serial number to the key: Ed25519, issuer `CN=clearskies`, valid 1970 to 9999, the same subject.
const TBS_MIDDLE: &[u8] = b"\x30\x05\x06\x03\x2b\x65\x70\
    \x30\x15\x31\x13\x30\x11\x06\x03\x55\x04\x03\x0c\x0aclearskies\
    \x30\x20\x17\x0d700101000000Z\x18\x0f99991231235959Z\
    \x30\x15\x31\x13\x30\x11\x06\x03\x55\x04\x03\x0c\x0aclearskies\
    \x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// Between the signed part and the signature.
const SIGNATURE_HEAD: &[u8] = b"\x30\x05\x06\x03\x2b\x65\x70\x03\x41\x00";

/// What a certificate follows from.
struct Drawn {
    pkcs8: Zeroizing<Vec<u8>>,
    serial: [u8; 8],
}

impl fmt::Debug for Drawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Drawn(..)")
    }
}

impl Drawn {
    fn new(rng: &mut Rng) -> Drawn {
        let mut pkcs8 = Zeroizing::new([PKCS8_HEAD, [0; 16], [0; 16]].concat());
        rng.fill(&mut pkcs8[PKCS8_HEAD.len()..]);
        Drawn { pkcs8, serial: rng.bytes() }
    }
}

/// Makes a key and a self-signed certificate of it: one fixed form, so that nothing but the key and the random serial
/// number differs between any two.
fn fresh_certificate(drawn: &Drawn) -> CertifiedKey {
    let (pkcs8, mut serial) = (&drawn.pkcs8, drawn.serial);
    let seed = &pkcs8[PKCS8_HEAD.len()..];
    let key = Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are a seed");
    // Positive, and as short as its length says.
    serial[0] = serial[0] & 0x7f | 0x40;
    let tbs = [TBS_HEAD, &serial, TBS_MIDDLE, key.public_key().as_ref()].concat();
    let signature = key.sign(&tbs);
    let inside = [&tbs, SIGNATURE_HEAD, signature.as_ref()].concat();
    let mut der = vec![0x30, 0x81, inside.len() as u8];
    der.extend_from_slice(&inside);
    let signing = rustls::crypto::ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(&pkcs8[..]))
        .expect("the template is an Ed25519 key");
    CertifiedKey::new(vec![CertificateDer::from(der)], signing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::HandshakeKind;

    const TO: IpAddr = IpAddr::V4(core::net::Ipv4Addr::LOCALHOST);

    fn identity(seed: u8, alpn: Vec<Vec<u8>>) -> TlsIdentity {
        TlsIdentity::with_alpn(&Drawn::new(&mut Rng::from_seed([seed; 32])), alpn)
    }

    fn handshake(client: &mut TlsChannel, server: &mut TlsChannel) -> Result<(), ChannelFault> {
        for _ in 0..6 {
            let mut bytes = Vec::new();
            client.flush(&mut bytes);
            let mut input = &bytes[..];
            while !input.is_empty() {
                server.feed(&mut input)?;
            }
            bytes.clear();
            server.flush(&mut bytes);
            let mut input = &bytes[..];
            while !input.is_empty() {
                client.feed(&mut input)?;
            }
        }
        Ok(())
    }

    #[test]
    fn full_handshakes_without_tickets() {
        let here = identity(1, vec![ALPN.to_vec()]);
        for _ in 0..2 {
            let (mut client, mut server) = (here.dial(TO).unwrap(), here.accept().unwrap());
            handshake(&mut client, &mut server).unwrap();
            assert!(client.exporter().is_some());
            assert_eq!(client.exporter(), server.exporter());
            assert_eq!(client.tls.handshake_kind(), Some(HandshakeKind::Full));
            assert_eq!(client.tls.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
            let Connection::Client(tls) = &*client.tls else { panic!() };
            assert_eq!(tls.tls13_tickets_received(), 0);
            let Connection::Server(tls) = &*server.tls else { panic!() };
            assert_eq!(tls.server_name(), None);
        }
    }

    #[test]
    fn both_sides_insist_on_the_protocol() {
        let (good, none) = (identity(1, vec![ALPN.to_vec()]), identity(2, vec![]));
        let other = identity(3, vec![b"h2".to_vec()]);
        for (client, server) in
            [(&good, &none), (&none, &good), (&good, &other), (&other, &good), (&none, &none)]
        {
            let (mut client, mut server) = (client.dial(TO).unwrap(), server.accept().unwrap());
            assert!(handshake(&mut client, &mut server).is_err());
            assert!(client.exporter().is_none() || server.exporter().is_none());
        }
    }

    #[test]
    fn a_certificate_of_another_key_is_refused() {
        let mut rng = Rng::from_seed([4; 32]);
        let (first, second) =
            (fresh_certificate(&Drawn::new(&mut rng)), fresh_certificate(&Drawn::new(&mut rng)));
        assert_ne!(first.cert, second.cert);
        let mixed = CertifiedKey::new(first.cert, second.key);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let alpn = vec![ALPN.to_vec()];
        let bad = TlsIdentity {
            client: Arc::new(client_config(&provider, alpn.clone())),
            server: Arc::new(server_config(&provider, mixed, alpn)),
        };
        let (mut client, mut server) = (bad.dial(TO).unwrap(), bad.accept().unwrap());
        assert!(handshake(&mut client, &mut server).is_err());
        assert!(client.exporter().is_none());
    }

    #[test]
    fn identities_follow_from_the_seed() {
        let certificate = |seed| fresh_certificate(&Drawn::new(&mut Rng::from_seed([seed; 32]))).cert;
        assert_eq!(certificate(1), certificate(1));
        assert_ne!(certificate(1), certificate(2));
    }
}
