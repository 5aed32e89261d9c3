//! Paths within a share, and which of them may exist (protocol §8). Never looks at a disk.

use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;

/// A path relative to a share's root: UTF-8 components joined by `/`, no leading or trailing slash; empty for the
/// root itself. No component is empty, `.`, `..`, `.clearskies`, or holds NUL. Ordered component by component, so
/// that a directory comes right before everything beneath it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RelPath(String);

/// The folder in a share's root that belongs to the program, and the component that no path may have.
pub const PRIVATE_NAME: &str = ".clearskies";
/// Where in a share its archive lies.
const ARCHIVE: &str = ".clearskies/archive";

/// Why a string is no path of a share (protocol §8, "Never made into a path").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// A key without the leading slash belongs to an extension.
    NotAPath,
    /// Longer than [`RelPath::LEN_MAX`].
    TooLong,
    /// A component longer than [`RelPath::NAME_LEN_MAX`].
    NameTooLong,
    /// Nothing between two slashes, or before the first, or after the last.
    EmptyName,
    /// A component `.` or `..`.
    Dots,
    /// A NUL byte.
    Nul,
    /// A component `.clearskies`.
    Private,
}

impl PathError {
    /// A sentence for people.
    pub fn sentence(self) -> &'static str {
        match self {
            PathError::NotAPath => "The key does not begin with a slash, so it names no file.",
            PathError::TooLong => "The path is longer than 4096 bytes.",
            PathError::NameTooLong => "A name in the path is longer than 255 bytes.",
            PathError::EmptyName => "A name in the path is empty.",
            PathError::Dots => "A name in the path is \".\" or \"..\", which could lead out of the share.",
            PathError::Nul => "The path holds a NUL character, which no file system allows.",
            PathError::Private => "\".clearskies\" is the program's own folder and is never synced.",
        }
    }
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

impl RelPath {
    /// The longest path, in bytes: PATH_MAX of Linux, the largest of the common systems.
    pub const LEN_MAX: usize = 4096;
    /// The longest component, in bytes: NAME_MAX of Linux.
    pub const NAME_LEN_MAX: usize = 255;

    /// The share's root.
    pub const fn root() -> RelPath {
        RelPath(String::new())
    }

    /// A path from its text; the empty text is the root. `None` where [`RelPath::check`] objects.
    pub fn new(text: &str) -> Option<RelPath> {
        Self::check(text).ok().map(|()| RelPath(text.into()))
    }

    /// Whether a text is a path, or why not. The length is looked at first.
    pub fn check(text: &str) -> Result<(), PathError> {
        if text.is_empty() {
            return Ok(());
        }
        if text.len() > Self::LEN_MAX {
            return Err(PathError::TooLong);
        }
        text.split('/').try_for_each(check_name)
    }

    /// The path that a record's key names; keys begin with a slash, and the root has no record.
    pub fn from_key(key: &str) -> Option<RelPath> {
        Self::check_key(key).ok()?;
        key.strip_prefix('/').map(|text| RelPath(text.into()))
    }

    /// Whether a record's key names a path, or why not.
    pub fn check_key(key: &str) -> Result<(), PathError> {
        match key.strip_prefix('/') {
            None => Err(PathError::NotAPath),
            Some("") => Err(PathError::EmptyName),
            Some(text) => Self::check(text),
        }
    }

    /// Where a file lies that went to this folder of the archive: a path that no record, and nothing from outside, can
    /// have. `None` if it grows too long.
    pub fn in_archive(folder: &str, path: &RelPath) -> Option<RelPath> {
        let mut text = String::from(ARCHIVE);
        text.push('/');
        text.push_str(folder);
        RelPath(text).append(&path.0).filter(|_| !path.is_root())
    }

    /// The key of the record at this path.
    pub fn to_key(&self) -> String {
        let mut key = String::with_capacity(self.0.len() + 1);
        key.push('/');
        key.push_str(&self.0);
        key
    }

    /// Whether `key` is this path's key; needs no allocation.
    pub fn is_key(&self, key: &str) -> bool {
        !self.0.is_empty() && key.strip_prefix('/') == Some(self.0.as_str())
    }

