//! JSON as the protocol allows it (protocol §4): a strict check that runs before anything else reads a body, a cursor
//! over bodies that passed it, and the few writers that messages need. Keeps nothing and builds no tree.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use data_encoding::HEXLOWER;

use crate::error::Malformed;

/// How deep arrays and objects may stand in each other, the outermost being 1 (protocol §4).
pub const DEPTH_MAX: u32 = 32;

/// The longest JSON text that is looked at, in bytes (protocol §4: a body's limit).
pub const TEXT_MAX: usize = 16_777_216;

/// Checks that `text` is one JSON value by all rules of protocol §4: UTF-8, no member name twice in one
/// object, integers
/// without fraction or exponent and within −2^63..2^64−1, no lone surrogates, depth at most [`DEPTH_MAX`].
///
/// One pass; nothing is allocated unless a name is escaped or more than [`NAMES_INLINE`] names are open at once. A
/// negative zero is refused, because common parsers make a fraction of it.
pub fn check(text: &[u8]) -> Result<(), Malformed> {
    check_within(text, 0)
}

/// As [`check`], of a text that is to stand in `depth` arrays and objects of another.
pub(crate) fn check_within(text: &[u8], depth: u32) -> Result<(), Malformed> {
    if text.len() > TEXT_MAX {
        return Err(Malformed("a text above 16 MiB"));
    }
    if core::str::from_utf8(text).is_err() {
        return Err(Malformed("text that is not UTF-8"));
    }
    let mut check = Check { text, at: 0, depth, names: Names::new() };
    check.space();
    check.value()?;
    check.space();
    if check.at == text.len() { Ok(()) } else { Err(Malformed("something after the JSON value")) }
}

/// Names of open objects that are kept without allocating.
pub const NAMES_INLINE: usize = 32;

/// Up to so many names of one object are compared each with each; more are sorted first.
const PAIRWISE_MAX: usize = 16;

/// Where a member's name stands in the text, without its quotes. The text is at most [`TEXT_MAX`] long, so 32
/// bits hold it.
#[derive(Clone, Copy, Default)]
struct Name {
    start: u32,
    end: u32,
    escaped: bool,
}

impl Name {
    fn raw<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        &text[self.start as usize..self.end as usize]
    }
}

/// A stack of the names of all open objects: on the machine's stack while it is small.
struct Names {
    inline: [Name; NAMES_INLINE],
    len: usize,
    heap: Vec<Name>,
}

impl Names {
    fn new() -> Names {
        Names { inline: [Name::default(); NAMES_INLINE], len: 0, heap: Vec::new() }
    }

    fn len(&self) -> usize {
        if self.heap.is_empty() { self.len } else { self.heap.len() }
    }

    fn push(&mut self, name: Name) {
        if self.heap.is_empty() {
            if let Some(free) = self.inline.get_mut(self.len) {
                *free = name;
                self.len += 1;
                return;
            }
            self.heap.extend_from_slice(&self.inline);
        }
        self.heap.push(name);
    }

    fn from(&mut self, base: usize) -> &mut [Name] {
        if self.heap.is_empty() { &mut self.inline[base..self.len] } else { &mut self.heap[base..] }
    }

    fn truncate(&mut self, base: usize) {
        if self.heap.is_empty() {
            self.len = base;
        } else {
            self.heap.truncate(base);
            // Once empty it counts as unused again.
            self.len = 0;
            if base > 0 && base <= NAMES_INLINE {
                self.inline[..base].copy_from_slice(&self.heap);
                self.len = base;
                self.heap.clear();
            }
        }
    }
}

struct Check<'a> {
    text: &'a [u8],
    at: usize,
    depth: u32,
    names: Names,
}

