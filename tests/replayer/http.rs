//! HTTP lines of transcripts: the bytes of requests, and which answers fit.

use crate::replay::facts::Facts;
use crate::replay::http::{Answer, AnswerPattern, Request, header_map};

fn answer(head: &str, body: &str) -> Answer {
    Answer { status: 200, headers: header_map(head), body: body.as_bytes().to_vec() }
}

fn fits(pattern: &str, answer: &Answer) -> Result<(), String> {
    AnswerPattern::parse(pattern)?.fit(&mut Facts::default(), answer).map_err(|failure| failure.to_string())
}

fn sent(line: &str) -> String {
    let (verb, rest) = line.split_once(' ').unwrap();
    let bytes = Request::parse(verb, rest).unwrap().unwrap().bytes(&Facts::default(), 1).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn requests() {
    let head = "HTTP/1.1\r\nHost: 127.0.0.1:1\r\nConnection: close\r\n";
    assert_eq!(sent("http> GET /ping"), format!("GET /ping {head}\r\n"));
    assert_eq!(sent("http> POST /pub | a\\n"), format!("POST /pub {head}Content-Length: 2\r\n\r\na\n"));
    assert_eq!(sent("http> POST /pub Content-Length=9"), format!("POST /pub {head}Content-Length: 9\r\n\r\n"));
    assert_eq!(sent("poll:b> PUT /x A='b c'"), format!("PUT /x {head}A: b c\r\nContent-Length: 0\r\n\r\n"));
    let chunked = format!("POST /pub {head}Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n");
    assert_eq!(sent("http> POST /pub chunked | ab"), chunked);
    assert!(Request::parse("a>", "GET /ping").unwrap().is_none());
    for wrong in ["GET", "GET /x odd", "GET '/x"] {
        assert!(Request::parse("http>", wrong).is_err(), "{wrong}");
    }
}

#[test]
fn answers() {
    let json = "X-NSQ-Content-Type: nsq; version=1.0\r\ncontent-type: application/json; charset=utf-8";
    let v1 = answer(json, r#"{"a":1}"#);
    assert_eq!(v1.to_string(), r#"200 v1 json | {"a":1}"#);
    assert_eq!(fits(r#"200 v1 json | {"a":{num}}"#, &v1), Ok(()));
    assert_eq!(fits("200 * * | {any}", &v1), Ok(()));
    for (pattern, what) in [
        ("404 v1 json | {any}", "the status differs"),
        ("200 plain json | {any}", "the X-NSQ-Content-Type differs"),
        ("200 v1 text | {any}", "the Content-Type differs"),
        ("200 v1 json Allow=GET | {any}", "the Allow differs"),
        ("200 v1 json", "the body differs"),
    ] {
        assert!(fits(pattern, &v1).unwrap_err().contains(what), "{pattern}");
    }
    let plain = answer("Allow: GET, OPTIONS\r\nLocation: /x", "");
    assert_eq!(fits("200 plain none Allow='GET, OPTIONS' Location=/x", &plain), Ok(()));
    assert!(AnswerPattern::parse("200 v2 json").is_err());
}
