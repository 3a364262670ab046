//! Replays recorded conversations with NSQ 1.3.0 against the real binaries.
//!
//! In comes `fixtures/transcripts` (notation: `fixtures/README.md`), out goes one verdict a transcript.
//! `text` and `facts` are the pattern language, `transcript` and `step` read a file, `scenario` and `play` play it
//! with the help of `conn`, `frame`, `http`, `daemon` and `ports`, and `runner` plays all of them side by side.
//! The one rule: nothing waits without a deadline, and nothing a scenario started outlives it.

pub(crate) mod conn;
pub(crate) mod daemon;
pub(crate) mod facts;
pub(crate) mod failure;
pub(crate) mod frame;
pub(crate) mod http;
pub(crate) mod leash;
pub(crate) mod options;
pub(crate) mod pending;
mod play;
pub(crate) mod ports;
pub(crate) mod runner;
pub(crate) mod scenario;
pub(crate) mod step;
pub(crate) mod text;
pub(crate) mod transcript;

use std::path::PathBuf;

/// The directory of this test suite: fixtures and the pending list.
pub(crate) fn tests_dir() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests"))
}
