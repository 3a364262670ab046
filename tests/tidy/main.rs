//! Style as a test: every rule of the house that a machine can see, over every file of the tree.
//!
//! `cargo test --test tidy` names each fault with file, line and what to do instead. The rules are in `rules`, each
//! with a planted example that it must find; what they read is in `code`. No exceptions are listed anywhere: mend the
//! file.

mod code;
mod documents;
mod dumps;
mod rules;

use std::fs;
use std::path::{Path, PathBuf};

/// What no rule is about: what tools and programs made, and recorded bytes.
pub(crate) const SKIPPED: [&str; 9] = [
    ".git",
    "target",
    "nsq-data",
    "node_modules",
    "tests/fixtures",
    "fuzz/corpus",
    "fuzz/target",
    "fuzz/artifacts",
    "fuzz/coverage",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All text files by path, with `/`, from the root.
fn files() -> Vec<rules::File> {
    let (root, mut files, mut dirs) = (root(), Vec::new(), vec![String::new()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(root.join(&dir)).expect("a directory of the tree can be read") {
            let entry = entry.expect("an entry of the tree can be read");
            let name = entry.file_name().into_string().expect("names are UTF-8");
            let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            if SKIPPED.contains(&path.as_str()) || path.ends_with("__pycache__") {
                continue;
            }
            if entry.file_type().expect("a type").is_dir() {
                dirs.push(path);
            } else if let Ok(text) = fs::read_to_string(entry.path()) {
                files.push(rules::File::new(path, text));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

#[test]
fn the_tree_is_tidy() {
    let files = files();
    let sources = files.iter().filter(|file| file.is_rust()).count();
    assert!(sources > 100, "only {sources} sources found: the tree is not where it was");
    let faults: Vec<String> = rules::all(&files).collect();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
