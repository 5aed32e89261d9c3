//! Who is there: the fixed binary messages hello, challenge and proof (protocol §5.3). Learns only whether both sides
//! know one secret; a stranger learns nothing, not even which IDs are served here.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::IpAddr;

use ring::digest::{Context, SHA256};
use ring::{hkdf, hmac};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

pub use crate::club::codebook::hello_tag;
use crate::club::cpace::{self, CpaceInitiator};
use crate::connection::login::{Login, Logins, Method, Role, Secret};
use crate::error::Malformed;
use crate::rng::Rng;

const MAGIC: &[u8; 4] = b"CSKY";
const VERSION: u8 = 2;
const NONCE_LEN: usize = 32;
const PAKE_LEN: usize = 32;
const PROOF_LEN: usize = 32;

/// Magic, version, method, role, tag, nonce: what the PAKE binds of a hello.
const HELLO_BOUND_LEN: usize = 4 + 1 + 1 + 1 + 32 + NONCE_LEN;

/// Role, nonce: what the PAKE binds of a challenge.
const CHALLENGE_BOUND_LEN: usize = 1 + NONCE_LEN;

/// Behind either stands the length of the PAKE bytes.
const LENGTH_LEN: usize = 2;

/// The longest message of these.
const MESSAGE_MAX: usize = HELLO_BOUND_LEN + LENGTH_LEN + PAKE_LEN;

/// What one side sends at most until its greeting or start.
pub(super) const BYTES_MAX: usize = MESSAGE_MAX + PROOF_LEN;

/// Why authentication ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthFault {
    /// The bytes are no message of these.
    Form(Malformed),
    /// The other side does not know the secret.
    WrongProof,
}
/// One side's authentication.
pub(super) struct Auth {
    exporter: [u8; 32],
    stage: Stage,
    /// The message that is arriving. Never longer than [`MESSAGE_MAX`].
    received: Vec<u8>,
}

enum Stage {
    /// The client waits for the challenge to this hello.
    Challenge { login: Box<Login>, hello: Vec<u8>, pake: Option<CpaceInitiator> },
    /// The server waits for a hello.
    Hello,
    /// Either side waits for the other's proof. There is no login where the client named an unknown ID.
    Proof { login: Option<Box<Login>>, proofs: Proofs, own_sent: bool },
    /// Nothing is waited for.
    Over,
}

struct Proofs {
    own: [u8; PROOF_LEN],
    theirs: [u8; PROOF_LEN],
}

impl Auth {
    /// The client's side, and its hello.
    pub(super) fn client(login: Box<Login>, exporter: [u8; 32], rng: &mut Rng) -> (Auth, Vec<u8>) {
        let mut hello = Vec::with_capacity(MESSAGE_MAX);
        hello.extend_from_slice(MAGIC);
        hello.extend_from_slice(&[VERSION, login.method.to_byte(), login.role.to_byte()]);
        hello.extend_from_slice(&hello_tag(&login.id, &exporter));
        hello.extend_from_slice(&rng.bytes::<NONCE_LEN>());
        let mut pake = None;
        if let (Method::Code, Secret::Password(prs)) = (login.method, &login.secret) {
            let (initiator, element) =
                CpaceInitiator::start(prs, &channel_id(&login.id, &exporter), &exporter, rng);
            pake = Some(initiator);
            push_pake(Some(&element), &mut hello);
        } else {
            push_pake(None, &mut hello);
        }
        let stage = Stage::Challenge { login, hello: hello.clone(), pake };
        (Auth { exporter, stage, received: Vec::new() }, hello)
    }

    /// The server's side.
    pub(super) fn server(exporter: [u8; 32]) -> Auth {
        Auth { exporter, stage: Stage::Hello, received: Vec::new() }
    }

    /// Whether this side has shown its proof and waits for the other's.
    pub(super) fn has_sent_proof(&self) -> bool {
        matches!(self.stage, Stage::Proof { own_sent: true, .. })
    }

