//! Conflicts, each with one deterministic outcome: names and records of conflict files, live records that claim one
//! path (protocol §7, §8). Pure; every peer computes the same.

use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Reverse;

use data_encoding::BASE32;
use ring::digest;

use crate::files::path::RelPath;
use crate::files::plan::entry;
use crate::ids::Uuid;
use crate::index::record::{Change, EntryContent, EntryValue, Meta, Record};

/// The 8 characters that tell conflict files of one name apart: base32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag([u8; 8]);

impl Tag {
    /// Of five bytes of a digest.
    fn new(bytes: [u8; 5]) -> Tag {
        let mut tag = [b'A'; 8];
        BASE32.encode_mut(&bytes, &mut tag);
        Tag(tag)
    }

    /// As in a name.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).unwrap_or("AAAAAAAA")
    }
}

/// What stands between a name and its tag.
const MARK: &str = ".CONFLICT.";

/// An extension longer than this, in bytes, is taken for a part of the name.
const EXTENSION_LEN_MAX: usize = 32;

/// The record of the conflict file that a losing value becomes. `value_change` and `value_clock` are the loser's
/// own; only `vector_clock` and `key_change` take the maker's new dot (protocol §8).
#[derive(Clone, Debug, PartialEq)]
pub struct ConflictFile {
    /// The new record's name.
    pub uuid: Uuid,
    /// Its path.
    pub path: RelPath,
    /// Its value: the loser's, with the source.
    pub value: EntryValue,
    /// The loser's.
    pub meta: Meta,
}

/// The record for the value of `loser`, a version that lost at `path`; `None` if it is no file or link, which
/// loses nothing.
pub fn conflict_file(loser: &Record, path: &RelPath) -> Option<ConflictFile> {
    let lost = entry(loser).filter(|value| value.content != EntryContent::Dir)?;
    let (tag, uuid) = conflict_id(loser.uuid, &loser.value_change);
    let mut value = lost.clone();
    // Among versions of a conflict file, the loser is a sibling: it has the same source.
    value.conflict_source = lost.conflict_source.or(Some(loser.uuid));
    Some(ConflictFile { uuid, path: conflict_name(path, tag), value, meta: loser.meta.clone() })
}

/// The tag and uuid of the conflict file of a losing value.
pub fn conflict_id(loser: Uuid, value_change: &Change) -> (Tag, Uuid) {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"conflict");
    update_dot(&mut context, loser, value_change);
    let digest = context.finish();
    let bytes = digest.as_ref();
    // A SHA-256 has 32 bytes, so neither default is ever taken.
    let tag = bytes.first_chunk().copied().unwrap_or_default();
    let uuid = bytes.last_chunk().copied().unwrap_or_default();
    (Tag::new(tag), Uuid(uuid))
}

/// The path that a hidden record gets when it leaves `path`; never `path` itself.
pub fn hidden_name(record: &Record, path: &RelPath) -> RelPath {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"hidden");
    update_dot(&mut context, record.uuid, &record.value_change);
    context.update(path.to_key().as_bytes());
    let digest = context.finish();
    let mut names = digest
        .as_ref()
        .chunks_exact(5)
        .filter_map(|chunk| chunk.try_into().ok())
        .map(|chunk| conflict_name(path, Tag::new(chunk)));
    let first = names.next().unwrap_or_else(|| conflict_name(path, Tag::new([0; 5])));
    if first == *path { names.find(|name| name != path).unwrap_or(first) } else { first }
}

/// The path that a file gets which was written after it went to this folder of the archive (sync.md, Deletes); the
/// `n`th name, where the ones before are taken.
pub fn late_name(path: &RelPath, folder: &str, n: u32) -> RelPath {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"late");
    context.update(path.to_key().as_bytes());
    context.update(folder.as_bytes());
    context.update(&n.to_be_bytes());
    let digest = context.finish();
    // A SHA-256 has 32 bytes, so the default is never taken.
    conflict_name(path, Tag::new(digest.as_ref().first_chunk().copied().unwrap_or_default()))
}

fn update_dot(context: &mut digest::Context, uuid: Uuid, change: &Change) {
    context.update(&uuid.0);
    context.update(&change.peer.0);
    context.update(&change.rev.to_be_bytes());
}

