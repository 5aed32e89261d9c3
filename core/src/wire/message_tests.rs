//! Tests of `message.rs`.

use alloc::format;
use alloc::string::ToString as _;
use alloc::vec;

use super::*;
use crate::ids::{PeerId, Sha256};
use crate::time::WallTime;
use crate::wire::core_msgs::{CODE_MAX, ERROR_TEXT_MAX, EXTENSION_NAME_MAX, EXTENSIONS_MAX, NAME_MAX};

fn written(message: &Message) -> String {
    let mut out = Vec::new();
    message.write(&mut out);
    String::from_utf8(out).unwrap()
}

fn read(text: &str) -> Result<Message, Malformed> {
    Message::read(text.into(), None, false)
}

fn round(message: Message) -> String {
    let text = written(&message);
    let again = Message::read(text.clone().into(), None, message.has_payload()).unwrap();
    assert_eq!(format!("{again:?}"), format!("{message:?}"));
    let unfit = Message::read(text.clone().into(), None, !message.has_payload());
    assert!(matches!(message, Message::Unknown { .. }) || unfit.is_err());
    text
}

fn opening() -> Opening {
    Opening {
        software: "clearskies/0.1.0".into(),
        name: Some("desk \"1\"".into()),
        speaks_protocol: true,
        extensions: vec!["gzip".into(), ".org.example".into()],
        peer: PeerId([1; 16]),
        peer_key: [2; 32],
        peer_proof: [3; 64],
        writer: Some([4; 64]),
        run: [5; 16],
        time: WallTime(1_500_000_000),
    }
}

#[test]
fn each_message_comes_back() {
    let sha256 = Sha256([0xab; 32]);
    let directory = |message| round(Message::Directory(message));
    let lines = [
        round(Message::KeysAcknowledgment),
        round(Message::Ping { timeout: 60 }),
        round(Message::Error { code: "limit".into(), message: "too \"much\"\n".into() }),
        round(Message::Unknown { type_name: ".org.example.hello".into() }),
        directory(DirectoryMessage::GetPresence),
        directory(DirectoryMessage::BloomFilter { k_value: 8 }),
        directory(DirectoryMessage::Present { sha256 }),
        directory(DirectoryMessage::Get { sha256, range: None }),
        directory(DirectoryMessage::Get { sha256, range: Some((0, u64::MAX)) }),
        directory(DirectoryMessage::Data { sha256, range: (1 << 40, 65536) }),
        directory(DirectoryMessage::NotPresent { sha256 }),
        directory(DirectoryMessage::GetError { sha256, code: "io".into() }),
        round(Message::Greeting(Box::new(opening()))),
        round(Message::Start(Box::new(Opening {
            name: None,
            writer: None,
            extensions: vec![],
            ..opening()
        }))),
    ];
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn unknown_members_are_ignored() {
    let sha = "ab".repeat(32);
    let text =
        format!(r#"{{"x":{{"sha256":1}},"type":"directory.get","sha256":"{sha}","range":[1,2],"y":[]}}"#);
    let Message::Directory(got) = read(&text).unwrap() else { panic!() };
    assert_eq!(got, DirectoryMessage::Get { sha256: Sha256([0xab; 32]), range: Some((1, 2)) });
}

#[test]
fn malformed_messages_are_refused() {
    let sha = "ab".repeat(32);
    for text in [
        r#"{"type":"directory.get"}"#.to_string(),
        r#"{"type":"directory.get","sha256":"ab"}"#.into(),
        format!(r#"{{"type":"directory.get","sha256":"{}"}}"#, sha.to_uppercase()),
        format!(r#"{{"type":"directory.get","sha256":"{sha}","range":[1]}}"#),
        format!(r#"{{"type":"directory.get","sha256":"{sha}","range":[1,2,3]}}"#),
        format!(r#"{{"type":"directory.get","sha256":"{sha}","range":[-1,2]}}"#),
        format!(r#"{{"type":"directory.get","sha256":"{sha}","range":[1,18446744073709551615]}}"#),
        format!(r#"{{"type":"directory.get","sha256":"{sha}","range":null}}"#),
        format!(r#"{{"type":"directory.get_error","sha256":"{sha}"}}"#),
        r#"{"type":"core.ping"}"#.into(),
        r#"{"type":"core.ping","timeout":-1}"#.into(),
        r#"{"type":"core.error"}"#.into(),
        r#"{"type":"core.greeting"}"#.into(),
        r#"{"type":7}"#.into(),
        "{}".into(),
        "{".into(),
    ] {
        assert!(read(&text).is_err(), "{text}");
    }
}

#[test]
fn lengths_at_their_limits() {
    let name = |length: usize| format!("{{\"type\":\"{}\"}}", "x".repeat(length));
    assert!(read(&name(TYPE_MAX)).is_ok());
    assert!(read(&name(TYPE_MAX + 1)).is_err());
    let error =
        |length: usize| format!(r#"{{"type":"core.error","code":"{}","message":"é"}}"#, "x".repeat(length));
    assert!(read(&error(CODE_MAX)).is_ok());
    assert!(read(&error(CODE_MAX + 1)).is_err());
    let text = format!(r#"{{"type":"core.error","code":"c","message":"a{}"}}"#, "é".repeat(ERROR_TEXT_MAX));
    let Ok(Message::Error { message, .. }) = read(&text) else { panic!() };
    assert_eq!(message.len(), ERROR_TEXT_MAX - 1);

    let start = |change: &dyn Fn(&mut Opening)| {
        let mut opening = opening();
        change(&mut opening);
        read(&written(&Message::Start(Box::new(opening))))
    };
    assert!(start(&|o| o.extensions = vec!["x".repeat(EXTENSION_NAME_MAX); EXTENSIONS_MAX]).is_ok());
    assert!(start(&|o| o.extensions = vec!["x".into(); EXTENSIONS_MAX + 1]).is_err());
    assert!(start(&|o| o.extensions = vec!["x".repeat(EXTENSION_NAME_MAX + 1)]).is_err());
    // Ours is cut, theirs refused.
    let Ok(Message::Start(cut)) = start(&|o| o.name = Some("n".repeat(NAME_MAX + 1))) else { panic!() };
    assert_eq!(cut.name.unwrap().len(), NAME_MAX);
    let long = written(&Message::Start(Box::new(opening()))).replace("desk", &"n".repeat(NAME_MAX));
    assert!(read(&long).is_err());
}

#[test]
fn statements_keep_their_bytes() {
    let body = b"{ \"type\" : \"database.update\" }".to_vec();
    let Message::Statement { type_name, body: kept, signature } =
        Message::read(body.clone(), Some([1; 64]), true).unwrap()
    else {
        panic!()
    };
    assert_eq!((type_name.as_str(), kept, signature), ("database.update", body, [1; 64]));
}
