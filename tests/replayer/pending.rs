//! The pending list is checked against the transcripts.

use crate::replay::pending::{Entry, Pending};
use crate::replay::transcript::Transcript;

#[test]
fn entries_are_checked_against_the_transcripts() {
    let quirk = Transcript::parse("quirks/q", "differs: allowed\nmark\n").unwrap();
    let all = [quirk, Transcript::parse("v2-x", "mark\n").unwrap()];
    let parse = |source: &str| Pending::parse(source, &all);
    let list = parse("# comment\n\nv2-x  TLS\nquirks/q  differs: we flush at once\n").unwrap();
    assert_eq!(list.get("v2-x"), Some(&Entry { differs: false, reason: "TLS".into() }));
    assert_eq!(list.get("quirks/q"), Some(&Entry { differs: true, reason: "we flush at once".into() }));
    assert_eq!(list.get("v2-y"), None);
    for (wrong, why) in [
        ("v2-y  TLS", "no such transcript"),
        ("v2-x", "no reason"),
        ("v2-x  TLS\nv2-x  TLS", "listed twice"),
        ("v2-x  differs: we know better", "must be matched"),
    ] {
        assert!(parse(wrong).unwrap_err().contains(why), "{wrong}");
    }
}