/// `name.CONFLICT.XXXXXXXX.ext` beside `path`. A conflict file's own path gives a name after the original's. The
/// name's stem is cut at a character where it grows too long; where even the shortest does not fit the path, it lies
/// in the nearest directory above where it does.
pub fn conflict_name(path: &RelPath, tag: Tag) -> RelPath {
    let name = path.name();
    let (stem, extension) = original_parts(name).unwrap_or_else(|| split_extension(name));
    let dot = if extension.is_empty() { "" } else { "." };
    let fixed = MARK.len() + tag.0.len() + dot.len() + extension.len();
    for dir in path.ancestors() {
        let dir_len = if dir.is_root() { 0 } else { dir.as_str().len() + 1 };
        let room = RelPath::NAME_LEN_MAX.min(RelPath::LEN_MAX.saturating_sub(dir_len));
        let Some(stem_room) = room.checked_sub(fixed).filter(|room| *room > 0) else { continue };
        let stem = cut(stem, stem_room);
        let name: String = [stem, MARK, tag.as_str(), dot, extension].concat();
        if let Some(path) = dir.join(&name) {
            return path;
        }
    }
    // The root itself has no record; any other path found room in the root at the latest.
    path.clone()
}

/// The longest start of `text` that has at most `len_max` bytes and ends at a character.
fn cut(text: &str, len_max: usize) -> &str {
    let mut len = len_max.min(text.len());
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    &text[..len]
}

/// Stem and extension; the last extension only, and none of a dotfile.
fn split_extension(name: &str) -> (&str, &str) {
    match name.rsplit_once('.') {
        Some((stem, extension))
            if !stem.trim_start_matches('.').is_empty()
                && !extension.is_empty()
                && extension.len() <= EXTENSION_LEN_MAX =>
        {
            (stem, extension)
        }
        _ => (name, ""),
    }
}

/// Stem and extension of the original, if this is a conflict file's name.
fn original_parts(name: &str) -> Option<(&str, &str)> {
    let (stem, rest) = name.rsplit_once(MARK)?;
    let (tag, rest) = rest.split_at_checked(8)?;
    let is_tag = tag.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'2'..=b'7'));
    let extension = if rest.is_empty() { Some("") } else { rest.strip_prefix('.') };
    extension.filter(|_| is_tag && !stem.is_empty()).map(|extension| (stem, extension))
}

/// Which of the live records under one key is shown; `implied_dir` says whether live records lie beneath it. A
/// directory comes before a file or link, then the larger `value_change`, then the smaller uuid; a value of no
/// shape that
/// a path can have comes last.
pub fn shown<'a>(live: &[&'a Record], implied_dir: bool) -> Option<&'a Record> {
    live.iter().copied().filter(|record| !implied_dir || is_dir(record)).max_by_key(|record| {
        (entry(record).is_some(), is_dir(record), record.value_change, Reverse(record.uuid))
    })
}

fn is_dir(record: &Record) -> bool {
    entry(record).is_some_and(|value| value.content == EntryContent::Dir)
}

/// No record has this uuid: what a conflict file lost to where that is a directory which only stands for what lies
/// beneath it (protocol §8).
pub const NO_RECORD: Uuid = Uuid([0; 16]);

/// What a read_write peer does with a hidden record, once K covers the clocks of all records concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HiddenFate {
    /// It becomes a conflict file.
    Rename {
        /// It gets the key of this path.
        to: RelPath,
        /// The record that is shown in its place; [`NO_RECORD`] where that is a directory without one.
        lost_to: Uuid,
    },
    /// Its value equals the shown one: it is deleted.
    Delete,
}

/// What becomes of two live records under one key, none of which is an implied directory.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair<'a> {
    /// The one that keeps the path.
    pub shown: &'a Record,
    /// The other one.
    pub hidden: &'a Record,
    /// What is done with it; `None` if its value is of no shape that a path can have.
    pub fate: Option<HiddenFate>,
}

/// Decides between two live records at `path`.
pub fn resolve_pair<'a>(a: &'a Record, b: &'a Record, path: &RelPath) -> Pair<'a> {
    let a_wins = shown(&[a, b], false).is_some_and(|winner| winner.uuid == a.uuid);
    let (shown, hidden) = if a_wins { (a, b) } else { (b, a) };
    Pair { shown, hidden, fate: hidden_fate(Some(shown), hidden, path) }
}

/// What becomes of each hidden record among the live ones at `path`, ordered by uuid.
pub fn resolve(live: &[&Record], implied_dir: bool, path: &RelPath) -> Vec<(Uuid, HiddenFate)> {
    let winner = shown(live, implied_dir);
    let mut fates: Vec<(Uuid, HiddenFate)> = live
        .iter()
        .filter(|record| winner.is_none_or(|winner| winner.uuid != record.uuid))
        .filter_map(|hidden| Some((hidden.uuid, hidden_fate(winner, hidden, path)?)))
        .collect();
    fates.sort_by_key(|(uuid, _)| *uuid);
    fates
}

