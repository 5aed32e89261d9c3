//! Access codes: short secrets that let a new peer in, and the links that carry them (protocol §3). Reading one needs
//! no network; whether a code is known to anybody is not decided here.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, SocketAddr};

use data_encoding::HEXLOWER;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::club::identity::sha256;
use crate::ids::AccessId;
use crate::rng::Rng;

/// Length of a code in bytes; the first half is the locator, the second the password.
pub const CODE_LEN: usize = 16;
/// Characters of the text form, the check character included.
pub const TEXT_CHARS: usize = 33;
/// The longest code or link that is read, in bytes.
pub const INVITATION_BYTES_MAX: usize = 4096;
/// The most addresses that a link may carry.
pub const INVITATION_ADDRESSES_MAX: usize = 16;
/// The longest host name (RFC 1035).
pub const HOST_BYTES_MAX: usize = 253;

const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// What stands before the code, so that its text form begins with `SYNC`.
const MAGIC: [u8; 4] = [0x96, 0x1A, 0x2F, 0xF3];
const WORD: &str = "SYNC";
const SCHEME: &str = "clearskies:";
const AUTHORITY: &str = "//directory/";

/// An access code.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct AccessCode([u8; CODE_LEN]);

impl AccessCode {
    /// Makes a new code.
    pub fn generate(rng: &mut Rng) -> AccessCode {
        AccessCode(rng.bytes())
    }

    /// The code of these bytes, as the store keeps it.
    pub(crate) fn from_bytes(bytes: [u8; CODE_LEN]) -> AccessCode {
        AccessCode(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8; CODE_LEN] {
        &self.0
    }

    /// Reads a code, or the code of a link, as a person would type it.
    pub fn parse(text: &str) -> Result<AccessCode, CodeError> {
        Ok(Invitation::parse(text)?.code)
    }

    /// The public half, by which members are found.
    pub fn locator(&self) -> [u8; 8] {
        let mut half = [0u8; 8];
        half.copy_from_slice(&self.0[..8]);
        half
    }

    /// The secret half.
    pub fn password(&self) -> Zeroizing<[u8; 8]> {
        let mut half = Zeroizing::new([0u8; 8]);
        half.copy_from_slice(&self.0[8..]);
        half
    }

    /// The hash of the public half, used for discovery and in the hello like a key ID.
    pub fn access_id(&self) -> AccessId {
        AccessId(sha256(&[&self.0[..8]]))
    }

    /// The text form: 33 characters that begin with `SYNC`.
    pub fn to_text(&self) -> String {
        let mut text = String::with_capacity(TEXT_CHARS);
        let mut bits = 0u32;
        let mut held = 0;
        let mut sum = LuhnSum::default();
        for byte in MAGIC.into_iter().chain(self.0) {
            bits = bits << 8 | u32::from(byte);
            held += 8;
            while held >= 5 {
                held -= 5;
                let digit = (bits >> held & 31) as u8;
                sum.push(digit);
                text.push(char::from(ALPHABET[usize::from(digit)]));
            }
        }
        text.push(char::from(ALPHABET[usize::from(sum.check())]));
        text
    }
}

impl PartialEq for AccessCode {
    fn eq(&self, other: &AccessCode) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for AccessCode {}

impl fmt::Debug for AccessCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessCode(..)")
    }
}

/// The running sums of Luhn mod 32, for an even and an odd number of digits to come.
#[derive(Default)]
struct LuhnSum {
    doubled_next: u32,
    single_next: u32,
}

impl LuhnSum {
    fn push(&mut self, digit: u8) {
        let single = u32::from(digit);
        let doubled = 2 * single / 32 + 2 * single % 32;
        // Every further digit turns the parity of those before it.
        let next =
            LuhnSum { doubled_next: self.single_next + single, single_next: self.doubled_next + doubled };
        *self = next;
    }

    /// The check digit of the digits so far: the last of them counts twice.
    fn check(&self) -> u8 {
        ((32 - self.single_next % 32) % 32) as u8
    }
}

