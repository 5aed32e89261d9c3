//! Conflict files, held deletions, the archive, and why a file is not in step.

use std::path::Path;

use serde_json::{Value, json};

use super::args::{Conflicts, Deletions, Restore};
use super::table::{bytes, count, table, visible};
use super::{Failure, Outcome, absolute, folder, items, say, text};
use crate::control::client::Client;
use crate::daemon::{self, home::Home};

/// Held deletions shown of each share.
const SHOWN_MAX: usize = 10;

/// `conflicts`: lists conflict files, or decides about one.
pub(super) fn conflicts(home: &Home, conflicts: &Conflicts) -> Outcome {
    let mut client = daemon::reach(home)?;
    let decided = [(&conflicts.keep, true), (&conflicts.drop, false)];
    if let Some((file, keep)) = decided.into_iter().find_map(|(file, keep)| Some((file.as_ref()?, keep))) {
        let file = absolute(file)?;
        client.ask(&json!({ "type": "resolve", "path": file, "keep": keep }))?;
        return say(&if keep {
            format!(
                "{file} takes the place of what it lost to; where that is a directory, it keeps its own name."
            )
        } else {
            format!("{file} is deleted.")
        });
    }
    let path = conflicts.path.as_deref().map(folder).transpose()?;
    let reply = client.ask(&json!({ "type": "conflicts", "path": path }))?;
    let found = items(&reply, "conflicts");
    if found.is_empty() {
        return say("There are no conflict files.");
    }
    let row = |conflict: &Value| {
        let by = format!("by {}", text(&conflict["peer"]));
        [text(&conflict["path"]), text(&conflict["time"]), by]
    };
    say(&table(&found.iter().map(row).collect::<Vec<_>>(), &[]))?;
    say(
        "\n`clearskies conflicts --keep FILE` puts one in place of the file that it lost to, --drop FILE deletes it.",
    )
}

/// `deletions`: lists deletions that are held back, or decides about them.
pub(super) fn deletions(home: &Home, deletions: &Deletions) -> Outcome {
    let mut client = daemon::reach(home)?;
    let path = deletions.path.as_deref().map(folder).transpose()?;
    let reply = client.ask(&json!({ "type": "deletions", "path": path }))?;
    let held = items(&reply, "deletions");
    if !deletions.confirm && !deletions.restore {
        return say(&describe(held));
    }
    let share = match held {
        [] => return Err(Failure("No deletions are held back.".into())),
        [only] => text(&only["share"]),
        _ => {
            return Err(Failure(format!(
                "Several shares hold deletions back; name one.\n{}",
                describe(held)
            )));
        }
    };
    let request = json!({ "type": "decide_deletions", "path": share, "confirm": deletions.confirm });
    client.ask(&request)?;
    say(if deletions.confirm {
        "The files are deleted on the other computers too; their archives keep them for a while."
    } else {
        "The files are brought back."
    })
}

fn describe(held: &[Value]) -> String {
    if held.is_empty() {
        return "No deletions are held back.".into();
    }
    let mut lines = Vec::new();
    for share in held {
        let n = share["count"].as_u64().unwrap_or(0);
        lines.push(format!(
            "{}: {} gone here and held back",
            text(&share["share"]),
            count(n, "path is", "paths are")
        ));
        let paths = items(share, "paths");
        let shown = paths.iter().take(SHOWN_MAX);
        lines.extend(shown.map(|path| format!("    {}", visible(&text(path)))));
        if n > SHOWN_MAX.min(paths.len()) as u64 {
            lines.push(format!("    and {} more", n - SHOWN_MAX.min(paths.len()) as u64));
        }
    }
    lines.push(
        "`--confirm` deletes them on the other computers too, `--restore` brings them back here.".into(),
    );
    lines.join("\n")
}

/// `restore`: brings a file back from the archive, or lists what is there.
pub(super) fn restore(home: &Home, restore: &Restore) -> Outcome {
    let mut client = daemon::reach(home)?;
    let shares = client.ask(&json!({ "type": "list_shares" }))?;
    let shares: Vec<String> = items(&shares, "shares").iter().map(|share| text(&share["path"])).collect();
    let Some(path) = &restore.path else {
        if shares.is_empty() {
            return say("There are no shares.");
        }
        return list(&mut client, &shares);
    };
    let share = folder(path)?;
    if shares.contains(&share) {
        return list(&mut client, &[share]);
    }
    let path = absolute(path)?;
    let reply = client.ask(&json!({ "type": "restore", "path": path, "folder": restore.folder }))?;
    let path = text(&reply["path"]);
    match reply["files"].as_u64() {
        None => say(&format!("{path} is back.")),
        Some(0) => say(&format!("Everything that the archive holds of {path} is there already.")),
        Some(files) => say(&format!("{} back in {path}.", count(files, "file is", "files are"))),
    }
}

fn list(client: &mut Client, shares: &[String]) -> Outcome {
    let mut rows = Vec::new();
    for share in shares {
        let reply = client.ask(&json!({ "type": "archive", "path": share }))?;
        rows.extend(items(&reply, "files").iter().map(|file| {
            let path = format!("{share}/{}", text(&file["path"]));
            let size = file["size"].as_u64().unwrap_or(0);
            [text(&file["folder"]), text(&file["mtime"]), bytes(size), path]
        }));
    }
    if rows.is_empty() {
        return say("The archive is empty.");
    }
    say(&table(&rows, &[2]))?;
    say("\n`clearskies restore PATH` brings the newest version of one back, --folder NAME another one.")
}

/// `why`: why a path is not in step.
pub(super) fn why(home: &Home, path: &Path) -> Outcome {
    let path = absolute(path)?;
    let reply = daemon::reach(home)?.ask(&json!({ "type": "why", "path": path }))?;
    items(&reply, "reasons").iter().try_for_each(|reason| say(&visible(&text(reason))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_deletions_are_counted() {
        let paths: Vec<String> = (0..12).map(|n| format!("f{n}")).collect();
        let shown = describe(&[json!({ "share": "/a", "count": 300, "paths": paths })]);
        assert!(shown.starts_with("/a: 300 paths are gone here and held back\n    f0\n"));
        assert!(shown.contains("    f9\n    and 290 more\n"));
        assert!(describe(&[]).starts_with("No deletions"));
    }
}
