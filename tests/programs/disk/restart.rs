//! What an operator is told at an end, or at a start, that does not keep what there was.

use super::{Nsqd, publish, run};
use crate::program::answer;
use rustix::process::Signal;
use std::fs;

#[test]
fn an_end_fails_if_nsqd_dat_lacks_something_and_only_then() {
    for has_changed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut nsqd = Nsqd::start(dir.path(), &[]);
        nsqd.create("old", "c");
        // Nothing can be written beside it from now on.
        fs::create_dir(dir.path().join("data/nsqd.dat.tmp")).unwrap();
        if has_changed {
            let created = answer("POST", &nsqd.web, "/topic/create?topic=new", "").unwrap();
            assert_eq!(created.0, 200, "as upstream has it, though it is not saved");
        }
        nsqd.program.signal(Signal::TERM);
        assert_eq!(nsqd.program.status(), i32::from(has_changed), "{}", nsqd.log());
        let log = nsqd.log();
        let last = log.lines().last().unwrap();
        assert_eq!(last.contains("failed to save nsqd.dat"), has_changed, "{log}");
        let saved = fs::read_to_string(dir.path().join("data/nsqd.dat")).unwrap();
        assert!(saved.contains("\"old\"") && !saved.contains("\"new\""), "{saved}");
    }
}

#[test]
fn topics_that_are_not_durable_any_more_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let told = |flags: &[&str], topics: &[&str]| {
        let nsqd = Nsqd::start(dir.path(), flags);
        run(async {
            let mut producer = nsqd.producer().await;
            for topic in topics {
                publish(&mut producer, topic, 0..1, 10).await;
            }
        });
        let log = nsqd.stop();
        let line = log.lines().find_map(|line| Some(line.split_once("WARNING: DURABLE: ")?.1.to_owned()));
        line.map(|line| (line[..1].to_owned(), line.rsplit_once(": ").unwrap().1.to_owned()))
    };
    assert_eq!(told(&["--durable-topic=a*", "--durable-topic=b"], &["a1", "a2", "b", "c"]), None);
    assert_eq!(told(&["--durable"], &[]), None);
    assert_eq!(told(&["--durable-topic=a1"], &[]), Some(("3".into(), "a2, b, c".into())));
    assert_eq!(told(&["--durable-topic=a1"], &[]), None, "their journals are of now");
    assert_eq!(told(&[], &[]), Some(("1".into(), "a1".into())));
}