    /// The text, without a leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the share's root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path of `name` in this directory; `None` if `name` is not one legal component or the path grows too long.
    pub fn join(&self, name: &str) -> Option<RelPath> {
        if name.contains('/') {
            return None;
        }
        check_name(name).ok()?;
        self.append(name)
    }

    /// This path with all of `beneath` behind it; `None` if it grows too long.
    pub fn join_path(&self, beneath: &RelPath) -> Option<RelPath> {
        if beneath.is_root() {
            return Some(self.clone());
        }
        self.append(&beneath.0)
    }

    /// `tail` is known to be legal; only the length is left to be checked.
    fn append(&self, tail: &str) -> Option<RelPath> {
        if self.is_root() {
            return Some(RelPath(tail.into()));
        }
        let len = self.0.len() + 1 + tail.len();
        if len > Self::LEN_MAX {
            return None;
        }
        let mut text = String::with_capacity(len);
        text.push_str(&self.0);
        text.push('/');
        text.push_str(tail);
        Some(RelPath(text))
    }

    /// The directory that holds this path; `None` for the root.
    pub fn parent(&self) -> Option<RelPath> {
        if self.is_root() {
            return None;
        }
        Some(match self.0.rsplit_once('/') {
            Some((parent, _)) => RelPath(parent.into()),
            None => RelPath::root(),
        })
    }

    /// The directories above this path, nearest first, ending with the root.
    pub fn ancestors(&self) -> impl Iterator<Item = RelPath> {
        core::iter::successors(self.parent(), RelPath::parent)
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// The components, topmost first; none for the root.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/').filter(|name| !name.is_empty())
    }

    /// How many components it has.
    pub fn depth(&self) -> usize {
        if self.is_root() { 0 } else { 1 + self.0.bytes().filter(|&byte| byte == b'/').count() }
    }

    /// Whether this is `dir` or lies beneath it.
    pub fn starts_with(&self, dir: &RelPath) -> bool {
        match self.0.strip_prefix(dir.0.as_str()) {
            Some(rest) => dir.is_root() || rest.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }

    /// Whether this lies beneath `dir`, and is not `dir` itself.
    pub fn is_beneath(&self, dir: &RelPath) -> bool {
        self.0.len() > dir.0.len() && self.starts_with(dir)
    }

    /// What is left of this path behind `dir`: the root for `dir` itself; `None` if it does not lie there.
    pub fn strip_prefix(&self, dir: &RelPath) -> Option<RelPath> {
        if !self.starts_with(dir) {
            return None;
        }
        let rest = self.0.get(dir.0.len()..).unwrap_or("");
        Some(RelPath(rest.strip_prefix('/').unwrap_or(rest).into()))
    }

    /// Where this path lies once `from`, at or above it, has become `to`; `None` if it does not lie there, or the
    /// path grows too long.
    pub fn rebase(&self, from: &RelPath, to: &RelPath) -> Option<RelPath> {
        to.join_path(&self.strip_prefix(from)?)
    }

    /// The path as a key of the store: `/` as a zero byte, so that byte order is the order of paths.
    pub fn sort_key(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.0.len());
        self.push_sort_key(&mut key);
        key
    }

    /// Appends [`RelPath::sort_key`].
    pub fn push_sort_key(&self, key: &mut Vec<u8>) {
        let start = key.len();
        key.extend_from_slice(self.0.as_bytes());
        key[start..].iter_mut().for_each(|byte| *byte = sort_byte(*byte));
    }

    /// Reads what [`RelPath::sort_key`] wrote.
    pub fn from_sort_key(key: &[u8]) -> Option<RelPath> {
        if key.len() > Self::LEN_MAX || key.contains(&b'/') {
            return None;
        }
        let text = key.iter().map(|&byte| if byte == 0 { b'/' } else { byte }).collect();
        let text = String::from_utf8(text).ok()?;
        Self::check(&text).ok()?;
        Some(RelPath(text))
    }

    /// The first sort key that anything beneath this path can have.
    pub fn children_start(&self) -> Vec<u8> {
        if self.is_root() {
            // No component begins with a zero byte.
            return alloc::vec![1];
        }
        let mut key = self.sort_key();
        key.push(0);
        key
    }

