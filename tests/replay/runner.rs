//! Replays many transcripts side by side and tells about them the way libtest does.
//!
//! A pending transcript counts as ignored if it fails and as failed if it passes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::options::{HELP, Options};
use super::pending::Pending;
use super::scenario::{Settings, replay};
use super::transcript::Transcript;
use super::{daemon::Programs, tests_dir};

/// The longest timeout of any transcript is below this.
const ORDINARY_PATIENCE: Duration = Duration::from_secs(60);
/// Enough to see a pending transcript pass, short enough not to hold up the others.
const PENDING_PATIENCE: Duration = Duration::from_millis(1500);

enum Verdict {
    Passed,
    /// Pending, and the reason.
    Ignored(String),
    Failed(String),
}

/// Everything the replayer was told and read.
pub(crate) struct Runner {
    options: Options,
    transcripts: Vec<Transcript>,
    pending: Pending,
    programs: Programs,
    filtered_out: usize,
}

impl Runner {
    /// `bin_dir` is where cargo put the binaries.
    pub(crate) fn new(options: Options, bin_dir: &Path) -> Result<Self, String> {
        let mut transcripts = Transcript::read_all(&tests_dir().join("fixtures/transcripts"))?;
        let list = std::fs::read_to_string(tests_dir().join("pending.txt"));
        let list = list.map_err(|error| format!("tests/pending.txt: {error}"))?;
        let pending = Pending::parse(&list, &transcripts)?;
        let all = transcripts.len();
        transcripts.retain(|transcript| options.wants(&transcript.name));
        let filtered_out = all - transcripts.len();
        let dir = std::env::var_os("NSQ_BIN_DIR").map_or_else(|| bin_dir.to_owned(), Into::into);
        let dir = dir.canonicalize().map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(Self { options, transcripts, pending, programs: Programs { dir }, filtered_out })
    }

    /// Replays what was asked for; true if nothing failed.
    pub(crate) fn run(mut self) -> bool {
        if self.options.help || self.options.list {
            let names = self.transcripts.iter().map(|transcript| format!("{}: test", transcript.name));
            println!("{}", if self.options.help { HELP.into() } else { names.collect::<Vec<_>>().join("\n") });
            return true;
        }
        println!("\nrunning {} transcripts", self.transcripts.len());
        let began = Instant::now();
        self.transcripts.sort_by_key(|transcript| std::cmp::Reverse(transcript.least_time()));
        let verdicts = self.judge_all();
        self.summary(&verdicts, began.elapsed())
    }

    fn judge_all(&self) -> Vec<(&str, Verdict)> {
        let waiting = Mutex::new(self.transcripts.iter());
        let verdicts = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..self.options.jobs.min(self.transcripts.len()) {
                scope.spawn(|| {
                    loop {
                        let Some(transcript) = waiting.lock().expect("nobody panics with it").next() else { return };
                        let verdict = self.judge(transcript);
                        println!("test {} ... {}", transcript.name, verdict.word());
                        verdicts.lock().expect("nobody panics with it").push((transcript.name.as_str(), verdict));
                    }
                });
            }
        });
        verdicts.into_inner().expect("nobody panics with it")
    }

    fn judge(&self, transcript: &Transcript) -> Verdict {
        let entry = self.pending.get(&transcript.name).filter(|_| !self.options.pending);
        if let Some(entry) = entry.filter(|entry| entry.differs) {
            return Verdict::Ignored(format!("differs: {}", entry.reason));
        }
        let patience = if entry.is_some() { PENDING_PATIENCE } else { ORDINARY_PATIENCE };
        let keep = self.options.keep && entry.is_none();
        let settings = Settings { programs: self.programs.clone(), keep, patience };
        match (catch_unwind(AssertUnwindSafe(|| replay(transcript, &settings))), entry) {
            (Err(_), _) => Verdict::Failed("the replayer itself panicked, see above\n".into()),
            (Ok(Ok(())), Some(_)) => Verdict::Failed("it passes: remove it from tests/pending.txt\n".into()),
            (Ok(Ok(())), None) => Verdict::Passed,
            (Ok(Err(_)), Some(entry)) => Verdict::Ignored(entry.reason.clone()),
            (Ok(Err(report)), None) => Verdict::Failed(report.to_string()),
        }
    }

    fn summary(&self, verdicts: &[(&str, Verdict)], took: Duration) -> bool {
        let mut failures: Vec<_> = verdicts
            .iter()
            .filter_map(|(name, verdict)| match verdict {
                Verdict::Failed(why) => Some((name, why)),
                _ => None,
            })
            .collect();
        failures.sort();
        if !failures.is_empty() {
            println!("\nfailures:\n");
            for (name, why) in &failures {
                println!("---- {name} ----\n{why}");
            }
            println!("\nfailures:");
            failures.iter().for_each(|(name, _)| println!("    {name}"));
        }
        let passed = verdicts.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Passed)).count();
        println!(
            "\ntest result: {}. {passed} passed; {} failed; {} ignored; 0 measured; {} filtered out; \
             finished in {:.2}s\n",
            if failures.is_empty() { "ok" } else { "FAILED" },
            failures.len(),
            verdicts.len() - passed - failures.len(),
            self.filtered_out,
            took.as_secs_f64()
        );
        failures.is_empty()
    }
}

impl Verdict {
    fn word(&self) -> String {
        match self {
            Self::Passed => "ok".into(),
            Self::Ignored(reason) => format!("ignored, {reason}"),
            Self::Failed(_) => "FAILED".into(),
        }
    }
}