    /// Takes bytes off the front of `input`, at most the rest of one message, and appends the answer to `out`. Returns
    /// the login once both sides have proven themselves.
    pub(super) fn take(
        &mut self,
        input: &mut &[u8],
        from: IpAddr,
        logins: &mut dyn Logins,
        rng: &mut Rng,
        out: &mut Vec<u8>,
    ) -> Result<Option<Box<Login>>, AuthFault> {
        let wanted = self.wanted()?;
        let (taken, rest) = input.split_at(input.len().min(wanted.saturating_sub(self.received.len())));
        self.received.extend_from_slice(taken);
        *input = rest;
        // The length of the PAKE bytes may just have become known.
        if self.received.len() < self.wanted()? {
            return Ok(None);
        }
        let message = core::mem::take(&mut self.received);
        match core::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Hello => {
                self.stage = answer_hello(&message, &self.exporter, from, logins, rng, out)?;
                Ok(None)
            }
            Stage::Challenge { login, hello, pake } => {
                self.stage =
                    answer_challenge(login, &hello, pake, &message, &self.exporter, from, logins, out)?;
                Ok(None)
            }
            Stage::Proof { login, proofs, own_sent } => {
                let right = bool::from(proofs.theirs[..].ct_eq(&message[..]));
                match login {
                    Some(login) if right => {
                        if !own_sent {
                            out.extend_from_slice(&proofs.own);
                        }
                        Ok(Some(login))
                    }
                    Some(login) => {
                        logins.wrong_proof(&login, from);
                        Err(AuthFault::WrongProof)
                    }
                    None => Err(AuthFault::WrongProof),
                }
            }
            Stage::Over => Err(AuthFault::Form(Malformed("bytes after a failed authentication"))),
        }
    }

    /// The length of the message that is arriving, as far as it can be told, or why it is none.
    fn wanted(&self) -> Result<usize, AuthFault> {
        let form = |text| AuthFault::Form(Malformed(text));
        let (bound, has_pake) = match &self.stage {
            Stage::Hello => {
                let seen = &self.received[..self.received.len().min(MAGIC.len())];
                if !MAGIC.starts_with(seen) {
                    return Err(form("a hello that does not begin with CSKY"));
                }
                match self.received.get(4..7) {
                    None | Some([VERSION, 1, 1]) => (HELLO_BOUND_LEN, false),
                    Some([VERSION, 2, 1 | 2]) => (HELLO_BOUND_LEN, true),
                    Some(_) => return Err(form("a hello of an unknown version, method or role")),
                }
            }
            Stage::Challenge { login, .. } => {
                let role = match login.method {
                    Method::Key => Role::Member,
                    Method::Code => login.role.other(),
                };
                if self.received.first().is_some_and(|byte| *byte != role.to_byte()) {
                    return Err(form("a challenge in the wrong role"));
                }
                (CHALLENGE_BOUND_LEN, login.method == Method::Code)
            }
            Stage::Proof { .. } => return Ok(PROOF_LEN),
            Stage::Over => return Ok(0),
        };
        let head = bound + LENGTH_LEN;
        let Some(length) = self.received.get(bound..head) else { return Ok(head) };
        let expected = if has_pake { PAKE_LEN } else { 0 };
        if length != (expected as u16).to_be_bytes() {
            return Err(form("a PAKE element of the wrong length"));
        }
        Ok(head + expected)
    }
}

/// The server's answer to a whole hello. One that names an unknown ID is answered alike (protocol §5.3).
fn answer_hello(
    hello: &[u8],
    exporter: &[u8; 32],
    from: IpAddr,
    logins: &mut dyn Logins,
    rng: &mut Rng,
    out: &mut Vec<u8>,
) -> Result<Stage, AuthFault> {
    let short = AuthFault::Form(Malformed("a hello that is too short"));
    let (method, role_of_client) = match hello.get(5..7) {
        Some([1, _]) => (Method::Key, Role::Member),
        Some([2, 1]) => (Method::Code, Role::Member),
        Some([2, 2]) => (Method::Code, Role::Joiner),
        _ => return Err(short),
    };
    let tag = hello.get(7..39).and_then(|tag| <&[u8; 32]>::try_from(tag).ok()).ok_or(short)?;
    let role = match method {
        Method::Key => Role::Member,
        Method::Code => role_of_client.other(),
    };
    let login = logins
        .find(method, role_of_client, tag, exporter, from)
        .filter(|login| login.method == method && login.role == role && login.fits_method())
        .map(Box::new);

    let mut challenge = Vec::with_capacity(MESSAGE_MAX);
    challenge.push(role.to_byte());
    challenge.extend_from_slice(&rng.bytes::<NONCE_LEN>());

    // Drawn in any case, so that what is known and what is not take the same path.
    let random: Zeroizing<[u8; 64]> = Zeroizing::new(rng.bytes());
    let (random_id, random_secret) = random.split_first_chunk::<32>().ok_or(short)?;
    let secret: Zeroizing<[u8; 64]>;
    let secret: &[u8] = match method {
        Method::Key => {
            push_pake(None, &mut challenge);
            match login.as_deref().map(|login| &login.secret) {
                Some(Secret::LevelKey(key)) => key,
                _ => random_secret,
            }
        }
        Method::Code => {
            let (prs, id): (&[u8], _) = match login.as_deref() {
                Some(Login { secret: Secret::Password(prs), id, .. }) => (prs, id),
                _ => (random_secret, random_id),
            };
            let ci = channel_id(id, exporter);
            let (ad_a, ad_b) =
                (bound_by(b"A", hello, HELLO_BOUND_LEN), bound_by(b"B", &challenge, CHALLENGE_BOUND_LEN));
            let ya = &hello[hello.len() - PAKE_LEN..];
            // An element that is none is answered by an honest one, and every proof is wrong from then on.
            let (yb, isk) = cpace::respond(prs, &ci, exporter, &ad_b, ya, &ad_a, rng)
                .unwrap_or_else(|| (cpace::honest_element(rng), *random));
            push_pake(Some(&yb), &mut challenge);
            secret = Zeroizing::new(isk);
            &secret[..]
        }
    };
    let (client, server) = prove(secret, exporter, hello, &challenge);
    out.extend_from_slice(&challenge);
    let proofs = Proofs { own: server, theirs: client };
    // The joiner proves itself first, so that its member sees every wrong guess.
    let own_sent = role == Role::Joiner;
    if own_sent {
        out.extend_from_slice(&proofs.own);
    }
    Ok(Stage::Proof { login, proofs, own_sent })
}

