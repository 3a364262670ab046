//! Tests of the session, and the peer through which they talk to it.

mod errors;
mod identify;
mod order;
mod streams;
mod time;

use super::{Command, Session, State, Target};
use crate::options::Options;
use crate::time::{Duration, Instant, Now};
use crate::topic::io::{ConnId, Input, Refusal, Slot, ToConn};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::BytesMut;

/// A session, what it reads and writes, and its clock. Every step is followed by a check of all invariants.
struct Peer {
    session: Session,
    now: Now,
    input: BytesMut,
    commands: VecDeque<Command>,
    out: Vec<u8>,
}

impl Peer {
    /// A connection on which nothing was sent.
    fn silent(options: Options) -> Self {
        let now = Now { instant: Instant::from_nanos(5_000_000_000), ..Now::default() };
        let session = Session::new(now, ConnId(7), "10.1.2.3:4444".to_string(), Arc::new(options));
        Self { session, now, input: BytesMut::new(), commands: VecDeque::new(), out: Vec::new() }
    }

    /// One on which the magic was sent.
    fn new() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        let mut peer = Self::silent(options);
        peer.send("  V2");
        peer
    }

    /// A consumer, its SUB answered.
    fn subscribed(options: Options) -> Self {
        let mut peer = Self::with(options);
        peer.send("SUB t c\n").answer_all();
        assert_eq!(peer.frames(), ["response OK"]);
        peer
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.input.extend_from_slice(bytes.as_ref());
        self.session.read(self.now, &mut self.input, &mut self.commands);
        self.session.check();
        self
    }

    fn eof(&mut self) -> &mut Self {
        self.session.eof(self.now);
        self.session.check();
        self
    }

    fn pass(&mut self, millis: u64) -> &mut Self {
        self.now.instant = self.now.instant + Duration::from_millis(millis);
        self
    }

    /// What a topic has to say, in front of, between and behind message frames.
    fn hear(&mut self, mut events: Vec<(usize, ToConn)>, frames: &str) -> usize {
        let sent = self.session.write(self.now, &mut events, &mut frames.into(), &mut self.out);
        self.session.check();
        sent
    }

    fn reply(&mut self, slot: Slot, result: Result<(), Refusal>) -> &mut Self {
        self.hear([(0, ToConn::Reply { slot, result })].into(), "");
        self
    }

    /// Success for all commands that await a reply.
    fn answer_all(&mut self) -> &mut Self {
        for slot in self.slots() {
            self.reply(slot, Ok(()));
        }
        self
    }

    /// The slots of the commands read.
    fn slots(&mut self) -> Vec<Slot> {
        let slot = |command: Command| match command.input {
            Input::Publish { slot, .. } | Input::Subscribe { slot, .. } | Input::Close { slot, .. } => Some(slot),
            _ => None,
        };
        self.commands.drain(..).filter_map(slot).collect()
    }

    /// The next command, in few words.
    fn command(&mut self) -> String {
        let Some(Command { target, input }) = self.commands.pop_front() else { return "none".to_string() };
        let target = match target {
            Target::Topic(topic) => format!(" {topic}"),
            Target::Subscribed => String::new(),
        };
        match input {
            Input::Publish { mut bodies, defer, .. } => {
                let mut text = format!("publish{target} {defer:?}");
                bodies.take_while(|body| {
                    text += &format!(" {}", body.escape_ascii());
                    true
                });
                text
            }
            Input::Subscribe { channel, consumer, .. } => {
                format!("subscribe{target} {channel} {:?} {}%", consumer.msg_timeout, consumer.sample_rate)
            }
            Input::Ready { count, .. } => format!("ready {count}"),
            Input::Finish { id, .. } => format!("finish {id}"),
            Input::Touch { id, .. } => format!("touch {id}"),
            Input::Requeue { id, delay, .. } => format!("requeue {id} {delay:?}"),
            Input::Close { .. } => "close".to_string(),
            other => format!("{other:?}"),
        }
    }

    /// What was written since, after a flush: frames as `response ...` and `error ...`, all else as it is.
    fn frames(&mut self) -> Vec<String> {
        self.session.flush(self.now, &mut self.out);
        self.session.check();
        let mut frames = Vec::new();
        let mut rest = core::mem::take(&mut self.out);
        while !rest.is_empty() {
            let (kind, end) = match rest.get(..8) {
                Some(&[0, 0, a, b, 0, 0, 0, kind @ 0..=1]) => {
                    (["response ", "error "][usize::from(kind)], 4 + usize::from(u16::from_be_bytes([a, b])))
                }
                _ => ("", rest.windows(4).position(|at| at[..2] == [0, 0]).unwrap_or(rest.len())),
            };
            let after = rest.split_off(end);
            let data = if kind.is_empty() { &rest[..] } else { &rest[8..] };
            frames.push(format!("{kind}{}", String::from_utf8_lossy(data)));
            rest = after;
        }
        frames
    }

    /// Ended by an error: it is the last frame, whatever else is sent does nothing.
    #[track_caller]
    fn assert_ended(&mut self, error: &str) {
        assert_eq!(self.frames(), [format!("error {error}")]);
        assert!(self.session.is_finished());
        self.commands.clear();
        self.send("PUB t\n\0\0\0\x01x");
        assert!(self.commands.is_empty() && self.frames().is_empty() && self.input.is_empty());
    }
}

