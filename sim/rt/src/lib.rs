//! The crate that net knows by the name `tokio` when it runs inside the simulator.
//!
//! In: net's sources, written against tokio. Out: the same names, on madsim's scheduler and clock and on our own
//! network ([`net`]). What can be shared with tokio (`io`, most of `sync`, macros) is tokio's. What differs: `select!`
//! is always biased, `spawn_blocking` runs in one poll of a task, and [`sim`] is the handle by which a test breaks
//! things. The one rule: nothing here may depend on anything but the seed.
//!
//! The simulator inside madsim exists only under `--cfg madsim` (see `.cargo/config.toml`); without it this crate is
//! plain tokio.

#[cfg(not(madsim))]
pub use tokio::*;

#[cfg(madsim)]
pub mod net;
#[cfg(madsim)]
pub mod runtime;
#[cfg(madsim)]
pub mod sim;
#[cfg(madsim)]
pub mod sync;
#[cfg(madsim)]
pub mod task;
#[cfg(madsim)]
pub mod time;

#[cfg(madsim)]
pub use self::task::spawn;
#[cfg(madsim)]
pub use madsim::signal;
#[cfg(madsim)]
pub use tokio::{io, join, pin, test, try_join};

#[cfg(madsim)]
#[doc(hidden)]
pub use tokio::select as tokio_select;

/// `tokio::select!`, always `biased`: tokio draws its random order from a counter of the whole process, which no seed
/// can replay.
#[cfg(madsim)]
#[macro_export]
macro_rules! select {
    (biased; $($branches:tt)*) => { $crate::tokio_select! { biased; $($branches)* } };
    ($($branches:tt)*) => { $crate::tokio_select! { biased; $($branches)* } };
}
