//! What users do to real folders, and what the ledger learns of it. What a user replaces or removes is read as late as
//! can be: the daemon works at the same time.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};

use super::History;
use crate::sim::history::content;
use crate::sim::script::{Step, Verb};
use crate::sim::users::Item;

const LINK_TARGET: &str = "/outside";
const KIND_BITS: u32 = 0o170_000;
const DIR_BITS: u32 = 0o040_000;
const LINK_BITS: u32 = 0o120_000;

/// What a path is, for comparing trees.
pub(super) fn item(mode: u32, data: Vec<u8>) -> Item {
    match mode & KIND_BITS {
        DIR_BITS => Item::Dir(0),
        LINK_BITS => Item::Link(String::from_utf8_lossy(&data).into_owned()),
        _ => Item::File(mode & 0o777, data),
    }
}

/// The names in a directory; none if there is none.
pub(super) fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// All files at a path and beneath, with their contents; `at` is what their paths begin with.
pub(super) fn files(top: &Path, at: &str) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    match top.symlink_metadata() {
        Ok(meta) if meta.is_dir() => {
            for name in names(top).into_iter().filter(|name| name != ".clearskies") {
                let beneath = if at.is_empty() { name.clone() } else { format!("{at}/{name}") };
                found.extend(files(&top.join(name), &beneath));
            }
        }
        Ok(meta) if meta.is_file() => found.extend(fs::read(top).ok().map(|data| (at.to_owned(), data))),
        _ => {}
    }
    found
}

/// Removes what is at a path, and returns the files that it removed, each read just before.
fn remove(top: &Path, at: &str, gone: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    if top.symlink_metadata()?.is_dir() {
        for name in names(top) {
            remove(&top.join(&name), &format!("{at}/{name}"), gone)?;
        }
        return fs::remove_dir(top);
    }
    let file = files(top, at);
    fs::remove_file(top)?;
    gone.extend(file);
    Ok(())
}

/// Renames where nothing has the new name.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

impl History {
    /// A path of a step as a user types it.
    fn typed(&self, node: usize, path: &str) -> Option<String> {
        let Some(number) = path.strip_prefix('*') else { return Some(path.to_owned()) };
        let names = self.nodes[node].names();
        let number = number.parse::<usize>().unwrap_or_default();
        names.get(number.checked_rem(names.len())?).cloned()
    }

    fn files_at(&self, node: usize, path: &str) -> Vec<(String, Vec<u8>)> {
        files(&self.nodes[node].path(path), path)
    }

    pub(super) fn user(&mut self, step: &Step) {
        let node = step.node;
        let Some(path) = self.typed(node, &step.path) else { return };
        let at = self.nodes[node].path(&path);
        let kind = at.symlink_metadata().ok();
        let contents =
            |files: Vec<(String, Vec<u8>)>| files.into_iter().map(|(_, data)| data).collect::<Vec<_>>();
        match step.verb {
            Verb::Write | Verb::Append | Verb::Truncate | Verb::Rewrite => {
                if kind.is_some_and(|kind| !kind.is_file()) {
                    return;
                }
                if let Err(error) = self.edit(step, &at) {
                    self.say(format_args!("  {error}"));
                }
            }
            Verb::Save => {
                if kind.is_some_and(|kind| !kind.is_file()) {
                    return;
                }
                let beside = self.nodes[node].path(&format!("{path}.new"));
                let content = content(step.number, step.size);
                let made = at.parent().map_or(Ok(()), fs::create_dir_all);
                if made.and_then(|()| fs::write(&beside, &content)).is_err() {
                    // It never had a name that counts, and its user clears it away.
                    self.known(&content);
                    let _ = fs::remove_file(&beside);
                    return;
                }
                self.wrote(&content);
                let old = contents(self.files_at(node, &path));
                if let Err(error) = fs::rename(&beside, &at) {
                    self.say(format_args!("  {error}"));
                } else if old.as_slice() != [content] {
                    self.ledger.replaced(&old);
                }
            }
            Verb::Touch => {
                let time = SystemTime::now() + Duration::from_secs(step.number);
                let file = kind.filter(fs::Metadata::is_file).and_then(|_| fs::File::open(&at).ok());
                if file.is_some_and(|file| file.set_modified(time).is_ok()) {
                    let old = contents(self.files_at(node, &path));
                    self.ledger.handled(&old);
                }
            }
            Verb::Chmod => {
                let Some(kind) = kind.filter(|kind| !kind.is_symlink()) else { return };
                let least = if kind.is_dir() { 0o700 } else { 0o400 };
                let mode = u32::try_from(step.number & 0o777).expect("nine bits") | least;
                if fs::set_permissions(&at, fs::Permissions::from_mode(mode)).is_ok() {
                    let old = contents(self.files_at(node, &path));
                    self.ledger.handled(&old);
                }
            }
            Verb::Mkdir => {
                let _ = fs::create_dir_all(&at);
            }
            Verb::Rename | Verb::Swap => {
                let Some(to) = self.typed(node, &step.to) else { return };
                let mut moved = contents(self.files_at(node, &path));
                moved.extend(contents(self.files_at(node, &to)));
                self.ledger.handled(&moved);
                let there = self.nodes[node].path(&to);
                let aside = self.nodes[node].path(&format!("{path}.swap"));
                let done = if step.verb == Verb::Rename {
                    rename(&at, &there)
                } else {
                    rename(&at, &aside)
                        .and_then(|()| rename(&there, &at))
                        .and_then(|()| rename(&aside, &there))
                };
                if let Err(error) = done {
                    self.say(format_args!("  {error}"));
                }
                // What came there in between was moved as well.
                let moved = [self.files_at(node, &path), self.files_at(node, &to)].map(contents).concat();
                self.ledger.handled(&moved);
            }
            Verb::Remove => {
                let mut gone = Vec::new();
                let _ = remove(&at, &path, &mut gone);
                self.ledger.deleted(node, &gone);
            }
            Verb::Link => {
                let _ = std::os::unix::fs::symlink(LINK_TARGET, &at);
            }
            Verb::Restore => self.restore(node, step.number),
            Verb::Resolve => self.resolve(node, step.number),
            Verb::Decide => {
                let confirm = step.number == 1;
                if !confirm {
                    self.ledger.undeleted(node);
                }
                let share = self.nodes[node].share();
                let _ = self.nodes[node]
                    .ask(&json!({ "type": "decide_deletions", "path": share, "confirm": confirm }));
            }
            _ => {}
        }
    }

