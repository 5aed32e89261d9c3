//! Access codes and links as people type and paste them (protocol §3).

use clearskies_core::club::code::{
    AccessCode, HOST_BYTES_MAX, INVITATION_ADDRESSES_MAX, INVITATION_BYTES_MAX, Invitation, PeerAddress,
    TEXT_CHARS,
};
use clearskies_core::rng::Rng;

use super::choices::Choices;

const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// What is read is within limits and has one canonical form, and no single typing error makes another code.
pub fn codes(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Invitation::parse(&text) {
        Ok(invitation) => {
            assert!(text.len() <= INVITATION_BYTES_MAX && invitation.addrs.len() <= INVITATION_ADDRESSES_MAX);
            assert_eq!(AccessCode::parse(&text), Ok(invitation.code.clone()));
            holds(&invitation);
        }
        Err(error) => {
            assert!(AccessCode::parse(&text).is_err());
            assert!(!error.to_string().is_empty());
        }
    }
    if let Some(addr) = PeerAddress::parse(&text) {
        address(&addr);
    }
    mistyped(&mut Choices::new(bytes));
}

fn holds(invitation: &Invitation) {
    let code = invitation.code.to_text();
    assert!(code.len() == TEXT_CHARS && code.starts_with("SYNC"), "{code}");
    assert_eq!(AccessCode::parse(&code).as_ref(), Ok(&invitation.code));
    let url = invitation.to_url();
    // What was read of 4096 bytes may take more room in full; then it is not read again.
    if url.len() <= INVITATION_BYTES_MAX {
        let again = Invitation::parse(&url).unwrap_or_else(|error| panic!("{error}: {url}"));
        assert_eq!((&again.code, again.fingerprint), (&invitation.code, invitation.fingerprint));
        assert_eq!(again.addrs.len(), invitation.addrs.len());
        assert_eq!(again.to_url(), url, "two forms of one invitation");
    }
    invitation.addrs.iter().for_each(address);
}

fn address(addr: &PeerAddress) {
    match addr {
        PeerAddress::Socket(addr) => assert_ne!(addr.port(), 0),
        PeerAddress::Name { host, port } => {
            assert!(*port != 0 && !host.is_empty() && host.len() <= HOST_BYTES_MAX);
        }
    }
    let text = addr.to_string();
    let again = PeerAddress::parse(&text).unwrap_or_else(|| panic!("not read again: {text}"));
    assert_eq!(again.to_string(), text);
}

/// A code of which one character is another, or is missing, is refused.
fn mistyped(choices: &mut Choices<'_>) {
    let mut seed = [0; 32];
    seed.iter_mut().for_each(|byte| *byte = choices.byte());
    let code = AccessCode::generate(&mut Rng::from_seed(seed));
    let text = code.to_text();
    let at = choices.below(TEXT_CHARS);
    let other = *choices.pick(ALPHABET);
    let mut wrong = text.clone().into_bytes();
    if wrong[at] != other {
        wrong[at] = other;
        let wrong = String::from_utf8(wrong).expect("letters and digits");
        assert!(AccessCode::parse(&wrong).is_err(), "{wrong} for {text}");
    }
    let mut short = text.clone();
    short.remove(at);
    assert!(AccessCode::parse(&short).is_err(), "{short} for {text}");
    let typed = format!(" clearskies:{}-{}\n", text[..at].to_lowercase(), &text[at..]);
    assert_eq!(AccessCode::parse(&typed), Ok(code));
}
