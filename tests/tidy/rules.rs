//! The rules, and for each a planted example that it must find.
//!
//! Files come in, complaints go out: `path:line: what is wrong and what to do`. Words that are banned everywhere are
//! written here in two halves, because this file is under the rules as well.

use crate::code::{code, finds, functions, line};
use crate::documents;

const FILE_LINES: usize = 700;
const FUNCTION_LINES: usize = 70;
/// Characters of a line that is a comment; code is rustfmt's to break.
const COMMENT_WIDTH: usize = 120;

/// Where a word is banned.
#[derive(Clone, Copy)]
enum Where {
    /// In all code, tests too.
    Everywhere,
    /// In the code of nsq-net, but not in its tests.
    Net,
    /// In the code of nsq-core, but not in its tests.
    Core,
}

/// Words of code, where they are banned, and what to do instead.
const BANNED: [(&str, Where, &str); 12] = [
    ("todo!", Where::Everywhere, "finish it, or leave it out"),
    ("unimplemented!", Where::Everywhere, "finish it, or leave it out"),
    ("dbg!", Where::Everywhere, "remove it"),
    ("#[ignore", Where::Everywhere, "make the test fast enough to run, or delete it"),
    ("SystemTime::now", Where::Net, "use the clock of `env`, which the simulator sets"),
    ("std::time::Instant", Where::Net, "use the clock of `env`, which the simulator sets"),
    ("thread::spawn", Where::Net, "use a task, or `disk` for what blocks: the simulator runs one thread"),
    ("tokio::fs", Where::Net, "use `disk`, which the simulator replaces"),
    ("rand::", Where::Net, "use the seed of `env`, so that runs can be replayed"),
    ("HashMap::new", Where::Net, "use a BTreeMap, or a map with a fixed hasher: a random order cannot be replayed"),
    ("std::", Where::Core, "use core:: or alloc::; what needs more is an argument"),
    ("extern crate std", Where::Core, "use core:: or alloc::; what needs more is an argument"),
];

/// Marks of unfinished work, in comments too.
const MARKS: [&str; 2] = [concat!("FIX", "ME"), concat!("XX", "X")];

/// Directories that exist on one machine only.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/wo", "rk/"), concat!("/tmp", "/b/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];

/// A text file of the tree.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
    /// Without comments and literals, if it is Rust.
    code: String,
}

