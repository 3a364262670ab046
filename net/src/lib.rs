//! nsq-net: the tokio drivers around nsq-core: sockets, HTTP, timers, `nsqd.dat`.
//!
//! A connection's task reads once, hands all its commands to their topics under one short lock each, and writes once
//! ([`conn`]). Everything it shares with others is in the [`broker`]. [`server`] runs an nsqd, [`lookupd`] an
//! nsqlookupd, and [`client`] is for programs that publish and consume. Nothing here knows a rule of the protocol or of
//! the queues: that is core's. The same sources run in production on tokio and in simulation on `sim/rt`, which is what
//! the name `tokio` means there; wall clock, seed and disk come in as an [`env::Env`].

pub mod broker;
pub mod client;
mod conn;
pub mod disk;
pub mod durable;
pub mod env;
pub mod http;
mod linger;
pub mod listen;
pub mod lookupd;
pub mod lookups;
mod metadata;
mod outbox;
mod output;
mod peers;
mod precreate;
mod recovery;
mod reserve;
#[cfg(test)]
mod reserve_tests;
pub mod server;
mod storage;
mod sync;
mod timers;
mod topics;
mod visits;