impl Check<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8, fault: &'static str) -> Result<(), Malformed> {
        if self.peek() != Some(byte) {
            return Err(Malformed(fault));
        }
        self.at += 1;
        Ok(())
    }

    fn value(&mut self) -> Result<(), Malformed> {
        match self.peek() {
            Some(b'"') => self.string().map(|_| ()),
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'-' | b'0'..=b'9') => self.integer(),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            _ => Err(Malformed("something that is no JSON value")),
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Malformed> {
        if !self.text[self.at..].starts_with(word) {
            return Err(Malformed("something that is no JSON value"));
        }
        self.at += word.len();
        Ok(())
    }

    /// Reads what stands between brackets; the caller saw the opening one.
    fn nested(&mut self, inner: fn(&mut Self) -> Result<(), Malformed>) -> Result<(), Malformed> {
        if self.depth == DEPTH_MAX {
            return Err(Malformed("JSON deeper than 32"));
        }
        self.depth += 1;
        self.at += 1;
        self.space();
        inner(self)?;
        self.depth -= 1;
        Ok(())
    }

    fn array(&mut self) -> Result<(), Malformed> {
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value()?;
            self.space();
            if self.peek() == Some(b',') {
                self.at += 1;
                self.space();
            } else {
                return self.eat(b']', "a JSON array that is not closed");
            }
        }
    }

    fn object(&mut self) -> Result<(), Malformed> {
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        let base = self.names.len();
        loop {
            let start = self.at as u32 + 1;
            let escaped = self.string()?;
            self.names.push(Name { start, end: self.at as u32 - 1, escaped });
            self.space();
            self.eat(b':', "a JSON member without a colon")?;
            self.space();
            self.value()?;
            self.space();
            if self.peek() == Some(b',') {
                self.at += 1;
                self.space();
            } else {
                self.eat(b'}', "a JSON object that is not closed")?;
                break;
            }
        }
        let doubled = any_twice(self.text, self.names.from(base));
        self.names.truncate(base);
        if doubled { Err(Malformed("a JSON member name twice in one object")) } else { Ok(()) }
    }

    /// Reads a string with its quotes; tells whether it has escapes.
    fn string(&mut self) -> Result<bool, Malformed> {
        self.eat(b'"', "a JSON string that does not begin")?;
        let mut escaped = false;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(0..=0x1f) => return Err(Malformed("a bare control character in a JSON string")),
                Some(_) => self.at += 1,
                None => return Err(Malformed("a JSON string that does not end")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Malformed> {
        match self.text.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => match self.unit()? {
                0xd800..=0xdbff => match self.unit() {
                    Ok(0xdc00..=0xdfff) => Ok(()),
                    _ => Err(Malformed("a lone surrogate in a JSON string")),
                },
                0xdc00..=0xdfff => Err(Malformed("a lone surrogate in a JSON string")),
                _ => Ok(()),
            },
            _ => Err(Malformed("an unknown escape in a JSON string")),
        }
    }

    /// Reads `\uXXXX`.
    fn unit(&mut self) -> Result<u16, Malformed> {
        let fault = Malformed("an unknown escape in a JSON string");
        let Some([b'\\', b'u', hex @ ..]) = self.text.get(self.at..self.at + 6) else { return Err(fault) };
        let mut unit = 0;
        for digit in hex {
            let digit = char::from(*digit).to_digit(16).ok_or(fault)?;
            unit = unit << 4 | digit as u16;
        }
        self.at += 6;
        Ok(unit)
    }

    fn integer(&mut self) -> Result<(), Malformed> {
        let negative = self.peek() == Some(b'-');
        self.at += usize::from(negative);
        let start = self.at;
        let mut value: u64 = 0;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            value = value
                .checked_mul(10)
                .and_then(|v| v.checked_add(u64::from(digit - b'0')))
                .ok_or(Malformed("an integer that 64 bits cannot hold"))?;
            self.at += 1;
        }
        match self.at - start {
            0 => return Err(Malformed("a number without digits")),
            1 => {}
            _ if self.text[start] == b'0' => return Err(Malformed("a number with a leading zero")),
            _ => {}
        }
        if negative && (value == 0 || value > 1 << 63) {
            return Err(Malformed("an integer that 64 bits cannot hold"));
        }
        if matches!(self.peek(), Some(b'.' | b'e' | b'E')) {
            return Err(Malformed("a number with a fraction or an exponent"));
        }
        Ok(())
    }
}

/// Whether two of `names` are equal once their escapes are read. May reorder them.
fn any_twice(text: &[u8], names: &mut [Name]) -> bool {
    if names.iter().any(|name| name.escaped) {
        let mut read: Vec<Cow<'_, str>> =
            names.iter().filter_map(|n| unescape(&text[n.start as usize - 1..n.end as usize + 1])).collect();
        read.sort_unstable();
        return read.windows(2).any(|pair| pair[0] == pair[1]);
    }
    if names.len() <= PAIRWISE_MAX {
        return (1..names.len())
            .any(|i| names[..i].iter().any(|earlier| earlier.raw(text) == names[i].raw(text)));
    }
    names.sort_unstable_by(|a, b| a.raw(text).cmp(b.raw(text)));
    names.windows(2).any(|pair| pair[0].raw(text) == pair[1].raw(text))
}

/// Reads a JSON string with its quotes.
fn unescape(quoted: &[u8]) -> Option<Cow<'_, str>> {
    let [b'"', inner @ .., b'"'] = quoted else { return None };
    if inner.contains(&b'\\') {
        serde_json::from_slice::<String>(quoted).ok().map(Cow::Owned)
    } else {
        core::str::from_utf8(inner).ok().map(Cow::Borrowed)
    }
}