impl File {
    pub(crate) fn new(path: String, text: String) -> Self {
        let code = if path.ends_with(".rs") { code(&text) } else { String::new() };
        Self { path, text, code }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn is_test(&self) -> bool {
        self.path.split('/').any(|part| matches!(part, "tests" | "tests.rs" | "benches" | "examples"))
    }

    /// The code without the test module at its end.
    fn tested_code(&self) -> &str {
        self.code.split("#[cfg(test)]\nmod ").next().unwrap_or_default()
    }

    pub(crate) fn complain(&self, at: usize, what: &str) -> String {
        format!("{}:{}: {what}", self.path, line(&self.text, at))
    }
}

/// Everything that is wrong with these files.
pub(crate) fn all(files: &[File]) -> impl Iterator<Item = String> {
    let of_rust = files.iter().filter(|file| file.is_rust()).flat_map(|file| {
        let faults =
            [head(file), length(file), wide_comments(file), long_functions(file), banned(file), unbiased(file)];
        faults.into_iter().flatten()
    });
    let of_text = files.iter().flat_map(|file| [marks(file), machine_paths(file)].into_iter().flatten());
    of_rust.chain(of_text).chain(dead(files)).chain(documents::all(files))
}

fn head(file: &File) -> Vec<String> {
    let headed = file.text.starts_with("//!");
    (!headed).then(|| file.complain(0, "opens without `//!`: say what this room is for")).into_iter().collect()
}

fn length(file: &File) -> Vec<String> {
    let lines = file.text.lines().count();
    let long = lines > FILE_LINES;
    long.then(|| file.complain(0, &format!("{lines} lines: split it, {FILE_LINES} is the most"))).into_iter().collect()
}

fn wide_comments(file: &File) -> Vec<String> {
    let is_wide = |line: &str| line.trim_start().starts_with("//") && line.chars().count() > COMMENT_WIDTH;
    let wide = (1..).zip(file.text.lines()).filter(|(_, line)| is_wide(line));
    let what = format!("longer than {COMMENT_WIDTH} characters: break the line");
    wide.map(|(number, _)| format!("{}:{number}: {what}", file.path)).collect()
}

fn long_functions(file: &File) -> Vec<String> {
    let measured = functions(&file.code).into_iter().filter_map(|(name, range)| {
        let lines = file.code[range.clone()].lines().count();
        let what = || format!("`{name}` has {lines} lines: divide it, {FUNCTION_LINES} is the most");
        (lines > FUNCTION_LINES).then(|| file.complain(range.start, &what()))
    });
    measured.collect()
}

fn banned(file: &File) -> Vec<String> {
    let mut faults = Vec::new();
    for (word, scope, instead) in BANNED {
        let code = match scope {
            Where::Everywhere => &file.code,
            Where::Net if file.path.starts_with("net/src/") && !file.is_test() => file.tested_code(),
            Where::Core if file.path.starts_with("core/src/") && !file.is_test() => file.tested_code(),
            _ => continue,
        };
        faults.extend(finds(code, word).map(|at| file.complain(at, &format!("`{word}`: {instead}"))));
    }
    faults
}

/// Branches taken in a random order cannot be replayed from a seed.
fn unbiased(file: &File) -> Vec<String> {
    if !file.path.starts_with("net/src/") {
        return Vec::new();
    }
    let body = |at: usize| file.code[at..].split_once('{').map_or("", |(_, body)| body.trim_start());
    let faults = finds(&file.code, "select!").filter(|&at| !body(at).starts_with("biased;"));
    faults.map(|at| file.complain(at, "`select!` without `biased;`: its order must be replayable")).collect()
}

fn marks(file: &File) -> Vec<String> {
    let found = MARKS.iter().flat_map(|mark| finds(&file.text, mark).map(move |at| (at, mark)));
    found.map(|(at, mark)| file.complain(at, &format!("`{mark}`: finish it, or write an issue"))).collect()
}

fn machine_paths(file: &File) -> Vec<String> {
    let found = MACHINE_PATHS.iter().flat_map(|path| file.text.match_indices(path));
    found.map(|(at, path)| file.complain(at, &format!("`{path}` exists on one machine only"))).collect()
}

/// Sources that no other file declares: they are never compiled.
fn dead(files: &[File]) -> Vec<String> {
    let alive = |file: &File| {
        let path = file.path.as_str();
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let (parent, room) = dir.rsplit_once('/').unwrap_or(("", dir));
        let stem = name.trim_end_matches(".rs");
        match (room, stem) {
            (_, "lib" | "main" | "build") | ("bin" | "examples", _) => true,
            (_, "mod") => declared(files, parent, room),
            // Each file in the `tests` of a package is a test of its own; at the top and in `fuzz` a manifest names
            // them.
            ("tests", _) if dir == "tests" => manifest_names(files, "bins/Cargo.toml", path),
            ("targets", _) => manifest_names(files, "fuzz/Cargo.toml", &format!("targets/{name}")),
            ("tests", _) if !parent.contains("src") => true,
            _ => declared(files, dir, stem),
        }
    };
    let dead = files.iter().filter(|file| file.is_rust() && !alive(file));
    dead.map(|file| file.complain(0, "no `mod` and no manifest names this file: it is dead")).collect()
}

/// Whether a file that can declare modules in `dir` has `mod NAME;`.
fn declared(files: &[File], dir: &str, name: &str) -> bool {
    let declares = |file: &File| {
        let place = file.path.strip_prefix(dir).and_then(|rest| rest.strip_prefix('/'));
        let home = matches!(place, Some("mod.rs" | "lib.rs" | "main.rs")) || file.path == format!("{dir}.rs");
        // Roots of tests declare what is beside them.
        let root = dir.ends_with("tests") && place.is_some_and(|place| !place.contains('/'));
        (home || root)
            && finds(&file.code, "mod").any(|at| file.code[at + 3..].trim_start().starts_with(&format!("{name};")))
    };
    files.iter().any(declares)
}

fn manifest_names(files: &[File], manifest: &str, path: &str) -> bool {
    files.iter().any(|file| file.path == manifest && file.text.contains(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File::new(path.into(), text.into())
    }

    /// What is wrong with one file, apart from being alone.
    fn faults(path: &str, text: &str) -> Vec<String> {
        let files = [file(path, text)];
        all(&files).filter(|fault| !fault.contains("it is dead")).collect()
    }

    #[track_caller]
    fn finds_one(path: &str, text: &str, fault: &str) {
        let found = faults(path, text);
        assert!(matches!(&found[..], [only] if only.contains(fault)), "{found:?}");
    }

    #[test]
    fn clean_files_pass() {
        let text = "//! A room.\n\nfn a() {\n    let _ = \"todo!() std::\"; // dbg!(\n}\n\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
        assert_eq!(faults("core/src/a.rs", text), [""; 0]);
        assert_eq!(
            faults("net/src/a.rs", "//! A.\nfn a() {\n    tokio::select! {\n        biased;\n    }\n}\n"),
            [""; 0]
        );
        assert_eq!(faults("a.md", "# A\n"), [""; 0]);
    }

    #[test]
    fn heads() {
        finds_one("core/src/a.rs", "fn a() {}\n", "core/src/a.rs:1: opens without");
        finds_one("tests/a.rs", "// A.\n", "opens without");
    }

    #[test]
    fn long_files() {
        finds_one("sim/src/a.rs", &format!("//! A.\n{}", "\n".repeat(700)), "701 lines");
        assert_eq!(faults("sim/src/a.rs", &format!("//! A.\n{}", "\n".repeat(699))), [""; 0]);
    }

    #[test]
    fn wide_comments() {
        let text =
            |width: usize| format!("//! A.\n    // {}\nlet a = \"{}\";\n", "b".repeat(width - 7), "c".repeat(200));
        assert_eq!(faults("core/src/a.rs", &text(120)), [""; 0]);
        finds_one("core/src/a.rs", &text(121), "core/src/a.rs:2: longer than 120");
    }

    #[test]
    fn lengthy_functions() {
        let long = |lines| format!("//! A.\nfn a() {{\n{}}}\n", "    b();\n".repeat(lines));
        finds_one("sim/src/a.rs", &long(69), "sim/src/a.rs:2: `a` has 71 lines");
        assert_eq!(faults("sim/src/a.rs", &long(68)), [""; 0]);
    }

    #[test]
    fn banned_words() {
        for (word, scope, _) in BANNED {
            let (path, elsewhere) = match scope {
                Where::Everywhere => ("bins/src/tests.rs", None),
                Where::Net => ("net/src/a.rs", Some("net/src/tests.rs")),
                Where::Core => ("core/src/a.rs", Some("core/src/tests/a.rs")),
            };
            let text = format!("//! A.\n{word}\n");
            finds_one(path, &text, &format!("{path}:2: `{word}`"));
            assert!(elsewhere.is_none_or(|path| faults(path, &text).is_empty()), "{word}");
        }
    }

    #[test]
    fn unbiased_selects() {
        finds_one(
            "net/src/a.rs",
            "//! A.\nfn a() {\n    tokio::select! {\n        a => {}\n    }\n}\n",
            "a.rs:3: `select!`",
        );
        finds_one("net/src/a.rs", "//! A.\nfn a() {\n    select! { a => {} }\n}\n", "a.rs:3: `select!`");
    }

    #[test]
    fn unfinished_work() {
        for mark in MARKS {
            finds_one("a.md", &format!("# A\n\n{mark}: b\n"), &format!("a.md:3: `{mark}`"));
            finds_one("sim/src/a.rs", &format!("//! A.\n// {mark} b\n"), mark);
        }
    }

    #[test]
    fn paths_of_a_machine() {
        for path in MACHINE_PATHS {
            finds_one("a.sh", &format!("cd {path}\n"), path);
        }
    }

    #[test]
    fn dead_files() {
        let sources = |root: &str| {
            [
                file("core/src/lib.rs", root),
                file("core/src/a.rs", "//! A.\n"),
                file("core/src/b/mod.rs", "//! B.\nmod c;\n"),
                file("core/src/b/c.rs", "//! C.\n"),
                file("bins/Cargo.toml", "path = \"../tests/d.rs\"\n"),
                file("tests/d.rs", "//! D.\n"),
            ]
        };
        let faults = |root| all(&sources(root)).collect::<Vec<_>>();
        assert_eq!(faults("//! Core.\npub mod a;\nmod b;\n"), [""; 0]);
        assert_eq!(
            faults("//! Core.\nmod b; // mod a;\n"),
            ["core/src/a.rs:1: no `mod` and no manifest names this file: it is dead"]
        );
        assert_eq!(faults("//! Core.\nmod a;\n").len(), 1);
        assert_eq!(all(&[file("tests/e.rs", "//! E.\n")]).count(), 1);
        assert_eq!(all(&[file("sim/tests/e.rs", "//! E.\n")]).count(), 0);
    }
}