/// Why a text is no access code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeError {
    /// It looks like a code, but a character is wrong.
    Typing,
    /// It begins like a code and stops early.
    TooShort {
        /// How many characters are missing.
        missing: usize,
    },
    /// It begins like a code and goes on too long.
    TooLong {
        /// How many characters are too many.
        extra: usize,
    },
    /// It is something else.
    NotACode,
    /// The code is right, but what follows it in the link is damaged.
    Link,
}

impl fmt::Display for CodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CodeError::Typing => {
                f.write_str("There is a typing error in this access code; compare it with the original.")
            }
            CodeError::TooShort { missing } => {
                write!(
                    f,
                    "This access code is too short: {missing} of its {TEXT_CHARS} characters are missing."
                )
            }
            CodeError::TooLong { extra } => {
                write!(
                    f,
                    "This access code is too long: it has {TEXT_CHARS} characters, and here are {extra} more."
                )
            }
            CodeError::NotACode => f.write_str("This is not an access code; one begins with SYNC."),
            CodeError::Link => f.write_str(
                "The link is damaged after its access code; copy it again, or use the code without the rest.",
            ),
        }
    }
}

impl core::error::Error for CodeError {}

/// Where a peer may be, as a person or a link says it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerAddress {
    /// An address that can be dialled.
    Socket(SocketAddr),
    /// A name that the host has to look up first.
    Name {
        /// The name: letters, digits, `-`, `_` and `.`.
        host: String,
        /// The port, not 0.
        port: u16,
    },
}

impl PeerAddress {
    /// Reads `HOST:PORT`, IPv6 in brackets; `None` for anything else.
    pub fn parse(text: &str) -> Option<PeerAddress> {
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return (addr.port() != 0).then_some(PeerAddress::Socket(addr));
        }
        let (host, port) = text.rsplit_once(':')?;
        if port.is_empty() || port.len() > 5 || !port.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
        let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        // What ends in a digit is a broken IPv4 address: no top-level name does.
        let last = *host.as_bytes().last()?;
        if host.len() > HOST_BYTES_MAX || !host.bytes().all(named) || last.is_ascii_digit() {
            return None;
        }
        Some(PeerAddress::Name { host: host.to_string(), port })
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerAddress::Socket(addr) => write!(f, "{addr}"),
            PeerAddress::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// A code with what a link may say besides: where members are, and which club it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// The code.
    pub code: AccessCode,
    /// Where to connect without discovery; at most [`INVITATION_ADDRESSES_MAX`].
    pub addrs: Vec<PeerAddress>,
    /// First 16 bytes of SHA-256 over the club's read_write public key: keys that do not match are refused.
    pub fingerprint: Option<[u8; 16]>,
}

impl Invitation {
    /// Reads a code or a link, as typed or pasted.
    pub fn parse(text: &str) -> Result<Invitation, CodeError> {
        if text.len() > INVITATION_BYTES_MAX {
            return Err(CodeError::NotACode);
        }
        let text = text.trim();
        let (code, query) = match text.split_once('?') {
            Some((code, query)) => (code, Some(query)),
            None => (text, None),
        };
        let mut invitation = Invitation { code: parse_code(code)?, addrs: Vec::new(), fingerprint: None };
        for pair in query.into_iter().flat_map(|query| query.split('&')).filter(|pair| !pair.is_empty()) {
            invitation.take_parameter(pair)?;
        }
        Ok(invitation)
    }

