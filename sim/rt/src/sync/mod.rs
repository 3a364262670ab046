//! `tokio::sync`: tokio's own, which needs no runtime, except for [`watch`].

pub mod watch;

pub use tokio::sync::*;
