//! `nsq_bench` against the real nsqd: what only a server that queues can show.

use crate::program::{Program, http};
use std::process::Command;

#[test]
fn channels_are_there_before_the_first_message_and_memory_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_nsqd"));
    command.args(["-tcp-address=127.0.0.1:0", "-http-address=127.0.0.1:0"]);
    let mut nsqd = Program::start(command, dir.path());
    let (tcp, web) = nsqd.addresses();

    let mut bench = Command::new(env!("CARGO_BIN_EXE_nsq_bench"));
    bench.args(["pub", "--channels=3", "--count=20000", "--json", "--nsqd-tcp-address", &tcp]);
    let ran = bench.args(["--pid", &nsqd.id().to_string()]).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let report: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    let bytes = report["results"]["server_growth_bytes_per_message"].as_f64().unwrap();
    assert!((200.0..400.0).contains(&bytes), "a message of 200 bytes is in memory once: {report}");

    let stats = http("GET", &web, "/stats?format=json", "").unwrap();
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    let channels = stats["topics"][0]["channels"].as_array().unwrap();
    let depths: Vec<_> = channels.iter().map(|it| (it["channel_name"].as_str(), it["depth"].as_u64())).collect();
    assert_eq!(depths, ["bench0", "bench1", "bench2"].map(|name| (Some(name), Some(20_000))));
}