/// A value inside a text that passed [`check`]. Over any other text its answers are arbitrary, but it never panics.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a>(&'a [u8]);

impl<'a> Value<'a> {
    /// The whole of a checked text, without the space around it.
    pub fn of(checked: &'a [u8]) -> Value<'a> {
        Value(checked.trim_ascii())
    }

    /// Its bytes.
    pub fn raw(self) -> &'a [u8] {
        self.0
    }

    /// A string's text.
    pub fn str(self) -> Option<Cow<'a, str>> {
        unescape(self.0)
    }

    /// An integer that is not negative.
    pub fn u64(self) -> Option<u64> {
        core::str::from_utf8(self.0).ok()?.parse().ok()
    }

    /// A string of exactly `2 * N` lowercase hex digits.
    pub fn hex<const N: usize>(self) -> Option<[u8; N]> {
        let [b'"', digits @ .., b'"'] = self.0 else { return None };
        let mut out = [0; N];
        if digits.len() != 2 * N {
            return None;
        }
        HEXLOWER.decode_mut(digits, &mut out).ok()?;
        Some(out)
    }

    /// The members of an object, in their order; nothing for any other value.
    pub fn members(self) -> impl Iterator<Item = (Cow<'a, str>, Value<'a>)> {
        let mut cursor = Cursor::inside(self.0, b'{', b'}');
        core::iter::from_fn(move || {
            let name = unescape(cursor.next()?)?;
            Some((name, Value(cursor.next()?)))
        })
    }

    /// The elements of an array, in their order; nothing for any other value.
    pub fn elements(self) -> impl Iterator<Item = Value<'a>> {
        let mut cursor = Cursor::inside(self.0, b'[', b']');
        core::iter::from_fn(move || cursor.next().map(Value))
    }

    /// Whether this is an array.
    pub fn is_array(self) -> bool {
        self.0.first() == Some(&b'[')
    }

    /// Whether this is an object.
    pub fn is_object(self) -> bool {
        self.0.first() == Some(&b'{')
    }

    /// Whether this is `null`.
    pub fn is_null(self) -> bool {
        self.0 == b"null"
    }
}

/// Walks over values that [`check`] has passed, and over what stands between them.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn inside(text: &'a [u8], open: u8, close: u8) -> Cursor<'a> {
        match text {
            [first, inner @ .., last] if *first == open && *last == close => Cursor(inner),
            _ => Cursor(&[]),
        }
    }

    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.0.iter().position(|b| !matches!(b, b' ' | b'\n' | b'\r' | b'\t' | b',' | b':'))?;
        let text = &self.0[start..];
        let end = match text[0] {
            b'"' => string_end(text),
            b'{' | b'[' => nested_end(text),
            _ => text.iter().position(|b| matches!(b, b' ' | b'\n' | b'\r' | b'\t' | b',' | b':')),
        };
        let (value, rest) = text.split_at(end.unwrap_or(text.len()));
        self.0 = rest;
        Some(value)
    }
}

/// Where the string at the start of `text` ends.
fn string_end(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Where the object or array at the start of `text` ends.
fn nested_end(text: &[u8]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = 0;
    loop {
        match text.get(at)? {
            b'"' => {
                at += string_end(&text[at..])?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
}

/// Checks a message's body: [`check`], an object, and with a string member `type`, which it returns.
pub fn check_body(body: &[u8]) -> Result<Cow<'_, str>, Malformed> {
    check(body)?;
    let body = Value::of(body);
    if !body.is_object() {
        return Err(Malformed("a body that is no object"));
    }
    body.members()
        .find(|(name, _)| name == "type")
        .and_then(|(_, value)| value.str())
        .ok_or(Malformed("a body without a type"))
}

/// Appends `text` as a JSON string, with its quotes.
pub fn write_str(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut plain = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let short = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..=0x1f => b'u',
            _ => continue,
        };
        out.extend_from_slice(&bytes[plain..at]);
        out.extend_from_slice(&[b'\\', short]);
        if short == b'u' {
            out.extend_from_slice(b"00");
            write_hex(&[*byte], out);
        }
        plain = at + 1;
    }
    out.extend_from_slice(&bytes[plain..]);
    out.push(b'"');
}

/// Appends `bytes` as lowercase hex, without quotes.
pub fn write_hex(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + 2 * bytes.len(), 0);
    HEXLOWER.encode_mut(bytes, &mut out[start..]);
}

/// Appends an integer.
pub fn write_u64(mut value: u64, out: &mut Vec<u8>) {
    // 2^64 has 20 decimal digits.
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
