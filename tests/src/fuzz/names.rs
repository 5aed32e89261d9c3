//! Names: those of the archive's folders, paths of records and folders, and times as they are written. There are no
//! files that say what to ignore yet, so none are read here.

use clearskies_core::files::archive_name::{
    archive_folder, parse_archive_folder, prune_before, prune_for_space,
};
use clearskies_core::files::conflict::late_name;
use clearskies_core::files::path::{PRIVATE_NAME, RelPath};
use clearskies_core::time::WallTime;
use clearskies_core::wire::time::{parse_time, write_time};

use super::choices::Choices;

/// Each name and each path has one spelling; none leads out of the folder; what is pruned is older than what stays.
pub fn names(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for line in text.split('\n') {
        folder(line);
        path(line);
        time(line);
    }
    prune(&mut Choices::new(bytes), &text);
}

fn folder(name: &str) {
    let Some(time) = parse_archive_folder(name) else { return };
    assert_eq!(archive_folder(time), name, "two names of one time");
    let path = RelPath::new(name).unwrap_or_else(|| panic!("no name of a folder: {name}"));
    assert_eq!(path.depth(), 1);
}

fn path(text: &str) {
    assert_eq!(RelPath::check(text).is_ok(), RelPath::new(text).is_some());
    if let Some(path) = RelPath::from_key(text) {
        assert_eq!(path.to_key(), text, "two keys of one path");
        inside(&path);
    }
    let Some(path) = RelPath::new(text) else { return };
    assert_eq!(path.as_str(), text);
    inside(&path);
    if !path.is_root() {
        let late = late_name(&path, &archive_folder(WallTime(0)), 3);
        inside(&late);
        // Where no name fits beside it, it lies further up.
        let (above, late_above) =
            (path.parent().unwrap_or(RelPath::root()), late.parent().unwrap_or(RelPath::root()));
        assert!(above.starts_with(&late_above), "{late:?}");
        assert_ne!(late, path);
    }
}

fn inside(path: &RelPath) {
    assert!(path.as_str().len() <= RelPath::LEN_MAX && !path.as_str().contains('\0'));
    for name in path.components() {
        assert!(
            !["", ".", "..", PRIVATE_NAME].contains(&name) && name.len() <= RelPath::NAME_LEN_MAX,
            "{path:?}"
        );
    }
    assert_eq!(RelPath::from_sort_key(&path.sort_key()).as_ref(), Some(path));
    if !path.is_root() {
        assert_eq!(RelPath::from_key(&path.to_key()).as_ref(), Some(path));
    }
    if let Some(parent) = path.parent() {
        assert!(path.is_beneath(&parent) && path.starts_with(&parent));
        assert_eq!(parent.join(path.name()).as_ref(), Some(path));
        assert!(parent.sort_key() < path.sort_key(), "a folder comes before what it holds");
        assert!(parent.children_start() <= path.sort_key() && path.sort_key() < parent.subtree_end());
    }
}

fn time(text: &str) {
    let Some(time) = parse_time(text) else { return };
    let mut written = Vec::new();
    write_time(time, &mut written);
    assert_eq!(std::str::from_utf8(&written).ok().and_then(parse_time), Some(time));
}

/// The first line says how long and how much is kept; each other is a folder with as many bytes as its own length.
fn prune(choices: &mut Choices<'_>, text: &str) {
    let mut now = [0; 8];
    now.iter_mut().for_each(|byte| *byte = choices.byte());
    let (now, keep_days) = (WallTime(i64::from_be_bytes(now)), choices.short() as u32);
    let limit = choices.short() as u64;
    let mut folders: Vec<&str> = text.split('\n').collect();
    folders.sort_unstable_by(|a, b| b.cmp(a));
    let sizes = folders.iter().map(|name| (*name, name.len() as u64));
    let before = prune_for_space(sizes, now, keep_days, limit);
    let always = prune_before(now, 0);
    assert!(before <= always, "something of the last day goes");
    assert!(before >= prune_before(now, keep_days), "something older than asked stays");
    assert!(parse_archive_folder(&before).is_some());
}
