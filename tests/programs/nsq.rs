//! `nsq`: two daemons in one process that find each other, and end together.

use crate::program::{Program, http};
use rustix::process::Signal;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

const FLAGS: [&str; 4] = ["-tcp-address", "-http-address", "-lookupd-tcp-address", "-lookupd-http-address"];

/// On free ports, but for what `flags` say.
fn nsq(dir: &Path, flags: &[&str]) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nsq"));
    for flag in FLAGS {
        command.args([flag, "127.0.0.1:0"]);
    }
    command.args(flags);
    Program::start(command, dir)
}

/// The word of stdout that follows `name` at the start of a line; `nth` 0 is the first one.
fn shown(stdout: &str, name: &str, nth: usize) -> Option<String> {
    let line = stdout.lines().find(|line| line.split_whitespace().next() == Some(name))?;
    line.split_whitespace().nth(1 + nth).map(|word| word.trim_start_matches("http://").to_owned())
}

#[test]
fn a_message_is_published_and_found_by_lookup() {
    let dir = tempfile::tempdir().unwrap();
    let mut nsq = nsq(dir.path(), &["-log-level=info"]);
    let stdout = nsq.wait_for("addresses on stdout", |nsq| Some(nsq.stdout()).filter(|text| text.contains("consume ")));
    let [tcp, nsqd, lookupd] = [("nsqd", 0), ("nsqd", 1), ("nsqlookupd", 1)]
        .map(|(name, nth)| shown(&stdout, name, nth).unwrap_or_else(|| panic!("{name} is missing:\n{stdout}")));
    let data = dir.path().join("nsq-data");
    assert_eq!(shown(&stdout, "data", 0).unwrap(), data.canonicalize().unwrap().display().to_string());
    assert!(stdout.contains(&format!("curl -d 'hello world' 'http://{nsqd}/pub?topic=greetings'")), "{stdout}");

    assert_eq!(http("POST", &nsqd, "/pub?topic=greetings", "hello world").unwrap(), "OK");
    let found = nsq.wait_for("producer of the topic at nsqlookupd", |_| {
        http("GET", &lookupd, "/lookup?topic=greetings", "").ok().filter(|answer| answer.contains("\"tcp_port\""))
    });
    let (host, port) = tcp.split_once(':').unwrap();
    assert!(found.contains(&format!("\"broadcast_address\":\"{host}\"")), "{found}");
    assert!(found.contains(&format!("\"tcp_port\":{port}")), "{found}");

    nsq.signal(Signal::TERM);
    assert_eq!(nsq.status(), 0, "{}", nsq.stderr());
    let log = nsq.stderr();
    let place = |text: &str| log.find(text).unwrap_or_else(|| panic!("no {text:?}:\n{log}"));
    assert!(place("NSQ: stopping") < place("NSQLOOKUPD: stopping"), "nsqd ends first:\n{log}");
    assert!(place("NSQLOOKUPD: stopping") < place("NSQ: bye"), "{log}");
    assert!(!log.contains("WARNING: 1 connections"), "nobody is left behind:\n{log}");
    assert!(std::fs::read_to_string(data.join("nsqd.dat")).unwrap().contains("greetings"));
}

#[test]
fn what_is_queued_is_there_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let nsqd = |nsq: &mut Program| nsq.wait_for("address", |nsq| shown(&nsq.stdout(), "nsqd", 1));
    let mut first = nsq(dir.path(), &["--durable-topic=kept"]);
    let web = nsqd(&mut first);
    for topic in ["kept", "ended"] {
        assert_eq!(http("POST", &web, &format!("/pub?topic={topic}"), "hello").unwrap(), "OK");
    }
    first.signal(Signal::TERM);
    assert_eq!(first.status(), 0, "{}", first.stderr());
    let mut second = nsq(dir.path(), &["--durable-topic=kept"]);
    let web = nsqd(&mut second);
    assert_eq!(http("POST", &web, "/pub?topic=kept", "again").unwrap(), "OK");
    second.kill();
    let mut third = nsq(dir.path(), &[]);
    let stats = http("GET", &nsqd(&mut third), "/stats?format=json", "").unwrap();
    for (topic, depth) in [("kept", 2), ("ended", 1)] {
        let expected = format!(r#""topic_name":"{topic}","channels":[],"depth":{depth},"#);
        assert!(stats.contains(&expected), "{stats}");
    }
}

#[test]
fn a_port_in_use_is_named_and_nothing_is_left() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (flag, daemon) in FLAGS.into_iter().zip(["nsqd", "nsqd", "nsqlookupd", "nsqlookupd"]) {
        let dir = tempfile::tempdir().unwrap();
        let mut nsq = nsq(dir.path(), &[flag, &address]);
        assert_eq!(nsq.status(), 1);
        let log = nsq.stderr();
        let last = log.lines().last().unwrap();
        let (_, text) = last.split_once(" FATAL: ").unwrap_or_else(|| panic!("{log}"));
        assert!(last.starts_with("[nsq] "), "{log}");
        assert!(text.starts_with(&format!("failed to instantiate {daemon} - listen ({address}) failed")), "{log}");
        assert!(text.ends_with("address already in use"), "{log}");
        assert_eq!(nsq.stdout(), "");
        assert!(!dir.path().join("nsq-data").exists(), "{flag} leaves a data directory");
    }
}

#[test]
fn a_data_path_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let others = tempfile::tempdir().unwrap();
    let mut first = nsq(dir.path(), &[]);
    first.wait_for("addresses on stdout", |nsq| (!nsq.stdout().is_empty()).then_some(()));
    let data = dir.path().join("nsq-data");
    let mut second = nsq(others.path(), &["-data-path", data.to_str().unwrap()]);
    assert_eq!(second.status(), 1);
    assert!(second.stderr().contains("possibly in use by another instance of nsqd"), "{}", second.stderr());
    assert!(data.join("nsqd.dat").exists());
}
