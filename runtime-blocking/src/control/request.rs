//! Reading control requests. Everything is checked here; what comes out is a command for the engine, or one of the
//! few that the driver answers itself.

use std::net::SocketAddr;
use std::time::Duration;

use clearskies_core::club::level::Level;
use clearskies_core::engine::command::{Command, CommandError, Existing};
pub(crate) use clearskies_core::engine::settings::LISTEN_PORT;
use clearskies_core::wire::json;
use serde_json::{Map, Value};

/// How long a code is valid if the request does not say (protocol §3).
const CODE_VALID_FOR: Duration = Duration::from_secs(24 * 3600);
/// Addresses given with one code.
const PEERS_MAX: usize = 16;
/// Settings changed by one request.
const SETTINGS_MAX: usize = 256;

/// What a client asks for.
#[derive(Debug)]
pub(crate) enum Request {
    /// Work for the engine; the reply follows when it is done.
    Engine {
        /// The command.
        command: Command,
        /// How the reply looks.
        shape: Shape,
    },
    /// Stop the node.
    Stop,
    /// Where this node can be reached.
    Address,
    /// The TCP port.
    ReadListenPort,
    /// The TCP port from the next start on.
    WriteListenPort(u16),
}

/// How the engine's reply is shown, where its kind alone does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// As its kind has it.
    Plain,
    /// The draft's five members of the status.
    BriefStatus,
    /// The draft's list of shares.
    ShareList,
    /// All settings.
    Config,
    /// The value of this setting.
    ConfigValue(String),
}

type Fields = Map<String, Value>;
type Result<T> = std::result::Result<T, CommandError>;

/// Reads one line.
pub(crate) fn parse(line: &[u8]) -> Result<Request> {
    let fields = match serde_json::from_slice(line) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) => return Err(bad("A request is a JSON object.".into())),
        Err(error) => return Err(bad(format!("This is not JSON: {error}"))),
    };
    // What counts of two members of one name would be anybody's guess.
    json::check(line).map_err(|error| bad(format!("This is not JSON as the protocol has it: {error}.")))?;
    let plain = |command| engine(command, Shape::Plain);
    Ok(match string(&fields, "type")?.as_str() {
        "stop" => Request::Stop,
        "pause" => plain(Command::Pause),
        "resume" => plain(Command::Resume),
        "status" => engine(Command::Status, Shape::BriefStatus),
        "node_status" => plain(Command::Status),
        "list_shares" => engine(Command::Status, Shape::ShareList),
        "create_share" => plain(Command::CreateShare { path: path(&fields)? }),
        "add_share" => plain(attach(&fields)?),
        "remove_share" => plain(Command::Detach { path: path(&fields)? }),
        "create_access_code" => plain(invite(&fields)?),
        "get_config" => engine(Command::ReadSettings { key: None }, Shape::Config),
        "get_config_value" => get_config_value(&fields)?,
        "set_config" => set_config(&fields)?,
        "set_config_value" => set_config_value(&fields)?,
        "address" => Request::Address,
        "connect" => plain(Command::Connect { addr: address(&string(&fields, "address")?)? }),
        "peers" => plain(Command::Peers),
        "conflicts" => plain(Command::Conflicts { path: optional_path(&fields)? }),
        "resolve" => plain(Command::Resolve { path: path(&fields)?, keep: flag(&fields, "keep")? }),
        "deletions" => plain(Command::Deletions { path: optional_path(&fields)? }),
        "decide_deletions" => {
            plain(Command::DecideDeletions { path: path(&fields)?, confirm: flag(&fields, "confirm")? })
        }
        "archive" => plain(Command::Archive { path: path(&fields)? }),
        "restore" => {
            plain(Command::Restore { path: path(&fields)?, folder: optional_string(&fields, "folder")? })
        }
        "why" => plain(Command::Why { path: path(&fields)? }),
        other => {
            let message = format!("There is no request of type {other:?}.");
            return Err(CommandError { code: "not_understood", message });
        }
    })
}

fn engine(command: Command, shape: Shape) -> Request {
    Request::Engine { command, shape }
}

fn attach(fields: &Fields) -> Result<Command> {
    let existing = match (flag_or(fields, "merge", false)?, flag_or(fields, "replace", false)?) {
        (false, false) => Existing::Refuse,
        (true, false) => Existing::Merge,
        (false, true) => Existing::Replace,
        (true, true) => return Err(bad("Either \"merge\" or \"replace\", not both.".into())),
    };
    let peers = match fields.get("peers") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(peers)) if peers.len() <= PEERS_MAX => {
            let peer = |peer: &Value| match peer {
                Value::String(peer) => address(peer),
                _ => Err(bad("\"peers\" must be a list of strings.".into())),
            };
            peers.iter().map(peer).collect::<Result<_>>()?
        }
        Some(_) => return Err(bad(format!("\"peers\" must be a list of at most {PEERS_MAX} strings."))),
    };
    Ok(Command::Attach { code: string(fields, "code")?, path: path(fields)?, existing, peers })
}

