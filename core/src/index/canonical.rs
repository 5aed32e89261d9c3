//! Values and meta as canonical JSON: members sorted, no white space, one way to write each string. Ties in merging
//! are decided by these bytes, and what an entry does not know is kept in this form. Limits are [`check`]'s.
//!
//! [`check`]: crate::index::check

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::error::Malformed;
use crate::ids::{Sha256, Uuid};
use crate::index::check::{UNIX_MODE_MAX, VALUE_BYTES_MAX};
use crate::index::record::{EntryContent, EntryValue, Meta, Value};
use crate::time::WallTime;
use crate::wire::json::write_str;
use crate::wire::time::{parse_time, write_time};

/// How many values may stand in one JSON text, counting lists and objects too. Each is a byte of text at least, so
/// what holds more is too long for a record; it is refused before it takes memory.
pub(crate) const PARTS_MAX: usize = VALUE_BYTES_MAX;

/// The members of an entry that are known.
pub(crate) const ENTRY_MEMBERS: [&str; 5] = ["size", "sha256", "link", "mtime", "conflict_source"];

/// The members of meta that are known.
pub(crate) const META_MEMBERS: [&str; 2] = ["unix_mode", "mtime"];

impl Value {
    /// Reads any JSON. What has the shape of the directory's values becomes an entry, whatever its key.
    pub fn from_json(json: &[u8]) -> Result<Value, Malformed> {
        serde_json::from_slice::<Tree<'_>>(json).map_err(|_| Malformed("value: not JSON")).map(value_of)
    }
}

impl Meta {
    /// Reads a JSON object, or null for the default.
    pub fn from_json(json: &[u8]) -> Result<Meta, Malformed> {
        meta_of(serde_json::from_slice::<Tree<'_>>(json).map_err(|_| Malformed("meta: not JSON"))?)
    }
}

/// Appends a value. Of an entry the known members come first, sorted, then the unknown ones, sorted.
pub fn write_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Json(json) => out.extend_from_slice(json.as_bytes()),
        Value::Entry(entry) => write_entry(entry, out),
    }
}

fn write_entry(entry: &EntryValue, out: &mut Vec<u8>) {
    out.push(b'{');
    if let Some(source) = entry.conflict_source {
        out.extend_from_slice(b"\"conflict_source\":");
        write_hex(&source.0, out);
        out.push(b',');
    }
    if let EntryContent::Link(target) = &entry.content {
        out.extend_from_slice(b"\"link\":");
        write_str(target, out);
        out.push(b',');
    }
    if let Some(mtime) = entry.mtime {
        out.extend_from_slice(b"\"mtime\":");
        write_quoted_time(mtime, out);
        out.push(b',');
    }
    match &entry.content {
        EntryContent::File { size, sha256 } => {
            out.extend_from_slice(b"\"sha256\":");
            write_hex(&sha256.0, out);
            out.extend_from_slice(b",\"size\":");
            write_int(*size, out);
        }
        EntryContent::Dir | EntryContent::Link(_) => out.extend_from_slice(b"\"sha256\":null,\"size\":null"),
    }
    out.push(b',');
    write_extra(entry.extra.as_deref(), out);
}

/// Appends meta as an object; `{}` for the default.
pub fn write_meta(meta: &Meta, out: &mut Vec<u8>) {
    out.push(b'{');
    if let Some(mtime) = meta.mtime {
        out.extend_from_slice(b"\"mtime\":");
        write_quoted_time(mtime, out);
        out.push(b',');
    }
    if let Some(mode) = meta.unix_mode {
        out.extend_from_slice(b"\"unix_mode\":\"");
        let digits = (32 - mode.leading_zeros()).div_ceil(3).max(1);
        // An octal digit fits a byte.
        out.extend((0..digits).rev().map(|place| b'0' + (mode >> (3 * place) & 7) as u8));
        out.extend_from_slice(b"\",");
    }
    write_extra(meta.extra.as_deref(), out);
}

