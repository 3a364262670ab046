//! `tokio::task` on madsim's executor.
//!
//! In: futures. Out: tasks of the current node, run on one thread in an order drawn from the seed.

pub use madsim::task::{AbortHandle, JoinError, JoinHandle, spawn, yield_now};

/// Runs `job` in one poll of a task of its own: the simulator has no threads, and time stands still meanwhile.
#[track_caller]
pub fn spawn_blocking<F, R>(job: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    spawn(async move { job() })
}

/// Runs `job` here and now.
pub fn block_in_place<F: FnOnce() -> R, R>(job: F) -> R {
    job()
}
