//! nsq-core: NSQ's protocol and state machines, without input or output.
//!
//! Three machines: [`Session`](session::Session) for each socket (bytes to commands, replies and deliveries to frames),
//! [`Topic`](topic::Topic) for each topic with its channels (the unit of locking), [`Node`](node::Node) for the process
//! (the directory and `nsqd.dat`). Each input takes `now` first, effects go into a buffer of the caller's, and
//! `deadline()` says when to come back; an early or empty call changes nothing. [`lookupd`] has nsqlookupd's two,
//! [`LookupPeer`](lookup_peer::LookupPeer) is nsqd's side of a connection between the two daemons, and [`client`] has
//! the machines of producers and consumers.
//!
//! `no_std` keeps the one rule: nothing in here can name a clock, a socket, a file, a thread or a random hasher.
#![no_std]

extern crate alloc;

pub mod budget;
pub mod client;
pub mod directory;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod identity;
mod json;
pub mod lookup_peer;
pub mod lookupd;
pub mod message;
pub mod name;
pub mod node;
pub mod options;
pub mod random;
pub mod session;
pub mod storage;
pub mod time;
pub mod topic;
pub mod wire;
