//! Reads this workspace's own files, for tests about how they are written. Never changes one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The top of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies one level below the top")
        .to_path_buf()
}

/// All files that belong to the project, relative to the top: what git tracks or would track, or, outside a
/// repository, everything but build output.
pub fn files() -> Vec<PathBuf> {
    let listing = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    let mut files: Vec<PathBuf> = match listing {
        Ok(out) if out.status.success() && !out.stdout.is_empty() => String::from_utf8(out.stdout)
            .expect("names are UTF-8")
            .split_terminator('\0')
            .map(PathBuf::from)
            .collect(),
        _ => {
            let mut found = Vec::new();
            collect(&root(), Path::new(""), &mut found);
            found
        }
    };
    // A file that was deleted and not yet committed is still listed.
    files.retain(|path| root().join(path).exists());
    files.sort();
    files.dedup();
    files
}

fn collect(top: &Path, relative: &Path, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(top.join(relative)).expect("a source directory is readable");
    for entry in entries {
        let entry = entry.expect("a source directory is readable");
        let name = entry.file_name();
        let path = relative.join(&name);
        let is_dir = entry.file_type().expect("a file has a type").is_dir();
        if !is_dir {
            found.push(path);
        } else if name != "target" && name != ".git" {
            collect(top, &path, found);
        }
    }
}

/// All Rust sources, relative to the top.
pub fn rust_files() -> Vec<PathBuf> {
    files().into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "rs")).collect()
}

/// A file's text.
pub fn read(path: &Path) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether a file is there for tests alone: in a folder of tests, or a module that is compiled for tests.
pub fn is_test_file(path: &Path) -> bool {
    static MODULES: OnceLock<BTreeSet<PathBuf>> = OnceLock::new();
    let in_tests = path.components().any(|part| part.as_os_str() == "tests");
    in_tests || MODULES.get_or_init(test_modules).contains(path)
}

/// The files of all modules that are declared under `#[cfg(test)]`.
fn test_modules() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for path in rust_files() {
        let text = read(&path);
        let dir = path.parent().unwrap_or(Path::new(""));
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let beneath = if ["lib", "main", "mod"].contains(&stem) { dir.to_path_buf() } else { dir.join(stem) };
        let mut lines = text.lines().map(str::trim);
        while let Some(line) = lines.next() {
            if !line.starts_with("#[cfg(test)]") && !line.starts_with("#[cfg(all(test") {
                continue;
            }
            let mut named = None;
            for item in lines.by_ref() {
                if let Some(file) = item.strip_prefix("#[path = \"") {
                    named = file.split('"').next().map(|file| dir.join(file));
                } else if !item.starts_with("#[") && !item.starts_with("//") {
                    let module = item.split("mod ").nth(1).and_then(|name| name.strip_suffix(';'));
                    let Some(module) = module else { break };
                    let plain = beneath.join(format!("{module}.rs"));
                    found.extend([named.unwrap_or(plain), beneath.join(module).join("mod.rs")]);
                    break;
                }
            }
        }
    }
    found
}

/// The lines of a source that are neither comments nor under `#[cfg(test)]`, with their numbers from 1. Relies on
/// rustfmt: an item that opens a brace ends at the first line that closes one at the same depth of indentation.
pub fn shipped_lines(text: &str) -> Vec<(usize, &str)> {
    let mut shipped = Vec::new();
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line)).peekable();
    while let Some((number, line)) = lines.next() {
        let code = line.trim_start();
        if code.starts_with("#[cfg(test)]") || code.starts_with("#[cfg(all(test") {
            let indent = line.len() - code.len();
            for (_, item) in lines.by_ref() {
                let content = item.trim_start();
                let at_depth = item.len() - content.len() == indent;
                let attribute = content.starts_with("#[") || content.starts_with("//");
                if at_depth && !attribute && (content.starts_with('}') || content.ends_with([';', '}', ',']))
                {
                    break;
                }
            }
        } else if !code.starts_with("//") {
            shipped.push((number, line));
        }
    }
    shipped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_lines_leave_out_tests_and_comments() {
        let text = "a();\n#[cfg(test)]\nuse x;\n// no\nb();\n#[cfg(test)]\nmod tests {\n    c();\n}\nd();\n";
        let lines: Vec<&str> = shipped_lines(text).into_iter().map(|(_, line)| line).collect();
        assert_eq!(lines, ["a();", "b();", "d();"]);
    }

    #[test]
    fn the_workspace_is_found() {
        assert!(files().contains(&PathBuf::from("core/src/lib.rs")));
        assert!(is_test_file(Path::new("tests/src/lib.rs")) && !is_test_file(Path::new("core/src/lib.rs")));
    }
}