    /// Takes one `name=value`; a name that this version does not know is passed over.
    fn take_parameter(&mut self, pair: &str) -> Result<(), CodeError> {
        let (name, value) = pair.split_once('=').ok_or(CodeError::Link)?;
        match name {
            "a" => {
                let addr =
                    percent_decode(value).as_deref().and_then(PeerAddress::parse).ok_or(CodeError::Link)?;
                if self.addrs.len() == INVITATION_ADDRESSES_MAX {
                    return Err(CodeError::Link);
                }
                self.addrs.push(addr);
            }
            "k" => {
                let bytes = HEXLOWER.decode(value.to_ascii_lowercase().as_bytes()).ok();
                let bytes = bytes.and_then(|bytes| bytes.try_into().ok()).ok_or(CodeError::Link)?;
                if self.fingerprint.replace(bytes).is_some() {
                    return Err(CodeError::Link);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The URL form.
    pub fn to_url(&self) -> String {
        let mut url = String::from(SCHEME);
        url.push_str(AUTHORITY);
        url.push_str(&self.code.to_text());
        let mut mark = '?';
        let mut parameter = |name: &str, value: &str| {
            url.push(mark);
            url.push_str(name);
            url.push_str(value);
            mark = '&';
        };
        for addr in &self.addrs {
            parameter("a=", &without_scope(addr).to_string());
        }
        if let Some(fingerprint) = &self.fingerprint {
            parameter("k=", &HEXLOWER.encode(fingerprint));
        }
        url
    }
}

/// The address without an IPv6 scope, which means nothing on another machine.
fn without_scope(addr: &PeerAddress) -> PeerAddress {
    match addr {
        PeerAddress::Socket(SocketAddr::V6(v6)) => {
            PeerAddress::Socket(SocketAddr::new(IpAddr::V6(*v6.ip()), v6.port()))
        }
        other => other.clone(),
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16).map(|digit| digit as u8);
        bytes.push(if byte == b'%' { digit(rest.next())? << 4 | digit(rest.next())? } else { byte });
    }
    String::from_utf8(bytes).ok()
}

/// Reads the code itself, with or without the scheme in front.
fn parse_code(text: &str) -> Result<AccessCode, CodeError> {
    let mut symbols = Zeroizing::new(String::with_capacity(text.len()));
    for symbol in strip_scheme(text).chars().filter(|symbol| !is_separator(*symbol)) {
        symbols.push(match symbol.to_ascii_uppercase() {
            '0' => 'O',
            '1' => 'L',
            '8' => 'B',
            other => other,
        });
    }
    let count = symbols.chars().count();
    let mut digits = Zeroizing::new([0u8; TEXT_CHARS]);
    let mut strange = false;
    for (digit, symbol) in digits.iter_mut().zip(symbols.bytes()) {
        match ALPHABET.iter().position(|known| *known == symbol) {
            Some(position) => *digit = position as u8,
            None => strange = true,
        }
    }
    strange |= symbols.bytes().skip(TEXT_CHARS).any(|symbol| !ALPHABET.contains(&symbol));
    let begins = symbols.starts_with(WORD);
    match count {
        _ if !begins && (strange || count != TEXT_CHARS) => return Err(CodeError::NotACode),
        _ if strange => return Err(CodeError::Typing),
        0..TEXT_CHARS => return Err(CodeError::TooShort { missing: TEXT_CHARS - count }),
        TEXT_CHARS => {}
        _ => return Err(CodeError::TooLong { extra: count - TEXT_CHARS }),
    }
    let (check, body) = digits.split_last().ok_or(CodeError::NotACode)?;
    let mut sum = LuhnSum::default();
    body.iter().for_each(|digit| sum.push(*digit));
    if sum.check() != *check {
        return Err(CodeError::Typing);
    }
    let mut bytes = Zeroizing::new([0u8; 20]);
    for (five, eight) in bytes.chunks_exact_mut(5).zip(body.chunks_exact(8)) {
        let word = eight.iter().fold(0u64, |word, digit| word << 5 | u64::from(*digit));
        five.copy_from_slice(&word.to_be_bytes()[3..]);
    }
    if bytes[..4] != MAGIC {
        return Err(CodeError::NotACode);
    }
    let mut code = AccessCode([0; CODE_LEN]);
    code.0.copy_from_slice(&bytes[4..]);
    Ok(code)
}

fn strip_scheme(text: &str) -> &str {
    let text = text.trim_start();
    let Some(rest) = strip_prefix_any_case(text, SCHEME) else {
        return text;
    };
    strip_prefix_any_case(rest, AUTHORITY).unwrap_or(rest)
}

fn strip_prefix_any_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

/// Spaces and dashes of every kind: chat programs replace plain ones.
fn is_separator(symbol: char) -> bool {
    symbol.is_whitespace()
        || matches!(symbol, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{200B}' | '\u{FEFF}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec;

    /// The code of the bytes 00 01 … 0f, by an independent calculation.
    const COUNTING: &str = "SYNC74YAAEBAGBAFAYDQQCIKBMGA2DQPP";

    fn counting() -> AccessCode {
        AccessCode(core::array::from_fn(|i| i as u8))
    }

    #[test]
    fn text_form_is_known() {
        assert_eq!(counting().to_text(), COUNTING);
        assert_eq!(COUNTING.len(), TEXT_CHARS);
        assert!(COUNTING.starts_with("SYNC"));
        let magic = [&MAGIC[..], &counting().0].concat();
        assert_eq!(data_encoding::BASE32_NOPAD.encode(&magic), COUNTING[..32]);
    }

    #[test]
    fn access_id_is_the_hash_of_the_first_half() {
        assert_eq!(counting().locator(), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(*counting().password(), [8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!(
            counting().access_id().to_hex(),
            "8a851ff82ee7048ad09ec3847f1ddf44944104d2cbd17ef4e3db22c6785a0d45"
        );
    }

    #[test]
    fn what_is_printed_is_read() {
        let mut rng = Rng::from_seed([2; 32]);
        for _ in 0..200 {
            let code = AccessCode::generate(&mut rng);
            assert_eq!(AccessCode::parse(&code.to_text()), Ok(code));
        }
    }

    #[test]
    fn input_is_forgiving() {
        let spaced: String = COUNTING.chars().flat_map(|c| [c.to_ascii_lowercase(), ' ']).collect();
        let dashed = format!("{}\u{2013}{}-{}", &COUNTING[..4], &COUNTING[4..20], &COUNTING[20..]);
        let likeness = COUNTING.replace('O', "0").replace('L', "1").replace('B', "8");
        assert_ne!(likeness, COUNTING);
        for text in [
            COUNTING.to_string(),
            spaced,
            dashed,
            likeness,
            format!("clearskies:{COUNTING}"),
            format!("ClearSkies://Directory/{COUNTING}"),
            format!("  \u{FEFF}{COUNTING}\n"),
            format!(" clearskies:{COUNTING} "),
        ] {
            assert_eq!(AccessCode::parse(&text), Ok(counting()), "{text}");
        }
    }

    #[test]
    fn every_single_wrong_character_and_most_swaps_are_typing_errors() {
        for place in 0..TEXT_CHARS {
            for other in ALPHABET {
                let mut text = COUNTING.as_bytes().to_vec();
                if core::mem::replace(&mut text[place], *other) == *other {
                    continue;
                }
                let text = String::from_utf8(text).unwrap();
                assert_eq!(AccessCode::parse(&text), Err(CodeError::Typing), "{text}");
            }
        }
        let mut text = COUNTING.as_bytes().to_vec();
        let place = (4..32).find(|i| text[*i] != text[i + 1]).unwrap();
        text.swap(place, place + 1);
        assert_eq!(AccessCode::parse(core::str::from_utf8(&text).unwrap()), Err(CodeError::Typing));
    }

    #[test]
    fn errors_tell_typing_from_length_from_nonsense() {
        use CodeError::*;
        let check = |text: &str, error: CodeError| assert_eq!(AccessCode::parse(text), Err(error), "{text}");
        check(&COUNTING[..32], TooShort { missing: 1 });
        check("sync", TooShort { missing: 29 });
        check(&format!("{COUNTING}A"), TooLong { extra: 1 });
        check(&COUNTING.replace('7', "9"), Typing);
        check(&COUNTING.replace('7', "é"), Typing);
        check("", NotACode);
        check("clearskies:", NotACode);
        check("clearskies://directory/", NotACode);
        check("hello", NotACode);
        check("/home/me/photos", NotACode);
        check("https://example.org/", NotACode);
        check(&"A".repeat(33), NotACode);
        check(&" ".repeat(INVITATION_BYTES_MAX + 1), NotACode);
        let wide = format!("{COUNTING}{}", " ".repeat(INVITATION_BYTES_MAX - TEXT_CHARS));
        assert_eq!(AccessCode::parse(&wide), Ok(counting()));
        for error in [Typing, TooShort { missing: 3 }, TooLong { extra: 3 }, NotACode, Link] {
            assert!(error.to_string().ends_with('.'));
        }
    }

    #[test]
    fn links_carry_addresses_and_the_fingerprint() {
        let invitation = Invitation {
            code: counting(),
            addrs: vec![
                PeerAddress::Socket("192.0.2.7:4000".parse().unwrap()),
                PeerAddress::Socket("[2001:db8::1]:4001".parse().unwrap()),
                PeerAddress::Name { host: "nas.example.org".into(), port: 4002 },
            ],
            fingerprint: Some([0xAB; 16]),
        };
        let url = invitation.to_url();
        assert_eq!(
            url,
            format!(
                "clearskies://directory/{COUNTING}?a=192.0.2.7:4000&a=[2001:db8::1]:4001\
                 &a=nas.example.org:4002&k=abababababababababababababababab"
            )
        );
        assert_eq!(Invitation::parse(&url), Ok(invitation.clone()));
        let escaped = url.replace('[', "%5B").replace(']', "%5d").replace("001:4", "001%3A4") + "&later=1&";
        assert_eq!(Invitation::parse(&escaped), Ok(invitation));
        let bare = Invitation { code: counting(), addrs: Vec::new(), fingerprint: None };
        assert_eq!(bare.to_url(), format!("clearskies://directory/{COUNTING}"));
        assert_eq!(Invitation::parse(COUNTING), Ok(bare));
    }

    #[test]
    fn a_scope_stays_at_home() {
        let local: SocketAddr = "[fe80::1%3]:4000".parse().unwrap();
        let invitation =
            Invitation { code: counting(), addrs: vec![PeerAddress::Socket(local)], fingerprint: None };
        assert!(invitation.to_url().ends_with("?a=[fe80::1]:4000"));
    }

    #[test]
    fn damaged_links_are_refused() {
        for query in [
            "a=",
            "a",
            "a=host",
            "a=host:0",
            "a=host:65536",
            "a=host:+1",
            "a=:1",
            "a=1.2.3:4",
            "a=1.2.3.4:0",
            "a=ho st:1",
            "a=ho%st:1",
            "a=%ff:1",
            "a=%4",
            "k=",
            "k=ab",
            "k=abababababababababababababababa",
            "k=zbababababababababababababababab",
            "k=abababababababababababababababab&k=abababababababababababababababab",
        ] {
            assert_eq!(Invitation::parse(&format!("{COUNTING}?{query}")), Err(CodeError::Link), "{query}");
        }
        let most = vec!["a=h:1"; INVITATION_ADDRESSES_MAX].join("&");
        assert_eq!(Invitation::parse(&format!("{COUNTING}?{most}")).unwrap().addrs.len(), 16);
        assert_eq!(Invitation::parse(&format!("{COUNTING}?{most}&a=h:1")), Err(CodeError::Link));
        let name = "n".repeat(HOST_BYTES_MAX);
        assert!(PeerAddress::parse(&format!("{name}:1")).is_some());
        assert!(PeerAddress::parse(&format!("{name}n:1")).is_none());
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(
            text in "(clearskies:(//directory/)?)?[A-Za-z0-9 \\-–é]{0,40}([?&=%:ak\\[\\]a-f0-9é]{0,20})",
        ) {
            if let Ok(invitation) = Invitation::parse(&text) {
                proptest::prop_assert_eq!(Invitation::parse(&invitation.to_url()), Ok(invitation));
            }
            let _ = Invitation::parse(&format!("{COUNTING}?{text}"));
            let _ = PeerAddress::parse(&text);
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let text = format!("{:?}", Invitation::parse(COUNTING).unwrap());
        assert!(text.contains("AccessCode(..)") && !text.contains("SYNC"));
    }
}
