//! Bodies of fuzz targets: any bytes in, a panic if a rule is broken.
//!
//! Behind the feature `fuzz`, and called by unit tests so that they keep working.

use crate::options::Options;
use crate::session::{Command, Session, State};
use crate::time::{Instant, Now};
use crate::topic::io::{ConnId, Input, Refusal, Slot, ToConn, Verb};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::BytesMut;

pub use crate::lookupd::fuzz::lookupd;
pub use crate::topic::fuzz::topic;

/// A stream of bytes to a session, cut in two ways, must do the same. The first byte tells how many bytes after it are
/// sizes of pieces, used over and over; the rest is the stream.
pub fn session(data: &[u8]) {
    let Some((count, data)) = data.split_first() else { return };
    let (sizes, stream) = data.split_at(data.len().min(usize::from(*count)));
    let options = Arc::new(small_options());
    let whole = Conversation::new(&options, stream, [stream.len()]);
    let cut = Conversation::new(&options, stream, sizes.iter().map(|size| usize::from(*size).max(1)));
    assert_eq!(whole, cut, "pieces of {sizes:?}");
}

/// Whatever nsqlookupd says: to nsqd, and of the nsqds that have a topic. After the first byte, see
/// [`lookup_peer`](crate::lookup_peer), the bytes are also a whole answer to `/lookup`.
pub fn lookup_replies(data: &[u8]) {
    crate::lookup_peer::fuzz::lookup_replies(data);
    let Ok(nsqds) = crate::client::lookup::parse(data.get(1..).unwrap_or_default()) else { return };
    assert!(nsqds.len() <= crate::client::lookup::PRODUCERS_MAX);
    for nsqd in nsqds {
        let (host, port) = nsqd.rsplit_once(':').expect("host:port");
        assert!((1..=257).contains(&host.len()) && !host.contains(char::is_whitespace), "{nsqd:?}");
        assert!(port.parse::<u16>().is_ok_and(|port| port > 0), "{nsqd:?}");
    }
}

/// Any body of IDENTIFY is answered, by a fatal error or a reply.
pub fn identify(data: &[u8]) {
    let Ok(size @ 1..) = u32::try_from(data.len()) else { return };
    let stream = [b"  V2IDENTIFY\n", &size.to_be_bytes()[..], data].concat();
    let conversation = Conversation::new(&Arc::new(Options::default()), &stream, [stream.len()]);
    assert!(conversation.frames.len() > 8, "no reply");
}

/// Limits that short streams reach.
fn small_options() -> Options {
    Options { max_msg_size: 100, max_body_size: 1000, max_rdy_count: 50, ..Options::default() }
}

/// All that a stream of bytes led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Conversation {
    commands: Vec<String>,
    frames: Vec<u8>,
    /// Before the end of the stream.
    state: State,
    finished: bool,
    deadline: Option<Instant>,
    left: usize,
}

impl Conversation {
    /// Hands the stream to a new session in pieces of these sizes, and what is left after them in one. Its commands are
    /// answered after each piece.
    pub(crate) fn new(options: &Arc<Options>, stream: &[u8], sizes: impl IntoIterator<Item = usize>) -> Self {
        let now = Now::default();
        let mut session = Session::new(now, ConnId(1), "127.0.0.1:1".to_string(), Arc::clone(options));
        let (mut input, mut out, mut frames, mut commands) = (BytesMut::new(), VecDeque::new(), Vec::new(), Vec::new());
        let (mut rest, mut sizes) = (stream, sizes.into_iter());
        while !rest.is_empty() {
            let size = sizes.next().unwrap_or(rest.len()).min(rest.len());
            let (piece, after) = rest.split_at(size);
            rest = after;
            input.extend_from_slice(piece);
            session.read(now, &mut input, &mut out);
            session.check();
            assert!(input.len() <= 16_383.max(options.max_body_size as usize), "keeps {} bytes", input.len());
            commands.extend(out.iter().map(|command| format!("{command:?}")));
            let mut events: Vec<_> = out.drain(..).filter_map(answer).map(|event| (0, event)).collect();
            session.write(now, &mut events, &mut Vec::new(), &mut frames);
            session.check();
            assert_eq!(session.awaits(), 0, "a reply does not go out");
        }
        let (state, finished) = (session.state(), session.is_finished());
        let (deadline, left) = (session.deadline(), input.len());
        session.eof(now);
        session.flush(now, &mut frames);
        session.check();
        assert!(session.is_finished());
        Self { commands, frames, state, finished, deadline, left }
    }
}

/// A topic that does everything, but knows only messages with even ids.
fn answer(command: Command) -> Option<ToConn> {
    let reply = |slot: Slot| Some(ToConn::Reply { slot, result: Ok(()) });
    match command.input {
        Input::Publish { slot, .. } | Input::Subscribe { slot, .. } | Input::Close { slot, .. } => reply(slot),
        Input::Finish { id, after, .. } | Input::Touch { id, after, .. } | Input::Requeue { id, after, .. }
            if id.0[15] % 2 == 1 =>
        {
            Some(ToConn::Failed { after, verb: Verb::Fin, id, why: Refusal::NotInFlight })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions() {
        session(b"");
        session(b"\x00GET / HTTP/1.1\r\n\r\n");
        session(b"\x02\x01\x03  V2SUB t c\nRDY 5\nFIN 0123456789abcdef\nFIN 0123456789abcde0\nNOP\r\nCLS\nRDY x\n");
        session(b"\x03\x01\x05\x02  V2MPUB t\n\0\0\0\x0d\0\0\0\x02\0\0\0\x01a\0\0\0\x02bcDPUB t 9\n\0\0\0\x01xPUB t\n\0\0\0");
        session(b"\x01\x01  V2IDENTIFY\n\0\0\0\x02{}PUB a\xff\n");
    }

    #[test]
    fn peers_of_nsqlookupd() {
        lookupd(b"");
        lookupd(b"\x01\x03  V1PING\nREGISTER t\n");
        lookupd(b"\x00  V1IDENTIFY\n\xff\xff\xff\xff");
        lookupd(b"\x02\x01\x07  V1IDENTIFY\n\0\0\0\x43{\"broadcast_address\":\"a\",\"tcp_port\":1,\"http_port\":2,\"version\":\"3\"}  REGISTER t c\n");
    }

    #[test]
    fn answers_of_nsqlookupd() {
        lookup_replies(b"");
        lookup_replies(b"\x02\x01\x05\0\0\0\x02{}\0\0\0\x02OK\0\0\0\x02OK");
        lookup_replies(b"\x00\xff\xff\xff\xffOK");
        lookup_replies(b"\x00{\"channels\":[\"a\",\"b#ephemeral\",\"\"]}");
        lookup_replies(b"\x00{\"producers\":[{\"broadcast_address\":\"::1\",\"tcp_port\":1},{\"tcp_port\":2}]}");
    }

    #[test]
    fn identifies() {
        identify(b"");
        identify(br#"{"feature_negotiation":true,"client_id":"\ud800"}"#);
        identify(b"[[[[[[");
    }
}