/// Ends an object, behind a comma or its opening brace, with the members of another.
fn write_extra(extra: Option<&str>, out: &mut Vec<u8>) {
    let members = extra.and_then(|e| e.strip_prefix('{')).unwrap_or("}");
    if members == "}" && out.last() == Some(&b',') {
        out.pop();
    }
    out.extend_from_slice(members.as_bytes());
}

/// Appends lowercase hex with quotes; for at most 32 bytes.
pub(crate) fn write_hex<const N: usize>(bytes: &[u8; N], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    out.extend(bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]));
    out.push(b'"');
}

/// Appends a decimal number.
pub(crate) fn write_int(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        // A decimal digit fits a byte, and 20 of them hold any u64.
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends a time with quotes.
pub(crate) fn write_quoted_time(time: WallTime, out: &mut Vec<u8>) {
    out.push(b'"');
    write_time(time, out);
    out.push(b'"');
}

/// Any JSON as the protocol allows it: no fractions, no member twice. Members are sorted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Tree<'a> {
    #[default]
    Null,
    Bool(bool),
    Unsigned(u64),
    /// Below zero.
    Signed(i64),
    Text(Cow<'a, str>),
    List(Vec<Tree<'a>>),
    Members(Members<'a>),
}

type Members<'a> = Vec<(Cow<'a, str>, Tree<'a>)>;

impl Tree<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Tree::Null => out.extend_from_slice(b"null"),
            Tree::Bool(true) => out.extend_from_slice(b"true"),
            Tree::Bool(false) => out.extend_from_slice(b"false"),
            Tree::Unsigned(n) => write_int(*n, out),
            Tree::Signed(n) => {
                if *n < 0 {
                    out.push(b'-');
                }
                write_int(n.unsigned_abs(), out);
            }
            Tree::Text(text) => write_str(text, out),
            Tree::List(items) => {
                out.push(b'[');
                for (at, item) in items.iter().enumerate() {
                    if at != 0 {
                        out.push(b',');
                    }
                    item.write(out);
                }
                out.push(b']');
            }
            Tree::Members(members) => write_members(members.iter(), out),
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Tree::Text(text) => Some(text),
            _ => None,
        }
    }
}

fn write_members<'m, 'a: 'm>(members: impl Iterator<Item = &'m (Cow<'a, str>, Tree<'a>)>, out: &mut Vec<u8>) {
    out.push(b'{');
    for (at, (name, value)) in members.enumerate() {
        if at != 0 {
            out.push(b',');
        }
        write_str(name, out);
        out.push(b':');
        value.write(out);
    }
    out.push(b'}');
}

/// Canonical text from what `write` appends.
fn boxed(write: impl FnOnce(&mut Vec<u8>)) -> Box<str> {
    let mut out = Vec::new();
    write(&mut out);
    // Every writer of this file appends whole strings and ASCII, so the bytes are UTF-8 already.
    String::from_utf8(out).unwrap_or_default().into_boxed_str()
}

/// The value that the JSON is.
pub(crate) fn value_of(tree: Tree<'_>) -> Value {
    match &tree {
        Tree::Null => return Value::Null,
        Tree::Members(members) => {
            if let Some(entry) = entry_of(members) {
                return Value::Entry(entry);
            }
        }
        _ => {}
    }
    Value::Json(boxed(|out| tree.write(out)))
}

/// The entry that the members are; `None` if they are something else, or an entry of a shape to come.
fn entry_of(members: &Members<'_>) -> Option<EntryValue> {
    let (mut size, mut sha256, mut link, mut known) = (None, None, None, 0);
    let (mut mtime, mut conflict_source) = (None, None);
    for (name, value) in members {
        known += 1;
        match name.as_ref() {
            "size" => size = Some(value),
            "sha256" => sha256 = Some(value),
            "link" => link = Some(value.text()?),
            "mtime" => mtime = Some(parse_time(value.text()?)?),
            "conflict_source" => conflict_source = Some(Uuid::from_hex(value.text()?)?),
            _ => known -= 1,
        }
    }
    let content = match (size?, sha256?, link) {
        (Tree::Null, Tree::Null, None) => EntryContent::Dir,
        (Tree::Null, Tree::Null, Some(target)) => EntryContent::Link(target.into()),
        (Tree::Unsigned(size), Tree::Text(hex), None) => {
            EntryContent::File { size: *size, sha256: Sha256::from_hex(hex)? }
        }
        _ => return None,
    };
    let extra = (known < members.len()).then(|| extra_of(members, &ENTRY_MEMBERS));
    Some(EntryValue { content, mtime, conflict_source, extra })
}

