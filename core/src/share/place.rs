//! Where a share may not be: at, in or around the node's home, nor in what belongs to a share itself. Everything
//! beneath a share is sent to its peers, and the home holds the keys. Judges paths alone; asks no disk.

use alloc::format;
use alloc::string::String;

use crate::files::path::PRIVATE_NAME;

/// Why no share may be at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misplaced {
    /// It is the node's home, or lies in it.
    InHome,
    /// The node's home lies beneath it.
    AroundHome,
    /// It lies in some share's own directory.
    InOwn,
}

/// Judges a path, links resolved; `home` is the node's home (empty: it has none).
pub fn judge(path: &str, home: &[u8]) -> Result<(), Misplaced> {
    if path.split('/').any(|name| name.eq_ignore_ascii_case(PRIVATE_NAME)) {
        Err(Misplaced::InOwn)
    } else if home.is_empty() {
        Ok(())
    } else if lies_in(path.as_bytes(), home) {
        Err(Misplaced::InHome)
    } else if lies_in(home, path.as_bytes()) {
        Err(Misplaced::AroundHome)
    } else {
        Ok(())
    }
}

/// Whether an absolute path is another one or lies beneath it.
pub fn lies_in(inner: &[u8], outer: &[u8]) -> bool {
    let outer = outer.strip_suffix(b"/").unwrap_or(outer);
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// What is wrong, and what to do.
pub fn sentence(path: &str, why: Misplaced) -> String {
    match why {
        Misplaced::InHome => format!(
            "{path} is this node's own home, or lies in it; what is there, keys and all, would be sent to the peers. \
             Share another folder."
        ),
        Misplaced::AroundHome => format!(
            "{path} holds this node's own home, whose keys would be sent to the peers. Share a folder below {path} \
             that does not hold it, or stop the node, move its home out of {path}, and say where it is with --home."
        ),
        Misplaced::InOwn => {
            format!(
                "{path} lies in {PRIVATE_NAME}, where a share keeps what is its own. Share another folder."
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_and_what_is_around_it_cannot_be_shared() {
        let home = "/home/ada/.local/share/clearskies";
        for (path, wanted) in [
            (home, Err(Misplaced::InHome)),
            ("/home/ada/.local/share/clearskies/", Err(Misplaced::InHome)),
            ("/home/ada/.local/share/clearskies/zz", Err(Misplaced::InHome)),
            ("/home/ada/.local/share/clearskies2", Ok(())),
            ("/home/ada/.local/share", Err(Misplaced::AroundHome)),
            ("/home/ada/.local/sha", Ok(())),
            ("/home/ada/", Err(Misplaced::AroundHome)),
            ("/", Err(Misplaced::AroundHome)),
            ("/home/ada/Documents", Ok(())),
            ("/home/ada/Documents/.clearskies", Err(Misplaced::InOwn)),
            ("/home/ada/Documents/.ClearSkies/archive/x", Err(Misplaced::InOwn)),
            ("/home/ada/Documents/.clearskies2", Ok(())),
        ] {
            assert_eq!(judge(path, home.as_bytes()), wanted, "{path}");
        }
        assert_eq!(judge("/", b""), Ok(()));
        assert_eq!(judge("/x/.clearskies/tmp", b""), Err(Misplaced::InOwn));
    }

    #[test]
    fn a_home_of_other_bytes_than_text_is_known_as_well() {
        assert_eq!(judge("/a", b"/a/\xff"), Err(Misplaced::AroundHome));
        assert_eq!(judge("/a/b", b"/a/\xff"), Ok(()));
    }
}
