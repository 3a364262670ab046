//! The clients' machines: [`Connection`] for each socket, [`Consumer`](consumer::Consumer) and
//! [`Producer`](producer::Producer) above them.
//!
//! As with the server's: each input takes `now` first, effects go into a buffer of the caller's, `deadline()` says when
//! to come back, `check()` asserts every invariant. A machine knows connections by [`ConnId`] only; whoever drives it
//! makes the sockets, and tells what became of them.

mod backoff;
pub mod connection;
pub mod consumer;
mod discovery;
mod handshake;
pub mod lookup;
mod notice;
pub mod producer;
mod publish;
mod retry;
mod sharing;
#[cfg(test)]
mod tests;

pub use backoff::BackoffLimits;
pub use connection::{Command, Connection, Token};
pub use discovery::Sources;
pub use handshake::{Limits, Settings};
pub use notice::Notice;
pub use publish::{Payload, Publish};
pub use retry::Retry;

/// A connection of a client; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);
