//! What is deleted is gone, from the disk too, and does not come back; and a data directory is one nsqd's at a time.

use super::{Nsqd, command, directories, directory, publish, run};
use crate::program::{Program, http};

const FLAGS: [&str; 2] = ["--durable-topic=durable", "--mem-queue-size=0"];

#[test]
fn a_deleted_topic_leaves_nothing_and_starts_empty_again() {
    let dir = tempfile::tempdir().unwrap();
    let nsqd = Nsqd::start(dir.path(), &FLAGS);
    for topic in ["durable", "plain"] {
        nsqd.create(topic, "c");
        run(async { publish(&mut nsqd.producer().await, topic, 0..10, 1000).await });
        let first = directory(dir.path(), topic);
        nsqd.post(&format!("/topic/delete?topic={topic}"));
        nsqd.wait_for("end of the directory", |_| directories(dir.path(), topic).is_empty().then_some(()));

        nsqd.create(topic, "c");
        assert_eq!(nsqd.counts(topic, "c"), [0; 3]);
        run(async { publish(&mut nsqd.producer().await, topic, 10..13, 1000).await });
        assert_ne!(directory(dir.path(), topic), first, "each creation has a directory of its own");
    }
    nsqd.kill();
    let nsqd = Nsqd::start(dir.path(), &FLAGS);
    for topic in ["durable", "plain"] {
        assert_eq!(run(nsqd.drain(topic, "c")), [10, 11, 12], "{topic}");
    }
}

#[test]
fn a_kill_right_after_a_deletion_brings_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    for turn in 0..4 {
        let nsqd = Nsqd::start(dir.path(), &FLAGS);
        for topic in ["durable", "plain"] {
            assert!(nsqd.stats(topic).is_null(), "{topic} is back in turn {turn}: {}", nsqd.stats(topic));
            assert!(directories(dir.path(), topic).is_empty(), "{:?}", directories(dir.path(), topic));
            nsqd.create(topic, "c");
            run(async { publish(&mut nsqd.producer().await, topic, 0..10, 1000).await });
            nsqd.post(&format!("/topic/delete?topic={topic}"));
        }
        nsqd.kill();
    }
}

#[test]
fn a_deleted_channel_does_not_come_back_and_its_namesake_starts_empty() {
    let dir = tempfile::tempdir().unwrap();
    for topic in ["durable", "plain"] {
        let nsqd = Nsqd::start(dir.path(), &FLAGS);
        for channel in ["gone", "again", "kept"] {
            nsqd.create(topic, channel);
        }
        run(async { publish(&mut nsqd.producer().await, topic, 0..10, 1000).await });
        nsqd.post(&format!("/channel/delete?topic={topic}&channel=gone"));
        nsqd.post(&format!("/channel/delete?topic={topic}&channel=again"));
        nsqd.create(topic, "again");
        nsqd.kill();
        let nsqd = Nsqd::start(dir.path(), &FLAGS);
        let stats = nsqd.stats(topic).to_string();
        assert!(!stats.contains(r#""gone""#), "{stats}");
        assert_eq!(run(nsqd.drain(topic, "kept")), Vec::from_iter(0..10), "{topic}");
        if topic == "durable" {
            assert_eq!(run(nsqd.drain(topic, "again")), [0u64; 0], "{topic}");
        }
    }
}

#[test]
fn a_second_nsqd_on_the_same_directory_gets_upstreams_error() {
    let dir = tempfile::tempdir().unwrap();
    let first = Nsqd::start(dir.path(), &[]);
    let other = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut second = Program::start(command(other.path(), &["--data-path", data.to_str().unwrap()]), other.path());
    assert_eq!(second.status(), 1);
    let (log, data) = (second.stderr(), data.display());
    let expected = format!(
        "FATAL: failed to instantiate nsqd - failed to lock data-path: cannot flock directory {data} - resource \
         temporarily unavailable (possibly in use by another instance of nsqd)\n"
    );
    assert!(log.ends_with(&expected), "{log}");
    assert_eq!(http("POST", &first.web, "/pub?topic=t", "x").unwrap(), "OK", "the first one is not disturbed");
}

#[test]
fn which_topics_are_durable_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let nsqd = Nsqd::start(dir.path(), &FLAGS);
    for (topic, expected) in [("durable", Some(true)), ("plain", None)] {
        nsqd.create(topic, "c");
        assert_eq!(nsqd.stats(topic)["durable"].as_bool(), expected, "{topic}");
        let line = format!("TOPIC({topic}): durable, what is acknowledged is on the medium");
        assert_eq!(nsqd.log().contains(&line), expected.is_some(), "{topic}");
    }
    let info = http("GET", &nsqd.web, "/info", "").unwrap();
    assert!(info.contains(r#""durable":["durable"]"#), "{info}");
}
