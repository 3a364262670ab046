//! What is sent, what fits, what is remembered, and where a misfit begins.

use crate::replay::facts::Facts;
use crate::replay::text::Text;

fn text(source: &str) -> Text {
    Text::parse(source).unwrap()
}

fn fits(pattern: &str, data: &str) -> bool {
    Facts::default().fit(&text(pattern), data.as_bytes()).is_ok()
}

#[test]
fn what_is_sent() {
    let mut facts = Facts::default();
    facts.set("tcp:nsqd", "4150");
    facts.set("id:m1", "0123456789abcdef");
    let sent = |source| facts.expand(&text(source)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert_eq!(sent("FIN {id:m1}\\n").unwrap(), "FIN 0123456789abcdef\n");
    assert_eq!(sent("{sized:{rep:2:ab}}").unwrap(), "\0\0\0\u{4}abab");
    assert_eq!(sent("{i32:-1}{tcp:nsqd}").unwrap(), "\u{fffd}\u{fffd}\u{fffd}\u{fffd}4150");
    assert!(sent("{http200:\\{\\}}").unwrap().ends_with("Content-Length: 2\r\n\r\n{}"));
    assert!(sent("{id:m2}").unwrap_err().contains("not known yet"));
    assert!(sent("{any}").is_err());
}

#[test]
fn whole_data_must_fit() {
    assert!(fits("OK", "OK"));
    assert!(!fits("OK", "OK "));
    assert!(!fits("OK", "O"));
    assert!(fits("", ""));
    assert!(!fits("", "x"));
}

#[test]
fn masks() {
    assert!(fits("{any}", "") && fits("a{any}b{any}", "a--b") && !fits("a{any}b", "a--"));
    assert!(fits("{num},{num}", "-5,12") && !fits("{num}", "") && !fits("{num}", "-") && !fits("{num}", "1-2"));
    assert!(fits("{num}5", "125"), "a number gives back digits");
    assert!(fits("{digit}", "7") && !fits("{digit}", "77") && !fits("{digit}", "x"));
    assert!(fits("{id}", "0123456789abcdef") && !fits("{id}", "0123456789ABCDEF") && !fits("{id}", "0123"));
    assert!(fits("{ts}", "1700000000000000000") && !fits("{ts}", "170000000000000000"));
    assert!(fits("nsqd v{version} (x)", "nsqd v1.3.0-alpha (x)") && !fits("v{version}", "v1.3"));
}

#[test]
fn optional_text() {
    for data in [r#""a":1,"b":2"#, r#""a":1,"x":9,"b":2"#] {
        assert!(fits(r#""a":1,{opt:"x":{num},}"b":2"#, data), "{data}");
    }
    assert!(!fits("a{opt:b}c", "abbc"));
}

#[test]
fn a_named_mask_remembers() {
    let mut facts = Facts::default();
    facts.fit(&text("{id:m1} {num:n}"), b"0123456789abcdef 17").unwrap();
    assert!(facts.fit(&text("{num:n}"), b"17").is_ok());
    assert!(facts.fit(&text("{num:n}"), b"18").is_err());
    assert_eq!(facts.expand(&text("{id:m1}")).unwrap(), b"0123456789abcdef");
    assert!(fits("{any:x}-{any:x}", "ab-c-ab-c") && !fits("{num:x}-{num:x}", "1-2"));
}

#[test]
fn a_failed_match_leaves_no_trace() {
    let mut facts = Facts::default();
    let (id, body) = (text("{id:m1}"), text("one"));
    assert!(facts.fit_all(&[(&id, b"0123456789abcdef"), (&body, b"two")]).is_err());
    assert!(facts.expand(&id).is_err());
    assert!(facts.fit_all(&[(&id, b"fedcba9876543210"), (&body, b"one")]).is_ok());
    assert_eq!(facts.expand(&id).unwrap(), b"fedcba9876543210");
}

#[test]
fn a_misfit_says_where() {
    let pattern = text(r#"{any}"depth":0,"x":{num}}"#);
    let misfit = Facts::default().fit(&pattern, br#"{"a":"","depth":3,"x":1}"#).unwrap_err().to_string();
    assert_eq!(misfit, "after: {\"a\":\"\",\"depth\":\nwanted: 0,\"x\":\ncame: 3,\"x\":1}");
}
