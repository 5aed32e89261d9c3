//! Tests of `json.rs`.

use alloc::format;
use alloc::string::ToString as _;
use alloc::vec;

use proptest::prelude::*;

use super::*;

fn good(text: &str) -> bool {
    check(text.as_bytes()).is_ok()
}

#[test]
fn integers_at_their_limits() {
    for text in ["0", "-1", "18446744073709551615", "-9223372036854775808"] {
        assert!(good(text), "{text}");
    }
    for text in [
        "18446744073709551616",
        "-9223372036854775809",
        "-0",
        "00",
        "01",
        "-",
        "+1",
        "1.0",
        "1e3",
        "1E3",
        "99999999999999999999999999",
        "NaN",
    ] {
        assert!(!good(text), "{text}");
    }
}

#[test]
fn depth_at_its_limit() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(good(&nested(32)));
    assert!(!good(&nested(33)));
    let objects = |depth: usize| "{\"a\":".repeat(depth) + "1" + &"}".repeat(depth);
    assert!(good(&objects(32)));
    assert!(!good(&objects(33)));
}

#[test]
fn names_twice() {
    assert!(good(r#"{"a":1,"b":{"a":1,"b":2},"c":[{"a":1},{"a":1}]}"#));
    assert!(!good(r#"{"a":1,"a":1}"#));
    assert!(!good(r#"{"b":{"x":1},"a":{"a":1,"b":1,"a":2}}"#));
    assert!(!good(r#"{"a":1,"\u0061":1}"#));
    assert!(!good(r#"{"😀":1,"\ud83d\ude00":1}"#));
    assert!(good(r#"{"a":1,"\\u0061":1}"#));
    for count in [PAIRWISE_MAX, PAIRWISE_MAX + 1, NAMES_INLINE, NAMES_INLINE + 1, 500] {
        let members: Vec<String> = (0..count).map(|n| format!("\"n{n}\":{{\"n0\":0,\"x\":1}}")).collect();
        assert!(good(&format!("{{{}}}", members.join(","))), "{count}");
        for twice in [0, count / 2, count - 1] {
            let doubled = format!("{{{},\"n{twice}\":0}}", members.join(","));
            assert!(!good(&doubled), "{count}, {twice} twice");
        }
        // The outer names stay known while inner objects open and close.
        let inside = format!("{{\"first\":{{{}}},\"first\":1}}", members.join(","));
        assert!(!good(&inside));
    }
}

#[test]
fn strings() {
    for text in [r#""""#, r#""\"\\\/\b\f\n\r\t\u0000""#, r#""\ud83d\ude00""#, "\"é\u{10ffff}\""] {
        assert!(good(text), "{text}");
    }
    for text in [
        r#"""#,
        r#""\"#,
        r#""\x""#,
        r#""\u12""#,
        r#""\u12g4""#,
        r#""\ud800""#,
        r#""\ud800x""#,
        r#""\ud800\u0041""#,
        r#""\udc00""#,
        "\"\n\"",
        "\u{feff}{}",
    ] {
        assert!(!good(text), "{text}");
    }
    assert!(check(b"\"\xff\"").is_err());
    assert!(check(b"\"\xed\xa0\x80\"").is_err());
}

#[test]
fn forms() {
    for text in ["{}", " {\n\t\"a\" : [ ] , \"b\":null }\r", "[true,false,null,[],{}]"] {
        assert!(good(text), "{text}");
    }
    for text in [
        "",
        " ",
        "{",
        "}",
        "{}{}",
        "{},",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{1:1}",
        "tru",
        "nulll",
        "[1",
        "{\"a\":1",
        "'a'",
        "//",
        "1\u{a0}",
    ] {
        assert!(!good(text), "{text}");
    }
}

#[test]
fn bodies_have_a_type() {
    assert_eq!(check_body(br#"{"a":1,"type":"x.y"}"#).unwrap(), "x.y");
    assert_eq!(check_body(br#"{"t\u0079pe":"x\u002ey"}"#).unwrap(), "x.y");
    assert!(check_body(br#"{"a":{"type":"x"}}"#).is_err());
    assert!(check_body(br#"{"type":1}"#).is_err());
    assert!(check_body(br#"["type","x"]"#).is_err());
}

#[test]
fn cursor_reads_what_was_checked() {
    let text = br#" {"a" : "x,}\"" , "b":[1, -2,{"c":"]"}],"h":"00ff","n":null} "#;
    check(text).unwrap();
    let members: Vec<_> = Value::of(text).members().map(|(n, v)| (n.into_owned(), v)).collect();
    let names: Vec<&str> = members.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(names, ["a", "b", "h", "n"]);
    assert_eq!(members[0].1.str().unwrap(), "x,}\"");
    let elements: Vec<&[u8]> = members[1].1.elements().map(Value::raw).collect();
    assert_eq!(elements, [&b"1"[..], b"-2", br#"{"c":"]"}"#]);
    assert_eq!(members[2].1.hex::<2>(), Some([0, 255]));
    assert_eq!(members[2].1.hex::<1>(), None);
    assert!(members[3].1.is_null());
    assert_eq!(Value::of(b"\"AB\"").hex::<1>(), None);
}

#[test]
fn longest_text() {
    let mut text = vec![b' '; TEXT_MAX];
    text[0] = b'1';
    assert!(check(&text).is_ok());
    text.push(b' ');
    assert!(check(&text).is_err());
}

proptest! {
    #[test]
    fn strings_come_back(text: String) {
        let mut out = Vec::new();
        write_str(&text, &mut out);
        prop_assert!(check(&out).is_ok());
        prop_assert_eq!(Value::of(&out).str().unwrap(), text.as_str());
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }

    #[test]
    fn integers_come_back(value: u64) {
        let mut out = Vec::new();
        write_u64(value, &mut out);
        let text = value.to_string();
        prop_assert_eq!(&out[..], text.as_bytes());
        prop_assert_eq!(Value::of(&out).u64(), Some(value));
    }

    #[test]
    fn what_passes_is_json(text in "[\\[\\]{}\",:0-9a-c\\\\u -]{0,24}") {
        if good(&text) {
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
        }
    }

    #[test]
    fn cursor_never_panics(text in proptest::collection::vec(any::<u8>(), 0..64)) {
        let value = Value::of(&text);
        for (_, member) in value.members() {
            let _ = (member.str(), member.u64(), member.hex::<4>(), member.elements().count());
        }
        for element in value.elements() {
            let _ = element.members().count();
        }
    }
}