    /// The exclusive end of the sort keys of this path and everything beneath it.
    pub fn subtree_end(&self) -> Vec<u8> {
        if self.is_root() {
            // No UTF-8 text holds this byte.
            return alloc::vec![0xff];
        }
        let mut key = self.sort_key();
        key.push(1);
        key
    }
}

/// Whether one component may exist.
fn check_name(name: &str) -> Result<(), PathError> {
    if name.is_empty() {
        return Err(PathError::EmptyName);
    }
    if name.len() > RelPath::NAME_LEN_MAX {
        return Err(PathError::NameTooLong);
    }
    if name == "." || name == ".." {
        return Err(PathError::Dots);
    }
    if name == PRIVATE_NAME {
        return Err(PathError::Private);
    }
    if name.bytes().any(|byte| byte == 0) {
        return Err(PathError::Nul);
    }
    Ok(())
}

/// The slash sorts below every byte that a name may hold.
fn sort_byte(byte: u8) -> u8 {
    if byte == b'/' { 0 } else { byte }
}

impl Ord for RelPath {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (self.0.as_bytes(), other.0.as_bytes());
        let at = common_prefix(a, b);
        match (a.get(at), b.get(at)) {
            (Some(&x), Some(&y)) => sort_byte(x).cmp(&sort_byte(y)),
            _ => a.len().cmp(&b.len()),
        }
    }
}