/// A body with its size in front.
fn sized(body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    [&int32(body.len() as i32)[..], body].concat()
}

fn int32(number: i32) -> [u8; 4] {
    number.to_be_bytes()
}

#[test]
fn commands_mean_what_they_say() {
    let mut peer = Peer::new();
    peer.send("PUB t\r\n").send(sized("one")).send("NOP more words\nDPUB t.2 1500 more\n").send(sized("later"));
    peer.send("MPUB t\n").send(sized([&int32(2)[..], &sized("a"), &sized("bc")].concat())).send("SUB t c more\n");
    assert_eq!(peer.session.awaits(), 4);
    assert_eq!(peer.command(), "publish t 0ns one");
    assert_eq!(peer.command(), "publish t.2 1.5s later");
    assert_eq!(peer.command(), "publish t 0ns a bc");
    assert_eq!(peer.command(), "subscribe t c 60s 0%");
    assert_eq!(peer.session.state(), State::Subscribed);
    let (a, b) = ("0123456789abcdef", "xx\u{1}xxxxxxxxxxxxx");
    peer.send(format!(
        "RDY\nRDY \nRDY 2500\r\nFIN {a}\nFIN {a}\r\nFIN {b} x\nTOUCH {a}\nREQ {a} \nREQ {a} 99999999\nCLS\n"
    ));
    for expected in ["ready 1", "ready 0", "ready 2500"] {
        assert_eq!(peer.command(), expected);
    }
    assert_eq!(peer.command(), format!("finish {a}"));
    assert_eq!(peer.command(), format!("finish {a}"));
    assert_eq!(peer.command(), "finish xx\\x01xxxxxxxxxxxxx");
    assert_eq!(peer.command(), format!("touch {a}"));
    assert_eq!(peer.command(), format!("requeue {a} 0ns"));
    assert_eq!(peer.command(), format!("requeue {a} 3600s"));
    assert_eq!(peer.command(), "close");
    assert_eq!(peer.session.state(), State::Closing);
    peer.send("RDY 5\nRDY x\nRDY 99999\nNOP\n");
    assert_eq!(peer.command(), "none");
}

#[test]
fn numbers_wrap_at_64_bits_and_delays_do_not() {
    let mut peer = Peer::new();
    peer.send("DPUB t 18446744073709551617\n").send(sized("x")).send("SUB t c\n");
    peer.send("REQ 0123456789abcdef 18446744073709551615\n");
    assert_eq!(peer.command(), "publish t 1ms x");
    assert_eq!(peer.command(), "subscribe t c 60s 0%");
    assert_eq!(peer.command(), "requeue 0123456789abcdef 3600s");
}

#[test]
fn bodies_are_not_copied() {
    let mut peer = Peer::new();
    peer.input.reserve(64);
    let at = peer.input.as_ptr();
    peer.send([b"PUB t\n", &sized("body")[..]].concat());
    let Some(Command { input: Input::Publish { mut bodies, .. }, .. }) = peer.commands.pop_front() else { panic!() };
    bodies.take_while(|body| {
        assert_eq!(body.as_ptr(), at.wrapping_add(10));
        true
    });
}

#[test]
fn lines_have_a_limit_and_no_answer_beyond() {
    let mut peer = Peer::new();
    peer.send(format!("NOP {}\n", "x".repeat(16_379)));
    assert!(!peer.session.is_finished());
    peer.send("PUB t\n").send(sized("x")).send("x".repeat(16_384));
    assert!(!peer.session.is_finished(), "the reply to PUB is owed");
    peer.answer_all();
    assert_eq!(peer.frames(), ["response OK"]);
    assert!(peer.session.is_finished());
}

#[test]
fn the_peers_address_names_it_until_identify() {
    assert_eq!(Peer::new().session.client().client_id, "10.1.2.3");
    let ip = |address: &str| {
        let session = Session::new(Now::default(), ConnId(0), address.to_string(), Arc::default());
        session.client().hostname.clone()
    };
    assert_eq!((ip("[::1]:99"), ip("@"), ip("")), ("::1".to_string(), String::new(), String::new()));
}
