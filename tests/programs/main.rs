//! The programs as an operator sees them: what they print, how they end, what they do when something runs out.
//!
//! Each test starts the real binary with free ports in a directory of its own. What the wire says is the transcripts'
//! business.

mod bench;
mod disk;
mod nsq;
mod open_files;
mod operators;
mod program;
mod stop;