fn invite(fields: &Fields) -> Result<Command> {
    let level = match optional_string(fields, "mode")?.as_deref() {
        None | Some("read_write") => Level::ReadWrite,
        Some("read_only") => Level::ReadOnly,
        Some("untrusted") => Level::Untrusted,
        Some(other) => {
            let modes = "read_write, read_only or untrusted";
            return Err(bad(format!("\"mode\" must be {modes}, and not {other:?}.")));
        }
    };
    let valid_for = match fields.get("valid_for") {
        None => Some(CODE_VALID_FOR),
        Some(Value::Null) => None,
        Some(seconds) => {
            let seconds = seconds.as_u64().filter(|seconds| *seconds > 0);
            let seconds = seconds.ok_or_else(|| bad("\"valid_for\" must be seconds, or null.".into()))?;
            Some(Duration::from_secs(seconds))
        }
    };
    let multi_use = flag_or(fields, "multi_use", false)?;
    Ok(Command::Invite { path: path(fields)?, level, valid_for, multi_use })
}

fn get_config_value(fields: &Fields) -> Result<Request> {
    let key = string(fields, "key")?;
    if key == LISTEN_PORT {
        return Ok(Request::ReadListenPort);
    }
    Ok(engine(Command::ReadSettings { key: Some(key.clone()) }, Shape::ConfigValue(key)))
}

fn set_config(fields: &Fields) -> Result<Request> {
    let Some(Value::Object(config)) = fields.get("config") else {
        return Err(bad("\"config\" must be an object.".into()));
    };
    if config.len() > SETTINGS_MAX {
        return Err(bad(format!("At most {SETTINGS_MAX} settings at once.")));
    }
    if config.contains_key(LISTEN_PORT) {
        return Err(bad(format!("{LISTEN_PORT:?} is set by itself, with set_config_value.")));
    }
    let settings = config.iter().map(|(key, value)| Ok((key.clone(), setting(key, value)?)));
    Ok(engine(Command::WriteSettings { settings: settings.collect::<Result<_>>()? }, Shape::Plain))
}

fn set_config_value(fields: &Fields) -> Result<Request> {
    let key = string(fields, "key")?;
    let value = setting(&key, fields.get("value").unwrap_or(&Value::Null))?;
    if key == LISTEN_PORT {
        let port = value.parse().map_err(|_| bad("A port is a number from 0 to 65535.".into()))?;
        return Ok(Request::WriteListenPort(port));
    }
    Ok(engine(Command::WriteSetting { key, value }, Shape::Plain))
}

/// Settings are texts; numbers and booleans are taken as they are written.
fn setting(key: &str, value: &Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(on) => Ok(on.to_string()),
        _ => Err(bad(format!("The value of {key:?} must be a text, a number or a boolean."))),
    }
}

fn address(text: &str) -> Result<SocketAddr> {
    let addr: Option<SocketAddr> = text.parse().ok();
    addr.filter(|addr| addr.port() != 0).ok_or_else(|| {
        bad(format!("{text:?} is no address; one looks like 192.0.2.1:4000 or [2001:db8::1]:4000."))
    })
}

fn path(fields: &Fields) -> Result<String> {
    absolute(string(fields, "path")?)
}

fn optional_path(fields: &Fields) -> Result<Option<String>> {
    optional_string(fields, "path")?.map(absolute).transpose()
}

/// Only the client knows what a relative path is relative to.
fn absolute(path: String) -> Result<String> {
    if path.contains('\0') {
        Err(bad(format!("A path has no NUL character in it, and {path:?} has one.")))
    } else if path.starts_with('/') {
        Ok(path)
    } else {
        Err(bad(format!("The path must be absolute, and {path:?} is not.")))
    }
}

fn string(fields: &Fields, name: &str) -> Result<String> {
    optional_string(fields, name)?.ok_or_else(|| bad(format!("{name:?} is missing.")))
}

fn optional_string(fields: &Fields, name: &str) -> Result<Option<String>> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(bad(format!("{name:?} must be a string."))),
    }
}

fn flag(fields: &Fields, name: &str) -> Result<bool> {
    fields.get(name).and_then(Value::as_bool).ok_or_else(|| bad(format!("{name:?} must be true or false.")))
}

fn flag_or(fields: &Fields, name: &str, otherwise: bool) -> Result<bool> {
    if fields.contains_key(name) { flag(fields, name) } else { Ok(otherwise) }
}

