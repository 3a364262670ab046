//! Lines of transcripts, and which belong together.

use std::time::Duration;

use crate::replay::step::{Action, Step, duration};

fn error(source: &str) -> String {
    Step::parse(1, source.into()).expect_err(source)
}

#[test]
fn durations() {
    assert_eq!(duration("250ms").unwrap(), Duration::from_millis(250));
    assert_eq!(duration("1.5s").unwrap(), Duration::from_millis(1500));
    for wrong in ["5", "s", "-1s", "1m", ""] {
        assert!(duration(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn unknown_and_incomplete_steps_are_refused() {
    assert!(error("dance nsqd").contains("no such step: dance"));
    assert!(error("a< frobnicate").contains("no such expectation"));
    assert!(error("a< message {id} {ts} 1").contains("ID TS ATTEMPTS BODY"));
    assert!(error("accept a").contains("needs more words"));
    assert!(error("elapsed 5s").contains("MIN..MAX"));
    assert!(error("stdout text").contains("starts with |"));
    assert!(error("connect a nsqd ftp").contains("cannot connect"));
}

#[test]
fn any_order_and_exchanges_are_one_step() {
    let step = |source: &str| Step::parse(1, source.into()).unwrap();
    let mut group = step("a<* response OK");
    assert!(group.join(step("a<* error E_X")).is_none());
    assert!(matches!(&group.action, Action::AnyOrder { frames, .. } if frames.len() == 2));
    assert!(group.join(step("b<* response OK")).is_some(), "another connection is another step");
    let mut request = step("http> GET /ping");
    assert!(request.check().unwrap_err().contains("followed by its answer"));
    assert!(request.join(step("http< 200 plain text | OK")).is_none());
    assert!(matches!(request.action, Action::Exchange(..)) && request.check().is_ok());
    assert!(step("http< 200 plain text | OK").check().unwrap_err().contains("a request before it"));
}
