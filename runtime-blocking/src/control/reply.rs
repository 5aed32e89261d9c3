//! Writing control replies. Owns their members' names, which programs rely on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use clearskies_core::club::code::Invitation;
use clearskies_core::club::level::Level;
use clearskies_core::engine::command::{
    CommandError, Conflict, HeldDeletions, NodeStatus, PeerStatus, Reply, ShareState, ShareStatus,
};
use clearskies_core::io::disk::Archived;
use clearskies_core::time::WallTime;
use clearskies_host::net::is_reachable;
use serde_json::{Value, json};

use super::request::Shape;
use crate::utc;

/// What is said in place of the greeting to a client beyond the last one.
pub(crate) fn crowded(clients: usize) -> Value {
    let message = format!("The daemon talks to {clients} programs already; end one of them and try again.");
    error(&CommandError { code: "limit", message })
}

/// The greeting.
pub(crate) fn greeting() -> Value {
    json!({ "service": super::SERVICE, "software": crate::SOFTWARE, "protocol": super::PROTOCOL })
}

/// A refusal.
pub(crate) fn error(error: &CommandError) -> Value {
    json!({ "error": error.code, "message": error.message })
}

/// Something was done, and there is no more to say.
pub(crate) fn done() -> Value {
    json!({})
}

/// The port that the node listens on, as a setting.
pub(crate) fn port(port: u16) -> Value {
    json!({ "value": port.to_string() })
}

/// Where the node can be reached; `addrs` are the machine's own.
pub(crate) fn address(port: u16, addrs: &[(IpAddr, u8)], lan: bool) -> Value {
    let reachable = addrs.iter().map(|(ip, _)| *ip).filter(is_reachable);
    let mut reachable: Vec<String> = reachable.map(|ip| SocketAddr::new(ip, port).to_string()).collect();
    if reachable.is_empty() {
        reachable.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port).to_string());
    }
    json!({ "port": port, "addresses": reachable, "lan": lan, "pid": std::process::id() })
}

/// What a command gave.
pub(crate) fn reply(shape: &Shape, reply: Reply) -> Value {
    match reply {
        Reply::Done => json!({}),
        Reply::Share { path, new } => json!({ "path": path, "new": new }),
        Reply::Code { code, fingerprint } => {
            let text = code.to_text();
            let invitation = Invitation { code, addrs: Vec::new(), fingerprint: Some(fingerprint) };
            json!({ "access_code": text, "url": invitation.to_url() })
        }
        Reply::Status(status) if *shape == Shape::ShareList => {
            let share = |share: &ShareStatus| json!({ "path": share.path, "status": state(share) });
            json!({ "shares": status.shares.iter().map(share).collect::<Vec<_>>() })
        }
        Reply::Status(status) => node(&status, *shape != Shape::BriefStatus),
        Reply::Peers(peers) => json!({ "peers": peers.iter().map(peer).collect::<Vec<_>>() }),
        Reply::Conflicts(conflicts) => {
            json!({ "conflicts": conflicts.iter().map(conflict).collect::<Vec<_>>() })
        }
        Reply::Deletions(held) => json!({ "deletions": held.iter().map(deletions).collect::<Vec<_>>() }),
        Reply::Archive(files) => json!({ "files": files.iter().map(archived).collect::<Vec<_>>() }),
        Reply::Restored { path } => json!({ "path": path }),
        Reply::RestoredAll { path, files } => json!({ "path": path, "files": files }),
        Reply::Why(reasons) => json!({ "reasons": reasons }),
        Reply::Settings(settings) => settings_of(shape, settings),
    }
}

fn settings_of(shape: &Shape, settings: Vec<(String, String)>) -> Value {
    if let Shape::ConfigValue(key) = shape {
        let value = settings.into_iter().find(|(name, _)| name == key).map(|(_, value)| value);
        return json!({ "value": value });
    }
    let config = settings.into_iter().map(|(key, value)| (key, Value::String(value)));
    json!({ "config": config.collect::<serde_json::Map<_, _>>() })
}

/// `tracking` and `nat_punctured` are the draft's; neither exists yet.
fn node(status: &NodeStatus, with_shares: bool) -> Value {
    let mut value = json!({
        "paused": status.paused,
        "tracking": false,
        "nat_punctured": false,
        "upload_rate": status.upload_rate,
        "download_rate": status.download_rate,
    });
    if with_shares {
        value["shares"] = status.shares.iter().map(share).collect();
    }
    value
}

