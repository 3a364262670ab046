//! More connections than a process may open files: nsqd says so, waits without turning in circles, and goes on. More
//! files than that are opened in turn.

use crate::program::{Program, http};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

/// Few, so that the test itself needs no more than it is allowed.
const LIMIT: usize = 64;

/// nsqd that may open so many, in that directory.
fn limited(dir: &Path) -> Program {
    let mut command = Command::new("sh");
    let limited = format!("ulimit -n {LIMIT} && exec \"$@\"");
    command.args(["-c", &limited, "sh", env!("CARGO_BIN_EXE_nsqd"), "-tcp-address=127.0.0.1:0"]);
    command.args(["-http-address=127.0.0.1:0", "-durable"]);
    Program::start(command, dir)
}

#[test]
fn topics_that_have_more_files_than_may_be_open_work() {
    let dir = tempfile::tempdir().unwrap();
    let mut nsqd = limited(dir.path());
    let (_, web) = nsqd.addresses();
    for topic in 0..2 * LIMIT {
        let published = http("POST", &web, &format!("/pub?topic=t{topic}"), "m");
        assert!(published.is_ok_and(|answer| answer == "OK"), "{topic} topics had room:\n{}", nsqd.stderr());
    }
    nsqd.wait_for("health", |_| http("GET", &web, "/ping", "").ok());
}

#[test]
fn nsqd_that_runs_out_of_open_files_says_so_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut nsqd = limited(dir.path());
    let (tcp, web) = nsqd.addresses();

    let crowd: Vec<_> = (0..2 * LIMIT).map(|_| TcpStream::connect(&tcp).unwrap()).collect();
    nsqd.wait_for("line about it", |nsqd| nsqd.stderr().contains("failed to accept").then_some(()));
    let before = ticks(nsqd.id());
    sleep(Duration::from_secs(1));
    let spent = ticks(nsqd.id()) - before;
    assert!(spent < 20, "{spent} hundredths of a second of CPU while waiting for a second");
    let log = nsqd.stderr();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("failed to accept")).collect();
    assert_eq!(lines.len(), 1, "one line, however often it fails:\n{log}");
    assert!(lines[0].contains(" ERROR: ") && lines[0].contains("ulimit"), "{log}");

    drop(crowd);
    nsqd.wait_for("service", |_| http("GET", &web, "/ping", "").ok());
    let mut client = TcpStream::connect(&tcp).unwrap();
    client.write_all(b"  V2PUB t\n\0\0\0\x01x").unwrap();
    let mut answer = [0; 10];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer[8..], b"OK");
}

/// CPU time of a process so far, in hundredths of a second.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<u64> = fields.split(' ').skip(11).take(2).map(|field| field.parse().unwrap()).collect();
    fields.iter().sum()
}
