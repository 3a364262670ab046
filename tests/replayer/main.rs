//! The replayer itself: it reads every transcript, and a scripted server makes it pass and fail.

#[expect(dead_code, reason = "the runner and what starts daemons are used by `transcripts.rs`")]
#[path = "../replay/mod.rs"]
mod replay;

mod facts;
mod http;
mod options;
mod pending;
mod step;
mod text;
mod transcript;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use replay::daemon::Programs;
use replay::pending::Pending;
use replay::scenario::{Scenario, Settings};
use replay::tests_dir;
use replay::transcript::Transcript;

fn all() -> Vec<Transcript> {
    Transcript::read_all(&tests_dir().join("fixtures/transcripts")).unwrap()
}

#[test]
fn every_transcript_is_understood() {
    let all = all();
    let quirks = all.iter().filter(|transcript| transcript.name.starts_with("quirks/")).count();
    assert_eq!((all.len(), quirks), (186, 30));
    for transcript in &all {
        assert_eq!(transcript.may_differ, transcript.name.starts_with("quirks/"), "{}", transcript.name);
        assert!(!transcript.steps.is_empty(), "{}", transcript.name);
    }
}

#[test]
fn the_pending_list_is_well_formed() {
    let list = std::fs::read_to_string(tests_dir().join("pending.txt")).unwrap();
    let pending = Pending::parse(&list, &all()).unwrap();
    assert!(pending.get("v2-pub").is_none());
}

/// Reads so many bytes, then writes.
type Line = (usize, &'static [u8]);

/// A server for one connection that plays its lines and then closes.
fn fake(lines: &[Line]) -> (u16, JoinHandle<Vec<u8>>) {
    let lines = lines.to_vec();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let play = move |mut stream: TcpStream| {
        let mut heard = Vec::new();
        for (size, answer) in lines {
            let mut input = vec![0; size];
            stream.read_exact(&mut input).unwrap();
            heard.extend(input);
            stream.write_all(answer).unwrap();
        }
        heard
    };
    (port, std::thread::spawn(move || play(listener.accept().unwrap().0)))
}

/// What a scenario played against such a server comes to, and what the server heard.
fn played(steps: &str, lines: &[Line]) -> (Result<(), String>, Vec<u8>) {
    let transcript = Transcript::parse("fake", &format!("server: nsqd\ntimeout: 2s\n{steps}")).unwrap();
    let programs = Programs { dir: "/".into() };
    let settings = Settings { programs, keep: false, patience: Duration::from_secs(2) };
    let (port, server) = fake(lines);
    let mut scenario = Scenario::new(&transcript, &settings).unwrap();
    for name in ["tcp:nsqd", "http:nsqd"] {
        scenario.facts.set(name, port.to_string());
    }
    let result = scenario.play_steps().and_then(|()| scenario.finish().map_err(|failure| (None, failure)));
    let result = result.map_err(|(step, failure)| match step {
        Some(step) => format!("{}: {failure}", step.line),
        None => failure.to_string(),
    });
    drop(scenario);
    (result, server.join().unwrap())
}

const OK: &[u8] = b"\0\0\0\x06\0\0\0\0OK";
const PUB: &str = "a> \\s\\sV2PUB t\\n{sized:x}\n";
const PUB_BYTES: &[u8] = b"  V2PUB t\n\0\0\0\x01x";

#[test]
fn a_conversation_that_fits() {
    let (result, heard) = played(&format!("{PUB}a< response OK\na< eof\n"), &[(PUB_BYTES.len(), OK)]);
    assert_eq!((result, heard.as_slice()), (Ok(()), PUB_BYTES));
}

#[test]
fn another_answer() {
    let (result, _) = played(&format!("{PUB}a< error E_INVALID\n"), &[(PUB_BYTES.len(), OK)]);
    assert_eq!(result.unwrap_err(), "4: response OK");
    let (result, _) = played(&format!("{PUB}a< response KO\n"), &[(PUB_BYTES.len(), OK)]);
    assert_eq!(result.unwrap_err(), "4: response OK");
}

#[test]
fn no_answer_more_answers_and_closing() {
    let (result, _) = played(&format!("{PUB}a< response OK\na< response OK\n"), &[(PUB_BYTES.len(), OK)]);
    assert_eq!(result.unwrap_err(), "5: the connection closed; unread: nothing");
    let two = &[(PUB_BYTES.len(), OK), (0, OK)];
    let (result, _) = played(&format!("{PUB}a< response OK\nwait 100ms\n"), two);
    assert!(result.unwrap_err().contains("a was sent more than expected: \\x00"));
    let (result, _) = played(&format!("{PUB}a< response OK\na< eof\n"), two);
    assert_eq!(result.unwrap_err(), "5: response OK");
    let (result, _) = played(&format!("{PUB}a< eof response {{any}}\n"), two);
    assert_eq!(result, Ok(()));
    let (result, _) = played(&format!("{PUB}a< response OK\na< silence 100ms\n"), &[(PUB_BYTES.len(), OK)]);
    assert_eq!(result.unwrap_err(), "5: the connection closed");
}

const OLD: &[u8] = b"\0\0\0\x1f\0\0\0\x02\0\0\0\0\0\0\0\x01\0\x010123456789abcdefx";

#[test]
fn a_message_from_the_past() {
    let (result, _) = played("a> x\na< message {id} {any} 1 x\n", &[(1, OLD)]);
    assert_eq!(result.unwrap_err(), "4: message 0123456789abcdef 1 1 x");
}

#[test]
fn any_order() {
    const ERROR: &[u8] = b"\0\0\0\x05\0\0\0\x01E";
    let (result, _) = played("a> x\na<* response OK\na<* error E\n", &[(1, ERROR), (0, OK)]);
    assert_eq!(result, Ok(()));
    let (result, _) = played("a> x\na<* response OK\na<* error E\n", &[(1, ERROR), (0, ERROR)]);
    assert!(result.unwrap_err().contains("1 of these 2 expectations are still open, and none fits this"));
}

#[test]
fn lines_lengths_and_raw_bytes() {
    let steps = "a> x\na< line V{num:n}\na< sized {num:n}{num}\na< raw xyz\na< eof\n";
    let (result, _) = played(steps, &[(1, b"V7\n\0\0\0\x0278xyz")]);
    assert_eq!(result, Ok(()));
    let (result, _) = played(steps, &[(1, b"V7\n\0\0\0\x0288xyz")]);
    assert_eq!(result.unwrap_err(), "5: 88");
}

#[test]
fn http_exchanges() {
    const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
    let request = "GET /x HTTP/1.1\r\nHost: 127.0.0.1:12345\r\nConnection: close\r\n\r\n".len();
    let lines = &[(request, CHUNKED)];
    let (result, heard) = played("http> GET /x\nhttp< 200 plain none | abc\n", lines);
    assert_eq!(result, Ok(()));
    assert!(heard.starts_with(b"GET /x HTTP/1.1\r\n"));
    let (result, _) = played("http> GET /x\nhttp< 200 plain none | abd\n", lines);
    assert_eq!(result.unwrap_err(), "3: 200 plain none | abc\n\nthe body differs\n\nafter: ab\nwanted: d\ncame: c");
}

#[test]
fn time_is_measured() {
    let (result, _) = played("connect a nsqd\nmark\nwait 60ms\nelapsed 50ms..2s\n", &[(0, b"")]);
    assert_eq!(result, Ok(()));
    let (result, _) = played("connect a nsqd\nmark\nelapsed 50ms..2s\n", &[(0, b"")]);
    assert!(result.unwrap_err().starts_with("5: it took "));
}
