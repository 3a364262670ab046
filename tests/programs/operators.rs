//! The daemons as operators handle them: config files, odd command lines, signals.

use crate::program::{Program, answer};
use rustix::process::Signal;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

/// The daemon `name` on free ports, with `flags` behind.
fn daemon(name: &str, dir: &Path, flags: &[&str]) -> Program {
    let program = if name == "nsqd" { env!("CARGO_BIN_EXE_nsqd") } else { env!("CARGO_BIN_EXE_nsqlookupd") };
    let mut command = Command::new(program);
    command.args(["-tcp-address=127.0.0.1:0", "-http-address=127.0.0.1:0"]).args(flags);
    Program::start(command, dir)
}

/// The text of the line with which a daemon that cannot start ends.
fn fatal(mut program: Program) -> String {
    assert_eq!(program.status(), 1, "{}", program.stderr());
    let log = program.stderr();
    let last = log.lines().last().unwrap_or_default();
    last.split_once(" FATAL: ").unwrap_or_else(|| panic!("{log}")).1.to_owned()
}

#[test]
fn a_config_file_is_read_and_one_that_cannot_be_is_fatal() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("good"), "max_rdy_count = 7\nlog_prefix = 'x '\nsnapy = true\n").unwrap();
    let mut nsqd = daemon("nsqd", dir.path(), &["--config=good"]);
    let (_, web) = nsqd.addresses();
    assert_eq!(answer("GET", &web, "/config/max_rdy_count", "").unwrap(), (200, "7".into()));
    assert!(nsqd.stderr().lines().all(|line| line.starts_with("x ")), "{}", nsqd.stderr());
    assert!(nsqd.stderr().contains("WARNING: good: snapy is no key and has no effect"), "{}", nsqd.stderr());
    for name in ["nsqd", "nsqlookupd"] {
        let why = fatal(daemon(name, dir.path(), &["--config=none"]));
        assert_eq!(why, "failed to load config file none - open none: no such file or directory");
    }
}

#[test]
fn what_a_config_file_asks_for_is_not_left_out() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    for (text, why) in [
        ("tls_required = true", "cannot require TLS client connections without TLS key and cert"),
        ("auth_http_addresses = ['a:1']", "cannot ask --auth-http-address: this build does not support AUTH yet"),
    ] {
        fs::write(dir.path().join("config"), text).unwrap();
        let nsqd = daemon("nsqd", dir.path(), &["--config=config", "--data-path=data"]);
        assert_eq!(fatal(nsqd), format!("failed to instantiate nsqd - {why}"));
    }
}

#[test]
fn signals_that_mean_nothing_do_nothing() {
    for name in ["nsqd", "nsqlookupd"] {
        let dir = tempfile::tempdir().unwrap();
        let mut program = daemon(name, dir.path(), &[]);
        let (_, web) = program.addresses();
        program.wait_for("answer to /ping", |_| answer("GET", &web, "/ping", "").ok());
        program.signal(Signal::USR1);
        program.signal(Signal::USR2);
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert_eq!(answer("GET", &web, "/ping", "").unwrap(), (200, "OK".into()), "{}", program.stderr());
        program.signal(Signal::TERM);
        assert_eq!(program.status(), 0);
    }
}

#[test]
fn messages_that_another_nsqd_has_left_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| fs::write(dir.path().join(name), content).unwrap();
    write("t.diskqueue.meta.dat", "0\n0,0\n0,0\n");
    write("t:c.diskqueue.meta.dat", "10\n0,0\n0,400\n");
    write("u.diskqueue.meta.dat", "garbage");
    let mut nsqd = daemon("nsqd", dir.path(), &[]);
    let (_, web) = nsqd.addresses();
    nsqd.wait_for("answer to /ping", |_| answer("GET", &web, "/ping", "").ok());
    let log = nsqd.stderr();
    let errors: Vec<_> = log.lines().filter_map(|line| line.split_once(" ERROR: ")).map(|(_, text)| text).collect();
    let rest = "are not read by this version; drain them with the nsqd that wrote them";
    assert_eq!(
        errors,
        [
            format!("TOPIC(t): CHANNEL(c): 10 messages in files of another nsqd (t:c.diskqueue.meta.dat) {rest}"),
            format!("TOPIC(u): an unknown number of messages in files of another nsqd (u.diskqueue.meta.dat) {rest}"),
        ]
    );
}

#[test]
fn who_comes_and_goes_and_why_is_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut nsqd = daemon("nsqd", dir.path(), &[]);
    let (tcp, web) = nsqd.addresses();
    let mut client = TcpStream::connect(&tcp).unwrap();
    let here = client.local_addr().unwrap();
    client.write_all(b"  V2SUB t c\nPUB t\n\0\0\0\x01xNONSENSE\n").unwrap();
    client.read_to_end(&mut Vec::new()).unwrap();
    let mut other = TcpStream::connect(&tcp).unwrap();
    let there = other.local_addr().unwrap();
    other.write_all(b"  V2").unwrap();
    drop(other);
    let last = format!(" INFO: client({there}): closing\n");
    nsqd.wait_for("line about the second", |nsqd| nsqd.stderr().contains(&last).then_some(()));
    answer("POST", &web, "/channel/delete?topic=t&channel=c", "").unwrap();
    let log = nsqd.stderr();
    for line in [
        " INFO: NSQ: found 0 topics with 0 channels, 0 messages in their queues, in ".to_owned(),
        format!(" INFO: TCP: new client({here})\n"),
        " INFO: TOPIC(t): created\n INFO: TOPIC(t): new channel(c)\n".to_owned(),
        format!(" ERROR: client({here}): closing - E_INVALID invalid command NONSENSE\n"),
        " INFO: TOPIC(t): deleted channel(c)\n".to_owned(),
    ] {
        assert!(line.split_inclusive('\n').all(|line| log.contains(line)), "{line}:\n{log}");
    }
    assert!(!log.contains("PUB"), "nothing about single messages:\n{log}");
}
