//! The one runner of simulated scenarios.
//!
//! In: a scenario and seeds ([`sweep`]), or one seed ([`run`]). Out: nothing if all is well; otherwise a report with
//! the seed, what was drawn from it, the end of the trace, the state of the network, and the command that replays it.
//! The rule against empty success: what a scenario says it must exercise ([`Sim::require`]) has to have happened
//! somewhere in the sweep, and the first seed, run twice, must leave the same trace.
//!
//! `NSQ_SIM_SEED=17` runs that seed only, with the full trace on stderr. `NSQ_SIM_SEEDS=1000` makes the sweep that
//! long.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Write};
use std::future::Future;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nsq_sim_rt::sim::{self, Net};

use crate::trace::Trace;

/// A run that has not ended by then, in simulated time, has failed.
pub const TIME_LIMIT: Duration = Duration::from_secs(3600);
/// Trace lines in a report.
const SHOWN: usize = 100;

/// A run as its scenario sees it. Clones are the same run.
#[derive(Clone)]
pub struct Sim {
    seed: u64,
    net: Net,
    notes: Notes,
}

/// What a run leaves behind, also when it panics.
#[derive(Clone)]
struct Notes {
    trace: Trace,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    net: Option<Net>,
    options: String,
    counts: BTreeMap<&'static str, u64>,
    required: BTreeSet<&'static str>,
}

impl Sim {
    /// The number everything is drawn from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The network, where machines are made and broken.
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// Registers what the scenario drew, to be shown if it fails.
    pub fn options(&self, options: &impl Debug) {
        self.notes.kept().options = format!("{options:#?}");
    }

    /// Adds a line to the trace.
    pub fn note(&self, event: &str) {
        self.notes.trace.note("scenario", event);
    }

    /// How many errors servers have reported whose text contains this.
    pub fn errors(&self, text: &str) -> usize {
        self.notes.trace.errors(text)
    }

    /// Counts something that was exercised. The network's own counters, named `net_…`, need no call.
    pub fn count(&self, what: &'static str, times: u64) {
        *self.notes.kept().counts.entry(what).or_default() += times;
    }

    /// A sweep in which any of these stayed at zero has proved nothing, and fails.
    pub fn require(&self, what: &[&'static str]) {
        self.notes.kept().required.extend(what);
    }
}

impl Notes {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a run that passed leaves behind.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The hash of its trace and of all bytes the network moved.
    pub hash: u64,
    /// What was exercised, and how often.
    pub counts: BTreeMap<&'static str, u64>,
    required: BTreeSet<&'static str>,
}

impl Outcome {
    fn add(&mut self, other: &Self) {
        for (what, times) in &other.counts {
            *self.counts.entry(what).or_default() += times;
        }
        self.required.extend(&other.required);
    }
}

/// Runs `scenario` once for each seed, on all cores.
///
/// `name` is the name of the test that calls it, for the command that replays a failure.
///
/// # Panics
/// If a run fails, if the first seed does not leave the same trace twice, or if something required was never exercised.
pub fn sweep<F, S>(name: &str, seeds: Range<u64>, scenario: S)
where
    F: Future<Output = ()>,
    S: Fn(Sim) -> F + Sync,
{
    if let Some(seed) = number("NSQ_SIM_SEED") {
        let outcome = run(name, seed, true, &scenario).unwrap_or_else(|report| fail(&report));
        return eprintln!("{name}: seed {seed} passed, trace {:016x}\n{}", outcome.hash, table(&outcome.counts));
    }
    let seeds = number("NSQ_SIM_SEEDS").map_or_else(|| seeds.clone(), |count| seeds.start..seeds.start + count);
    assert!(!seeds.is_empty(), "{name}: no seeds to run");
    let total = all(name, &seeds, &scenario).unwrap_or_else(|report| fail(&report));
    eprintln!("{name}: {} seeds passed, in which happened:\n{}", seeds.end - seeds.start, table(&total.counts));
    let missing: Vec<_> =
        total.required.iter().filter(|what| total.counts.get(*what).is_none_or(|times| *times == 0)).collect();
    assert!(missing.is_empty(), "{name}: the sweep proves nothing, as these never happened: {missing:?}");
}

fn all<F, S>(name: &str, seeds: &Range<u64>, scenario: &S) -> Result<Outcome, String>
where
    F: Future<Output = ()>,
    S: Fn(Sim) -> F + Sync,
{
    let next = AtomicU64::new(seeds.start);
    let failed = AtomicBool::new(false);
    let results = Mutex::new(BTreeMap::new());
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) {
                return;
            }
            let result = run(name, seed, false, scenario).and_then(|first| match seed == seeds.start {
                true => same_again(name, seed, scenario, first),
                false => Ok(first),
            });
            failed.fetch_or(result.is_err(), Ordering::Relaxed);
            results.lock().unwrap_or_else(PoisonError::into_inner).insert(seed, result);
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut total = Outcome::default();
    for result in results.into_inner().unwrap_or_else(PoisonError::into_inner).into_values() {
        total.add(&result?);
    }
    Ok(total)
}