    /// A user wrote a content. One that was there before may come back before any program looks: to them, and to
    /// whoever replaces it elsewhere, that is no change.
    fn wrote(&mut self, content: &[u8]) {
        let again = self.ledger.knows(content);
        self.ledger.wrote(content);
        if again {
            self.ledger.went_unseen(content);
        }
    }

    /// A content that was to be seen for a moment, and that nobody misses.
    fn known(&mut self, content: &[u8]) {
        self.ledger.wrote(content);
        self.ledger.handled(&[content.to_vec()]);
        self.ledger.replaced(&[content.to_vec()]);
    }

    /// Changes a file in place. What is read is what is overwritten: both go to the same inode.
    fn edit(&mut self, step: &Step, at: &Path) -> io::Result<()> {
        let makes = step.verb == Verb::Write;
        if makes && let Some(above) = at.parent() {
            fs::create_dir_all(above)?;
        }
        let was_there = at.exists();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(makes).mode(0o644);
        let mut file = options.open(at)?;
        let mut old = Vec::new();
        file.read_to_end(&mut old)?;
        let mut new = old.clone();
        match step.verb {
            Verb::Append => new.extend(content(step.number, 0)),
            Verb::Truncate => new.truncate(old.len() / 2),
            Verb::Rewrite => {}
            _ => new = content(step.number, step.size),
        }
        let same = was_there && new == old;
        if same {
            self.ledger.handled(&[old.clone()]);
        } else {
            // Whoever looks in the middle of it sees an empty file, or the first part of the new bytes.
            self.known(&[]);
            self.ledger.replaced(&[old.clone()]);
            self.wrote(&new);
        }
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let written = match step.verb {
            Verb::Append => file.write_all(&new[old.len()..]),
            Verb::Truncate => file.set_len(new.len() as u64),
            _ => fs::write(&path, &new),
        };
        if written.is_err() {
            // A full disk leaves what it could take, which its user does not miss; nor has he the new content.
            self.ledger.replaced(&[new]);
            let left = fs::read(&path)?;
            self.known(&left);
        }
        written
    }

    fn restore(&mut self, node: usize, number: u64) {
        let share = self.nodes[node].share();
        let Some(answer) = self.nodes[node].ask(&json!({ "type": "archive", "path": share })) else { return };
        let Some(pick) = pick(&answer["files"], number) else { return };
        let (folder, path) = (text(&pick["folder"]), text(&pick["path"]));
        let Ok(kept) = fs::read(self.nodes[node].path(&format!(".clearskies/archive/{folder}/{path}")))
        else {
            return;
        };
        let alive = self.ledger.alive().any(|content| *content == kept);
        self.ledger.handled(std::slice::from_ref(&kept));
        let path = format!("{share}/{path}");
        let answer = self.nodes[node].ask(&json!({ "type": "restore", "path": path, "folder": folder }));
        if answer.is_some_and(|answer| answer.get("error").is_none()) && !alive {
            self.ledger.restored(node, &kept);
        }
    }

    fn resolve(&mut self, node: usize, number: u64) {
        let share = self.nodes[node].share();
        let Some(answer) = self.nodes[node].ask(&json!({ "type": "conflicts", "path": share })) else {
            return;
        };
        let Some(pick) = pick(&answer["conflicts"], number / 2) else { return };
        self.ledger.settled();
        let (path, keep) = (text(&pick["path"]), number.is_multiple_of(2));
        let _ = self.nodes[node].ask(&json!({ "type": "resolve", "path": path, "keep": keep }));
    }
}

/// The item of a list with this number, counted around.
fn pick(list: &Value, number: u64) -> Option<Value> {
    let list = list.as_array()?;
    let number = usize::try_from(number).ok()?.checked_rem(list.len())?;
    list.get(number).cloned()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
