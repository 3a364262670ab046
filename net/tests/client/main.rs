//! Producer and consumer against whole servers: real sockets, nsqds that die and come back, peers that lie.
//!
//! The rules of sharing, backoff and failing over are tested where they are, in core; here is what drivers must get
//! right.

mod consuming;
mod hostile;
mod publishing;
mod world;
