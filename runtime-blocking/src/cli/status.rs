//! Showing shares and peers.

use serde_json::{Value, json};

use super::args::Status;
use super::table::{bytes, count, rate, table, visible};
use super::{Failure, Outcome, items, progress, say, text};
use crate::daemon::{self, home::Home};

/// `status`. It asks about a daemon, and so starts none.
pub(super) fn status(home: &Home, status: &Status) -> Outcome {
    let Some(mut client) = daemon::connect(home)? else {
        return Err(Failure("The daemon is not running. `clearskies start` starts it.".into()));
    };
    if status.watch {
        return progress::show(&mut client, None);
    }
    let reply = client.ask(&json!({ "type": "node_status" }))?;
    if status.json { say(&reply.to_string()) } else { say(&describe(&reply)) }
}

fn describe(status: &Value) -> String {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let shares = items(status, "shares");
    if shares.is_empty() {
        return "There are no shares. `clearskies share DIR` makes one, `clearskies attach CODE DIR` joins one.".into();
    }
    let rows: Vec<[String; 4]> = shares.iter().map(row).collect();
    let mut lines = vec![match status["paused"] == true {
        true => "Paused; `clearskies resume` goes on.".to_owned(),
        false => format!(
            "Receiving {}, sending {}.",
            rate(number(&status["download_rate"])),
            rate(number(&status["upload_rate"]))
        ),
    }];
    lines.push(String::new());
    let table = table(&rows, &[]);
    for (share, line) in shares.iter().zip(table.lines()) {
        lines.push(line.to_owned());
        let problems = items(share, "problems").iter();
        lines.extend(problems.map(|problem| format!("    ! {}", visible(&text(problem)))));
        match number(&share["conflicts"]) {
            0 => {}
            n => lines.push(format!(
                "    ! {}; `clearskies conflicts` lists them",
                count(n, "conflict file", "conflict files")
            )),
        }
    }
    lines.join("\n")
}

/// One share: path, state, size, peers.
fn row(share: &Value) -> [String; 4] {
    let number = |member: &str| share[member].as_u64().unwrap_or(0);
    let size = format!("{}, {}", count(number("files"), "file", "files"), bytes(number("bytes")));
    let mut left = Vec::new();
    match number("pending_files") {
        0 => {}
        files => left.push(format!("{files} and {} to go", bytes(number("pending_bytes")))),
    }
    for (member, what) in
        [("failed_files", "failed"), ("unreadable_files", "unreadable"), ("held_deletions", "deletions held")]
    {
        match number(member) {
            0 => {}
            n => left.push(format!("{n} {what}")),
        }
    }
    let size = if left.is_empty() { size } else { format!("{size} ({})", left.join(", ")) };
    let peers = format!("{} of {}", number("peers_connected"), count(number("peers_known"), "peer", "peers"));
    [text(&share["path"]), text(&share["state"]), size, peers]
}

/// `list`: paths and states.
pub(super) fn list(home: &Home) -> Outcome {
    let reply = daemon::reach(home)?.ask(&json!({ "type": "list_shares" }))?;
    let rows: Vec<[String; 2]> =
        items(&reply, "shares").iter().map(|share| [text(&share["status"]), text(&share["path"])]).collect();
    if rows.is_empty() { Ok(()) } else { say(&table(&rows, &[])) }
}

/// `peers`: who is known, by share.
pub(super) fn peers(home: &Home) -> Outcome {
    let reply = daemon::reach(home)?.ask(&json!({ "type": "peers" }))?;
    let peers = items(&reply, "peers");
    if peers.is_empty() {
        return say("No peer was met yet.");
    }
    say(&table(&peers.iter().map(peer).collect::<Vec<_>>(), &[3, 4]))
}

fn peer(peer: &Value) -> [String; 6] {
    let number = |member: &str| peer[member].as_u64().unwrap_or(0);
    let name = match text(&peer["name"]) {
        name if name.is_empty() => text(&peer["id"]),
        name => name,
    };
    let state = if peer["connected"] == true { "connected" } else { "away" };
    [
        name,
        state.to_owned(),
        text(&peer["address"]),
        format!("{} received", bytes(number("received"))),
        format!("{} sent", bytes(number("sent"))),
        text(&peer["share"]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_for_people() {
        let shares = json!([
            { "path": "/home/a/Documents", "state": "in sync", "files": 1, "bytes": 4096, "pending_files": 0,
              "pending_bytes": 0, "peers_connected": 1, "peers_known": 1, "conflicts": 0, "problems": [] },
            { "path": "/home/a/Music", "state": "syncing", "files": 20000, "bytes": 81920000u64,
              "pending_files": 12, "pending_bytes": 49152, "peers_connected": 1, "peers_known": 2,
              "conflicts": 2, "problems": ["a\u{7}.txt cannot be read: permission denied."] },
            { "path": "/home/a/Code", "state": "needs attention", "files": 3, "bytes": 12, "pending_files": 1,
              "pending_bytes": 4, "failed_files": 1, "unreadable_files": 2, "held_deletions": 80,
              "peers_connected": 1, "peers_known": 1, "conflicts": 0,
              "problems": ["80 paths are gone at once."] },
        ]);
        let mut status =
            json!({ "paused": false, "upload_rate": 0, "download_rate": 1048576, "shares": shares });
        let going = describe(&status);
        status["paused"] = true.into();
        let paused = describe(&status);
        insta::assert_snapshot!(format!("{going}\n---\n{}", paused.lines().next().unwrap_or_default()));
    }

    #[test]
    fn no_shares_is_said() {
        assert!(describe(&json!({ "shares": [] })).contains("clearskies share DIR"));
    }
}
