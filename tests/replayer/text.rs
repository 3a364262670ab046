//! Escapes, macros, masks, and mistakes in them.

use crate::replay::text::{Mask, Part, Text, show};

fn bytes(text: &str) -> Part {
    Part::Bytes(text.as_bytes().to_vec())
}

#[test]
fn escapes() {
    assert_eq!(Text::parse(r"\sV2\n\r\t\\\{\}\x00\xff").unwrap().0, [Part::Bytes(b" V2\n\r\t\\{}\0\xff".to_vec())]);
    for wrong in [r"\q", r"\", r"\x0", r"\xzz"] {
        assert!(Text::parse(wrong).unwrap_err().contains("no such escape"), "{wrong}");
    }
}

#[test]
fn json_braces_are_literal() {
    let json = r#"{"a":{"b":[1]}}"#;
    assert_eq!(Text::parse(json).unwrap().0, [bytes(json)]);
    assert_eq!(Text::parse("{ any}{Any}{any ").unwrap().0, [bytes("{ any}{Any}{any ")]);
}

#[test]
fn macros_nest() {
    let text = Text::parse(r"{sized:{i32:-1}{rep:2:a:}\}}z").unwrap();
    let inner = Text(vec![Part::Int32(-1), Part::Repeat(2, Text(vec![bytes("a:")])), bytes("}")]);
    assert_eq!(text.0, [Part::Sized(inner), bytes("z")]);
}

#[test]
fn masks_and_facts() {
    let text = Text::parse("{id}{id:m1}{tcp:nsqd}{host}").unwrap();
    let expected = [
        Part::Mask(Mask::Id, None),
        Part::Mask(Mask::Id, Some("id:m1".into())),
        Part::Fact("tcp:nsqd".into()),
        Part::Fact("host".into()),
    ];
    assert_eq!(text.0, expected);
}

#[test]
fn mistakes_are_found() {
    for (text, error) in [
        ("{sized:abc", "never closed"),
        ("{nothing}", "no such macro"),
        ("{host:x}", "no such macro"),
        ("{i32:many}", "not a number"),
        ("{rep:x}", "needs a count"),
    ] {
        assert!(Text::parse(text).unwrap_err().contains(error), "{text}");
    }
}

#[test]
fn versions() {
    for right in ["1.3.0", "1.3.0-alpha", "10.20.30-rc.1"] {
        assert_eq!(Mask::Version.lengths(right.as_bytes()).next(), Some(right.len()), "{right}");
    }
    for wrong in ["1.3", "v1.3.0", "1..0", ""] {
        assert_eq!(Mask::Version.lengths(wrong.as_bytes()).next(), None, "{wrong}");
    }
    assert_eq!(Mask::Version.lengths(b"1.3.0.4").next(), Some(5));
}

#[test]
fn shown_text_parses_to_the_same_bytes() {
    let all: Vec<u8> = b" ".iter().copied().chain(0..=255).chain(*b" ").collect();
    let text = show(&all, 1000).replace('{', "\\{").replace('}', "\\}");
    assert_eq!(Text::parse(&text).unwrap().0, [Part::Bytes(all)]);
    assert_eq!(show(b"12345", 2), "12… (5 bytes in all)");
}