/// How many bytes two texts have in common at their beginning. Paths of one folder share most of theirs, so eight at
/// a time.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let len = a.len().min(b.len());
    let mut at = 0;
    while let (Some(x), Some(y)) = (a[at..].first_chunk(), b[at..].first_chunk()) {
        let differ = u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
        if differ != 0 {
            return at + differ.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while at < len && a[at] == b[at] {
        at += 1;
    }
    at
}

impl PartialOrd for RelPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Default for RelPath {
    fn default() -> Self {
        RelPath::root()
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).expect("legal")
    }

    #[test]
    fn a_place_in_the_archive_is_none_that_is_told() {
        let place = RelPath::in_archive("f", &path("d/a")).unwrap();
        assert_eq!(place.as_str(), ".clearskies/archive/f/d/a");
        assert_eq!(RelPath::check(place.as_str()), Err(PathError::Private));
        assert_eq!(RelPath::in_archive("f", &RelPath::root()), None);
        let long = path(&["a"; RelPath::LEN_MAX / 2].join("/"));
        assert_eq!(RelPath::in_archive("f", &long), None);
    }

    #[test]
    fn forbidden_components() {
        for (text, error) in [
            ("/a", PathError::EmptyName),
            ("a/", PathError::EmptyName),
            ("a//b", PathError::EmptyName),
            (".", PathError::Dots),
            ("..", PathError::Dots),
            ("a/../b", PathError::Dots),
            ("a/.", PathError::Dots),
            ("a\0b", PathError::Nul),
            (".clearskies", PathError::Private),
            ("a/.clearskies/b", PathError::Private),
        ] {
            assert_eq!(RelPath::check(text), Err(error), "{text:?}");
            assert_eq!(RelPath::new(text), None);
        }
        for text in ["", "a", "...", ".a", "a b", ".clearskies2", "\u{1}", "ä/ö", "a\\b", "-", "~"] {
            assert_eq!(RelPath::check(text), Ok(()), "{text:?}");
        }
    }

    #[test]
    fn lengths() {
        let name = "n".repeat(RelPath::NAME_LEN_MAX);
        assert!(RelPath::new(&name).is_some());
        assert_eq!(RelPath::check(&(name.clone() + "n")), Err(PathError::NameTooLong));
        let mut long = (name + "/").repeat(16);
        assert_eq!(long.len(), RelPath::LEN_MAX);
        long.pop();
        assert!(RelPath::new(&long).is_some());
        assert_eq!(RelPath::check(&(long.clone() + "/n")), Err(PathError::TooLong));
        assert_eq!(path(&long).join("n"), None);
    }

    #[test]
    fn keys() {
        assert_eq!(RelPath::from_key("/a/b"), Some(path("a/b")));
        assert_eq!(path("a/b").to_key(), "/a/b");
        assert!(path("a/b").is_key("/a/b"));
        assert!(!path("a/b").is_key("a/b"));
        for key in ["", "/", "a", "//a", "/a/", "/.clearskies", "/a/../b"] {
            assert_eq!(RelPath::from_key(key), None, "{key:?}");
        }
    }

    #[test]
    fn family() {
        let p = path("a/b/c");
        assert_eq!((p.name(), p.depth()), ("c", 3));
        assert_eq!(p.parent(), Some(path("a/b")));
        assert_eq!(path("a").parent(), Some(RelPath::root()));
        assert_eq!(RelPath::root().parent(), None);
        assert_eq!((RelPath::root().depth(), RelPath::root().name()), (0, ""));
        assert_eq!(RelPath::root().components().count(), 0);
        assert_eq!(p.components().rev().collect::<Vec<_>>(), ["c", "b", "a"]);
        assert_eq!(p.ancestors().map(|a| a.to_string()).collect::<Vec<_>>(), ["a/b", "a", ""]);
        assert!(p.starts_with(&p) && !p.is_beneath(&p));
        assert!(p.is_beneath(&path("a/b")) && p.is_beneath(&RelPath::root()));
        assert!(!path("ab").starts_with(&path("a")));
        assert_eq!(p.rebase(&path("a"), &path("x/y")), Some(path("x/y/b/c")));
        assert_eq!(p.rebase(&p, &path("z")), Some(path("z")));
        assert_eq!(p.rebase(&RelPath::root(), &path("z")), Some(path("z/a/b/c")));
        assert_eq!(p.rebase(&path("b"), &path("z")), None);
        assert_eq!(RelPath::root().join("a/b"), None);
        assert_eq!(RelPath::root().join(""), None);
    }

    #[test]
    fn order_puts_a_directory_right_before_its_contents() {
        let mut paths: Vec<RelPath> =
            ["b", "a b", "a/z", "a", "a.txt", "a\u{1}", "a/b/c", "a/b", ""].map(path).into();
        paths.sort();
        let texts: Vec<&str> = paths.iter().map(RelPath::as_str).collect();
        assert_eq!(texts, ["", "a", "a/b", "a/b/c", "a/z", "a\u{1}", "a b", "a.txt", "b"]);
    }

    #[test]
    fn damaged_sort_keys() {
        for key in
            [&b"a/b"[..], b"\0a", b"a\0", b"a\0\0b", b"a\0..\0b", b"\xff", &[b'a'; RelPath::LEN_MAX + 1]]
        {
            assert_eq!(RelPath::from_sort_key(key), None);
        }
    }

    fn any_path() -> impl Strategy<Value = RelPath> {
        proptest::collection::vec("[\u{1}a-c.]{1,3}|ä", 0..4)
            .prop_filter_map("legal", |names| RelPath::new(&names.join("/")))
    }

    proptest! {
        #[test]
        fn sort_keys_keep_order(a in any_path(), b in any_path()) {
            prop_assert_eq!(a.cmp(&b), a.sort_key().cmp(&b.sort_key()));
            prop_assert_eq!(a.cmp(&b), a.components().cmp(b.components()));
            prop_assert_eq!(RelPath::from_sort_key(&a.sort_key()), Some(a.clone()));
            let beneath = a.children_start() <= b.sort_key() && b.sort_key() < a.subtree_end();
            prop_assert_eq!(beneath, b.is_beneath(&a));
            let within = a.sort_key() <= b.sort_key() && b.sort_key() < a.subtree_end();
            prop_assert_eq!(within, b.starts_with(&a));
        }

        #[test]
        fn any_text_is_checked(text in any::<String>(), bytes in any::<Vec<u8>>()) {
            if let Some(path) = RelPath::new(&text) {
                prop_assert_eq!(path.components().collect::<Vec<_>>().join("/"), text);
            }
            if let Some(path) = RelPath::from_sort_key(&bytes) {
                prop_assert_eq!(path.sort_key(), bytes);
            }
        }
    }
}
