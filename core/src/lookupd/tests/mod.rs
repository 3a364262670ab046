//! Tests of nsqlookupd's machines; here the peers through which they are talked to.

mod model;
mod protocol;
mod registrations;
mod streams;

use super::{Command, Identity, Options, PeerId, Producer, Registry, Session, Wanted};
use crate::name::{ChannelName, TopicName};
use crate::time::{Duration, Instant, Now, Timestamp};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::BytesMut;

/// A body of IDENTIFY that is accepted.
const BODY: &str =
    r#"{"broadcast_address":"10.0.0.1","hostname":"h1","tcp_port":4150,"http_port":4151,"version":"1.3.0"}"#;

fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap()
}

/// So many seconds after the start.
fn at(seconds: u64) -> Now {
    let nanos = seconds * 1_000_000_000;
    Now { instant: Instant::from_nanos(nanos), timestamp: Timestamp::from_nanos(nanos.cast_signed()) }
}

/// An nsqd of that name and HTTP port.
fn producer(broadcast_address: &str, http_port: i64) -> Producer {
    Producer {
        remote_address: format!("127.0.0.1:{http_port}"),
        hostname: "h".into(),
        broadcast_address: broadcast_address.into(),
        tcp_port: http_port - 1,
        http_port,
        version: "1.3.0".into(),
        ..Producer::default()
    }
}

/// A session, what it reads and writes, and its clock. Every step is followed by a check of its invariants.
struct Peer {
    session: Session,
    now: Now,
    input: BytesMut,
    commands: Vec<Command>,
    out: Vec<u8>,
}

impl Peer {
    /// A connection on which nothing was sent.
    fn silent() -> Self {
        let identity = Identity { hostname: "<me>".into(), http_port: 4161, ..Identity::default() };
        let session = Session::new(at(5), "1.2.3.4:5".to_string(), Arc::new(identity), &Options::default());
        Self { session, now: at(5), input: BytesMut::new(), commands: Vec::new(), out: Vec::new() }
    }

    /// One on which the magic was sent.
    fn new() -> Self {
        let mut peer = Self::silent();
        peer.send("  V1");
        peer
    }

    /// One that has said who it is.
    fn identified() -> Self {
        let mut peer = Self::new();
        peer.send(identify(BODY));
        assert_eq!(peer.replies().len(), 1);
        peer.commands.clear();
        peer
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.input.extend_from_slice(bytes.as_ref());
        self.session.read(self.now, &mut self.input, &mut self.commands, &mut self.out);
        self.session.check();
        self
    }

    fn eof(&mut self) -> &mut Self {
        self.session.eof(&mut self.out);
        self.session.check();
        self
    }

    /// What was answered since, and `end` if that was all.
    fn replies(&mut self) -> Vec<String> {
        let mut replies = Vec::new();
        let mut rest = core::mem::take(&mut self.out).into_iter();
        while let Ok(size) = rest.by_ref().take(4).collect::<Vec<_>>().try_into() {
            let size = u32::from_be_bytes(size) as usize;
            let data: Vec<u8> = rest.by_ref().take(size).collect();
            assert_eq!(data.len(), size, "a reply is cut off");
            replies.push(data.escape_ascii().to_string());
        }
        replies.extend(self.session.is_finished().then(|| "end".to_string()));
        replies
    }
}

/// An IDENTIFY with that body.
fn identify(body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    [b"IDENTIFY\n", &(body.len() as i32).to_be_bytes()[..], body].concat()
}
