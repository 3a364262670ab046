//! The command line of the replayer; what libtest knows and cargo passes to all tests is understood or ignored.

use super::facts::Facts;
use super::text::{Mask, Part, Text};

pub(crate) const HELP: &str = "\
Replays the transcripts of NSQ 1.3.0 in tests/fixtures/transcripts against the real binaries.

Usage: cargo test --test transcripts -- [OPTION ...] [PATTERN ...]

A PATTERN is part of a transcript's name, or a glob such as 'http-*'; without one all are replayed.

Options:
  --pending      replay those of tests/pending.txt like all others, and tell how they fail
  --keep         keep the directories of failed transcripts, with data and logs (or NSQ_KEEP=1)
  --jobs N       how many to replay at a time (default 12: they mostly wait)
  --list         only list the names
  --help         this text

NSQ_BIN_DIR=DIR replays against the nsqd and nsqlookupd in DIR.";

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) patterns: Vec<String>,
    pub(crate) pending: bool,
    pub(crate) keep: bool,
    pub(crate) jobs: usize,
    pub(crate) list: bool,
    pub(crate) help: bool,
}

impl Options {
    pub(crate) fn parse(args: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut options =
            Self { patterns: Vec::new(), pending: false, keep: false, jobs: 12, list: false, help: false };
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let (flag, value) = match arg.split_once('=') {
                Some((flag, value)) if flag.starts_with("--") => (flag, Some(value.to_owned())),
                _ => (arg.as_str(), None),
            };
            match flag {
                "--pending" | "--include-ignored" => options.pending = true,
                "--keep" => options.keep = true,
                "--list" => options.list = true,
                "--help" | "-h" => options.help = true,
                "--jobs" | "--test-threads" => {
                    let jobs = value.or_else(|| args.next()).and_then(|jobs| jobs.parse().ok());
                    options.jobs = jobs.filter(|jobs| *jobs > 0).ok_or_else(|| format!("{flag} needs a number"))?;
                }
                "--nocapture" | "--no-capture" | "--show-output" | "--quiet" | "-q" | "--exact" => {}
                _ if flag.starts_with('-') => return Err(format!("no such option: {flag} (see --help)")),
                _ => options.patterns.push(arg),
            }
        }
        Ok(options)
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.patterns.is_empty() || self.patterns.iter().any(|pattern| name.contains(pattern) || glob(pattern, name))
    }
}

fn glob(pattern: &str, name: &str) -> bool {
    let mut parts = Vec::new();
    for (n, literal) in pattern.split('*').enumerate() {
        parts.extend((n > 0).then_some(Part::Mask(Mask::Any, None)));
        parts.push(Part::Bytes(literal.into()));
    }
    Facts::default().fit(&Text(parts), name.as_bytes()).is_ok()
}