fn bad(message: String) -> CommandError {
    CommandError { code: "bad_request", message }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows what each line is taken for.
    fn check(lines: &[&str]) -> String {
        let mut out = String::new();
        for line in lines {
            let shown = match parse(line.as_bytes()) {
                Ok(request) => format!("{request:?}"),
                Err(error) => format!("{}: {}", error.code, error.message),
            };
            out.push_str(&format!("{line}\n    {shown}\n"));
        }
        out
    }

    #[test]
    fn the_drafts_requests() {
        insta::assert_snapshot!(check(&[
            r#"{"type":"stop"}"#,
            r#"{"type":"pause"}"#,
            r#"{"type":"resume","unknown":[1]}"#,
            r#"{"type":"status"}"#,
            r#"{"type":"create_share","path":"/home/a/Documents"}"#,
            r#"{"type":"list_shares"}"#,
            r#"{"type":"create_access_code","path":"/a","mode":"read_write"}"#,
            r#"{"type":"create_access_code","path":"/a","mode":"read_only"}"#,
            r#"{"type":"create_access_code","path":"/a","mode":"untrusted"}"#,
            r#"{"type":"add_share","code":"SYNC","path":"/b"}"#,
            r#"{"type":"remove_share","path":"/b"}"#,
            r#"{"type":"get_config"}"#,
            r#"{"type":"set_config","config":{"a":1,"b":true,"c":"x"}}"#,
            r#"{"type":"get_config_value","key":"a"}"#,
            r#"{"type":"get_config_value","key":"listen_port"}"#,
            r#"{"type":"set_config_value","key":"a","value":32000}"#,
            r#"{"type":"set_config_value","key":"listen_port","value":65535}"#,
        ]));
    }

    #[test]
    fn our_requests() {
        insta::assert_snapshot!(check(&[
            r#"{"type":"node_status"}"#,
            r#"{"type":"address"}"#,
            r#"{"type":"connect","address":"[::1]:5"}"#,
            r#"{"type":"add_share","code":"SYNC","path":"/b","merge":true,"peers":["192.0.2.1:4000"]}"#,
            r#"{"type":"create_access_code","path":"/a","valid_for":null,"multi_use":true}"#,
            r#"{"type":"create_access_code","path":"/a","valid_for":60}"#,
            r#"{"type":"peers"}"#,
            r#"{"type":"conflicts"}"#,
            r#"{"type":"conflicts","path":"/a"}"#,
            r#"{"type":"resolve","path":"/a/x.CONFLICT.ABCDEFGH.txt","keep":true}"#,
            r#"{"type":"deletions","path":null}"#,
            r#"{"type":"decide_deletions","path":"/a","confirm":false}"#,
            r#"{"type":"archive","path":"/a"}"#,
            r#"{"type":"restore","path":"/a/x","folder":"2026"}"#,
            r#"{"type":"why","path":"/a/x"}"#,
        ]));
    }

    #[test]
    fn refused_requests() {
        insta::assert_snapshot!(check(&[
            "{",
            "[]",
            "{}",
            r#"{"type":7}"#,
            r#"{"type":"status","type":"stop"}"#,
            r#"{"type":"format_disk"}"#,
            r#"{"type":"create_share"}"#,
            r#"{"type":"create_share","path":"Documents"}"#,
            r#"{"type":"create_share","path":"/a\u0000b"}"#,
            r#"{"type":"create_access_code","path":"/a","mode":"owner"}"#,
            r#"{"type":"create_access_code","path":"/a","valid_for":0}"#,
            r#"{"type":"create_access_code","path":"/a","valid_for":-1}"#,
            r#"{"type":"add_share","code":"SYNC","path":"/b","merge":true,"replace":true}"#,
            r#"{"type":"add_share","code":"SYNC","path":"/b","peers":["example.org:1"]}"#,
            r#"{"type":"add_share","code":"SYNC","path":"/b","peers":[1]}"#,
            r#"{"type":"connect","address":"192.0.2.1:0"}"#,
            r#"{"type":"resolve","path":"/a"}"#,
            r#"{"type":"set_config","config":[]}"#,
            r#"{"type":"set_config","config":{"listen_port":7}}"#,
            r#"{"type":"set_config_value","key":"a"}"#,
            r#"{"type":"set_config_value","key":"listen_port","value":65536}"#,
        ]));
    }

    #[test]
    fn lists_have_a_limit() {
        let peers = |count| {
            let peers = vec!["\"192.0.2.1:4000\""; count].join(",");
            parse(format!(r#"{{"type":"add_share","code":"S","path":"/b","peers":[{peers}]}}"#).as_bytes())
        };
        assert!(peers(PEERS_MAX).is_ok());
        assert!(peers(PEERS_MAX + 1).is_err());
        let config = |count| {
            let config: Vec<String> = (0..count).map(|n| format!("\"{n}\":1")).collect();
            parse(format!(r#"{{"type":"set_config","config":{{{}}}}}"#, config.join(",")).as_bytes())
        };
        assert!(config(SETTINGS_MAX).is_ok());
        assert!(config(SETTINGS_MAX + 1).is_err());
    }
}
