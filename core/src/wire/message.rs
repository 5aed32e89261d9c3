//! Messages: what one frame says (protocol §5-§8). Turns bodies into types and back; judges only their form.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::error::Malformed;
use crate::wire::cbor;
use crate::wire::compact;
use crate::wire::core_msgs::{self, Opening};
use crate::wire::database::DatabaseMessage;
use crate::wire::directory::DirectoryMessage;
use crate::wire::json::{self, write_str};
use crate::wire::keys::KeysMessage;
use crate::wire::rsync::RsyncMessage;

/// The longest `type`, in bytes.
pub const TYPE_MAX: usize = 128;

/// How bodies are written (protocol §6). Both are read where the second was agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// Everywhere, and always for `core` and statements.
    #[default]
    Json,
    /// With the extension `cbor`.
    Cbor,
}

/// One message.
#[derive(Debug)]
pub enum Message {
    /// `core.greeting`: the server's opening.
    Greeting(Box<Opening>),
    /// `core.start`: the client's opening.
    Start(Box<Opening>),
    /// `core.keys`: a club's keys, for a joiner.
    Keys(Box<KeysMessage>),
    /// `core.keys_acknowledgment`: they are stored.
    KeysAcknowledgment,
    /// `core.ping`.
    Ping {
        /// How long the sender bears silence, in seconds.
        timeout: u64,
    },
    /// `core.error`: why the sender closes the link.
    Error {
        /// A word of protocol §5.
        code: String,
        /// For people.
        message: String,
    },
    /// `database.*`.
    Database(DatabaseMessage),
    /// `directory.*`.
    Directory(DirectoryMessage),
    /// `rsync.*`.
    Rsync(RsyncMessage),
    /// A signed message as it came, so that it can be checked and passed on verbatim.
    Statement {
        /// Its `type`.
        type_name: String,
        /// The signed bytes; checked as JSON.
        body: Vec<u8>,
        /// Not yet checked.
        signature: [u8; 64],
    },
    /// A message of a type that this program does not know.
    Unknown {
        /// Its `type`.
        type_name: String,
    },
}

impl Message {
    /// Reads the body of a frame and takes it over. `payload` tells whether the frame has one: a type that must have
    /// one is refused without it, and a known type that has none with it.
    pub fn read(body: Vec<u8>, signature: Option<[u8; 64]>, payload: bool) -> Result<Message, Malformed> {
        if body.first().is_some_and(|first| cbor::begins_map(*first)) {
            return Message::read_cbor(&body, signature.is_some(), payload);
        }
        let type_name = json::check_body(&body)?;
        if type_name.len() > TYPE_MAX {
            return Err(Malformed("a type longer than allowed"));
        }
        if let Some(signature) = signature {
            let type_name = type_name.into_owned();
            return Ok(Message::Statement { type_name, body, signature });
        }
        let message = match &*type_name {
            "core.greeting" => Message::Greeting(Box::new(Opening::read(&body, false)?)),
            "core.start" => Message::Start(Box::new(Opening::read(&body, true)?)),
            "core.keys" => Message::Keys(Box::new(KeysMessage::read(&body)?)),
            "core.keys_acknowledgment" => Message::KeysAcknowledgment,
            "core.ping" => Message::Ping { timeout: core_msgs::read_ping(&body)? },
            "core.error" => {
                let (code, message) = core_msgs::read_error(&body)?;
                Message::Error { code, message }
            }
            name if DirectoryMessage::is(name) => Message::Directory(DirectoryMessage::read(name, &body)?),
            name if DatabaseMessage::is(name) => Message::Database(DatabaseMessage::read(name, &body)?),
            name if RsyncMessage::is(name) => Message::Rsync(RsyncMessage::read(name, &body)?),
            _ => Message::Unknown { type_name: type_name.into_owned() },
        };
        message.fitting(payload)
    }

    fn read_cbor(body: &[u8], signed: bool, payload: bool) -> Result<Message, Malformed> {
        if signed {
            return Err(Malformed("a statement that is no JSON"));
        }
        let type_name = cbor::check_body(body)?;
        if type_name.len() > TYPE_MAX {
            return Err(Malformed("a type longer than allowed"));
        }
        let message = match type_name {
            name if name.starts_with("core.") => return Err(Malformed("a message of core that is no JSON")),
            name if DirectoryMessage::is(name) => Message::Directory(compact::read_directory(name, body)?),
            name if DatabaseMessage::is(name) => Message::Database(compact::read_database(name, body)?),
            name if RsyncMessage::is(name) => Message::Rsync(RsyncMessage::read_cbor(name, body)?),
            _ => Message::Unknown { type_name: type_name.into() },
        };
        message.fitting(payload)
    }

    /// The message, if it has a payload just where one belongs.
    fn fitting(self, payload: bool) -> Result<Message, Malformed> {
        match self {
            Message::Unknown { .. } => Ok(self),
            _ if self.has_payload() == payload => Ok(self),
            _ if payload => Err(Malformed("a payload where none belongs")),
            _ => Err(Malformed("a message without its payload")),
        }
    }

    /// Appends the body as the link's encoding has it.
    pub fn write_in(&self, encoding: Encoding, out: &mut Vec<u8>) {
        match (encoding, self) {
            (Encoding::Cbor, Message::Database(message)) => compact::write_database(message, out),
            (Encoding::Cbor, Message::Directory(message)) => compact::write_directory(message, out),
            (Encoding::Cbor, Message::Rsync(message)) => message.write_cbor(out),
            _ => self.write(out),
        }
    }

    /// Appends the body in JSON.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Message::Greeting(opening) => opening.write(false, out),
            Message::Start(opening) => opening.write(true, out),
            Message::Keys(keys) => keys.write(out),
            Message::KeysAcknowledgment => {
                out.extend_from_slice(b"{\"type\":\"core.keys_acknowledgment\"}");
            }
            Message::Ping { timeout } => core_msgs::write_ping(*timeout, out),
            Message::Error { code, message } => core_msgs::write_error(code, message, out),
            Message::Database(message) => message.write(out),
            Message::Directory(message) => message.write(out),
            Message::Rsync(message) => message.write(out),
            Message::Statement { body, .. } => out.extend_from_slice(body),
            Message::Unknown { type_name } => {
                out.extend_from_slice(b"{\"type\":");
                write_str(type_name, out);
                out.push(b'}');
            }
        }
    }

    /// Whether a payload belongs to it.
    pub fn has_payload(&self) -> bool {
        match self {
            Message::Directory(message) => message.has_payload(),
            Message::Rsync(message) => message.has_payload(),
            _ => false,
        }
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
