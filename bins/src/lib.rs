//! What NSQ's programs share: flags, log lines, versions, and the load generator.
//!
//! Each program is one small file in `src/bin`; whatever could serve a second one is here.

pub mod bench;
pub mod daemon;
pub mod data_path;
pub mod flags;
pub mod log;
pub mod nsq_flags;
pub mod nsqd_flags;
pub mod nsqlookupd_flags;
pub mod os_error;
pub mod serve;
pub mod serve_nsq;
pub mod serve_nsqlookupd;
pub mod version;
