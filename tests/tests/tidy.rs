//! Holds the style of the sources: what a reader may rely on in every file, checked rather than hoped for.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use clearskies_tests::sources;

/// Lines of a file; one that has grown past this has two subjects.
const LINES_MAX: usize = 800;
/// Lines of a test file.
const TEST_LINES_MAX: usize = 1200;
/// Characters of a line.
const WIDTH_MAX: usize = 120;

/// What the top level must hold.
const TOP: &[&str] = &[
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "core",
    "docs",
    "ffi",
    "runtime-async",
    "runtime-blocking",
    "rustfmt.toml",
    "tests",
];
/// What it may hold.
const TOP_OPTIONAL: &[&str] =
    &[".gitattributes", ".github", "clippy.toml", "deny.toml", "rust-toolchain.toml"];

/// Collects complaints over all files and fails with all of them at once.
fn check(files: Vec<PathBuf>, mut look: impl FnMut(&Path, &str, &mut Vec<String>)) {
    let mut complaints = Vec::new();
    for path in files {
        let text = sources::read(&path);
        look(&path, &text, &mut complaints);
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// Everything that people write by hand.
fn text_files() -> Vec<PathBuf> {
    let by_hand = |path: &PathBuf| match path.extension().and_then(|ext| ext.to_str()) {
        Some(ext) => ["rs", "md", "toml", "sh", "h", "hpp", "c", "cpp", "java", "py"].contains(&ext),
        None => path.starts_with(".ci") || path.starts_with(".gitignore"),
    };
    sources::files().into_iter().filter(by_hand).collect()
}

#[test]
fn each_file_says_what_it_owns() {
    check(sources::rust_files(), |path, text, complaints| {
        let first = text.lines().next().unwrap_or_default();
        if !first.starts_with("//! ") || first.len() < 12 {
            complaints.push(format!("{}: does not open with `//!` and a sentence", path.display()));
        }
    });
}

#[test]
fn files_and_lines_are_short() {
    check(sources::rust_files(), |path, text, complaints| {
        let lines_max = if sources::is_test_file(path) { TEST_LINES_MAX } else { LINES_MAX };
        let lines = text.lines().count();
        if lines > lines_max {
            complaints.push(format!("{}: {lines} lines, {lines_max} at most", path.display()));
        }
        for (index, line) in text.lines().enumerate() {
            let width = line.chars().count();
            if width > WIDTH_MAX {
                complaints.push(format!("{}:{}: {width} characters", path.display(), index + 1));
            }
        }
    });
}

#[test]
fn nothing_is_left_for_later() {
    // Written in pieces, so that this file does not find itself.
    let calls = [concat!("to", "do!"), concat!("unimple", "mented!")];
    let words = [concat!("FIX", "ME"), concat!("X", "XX"), concat!("HA", "CK")];
    check(text_files(), |path, text, complaints| {
        for (index, line) in text.lines().enumerate() {
            let call = calls.iter().any(|call| line.contains(call));
            let word =
                line.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|found| words.contains(&found));
            if call || word {
                complaints.push(format!("{}:{}: {}", path.display(), index + 1, line.trim()));
            }
        }
    });
}

#[test]
fn no_unwrap_outside_tests() {
    let call = concat!(".unw", "rap()");
    let shipped = sources::rust_files().into_iter().filter(|path| !sources::is_test_file(path)).collect();
    check(shipped, |path, text, complaints| {
        for (number, line) in sources::shipped_lines(text) {
            if line.contains(call) {
                complaints.push(format!("{}:{number}: {}", path.display(), line.trim()));
            }
        }
    });
}

#[test]
fn white_space_is_clean() {
    check(text_files(), |path, text, complaints| {
        let rust = path.extension().is_some_and(|ext| ext == "rs");
        for (index, line) in text.lines().enumerate() {
            if line.ends_with([' ', '\t', '\r']) || (rust && line.contains('\t')) {
                complaints.push(format!("{}:{}: stray white space", path.display(), index + 1));
            }
        }
        if !text.ends_with('\n') || text.ends_with("\n\n") {
            complaints.push(format!("{}: does not end with one line feed", path.display()));
        }
    });
}

#[test]
fn no_path_of_anybodys_machine() {
    let places = ["root", "work", "Users"].map(|name| format!("/{name}/"));
    let invented = format!("/{}/", "home");
    check(text_files(), |path, text, complaints| {
        // Examples in tests may speak of somebody's folders.
        let is_rust = path.extension().is_some_and(|ext| ext == "rs") && !sources::is_test_file(path);
        let shipped = if is_rust { sources::shipped_lines(text) } else { Vec::new() };
        for (number, line) in shipped {
            if line.contains(&invented) {
                complaints.push(format!("{}:{number}: {}", path.display(), line.trim()));
            }
        }
        for (index, line) in text.lines().enumerate() {
            for place in &places {
                let absolute = |at: usize| match line[..at].chars().next_back() {
                    None => true,
                    Some(before) => !(before.is_alphanumeric() || "/._-~$}".contains(before)),
                };
                if line.match_indices(place.as_str()).any(|(at, _)| absolute(at)) {
                    complaints.push(format!("{}:{}: {}", path.display(), index + 1, line.trim()));
                }
            }
        }
    });
}

#[test]
fn links_in_the_documentation_lead_somewhere() {
    let pages =
        sources::files().into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "md")).collect();
    check(pages, |path, text, complaints| {
        for link in links(text) {
            let (file, heading) = link.split_once('#').unwrap_or((link.as_str(), ""));
            let target = match file {
                "" => path.to_path_buf(),
                file => normal(&path.parent().unwrap_or(Path::new("")).join(file)),
            };
            if !sources::root().join(&target).exists() {
                complaints.push(format!("{}: {link} is not there", path.display()));
            } else if !heading.is_empty() && !headings(&sources::read(&target)).contains(heading) {
                complaints.push(format!("{}: {link} has no such heading", path.display()));
            }
        }
    });
}

/// The targets of all links of a page that stay within the project.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("](") {
        rest = &rest[at + 2..];
        let Some(end) = rest.find(')') else { break };
        let target = &rest[..end];
        if !target.contains("://") && !target.starts_with("mailto:") && !target.contains(char::is_whitespace)
        {
            found.push(target.to_owned());
        }
    }
    found
}

/// The anchors of a page's headings, as the common renderers make them.
fn headings(text: &str) -> BTreeSet<String> {
    let slug = |line: &str| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    text.lines().filter(|line| line.starts_with('#')).map(slug).collect()
}

/// A path with its `..` taken out.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

#[test]
fn the_top_level_holds_what_belongs_there() {
    let files = sources::files();
    let first = |path: &PathBuf| path.iter().next().map(|part| part.to_string_lossy().into_owned());
    let top: BTreeSet<String> = files.iter().filter_map(first).collect();
    let missing: Vec<&str> = TOP.iter().copied().filter(|name| !top.contains(*name)).collect();
    let known = |name: &str| TOP.contains(&name) || TOP_OPTIONAL.contains(&name);
    let foreign: Vec<&String> = top.iter().filter(|name| !known(name)).collect();
    assert!(missing.is_empty() && foreign.is_empty(), "missing {missing:?}, not allowed {foreign:?}");
}
