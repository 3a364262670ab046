//! The fuzzers' corpora, replayed through the bodies of their targets on any toolchain, so that neither rots.
//!
//! A target is a file in `fuzz/targets`, a body in `nsq_core::fuzz` and a directory of inputs in `fuzz/corpus`; here
//! the three must agree. The first inputs are what the transcripts' clients sent, and scenarios for a topic; an input
//! that made a target fail joins them under the name of what was wrong.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

/// The body of a target: it panics if a rule is broken.
type Body = fn(&[u8]);

const TARGETS: [(&str, Body); 5] = [
    ("identify", nsq_core::fuzz::identify),
    ("lookupd", nsq_core::fuzz::lookupd),
    ("lookup_replies", nsq_core::fuzz::lookup_replies),
    ("session", nsq_core::fuzz::session),
    ("topic", nsq_core::fuzz::topic),
];

fn entries(of: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(of);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a readable entry").path()).collect();
    paths.sort();
    paths
}

fn replay(name: &str) {
    let (_, body) = *TARGETS.iter().find(|(target, _)| *target == name).expect("a target");
    let inputs = entries(&format!("corpus/{name}"));
    assert!(inputs.len() >= 10, "only {} inputs", inputs.len());
    let fails = |path: &PathBuf| {
        let data = fs::read(path).expect("a readable input");
        catch_unwind(|| body(&data)).is_err()
    };
    let failed: Vec<_> = inputs.into_iter().filter(fails).collect();
    assert!(failed.is_empty(), "{name} fails for {failed:#?}");
}

#[test]
fn identify() {
    replay("identify");
}

#[test]
fn lookupd() {
    replay("lookupd");
}

#[test]
fn lookup_replies() {
    replay("lookup_replies");
}

#[test]
fn session() {
    replay("session");
}

#[test]
fn topic() {
    replay("topic");
}

#[test]
fn every_target_has_a_corpus_and_is_replayed() {
    let named: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    for of in ["corpus", "targets"] {
        let stem = |path: &PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
        assert_eq!(entries(of).iter().map(stem).collect::<BTreeSet<_>>(), named, "in fuzz/{of}");
    }
}