/// The meta that the JSON is.
pub(crate) fn meta_of(tree: Tree<'_>) -> Result<Meta, Malformed> {
    let members = match &tree {
        Tree::Null => return Ok(Meta::default()),
        Tree::Members(members) => members,
        _ => return Err(Malformed("meta: not an object")),
    };
    let (mut meta, mut known) = (Meta::default(), 0);
    for (name, value) in members {
        known += 1;
        match name.as_ref() {
            "unix_mode" => {
                let mode =
                    value.text().and_then(mode_of).ok_or(Malformed("meta: unix_mode is no octal mode"))?;
                meta.unix_mode = Some(mode);
            }
            "mtime" => {
                let mtime = value.text().and_then(parse_time).ok_or(Malformed("meta: mtime is no time"))?;
                meta.mtime = Some(mtime);
            }
            _ => known -= 1,
        }
    }
    meta.extra = (known < members.len()).then(|| extra_of(members, &META_MEMBERS));
    Ok(meta)
}

fn mode_of(octal: &str) -> Option<u32> {
    let plain = (1..=5).contains(&octal.len()) && octal.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let mode = if plain { u32::from_str_radix(octal, 8).ok()? } else { return None };
    (mode <= UNIX_MODE_MAX).then_some(mode)
}

fn extra_of(members: &Members<'_>, known: &[&str]) -> Box<str> {
    boxed(|out| write_members(members.iter().filter(|(name, _)| !known.contains(&name.as_ref())), out))
}

/// Reads a JSON object of unknown members: at least one, and none that is known.
pub(crate) fn extra_from_json(json: &[u8], known: &[&str]) -> Result<Box<str>, Malformed> {
    match serde_json::from_slice::<Tree<'_>>(json) {
        Ok(Tree::Members(members))
            if !members.is_empty() && members.iter().all(|(name, _)| !known.contains(&name.as_ref())) =>
        {
            Ok(extra_of(&members, known))
        }
        _ => Err(Malformed("unknown members that are no object of such")),
    }
}

/// Text of a message, borrowed from it unless it had escapes.
#[derive(Debug)]
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.into())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Tree<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        TreeVisitor { parts_left: &mut { PARTS_MAX } }.deserialize(deserializer)
    }
}

struct TreeVisitor<'b> {
    parts_left: &'b mut usize,
}