fn hidden_fate(winner: Option<&Record>, hidden: &Record, path: &RelPath) -> Option<HiddenFate> {
    let value = entry(hidden)?;
    let equal = winner.and_then(entry).is_some_and(|shown| shown.content == value.content);
    if equal {
        return Some(HiddenFate::Delete);
    }
    let lost_to = winner.map_or(NO_RECORD, |winner| winner.uuid);
    Some(HiddenFate::Rename { to: hidden_name(hidden, path), lost_to })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::fixture::{edited, file, file_record, path, record};
    use crate::ids::PeerId;
    use crate::index::record::Value;
    use crate::time::WallTime;
    use proptest::prelude::*;

    fn tag() -> Tag {
        Tag::new([0, 1, 2, 3, 4])
    }

    #[test]
    fn names() {
        for (from, to) in [
            ("a.txt", "a.CONFLICT.AAAQEAYE.txt"),
            ("d/a.txt", "d/a.CONFLICT.AAAQEAYE.txt"),
            ("a", "a.CONFLICT.AAAQEAYE"),
            ("a.tar.gz", "a.tar.CONFLICT.AAAQEAYE.gz"),
            (".bashrc", ".bashrc.CONFLICT.AAAQEAYE"),
            (".config.toml", ".config.CONFLICT.AAAQEAYE.toml"),
            ("...", "....CONFLICT.AAAQEAYE"),
            ("a.", "a..CONFLICT.AAAQEAYE"),
            ("a b.ö", "a b.CONFLICT.AAAQEAYE.ö"),
            ("d.x/a", "d.x/a.CONFLICT.AAAQEAYE"),
            // A conflict of a conflict file.
            ("a.CONFLICT.ZZZZ2345.txt", "a.CONFLICT.AAAQEAYE.txt"),
            ("a.CONFLICT.ZZZZ2345", "a.CONFLICT.AAAQEAYE"),
            // No tags: part of the name.
            ("a.CONFLICT.zzzz2345.txt", "a.CONFLICT.zzzz2345.CONFLICT.AAAQEAYE.txt"),
            ("a.CONFLICT.ZZZ", "a.CONFLICT.CONFLICT.AAAQEAYE.ZZZ"),
            ("a.CONFLICT.ZZZZ2345x", "a.CONFLICT.CONFLICT.AAAQEAYE.ZZZZ2345x"),
        ] {
            assert_eq!(conflict_name(&path(from), tag()).as_str(), to, "{from}");
        }
    }

    #[test]
    fn long_names_are_cut_at_a_character() {
        let name = "ä".repeat(127) + "." + "x";
        let name = &name[..name.len().min(255)];
        let cut = conflict_name(&path(name), tag());
        assert!(cut.name().len() <= 255 && cut.name().len() >= 253);
        assert!(cut.name().starts_with("ää"));
        // The path's limit counts as well; where no stem fits, the name goes up.
        let mut deep = String::new();
        while deep.len() + 201 < RelPath::LEN_MAX - 2 {
            deep += &"d".repeat(200);
            deep += "/";
        }
        let parent = path(deep.trim_end_matches('/'));
        let rest = RelPath::LEN_MAX - deep.len();
        for len in [rest.min(255), 19, 5, 1] {
            let from = parent.join(&"n".repeat(len)).expect("fits");
            let to = conflict_name(&from, tag());
            assert!(to.as_str().len() <= RelPath::LEN_MAX && to != from);
        }
        let tail = "e".repeat(RelPath::LEN_MAX - deep.len() - 2);
        let full = if tail.len() <= 255 { parent.join(&tail) } else { None };
        if let Some(full) = full.and_then(|dir| dir.join("n")) {
            assert_eq!(conflict_name(&full, tag()).parent(), Some(parent));
        }
    }

    /// Known answers, computed from the rule in protocol §8 with another implementation of SHA-256 and base32.
    #[test]
    fn ids_are_those_of_the_specification() {
        let change = Change { time: WallTime(5), peer: PeerId([2; 16]), rev: 3 };
        let (tag, uuid) = conflict_id(Uuid([1; 16]), &change);
        assert_eq!(tag.as_str(), "4PS7SF3L");
        assert_eq!(uuid.to_hex(), "b7ce786fa35c0d4fbd501ba8a05fe392");
        let hidden = hidden_name(&file_record(1, "/a.txt", 1, 1), &path("a.txt"));
        assert_eq!(hidden.as_str(), "a.CONFLICT.KJ25LCCZ.txt");
    }

    #[test]
    fn a_conflict_file_is_the_same_whoever_makes_it() {
        let old = file_record(1, "/a.txt", 1, 1);
        let loser = edited(&old, file(2), 2, 2);
        let made = conflict_file(&loser, &path("a.txt")).expect("a file");
        assert_eq!(made.value.conflict_source, Some(loser.uuid));
        assert_eq!(made.value.content, file(2));
        // The maker may have joined other parts of the record since.
        let mut later = loser.clone();
        later.meta_change.rev = 9;
        later.clock.set(PeerId([9; 16]), 4);
        assert_eq!(conflict_file(&later, &path("a.txt")), Some(made.clone()));
        // A sibling keeps the source.
        let mut sibling = loser.clone();
        sibling.uuid = made.uuid;
        sibling.value = Value::Entry(made.value.clone());
        let made_2 = conflict_file(&sibling, &made.path).expect("a file");
        assert_eq!(made_2.value.conflict_source, Some(loser.uuid));
        assert_eq!(made_2.path.name().matches("CONFLICT").count(), 1);
        assert_ne!(made_2.path, made.path);
        assert_eq!(conflict_file(&record(1, "/a", EntryContent::Dir, 1, 1), &path("a")), None);
    }

    #[test]
    fn pairs() {
        let dir = |uuid, rev| record(uuid, "/a", EntryContent::Dir, 1, rev);
        let link = |uuid, rev| record(uuid, "/a", EntryContent::Link("t".into()), 1, rev);
        let p = path("a");
        // Winner, loser, whether the loser is deleted.
        for (winner, loser, delete) in [
            (file_record(1, "/a", 1, 2), file_record(2, "/a", 2, 1), false),
            (file_record(1, "/a", 1, 2), file_record(2, "/a", 1, 1), true),
            (file_record(1, "/a", 1, 2), file_record(2, "/a", 2, 2), false),
            (dir(1, 1), file_record(2, "/a", 2, 9), false),
            (dir(1, 2), dir(2, 1), true),
            (dir(1, 1), link(2, 9), false),
            (link(1, 2), link(2, 1), true),
            (link(1, 2), file_record(2, "/a", 1, 1), false),
        ] {
            for (a, b) in [(&winner, &loser), (&loser, &winner)] {
                let pair = resolve_pair(a, b, &p);
                assert_eq!((pair.shown, pair.hidden), (&winner, &loser));
                match pair.fate {
                    Some(HiddenFate::Delete) => assert!(delete),
                    Some(HiddenFate::Rename { to, lost_to }) => {
                        assert!(!delete && to != p && to == hidden_name(&loser, &p));
                        assert_eq!(lost_to, winner.uuid);
                    }
                    None => panic!("both are entries"),
                }
            }
        }
        // An implied directory hides every file; a directory's own record then stays shown.
        let (one, two) = (file_record(1, "/a", 1, 2), file_record(2, "/a", 1, 1));
        assert_eq!(shown(&[&one, &two], true), None);
        let fates = resolve(&[&two, &one], true, &p);
        let to_none = |fate: &HiddenFate| matches!(fate, HiddenFate::Rename { lost_to: NO_RECORD, .. });
        assert!(fates.len() == 2 && fates.iter().all(|(_, fate)| to_none(fate)));
        assert_eq!(shown(&[&one, &dir(3, 1)], true), Some(&dir(3, 1)));
        // What is no entry is never shown before one, and is left alone.
        let odd = Record { value: Value::Null, ..file_record(9, "/a", 1, 9) };
        assert_eq!(shown(&[&odd, &one], false), Some(&one));
        assert_eq!(resolve(&[&odd, &one], false, &p), []);
    }

    #[test]
    fn a_hidden_record_leaves_its_key() {
        let record = file_record(1, "/a.txt", 1, 1);
        let first = hidden_name(&record, &path("a.txt"));
        let second = hidden_name(&record, &first);
        assert_ne!(first, path("a.txt"));
        assert_ne!(second, first);
        assert_eq!(second.name().matches("CONFLICT").count(), 1);
    }

    proptest! {
        #[test]
        fn conflict_names_are_paths(text in "[a-zä.]{1,300}(/[a-z.äC]{1,260}){0,20}", bytes in any::<[u8; 5]>()) {
            if let Some(from) = RelPath::new(&text) {
                let to = conflict_name(&from, Tag::new(bytes));
                prop_assert_eq!(RelPath::new(to.as_str()), Some(to.clone()));
                // A conflict of the conflict has the same name but for its tag.
                let again = conflict_name(&to, Tag::new(bytes));
                prop_assert_eq!(again, to);
            }
        }
    }
}
