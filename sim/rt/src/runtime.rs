//! As much of `tokio::runtime` as `#[tokio::test]` needs, so that net's own tests run in the simulator too.
//!
//! In: the body of a test. Out: its result, after a run with seed 0. The rule: whoever wants other seeds, faults or a
//! report uses the runner.

use std::future::Future;
use std::io;

/// Stands for tokio's builder; there is nothing to choose.
#[derive(Debug, Default)]
pub struct Builder(());

impl Builder {
    /// The simulator has one thread.
    pub fn new_current_thread() -> Self {
        Self::default()
    }

    /// Clock and network are always there.
    pub fn enable_all(&mut self) -> &mut Self {
        self
    }

    /// The runtime; this never fails.
    pub fn build(&mut self) -> io::Result<Runtime> {
        Ok(Runtime(crate::sim::runtime(0)))
    }
}

/// A simulated world for one test.
pub struct Runtime(madsim::runtime::Runtime);

impl Runtime {
    /// Runs `future` to its end.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.0.block_on(future)
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Runtime")
    }
}