impl<'de> DeserializeSeed<'de> for TreeVisitor<'_> {
    type Value = Tree<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        *self.parts_left =
            self.parts_left.checked_sub(1).ok_or_else(|| D::Error::custom("too many parts"))?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TreeVisitor<'_> {
    type Value = Tree<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without fractions")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Tree::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(u64::try_from(value).map_or(Tree::Signed(value), Tree::Unsigned))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Tree::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Tree::Text(Cow::Owned(text.into())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(TreeVisitor { parts_left: &mut *self.parts_left })? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members: Members<'de> = Vec::new();
        while let Some(name) = map.next_key::<Text<'de>>()? {
            let value = map.next_value_seed(TreeVisitor { parts_left: &mut *self.parts_left })?;
            members.push((name.0, value));
        }
        members.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        if members.windows(2).any(|w| w[0].0 == w[1].0) {
            return Err(A::Error::custom("a member twice"));
        }
        Ok(Tree::Members(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::testing::value;
    use proptest::prelude::*;

    fn round(json: &str) -> String {
        let mut out = Vec::new();
        write_value(&Value::from_json(json.as_bytes()).unwrap(), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn meta_round(json: &str) -> Result<String, &'static str> {
        let mut out = Vec::new();
        write_meta(&Meta::from_json(json.as_bytes()).map_err(|e| e.0)?, &mut out);
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn any_json_becomes_canonical() {
        for (json, canonical) in [
            ("null", "null"),
            (
                r#" { "b" : [ 1 , -2 , true ] , "a" : { "z" : null , "y" : "\u0041\/" } } "#,
                r#"{"a":{"y":"A/","z":null},"b":[1,-2,true]}"#,
            ),
            ("18446744073709551615", "18446744073709551615"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("{}", "{}"),
            ("[]", "[]"),
        ] {
            assert_eq!(round(json), canonical);
        }
        for bad in ["1.5", "1e3", "{\"a\":1,\"a\":1}", "\"\\ud800\"", "", "{", "nul", "-0", "[1,]"] {
            assert_eq!(Value::from_json(bad.as_bytes()), Err(Malformed("value: not JSON")), "{bad}");
        }
    }

    #[test]
    fn only_whole_shapes_are_entries() {
        let sha = "ab".repeat(32);
        let file = alloc::format!(r#"{{"sha256":"{sha}","size":5,"zz":[1],"aa":{{"b":2,"a":1}}}}"#);
        let Value::Entry(entry) = Value::from_json(file.as_bytes()).unwrap() else { panic!() };
        assert_eq!(entry.extra.as_deref(), Some(r#"{"aa":{"a":1,"b":2},"zz":[1]}"#));
        assert_eq!(entry.content.size(), 5);
        assert_eq!(
            round(&file),
            alloc::format!(r#"{{"sha256":"{sha}","size":5,"aa":{{"a":1,"b":2}},"zz":[1]}}"#)
        );
        for json in [
            "{}",
            r#"{"link":"a"}"#,
            r#"{"sha256":null}"#,
            r#"{"sha256":null,"size":0}"#,
            r#"{"sha256":null,"size":-1}"#,
            r#"{"mtime":5,"sha256":null,"size":null}"#,
            r#"{"mtime":"2026","sha256":null,"size":null}"#,
            r#"{"conflict_source":"aa","sha256":null,"size":null}"#,
            &alloc::format!(r#"{{"sha256":"{}","size":1}}"#, sha.to_uppercase()),
            &alloc::format!(r#"{{"link":"a","sha256":"{sha}","size":1}}"#),
        ] {
            assert_eq!(Value::from_json(json.as_bytes()), Ok(Value::Json(json.into())));
        }
        assert!(matches!(Value::from_json(br#"{"size":null,"sha256":null}"#), Ok(Value::Entry(_))));
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(meta_round(r#"{"unix_mode":"0644"}"#).as_deref(), Ok(r#"{"unix_mode":"644"}"#));
        assert_eq!(meta_round(r#"{"unix_mode":"0"}"#).as_deref(), Ok(r#"{"unix_mode":"0"}"#));
        assert_eq!(
            meta_round(r#"{"x":1,"unix_mode":"7777"}"#).as_deref(),
            Ok(r#"{"unix_mode":"7777","x":1}"#)
        );
        for bad in [r#""10000""#, r#""8""#, r#""""#, r#""+7""#, "7", "null"] {
            let json = alloc::format!(r#"{{"unix_mode":{bad}}}"#);
            assert_eq!(meta_round(&json), Err("meta: unix_mode is no octal mode"));
        }
        assert_eq!(meta_round("{}").as_deref(), Ok("{}"));
        assert_eq!(Meta::from_json(b"null"), Ok(Meta::default()));
        assert_eq!(meta_round("[]"), Err("meta: not an object"));
        assert_eq!(meta_round(r#"{"mtime":1}"#), Err("meta: mtime is no time"));
    }

    proptest! {
        #[test]
        fn values_come_back(v in value()) {
            let mut out = Vec::new();
            write_value(&v, &mut out);
            prop_assert_eq!(Value::from_json(&out), Ok(v));
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Value::from_json(&bytes);
            let _ = Meta::from_json(&bytes);
        }
    }
}
