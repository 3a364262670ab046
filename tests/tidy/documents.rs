//! What documents name must be there: paths in backticks, and files that links lead to. Lines of prose are not long.
//!
//! Markdown comes in, complaints go out. A path is written from the root of the tree, so that a reader can open it.

use crate::SKIPPED;
use crate::rules::File;

/// Where paths of the tree begin.
const ROOMS: [&str; 8] = ["core", "net", "sim", "bins", "tests", "fuzz", "docs", ".ci"];
/// The longest line of prose, in characters.
const WIDTH: usize = 120;

/// What is wrong with the documents among these files.
pub(crate) fn all(files: &[File]) -> Vec<String> {
    let documents = files.iter().filter(|file| file.path.ends_with(".md"));
    documents.flat_map(|file| [paths(file, files), links(file, files), wide(file)].concat()).collect()
}

fn paths(file: &File, files: &[File]) -> Vec<String> {
    let missing = spans(&file.text).filter(|(_, span)| is_path(span) && !exists(files, span));
    missing.map(|(at, span)| file.complain(at, &format!("`{span}` is no path of this tree"))).collect()
}

fn links(file: &File, files: &[File]) -> Vec<String> {
    let dir = file.path.rsplit_once('/').map_or("", |(dir, _)| dir);
    let targets = file.text.match_indices("](").filter_map(|(at, _)| {
        let target = file.text[at + 2..].split(')').next()?;
        let path = target.split('#').next().filter(|path| !path.is_empty() && !path.contains("://"))?;
        Some((at, path))
    });
    let missing = targets.filter(|(_, path)| !exists(files, &joined(dir, path)));
    missing.map(|(at, path)| file.complain(at, &format!("the link to {path} leads nowhere"))).collect()
}

/// Prose only: a table or a listing has the lines that it needs.
fn wide(file: &File) -> Vec<String> {
    let (mut faults, mut at, mut fenced) = (Vec::new(), 0, false);
    for line in file.text.split_inclusive('\n') {
        fenced ^= line.trim_start().starts_with("```");
        if !fenced && !line.starts_with('|') && line.trim_end().chars().count() > WIDTH {
            faults.push(file.complain(at, &format!("longer than {WIDTH} characters: break the line")));
        }
        at += line.len();
    }
    faults
}

/// What stands between backticks on one line, outside of fences.
fn spans(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let (mut at, mut fenced) = (0, false);
    text.split_inclusive('\n').flat_map(move |line| {
        let begin = at;
        at += line.len();
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        let parts = if fenced || is_fence { "" } else { line }.split('`');
        let mut offset = begin;
        let parts = parts.enumerate().filter_map(move |(number, part)| {
            let here = offset;
            offset += part.len() + 1;
            (number % 2 == 1).then_some((here, part))
        });
        parts.collect::<Vec<_>>()
    })
}

/// A source or a document, or something in one of the rooms.
fn is_path(span: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    let in_room = span.split_once('/').is_some_and(|(room, _)| ROOMS.contains(&room));
    let is_skipped = SKIPPED.iter().any(|skipped| span.starts_with(skipped));
    !is_skipped && span.bytes().all(plain) && (in_room || span.ends_with(".rs") || span.ends_with(".md"))
}

fn exists(files: &[File], path: &str) -> bool {
    let path = path.trim_end_matches('/');
    let is_it = |file: &File| file.path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    files.iter().any(is_it)
}

fn joined<'a>(dir: &'a str, path: &'a str) -> String {
    let mut parts: Vec<&str> = dir.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let file = |path: &str, text: &str| File::new(path.into(), text.into());
        all(&[file("docs/a.md", text), file("core/src/a.rs", "//! A.\n"), file("b.md", "# B\n")])
    }

    #[test]
    fn what_is_there_may_be_named() {
        let text = "`core/src/a.rs`, `core/src`, `core/`, `b.md`, [b](../b.md#c), [a](a.md), [](#d), [](https://e/f)\n\
                    ```\n`core/src/none.rs`\n```\n`std::fs`, `/stats`, `t.rs.1`, `core::a/b`, `tests/fixtures/c`\n";
        assert_eq!(faults(text), [""; 0]);
    }

    #[test]
    fn what_is_not_there_is_found() {
        for (text, fault) in [
            ("a\n`core/a.rs`\n", "docs/a.md:2: `core/a.rs` is no path"),
            ("`a.rs`\n", "`a.rs` is no path"),
            ("`core/src/a`\n", "`core/src/a` is no path"),
            ("[b](b.md)\n", "docs/a.md:1: the link to b.md leads nowhere"),
        ] {
            let found = faults(text);
            assert!(matches!(&found[..], [only] if only.contains(fault)), "{found:?}");
        }
    }

    #[test]
    fn long_lines() {
        let long = "ä".repeat(WIDTH);
        assert_eq!(faults(&format!("{long}\n| {long} |\n```\n{long}{long}\n```\n")), [""; 0]);
        assert_eq!(faults(&format!("a\n{long}b\n")), ["docs/a.md:2: longer than 120 characters: break the line"]);
    }
}
