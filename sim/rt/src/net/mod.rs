//! `tokio::net` on the simulated network: TCP listeners and streams, and names.
//!
//! In: the calls a tokio program makes. Out: what Linux would answer. The model behind it is [`crate::sim`].
//! The rule: a handle whose process was killed touches nothing any more, for its destructor runs after the death.

mod addr;
mod listener;
mod split;
mod stream;

pub use self::addr::{ToSocketAddrs, lookup_host};
pub use self::listener::TcpListener;
pub use self::stream::TcpStream;

/// The halves of a [`TcpStream`], as in tokio.
pub mod tcp {
    pub use super::split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
}
