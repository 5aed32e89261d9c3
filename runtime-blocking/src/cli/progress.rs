//! Showing a sync as it goes on. Leaving it leaves the sync alone: that is the daemon's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use signal_hook::consts::SIGINT;

use super::table::{bytes, count, rate, time_left, visible};
use super::{Failure, Outcome, items, say, text};
use crate::control::client::Client;

/// How often the daemon is asked.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// What is shown of one moment.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// All is in step.
    InSync,
    /// Nothing goes on by itself; a sentence.
    Stuck(String),
    /// It goes on.
    Going { line: String, pending: u64 },
}

/// Shows progress until the share (or every share) is in step, or the user leaves with Ctrl-C.
pub(super) fn show(client: &mut Client, path: Option<&str>) -> Outcome {
    let leave = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGINT, leave.clone())
        .map_err(|error| Failure(format!("Ctrl-C cannot be caught: {error}")))?;
    let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stdout());
    let style =
        ProgressStyle::with_template("{bar:30} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style);
    let mut most = 0;
    while !leave.load(Ordering::Relaxed) {
        let status = client.ask(&json!({ "type": "node_status" }))?;
        match look(&status, path) {
            Seen::InSync => {
                bar.finish_and_clear();
                return say("Everything is in step.");
            }
            Seen::Stuck(sentence) => {
                bar.finish_and_clear();
                return Err(Failure(sentence));
            }
            Seen::Going { line, pending } => {
                most = pending.max(most);
                // A bar of no length would be drawn as a full one before anything is known.
                bar.set_length(most.max(1));
                bar.set_position(most - pending);
                bar.set_message(line);
            }
        }
        std::thread::sleep(ASK_EVERY);
    }
    bar.finish_and_clear();
    say("The sync goes on in the background; `clearskies status` shows how far it is.")
}

fn look(status: &Value, path: Option<&str>) -> Seen {
    let shares = items(status, "shares").iter();
    let shares: Vec<&Value> = shares.filter(|share| path.is_none_or(|path| share["path"] == path)).collect();
    if shares.is_empty() {
        return Seen::Stuck("There is nothing to sync: this share is gone.".into());
    }
    if shares.iter().all(|share| share["in_sync"] == true) {
        return Seen::InSync;
    }
    let stuck = |share: &&&Value| match share["state"].as_str() {
        Some("stopped" | "paused") => true,
        // What failed is tried again; anything else waits for the user.
        Some("needs attention") => share["pending_files"] == 0,
        _ => false,
    };
    if let Some(share) = shares.iter().find(stuck) {
        let why = items(share, "problems").iter().map(|problem| visible(&text(problem)));
        let why = why.collect::<Vec<_>>().join(" ");
        let state = match text(&share["state"]) {
            state if state.starts_with("needs") => state,
            state => format!("is {state}"),
        };
        return Seen::Stuck(format!("{} {state}. {why}", text(&share["path"])));
    }
    let sum = |member: &str| shares.iter().filter_map(|share| share[member].as_u64()).sum::<u64>();
    let (pending, files) = (sum("pending_bytes"), sum("pending_files"));
    let speed = status["download_rate"].as_u64().unwrap_or(0);
    let state = shares.iter().find(|share| share["in_sync"] != true);
    let state = match state.map(|share| text(&share["state"])).as_deref() {
        Some("connecting") => "looking for a computer that knows the code".into(),
        Some(state) => state.to_owned(),
        None => String::new(),
    };
    let mut line = state;
    if files > 0 {
        line = format!(
            "{line}, {} and {} to go, {}",
            count(files, "file", "files"),
            bytes(pending),
            rate(speed)
        );
        if let Some(left) = time_left(pending, speed) {
            line = format!("{line}, {left}");
        }
    }
    Seen::Going { line, pending }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(path: &str, state: &str, files: u64, bytes: u64) -> Value {
        json!({ "path": path, "state": state, "in_sync": state == "in sync", "pending_files": files,
            "pending_bytes": bytes, "problems": ["It is gone."] })
    }

    fn check(shares: &[Value], path: Option<&str>) -> Seen {
        look(&json!({ "download_rate": 1000, "shares": shares }), path)
    }

    #[test]
    fn progress_ends_when_all_is_in_step() {
        let shares = [share("/a", "in sync", 0, 0), share("/b", "syncing", 2, 60_000)];
        assert_eq!(check(&shares, Some("/a")), Seen::InSync);
        let line = "syncing, 2 files and 58.59 KiB to go, 1000 B/s, 60 seconds left".to_owned();
        assert_eq!(check(&shares, None), Seen::Going { line, pending: 60_000 });
        let joining = [share("/c", "connecting", 0, 0)];
        let line = "looking for a computer that knows the code".to_owned();
        assert_eq!(check(&joining, None), Seen::Going { line, pending: 0 });
    }

    #[test]
    fn progress_ends_where_nothing_goes_on() {
        let shares = [share("/a", "stopped", 1, 1)];
        assert_eq!(check(&shares, None), Seen::Stuck("/a is stopped. It is gone.".into()));
        assert!(matches!(check(&shares, Some("/z")), Seen::Stuck(_)));
        let shares = [share("/a", "needs attention", 0, 0)];
        assert_eq!(check(&shares, None), Seen::Stuck("/a needs attention. It is gone.".into()));
        let shares = [share("/a", "needs attention", 1, 1)];
        assert!(matches!(check(&shares, None), Seen::Going { .. }));
    }
}