/// The client's answer to a whole challenge.
#[allow(clippy::too_many_arguments)]
fn answer_challenge(
    login: Box<Login>,
    hello: &[u8],
    pake: Option<CpaceInitiator>,
    challenge: &[u8],
    exporter: &[u8; 32],
    from: IpAddr,
    logins: &mut dyn Logins,
    out: &mut Vec<u8>,
) -> Result<Stage, AuthFault> {
    let isk: Zeroizing<[u8; 64]>;
    let secret: &[u8] = match (&login.secret, pake) {
        (Secret::LevelKey(key), None) => key,
        (_, Some(pake)) => {
            let (ad_a, ad_b) =
                (bound_by(b"A", hello, HELLO_BOUND_LEN), bound_by(b"B", challenge, CHALLENGE_BOUND_LEN));
            let yb = challenge.get(CHALLENGE_BOUND_LEN + LENGTH_LEN..).unwrap_or_default();
            let Some(output) = pake.finish(&ad_a, yb, &ad_b) else {
                logins.wrong_proof(&login, from);
                return Err(AuthFault::WrongProof);
            };
            isk = Zeroizing::new(output);
            &isk[..]
        }
        (Secret::Password(_), None) => return Err(AuthFault::WrongProof),
    };
    let (client, server) = prove(secret, exporter, hello, challenge);
    let proofs = Proofs { own: client, theirs: server };
    let own_sent = login.method == Method::Key || login.role == Role::Joiner;
    if own_sent {
        out.extend_from_slice(&proofs.own);
    }
    Ok(Stage::Proof { login: Some(login), proofs, own_sent })
}

/// Both proofs of a link: the client's and the server's.
fn prove(
    secret: &[u8],
    exporter: &[u8; 32],
    hello: &[u8],
    challenge: &[u8],
) -> ([u8; PROOF_LEN], [u8; PROOF_LEN]) {
    let mut bound = Vec::new();
    push_lv(hello, &mut bound);
    push_lv(challenge, &mut bound);
    let mut context = Context::new(&SHA256);
    context.update(&bound);
    let transcript: [u8; 32] = digest_of(context);
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, exporter).extract(secret);
    let proof = |info: &[u8]| {
        let info = [info];
        let okm = prk.expand(&info, hmac::HMAC_SHA256).expect("32 bytes are fewer than HKDF can make");
        let mut proof = [0; PROOF_LEN];
        proof.copy_from_slice(hmac::sign(&hmac::Key::from(okm), &transcript).as_ref());
        proof
    };
    (proof(b"clearskies 2 client"), proof(b"clearskies 2 server"))
}

/// CPace's channel identifier.
fn channel_id(access_id: &[u8; 32], exporter: &[u8; 32]) -> Vec<u8> {
    let mut ci = Vec::new();
    push_lv(b"clearskies/2/join", &mut ci);
    push_lv(access_id, &mut ci);
    push_lv(exporter, &mut ci);
    ci
}

/// CPace's associated data of one side: what that side's message says before the PAKE.
fn bound_by(side: &[u8], message: &[u8], bound: usize) -> Vec<u8> {
    let mut data = Vec::new();
    push_lv(side, &mut data);
    push_lv(message.get(..bound).unwrap_or(message), &mut data);
    data
}

/// Appends `bytes` behind their length in LEB128.
fn push_lv(bytes: &[u8], out: &mut Vec<u8>) {
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
}

fn push_pake(element: Option<&[u8; PAKE_LEN]>, out: &mut Vec<u8>) {
    let element: &[u8] = element.map_or(&[], |element| element);
    out.extend_from_slice(&(element.len() as u16).to_be_bytes());
    out.extend_from_slice(element);
}

fn digest_of(context: Context) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    /// Computed apart from this program, from the formulas of protocol §5.3.
    #[test]
    fn known_answers() {
        let (client, server) = prove(&[1; 32], &[2; 32], &[b'h'; 75], &[b'c'; 200]);
        assert_eq!(
            HEXLOWER.encode(&client),
            "0d1c599c334758b2d9ebbdc4febf0de9bcf1dd870a96f1f656a910615e61ee74"
        );
        assert_eq!(
            HEXLOWER.encode(&server),
            "574247f343541018ef4a33a5ea2189f5f577aae7ddf5a6de394656d4bb42481a"
        );
        let tag = hello_tag(&[3; 32], &[2; 32]);
        assert_eq!(HEXLOWER.encode(&tag), "9dfc6dcd3508a0e89e6bdee71d889a2e1edc9cd0825a7b9a2bdb0c8b3a24fc8e");
    }
}
