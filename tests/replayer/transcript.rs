//! Files of transcripts: headers, comments, continuations, line numbers.

use std::time::Duration;

use crate::replay::step::Action;
use crate::replay::text::Text;
use crate::replay::transcript::Transcript;

#[test]
fn headers_and_steps() {
    let source = "about: all of it\nserver: nsqd --a={dir}/x --b\nserver two: nsqd\nlisten: l web\n\
                  write: {dir}/f |\ntimeout: 15s\ndiffers: allowed\n# a comment\n\na> one\n   two\nhttp> GET /x\n\
                  http< 200 plain text | OK\nwait 1s\n";
    let transcript = Transcript::parse("t", source).unwrap();
    let names: Vec<_> = transcript.servers.iter().map(|server| server.name.as_str()).collect();
    assert_eq!((names.as_slice(), transcript.servers[0].flags.len()), (["nsqd", "two"].as_slice(), 2));
    assert_eq!(transcript.listeners, ["l", "web"]);
    assert_eq!(transcript.files[0].1, Text::default());
    assert_eq!((transcript.timeout, transcript.may_differ), (Duration::from_secs(15), true));
    assert_eq!(transcript.least_time(), Duration::from_secs(1));
    let lines: Vec<_> = transcript.steps.iter().map(|step| (step.line, step.source.as_str())).collect();
    let exchange = "http> GET /x\nhttp< 200 plain text | OK";
    assert_eq!(lines, [(10, "a> one two"), (12, exchange), (14, "wait 1s")]);
    assert!(matches!(transcript.steps[1].action, Action::Exchange(..)));
}

#[test]
fn mistakes_name_the_line() {
    let error = Transcript::parse("t", "server: nsqd\n\na> {sized:x\n").unwrap_err();
    assert!(error.starts_with("t.txt:3: this brace is never closed"), "{error}");
}
