//! The end while nsqd still starts.

use crate::program::Program;
use rustix::process::Signal;
use std::process::Command;

#[test]
fn nsqd_that_starts_for_long_is_stopped_at_once() {
    let dir = tempfile::tempdir().unwrap();
    // Whoever reads it waits until somebody writes it, which nobody does.
    assert!(Command::new("mkfifo").arg(dir.path().join("nsqd.dat")).status().unwrap().success());
    let mut command = Command::new(env!("CARGO_BIN_EXE_nsqd"));
    command.args(["-tcp-address=127.0.0.1:0", "-http-address=127.0.0.1:0"]);
    let mut nsqd = Program::start(command, dir.path());
    nsqd.addresses();
    nsqd.signal(Signal::TERM);
    assert_eq!(nsqd.status(), 0);
}