fn same_again<F, S>(name: &str, seed: u64, scenario: &S, first: Outcome) -> Result<Outcome, String>
where
    F: Future<Output = ()>,
    S: Fn(Sim) -> F + Sync,
{
    let second = run(name, seed, false, scenario)?;
    if first.hash == second.hash {
        return Ok(first);
    }
    Err(format!(
        "{name}: seed {seed} left two different traces, {:016x} and {:016x}: something in it does not come from the seed.\n\
         To see where they part, run this twice and compare:\n    {}\n",
        first.hash,
        second.hash,
        replay(name, seed)
    ))
}

/// Runs `scenario` with one seed, on a thread of its own; with `echo` the full trace goes to stderr.
///
/// # Errors
/// If the run panics, hangs or exceeds [`TIME_LIMIT`]: the report.
pub fn run<F, S>(name: &str, seed: u64, echo: bool, scenario: &S) -> Result<Outcome, String>
where
    F: Future<Output = ()>,
    S: Fn(Sim) -> F + Sync,
{
    let notes = Notes { trace: Trace::new(echo), kept: Arc::default() };
    let result = thread::scope(|scope| {
        let body = || catch_unwind(AssertUnwindSafe(|| on_this_thread(seed, notes.clone(), scenario)));
        let thread = thread::Builder::new().name(format!("{name}, seed {seed}"));
        thread.spawn_scoped(scope, body).expect("the system can start a thread").join()
    });
    match result {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(panic)) | Err(panic) => Err(report(name, seed, &notes, &message(&*panic))),
    }
}

fn on_this_thread<F, S>(seed: u64, notes: Notes, scenario: &S) -> Outcome
where
    F: Future<Output = ()>,
    S: Fn(Sim) -> F + Sync,
{
    let _recording = tracing::dispatcher::set_default(&notes.trace.dispatch());
    let mut runtime = sim::runtime(seed);
    runtime.set_time_limit(TIME_LIMIT);
    runtime.block_on(async {
        let net = Net::current();
        notes.kept().net = Some(net.clone());
        scenario(Sim { seed, net: net.clone(), notes: notes.clone() }).await;
        net.end().await;
        notes.trace.mix(net.digest());
        let mut kept = notes.kept();
        kept.counts.extend(net.counters().named());
        Outcome { hash: notes.trace.hash(), counts: kept.counts.clone(), required: kept.required.clone() }
    })
}

fn report(name: &str, seed: u64, notes: &Notes, message: &str) -> String {
    let (net, options, counts) = {
        let kept = notes.kept();
        (kept.net.clone(), kept.options.clone(), kept.counts.clone())
    };
    let network = net.as_ref().map_or_else(String::new, Net::dump);
    let mut counts = counts;
    counts.extend(net.iter().flat_map(|net| net.counters().named().collect::<Vec<_>>()));
    format!(
        "\n──── {name}: seed {seed} failed ────\n{message}\n\n── options\n{options}\n\n── end of the trace {}\n── network\n{network}\n\
         ── what happened\n{}\n── to replay it\n    {}\n",
        notes.trace.tail(SHOWN),
        table(&counts),
        replay(name, seed)
    )
}

fn fail(report: &str) -> ! {
    eprintln!("{report}");
    panic!("a simulated run failed, see the report above");
}

/// The command that runs one seed of the test we are in.
fn replay(name: &str, seed: u64) -> String {
    let exe = std::env::current_exe().unwrap_or_default();
    let stem = exe.file_stem().map(Path::new).map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    // cargo names a test program after its file and a hash.
    let target = match stem.rsplit_once('-').map_or(&*stem, |(file, _)| file) {
        "nsq_sim" => "--lib".to_owned(),
        file => format!("--test {file}"),
    };
    format!("NSQ_SIM_SEED={seed} cargo test -p nsq-sim {target} {name} -- --nocapture")
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, it is {text:?}")))
}

fn table(counts: &BTreeMap<&'static str, u64>) -> String {
    let mut text = String::new();
    for (what, times) in counts.iter().filter(|(_, times)| **times > 0) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{times:>12} {what}");
    }
    text
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".to_owned())
}