fn share(share: &ShareStatus) -> Value {
    json!({
        "path": share.path,
        "state": state(share),
        "in_sync": share.state == ShareState::InSync,
        "problems": share.problems,
        "files": share.files,
        "bytes": share.bytes,
        "pending_files": share.pending_files,
        "pending_bytes": share.pending_bytes,
        "failed_files": share.failed_files,
        "unreadable_files": share.unreadable_files,
        "held_deletions": share.held_deletions,
        "peers_connected": share.peers_connected,
        "peers_known": share.peers_known,
        "conflicts": share.conflicts,
        "mode": level(share.level),
    })
}

/// A share's state for people and programs.
fn state(share: &ShareStatus) -> &'static str {
    match share.state {
        ShareState::Scanning => "scanning",
        ShareState::Joining => "connecting",
        ShareState::Syncing => "syncing",
        ShareState::Attention => "needs attention",
        ShareState::InSync if share.conflicts > 0 => "in sync, with conflicts",
        ShareState::InSync => "in sync",
        ShareState::Alone => "no peer connected",
        ShareState::Paused => "paused",
        ShareState::Stopped => "stopped",
    }
}

/// A level as the control protocol names it.
fn level(level: Level) -> &'static str {
    match level {
        Level::ReadWrite => "read_write",
        Level::ReadOnly => "read_only",
        Level::Untrusted => "untrusted",
    }
}

fn peer(peer: &PeerStatus) -> Value {
    json!({
        "share": peer.share,
        "id": peer.id,
        "name": peer.name,
        "connected": peer.connected,
        "address": peer.addr.map(|addr| addr.to_string()),
        "mode": peer.level.map(level),
        "received": peer.received,
        "sent": peer.sent,
    })
}

fn conflict(conflict: &Conflict) -> Value {
    json!({
        "path": conflict.path,
        "original": conflict.original,
        "time": utc::format(conflict.time),
        "peer": conflict.peer,
    })
}

fn deletions(held: &HeldDeletions) -> Value {
    json!({ "share": held.share, "count": held.count, "paths": held.paths })
}

fn archived(file: &Archived) -> Value {
    json!({
        "folder": file.folder,
        "path": file.path.as_str(),
        "size": file.stamp.size,
        "mtime": utc::format(WallTime(file.stamp.mtime_ns)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: ShareState) -> Reply {
        Reply::Status(NodeStatus {
            paused: false,
            upload_rate: 12_834,
            download_rate: 1_049_292,
            shares: vec![ShareStatus {
                path: "/home/a/Documents".into(),
                state,
                problems: vec!["A file cannot be read.".into()],
                files: 3,
                bytes: 4096,
                pending_files: 1,
                pending_bytes: 10,
                failed_files: 1,
                unreadable_files: 0,
                held_deletions: 0,
                peers_connected: 0,
                peers_known: 2,
                conflicts: 0,
                level: Level::ReadWrite,
            }],
        })
    }

    #[test]
    fn the_known_clients_read_these() {
        let shown = [Shape::BriefStatus, Shape::ShareList]
            .map(|shape| reply(&shape, status(ShareState::Alone)).to_string());
        insta::assert_snapshot!(shown.join("\n"));
        // They take 1024 bytes at once and no more.
        assert!(shown[0].len() < 1024);
    }

    #[test]
    fn our_status_has_everything() {
        let value = reply(&Shape::Plain, status(ShareState::Alone));
        insta::assert_snapshot!(serde_json::to_string_pretty(&value).unwrap());
    }

    #[test]
    fn only_one_state_is_in_sync() {
        let states = [
            (ShareState::Scanning, false),
            (ShareState::Joining, false),
            (ShareState::Syncing, false),
            (ShareState::Attention, false),
            (ShareState::InSync, true),
            (ShareState::Alone, false),
            (ShareState::Paused, false),
            (ShareState::Stopped, false),
        ];
        for (state, expected) in states {
            let value = reply(&Shape::Plain, status(state));
            assert_eq!(value["shares"][0]["in_sync"], expected, "{state:?}");
        }
    }

    #[test]
    fn conflicts_are_no_silent_matter() {
        let Reply::Status(mut node) = status(ShareState::InSync) else { panic!() };
        assert_eq!(state(&node.shares[0]), "in sync");
        node.shares[0].conflicts = 1;
        assert_eq!(state(&node.shares[0]), "in sync, with conflicts");
    }

    #[test]
    fn a_setting_is_a_text() {
        let settings = || Reply::Settings(vec![("a".into(), "1".into()), ("b".into(), "x".into())]);
        assert_eq!(reply(&Shape::ConfigValue("b".into()), settings()), json!({ "value": "x" }));
        assert_eq!(reply(&Shape::ConfigValue("c".into()), settings()), json!({ "value": null }));
        assert_eq!(reply(&Shape::Config, settings()), json!({ "config": { "a": "1", "b": "x" } }));
    }
}
