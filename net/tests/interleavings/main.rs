//! What one thread cannot show: the road lock, handle, route, unlock, wake, under thousands of schedules of several.
//!
//! The rooms of net that threads meet in are compiled here once more, the very same files, against locks, atomics and
//! thread-locals of shuttle, which runs one thread at a time and chooses at each of them who goes on. A wake that is
//! missed is a deadlock, which shuttle reports with the schedule; the schedules follow from seeds, so each run tries
//! the same ones. Time stands still unless a test moves it: nothing is delivered twice unless it is a bug.

#[path = "../../src/broker.rs"]
#[allow(dead_code, unreachable_pub, reason = "compiled for a part of it")]
mod broker;
#[path = "../../src/conn.rs"]
mod conn;
mod env;
#[path = "../../src/linger.rs"]
mod linger;
#[path = "../../src/lookups.rs"]
#[allow(dead_code, unreachable_pub, reason = "nobody is asked")]
mod lookups;
mod nsqd;
#[path = "../../src/outbox.rs"]
mod outbox;
#[path = "../../src/output.rs"]
mod output;
#[path = "../../src/reserve.rs"]
#[allow(dead_code, reason = "nothing is written")]
mod reserve;
mod scenarios;
#[path = "../../src/storage.rs"]
#[allow(dead_code, reason = "nothing is written")]
mod storage;
mod sync;
#[path = "../../src/timers.rs"]
#[allow(dead_code, reason = "no test waits for time")]
mod timers;
#[path = "../../src/topics.rs"]
#[allow(dead_code, reason = "nobody is asked")]
mod topics;

use nsq_net::{disk, durable};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};
use std::sync::Arc;

/// Schedules of each kind.
const RUNS: usize = 2000;
/// Places at which a schedule takes the turn from a thread that would rather go on.
const PREEMPTIONS: usize = 3;

/// Runs a scenario under many schedules: arbitrary ones, and those that let each thread run for long.
fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    // Connections have deadlines, which need a runtime to be told to. None of them comes.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _clock = runtime.enter();
    let scenario = Arc::new(scenario);
    run(RandomScheduler::new_from_seed(1, RUNS), &scenario);
    run(PctScheduler::new_from_seed(1, PREEMPTIONS, RUNS), &scenario);
}

fn run(scheduler: impl Scheduler + 'static, scenario: &Arc<impl Fn() + Send + Sync + 'static>) {
    let mut config = Config::new();
    config.stack_size = 256 * 1024;
    config.max_steps = MaxSteps::FailAfter(100_000);
    config.silence_warnings = true;
    config.ungraceful_shutdown_config.immediately_return_on_panic = true;
    let scenario = Arc::clone(scenario);
    Runner::new(scheduler, config).run(move || scenario());
}
