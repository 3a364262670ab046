//! Running the threads of a load and measuring what happens meanwhile.
//!
//! Comes in: one closure per connection. Goes out: [`Measured`], counts and costs between two snapshots that exclude
//! connecting, warm-up and draining. The rule: whatever a thread fails with is the run's error, and a run that makes no
//! progress is one too.

use super::gate::{Gate, Phase};
use super::options::Options;
use super::process::{Cost, Usage};
use super::tally::Tally;
use anyhow::{Context, Result, anyhow, bail};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// One connection's part of a run.
pub(super) type Worker<'a> = Box<dyn FnOnce(&Gate) -> Result<Tally> + Send + 'a>;

/// What was measured.
pub(super) struct Measured {
    /// How long.
    pub(super) elapsed: Duration,
    /// Messages acknowledged within.
    pub(super) published: u64,
    /// Messages received within.
    pub(super) received: u64,
    /// Bytes of their bodies.
    pub(super) received_bytes: u64,
    /// The cost of the server, if its process is known.
    pub(super) server: Option<Cost>,
    /// The cost of this process, if this system tells.
    pub(super) client: Option<Cost>,
    /// Everything the threads saw.
    pub(super) tally: Tally,
}

/// Runs `workers` through warm-up, measurement and draining.
pub(super) fn drive(options: &Options, gate: &Gate, workers: Vec<Worker<'_>>) -> Result<Measured> {
    // The first failure is the cause; others may follow from the stop that it brings about.
    let failure = Mutex::new(None);
    let fail = |error| {
        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        gate.enter(Phase::Stop);
        gate.finish();
    };
    let (measured, tally) = thread::scope(|scope| {
        let mut threads = Vec::new();
        // Without a warm-up the very first message is part of what is measured.
        let begin = options.warm_up.is_zero().then(|| Snapshot::begin(options, gate)).transpose()?;
        for worker in workers {
            let work = || {
                let tally = worker(gate).map_err(&fail).unwrap_or_default();
                linger(gate);
                tally
            };
            match thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work) {
                Ok(thread) => threads.push(thread),
                Err(error) => fail(anyhow!(error).context("cannot start a thread per connection")),
            }
        }
        let measured = measure(options, gate, begin).map_err(&fail).ok();
        gate.enter(Phase::Drain);
        drain(gate);
        gate.enter(Phase::Stop);
        let mut tally = Tally::default();
        for thread in threads {
            tally.add(&thread.join().map_err(|_| anyhow!("a thread of this program panicked"))?);
        }
        anyhow::Ok((measured, tally))
    })?;
    match (failure.into_inner().unwrap_or_else(PoisonError::into_inner), measured) {
        (None, Some((begin, end))) => Ok(end.since(&begin, tally)),
        (failure, _) => Err(failure.unwrap_or_else(|| anyhow!("the run ended without a result"))),
    }
}

/// Waits for the warm-up and the measurement to pass.
fn measure(options: &Options, gate: &Gate, begin: Option<Snapshot>) -> Result<(Snapshot, Snapshot)> {
    let begin = match begin {
        Some(begin) => begin,
        None => {
            gate.finished_within(options.warm_up);
            Snapshot::begin(options, gate)?
        }
    };
    let finished = match options.duration {
        Some(duration) => gate.finished_within(duration),
        None => Some(finish(gate)?),
    };
    let mut end = Snapshot::now(options, gate)?;
    end.at = finished.unwrap_or(end.at);
    Ok((begin, end))
}

/// Waits for the count to be reached, as long as anything moves.
fn finish(gate: &Gate) -> Result<Instant> {
    loop {
        let before = (gate.published(), gate.received());
        if let Some(at) = gate.finished_within(STANDSTILL) {
            return Ok(at);
        }
        let (published, received) = (gate.published(), gate.received());
        if (published, received) == before {
            let secs = STANDSTILL.as_secs();
            bail!("nothing has moved for {secs} s, after {published} messages published and {received} received");
        }
    }
}

/// Keeps a thread that is done alive until the last snapshot: the kernel forgets the context switches of one that ends.
fn linger(gate: &Gate) {
    while gate.phase() < Phase::Drain {
        if gate.finished_within(Duration::from_secs(1)).is_some() {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Lets what is under way arrive; the reports show what does not.
fn drain(gate: &Gate) {
    let patience = Instant::now() + DRAIN;
    while gate.phase() < Phase::Stop && gate.is_draining() && Instant::now() < patience {
        thread::sleep(Duration::from_millis(5));
    }
}

/// The state of everything at one moment.
struct Snapshot {
    at: Instant,
    published: u64,
    received: u64,
    received_bytes: u64,
    server: Option<Usage>,
    client: Option<Usage>,
}

impl Snapshot {
    /// Takes a snapshot and lets the measurement begin.
    fn begin(options: &Options, gate: &Gate) -> Result<Self> {
        let snapshot = Self::now(options, gate)?;
        let limit = |count: u64| (options.count > 0).then_some(count);
        gate.measure(
            limit(options.count.div_ceil(options.batch as u64)),
            limit(options.count).filter(|_| !gate.produces()),
        );
        Ok(Self { at: Instant::now(), ..snapshot })
    }

    fn now(options: &Options, gate: &Gate) -> Result<Self> {
        Ok(Self {
            at: Instant::now(),
            published: gate.published(),
            received: gate.received(),
            received_bytes: gate.received_bytes(),
            server: options.pid.map(Usage::of).transpose().context("--pid")?,
            client: Usage::of(std::process::id()).ok(),
        })
    }

    fn since(&self, begin: &Self, tally: Tally) -> Measured {
        let cost = |after: Option<Usage>, before: Option<Usage>| Some(after?.since(&before?));
        Measured {
            elapsed: self.at.saturating_duration_since(begin.at),
            published: self.published - begin.published,
            received: self.received - begin.received,
            received_bytes: self.received_bytes - begin.received_bytes,
            server: cost(self.server, begin.server),
            client: cost(self.client, begin.client),
            tally,
        }
    }
}

/// A thread per connection holds no more than its buffers' handles.
const STACK: usize = 256 * 1024;

/// How long what is under way may take to arrive.
const DRAIN: Duration = Duration::from_secs(10);

/// How long a run without a duration may stand still.
const STANDSTILL: Duration = Duration::from_secs(30);
