//! A connection's handshake, its order of replies, and peers that make no sense.

use crate::client::connection::{Command, Connection, Event, Fault, Purpose, Token, Unanswered};
use crate::client::{Payload, Publish, Settings};
use crate::message::MessageId;
use crate::name::{ChannelName, TopicName};
use crate::time::{Duration, Instant};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

const fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

struct Client {
    connection: Connection,
    out: BytesMut,
    input: BytesMut,
    events: Vec<Event>,
}

impl Client {
    fn new(purpose: Purpose) -> Self {
        let settings = Settings { max_msg_size: 100_000, ..Settings::default() };
        let mut out = BytesMut::new();
        let connection = Connection::new(at(0), Arc::new(settings), purpose, &mut out);
        Self { connection, out, input: BytesMut::new(), events: Vec::new() }
    }

    fn producer() -> Self {
        let mut client = Self::new(Purpose::Produce);
        client.hear(5, &frame(0, b"{}")).unwrap();
        client.events.clear();
        client.out.clear();
        client
    }

    fn consumer() -> Self {
        let names = (TopicName::new("t").unwrap(), ChannelName::new("c").unwrap());
        Self::new(Purpose::Consume(names.0, names.1))
    }

    fn hear(&mut self, millis: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.input.extend_from_slice(bytes);
        self.connection.read(at(millis), &mut self.input, &mut self.events, &mut self.out)
    }

    fn publish(&mut self, token: u64) {
        let publish = Publish { topic: TopicName::new("t").unwrap(), payload: Payload::One(Bytes::from_static(b"x")) };
        self.connection.send(Command::Publish(Token(token), publish), &mut self.out);
    }
}

fn frame(kind: u32, data: &[u8]) -> Vec<u8> {
    [&(4 + data.len() as u32).to_be_bytes()[..], &kind.to_be_bytes(), data].concat()
}

fn message(body: &[u8]) -> Vec<u8> {
    frame(2, &[&[0; 8][..], &[0, 1], b"0123456789abcdef", body].concat())
}

#[test]
fn a_consumer_identifies_itself_and_subscribes() {
    let mut client = Client::consumer();
    assert!(client.out.starts_with(b"  V2IDENTIFY\n\0\0"));
    client.out.clear();
    client.hear(40, &frame(0, br#"{"max_rdy_count":9,"msg_timeout":2000}"#)).unwrap();
    assert_eq!((&client.out[..], client.events.len()), (&b"SUB t c\n"[..], 0));
    client.hear(80, &frame(0, b"OK")).unwrap();
    let [Event::Open(limits)] = client.events[..] else { panic!("{:?}", client.events) };
    assert_eq!((limits.max_rdy, limits.msg_timeout.as_millis(), limits.round_trip.as_millis()), (9, 2000, 40));
    client.hear(90, &message(b"hi")).unwrap();
    let Some(Event::Message(message)) = client.events.last() else { panic!("{:?}", client.events) };
    assert_eq!((&message.body[..], message.attempts, message.id), (&b"hi"[..], 1, MessageId(*b"0123456789abcdef")));
}

#[test]
fn heartbeats_are_answered_and_their_absence_is_noticed() {
    let mut client = Client::producer();
    client.hear(1000, &frame(0, b"_heartbeat_")).unwrap();
    assert_eq!((&client.out[..], client.events.len()), (&b"NOP\n"[..], 0));
    assert_eq!(client.connection.deadline(), at(61_000));
    assert_eq!(client.connection.tick(at(60_999)), Ok(()));
    assert_eq!(client.connection.tick(at(61_000)), Err(Fault::Silent(Duration::from_secs(60))));
    // A handshake has less time.
    assert!(Client::consumer().connection.tick(at(5000)).is_err());
}

#[test]
fn a_flood_of_heartbeats_piles_nothing_up() {
    let mut client = Client::producer();
    client.publish(1);
    let flood = frame(0, b"_heartbeat_").repeat(1000);
    client.hear(1000, &flood).unwrap();
    let unsent = client.out.len();
    client.publish(2);
    client.hear(1000, &flood).unwrap();
    let nops = |out: &[u8]| out.windows(4).filter(|part| part == b"NOP\n").count();
    assert_eq!(nops(&client.out), 1, "the socket takes nothing");
    // Once it is on its way, the next heartbeat has an answer of its own.
    bytes::Buf::advance(&mut client.out, unsent);
    client.hear(1000, &flood).unwrap();
    assert_eq!(nops(&client.out), 1);
}

#[test]
fn replies_find_their_publishes_in_order() {
    let mut client = Client::producer();
    [1, 2, 3].into_iter().for_each(|token| client.publish(token));
    let replies = [frame(0, b"OK"), frame(0, b"_heartbeat_"), frame(0, b"OK")].concat();
    client.hear(10, &replies).unwrap();
    assert_eq!(client.events, [Event::Published(Token(1)), Event::Published(Token(2))]);
    let everything = client.out.len() as u64 + 1000;
    assert_eq!(client.connection.end(everything).unknown, [Token(3)]);
}

#[test]
fn a_refusal_ends_a_connection_and_what_follows_was_not_taken() {
    let mut client = Client::producer();
    [1, 2, 3].into_iter().for_each(|token| client.publish(token));
    client.hear(10, &frame(0, b"OK")).unwrap();
    let text = "E_BAD_MESSAGE PUB message too big";
    assert_eq!(client.hear(10, &frame(1, text.as_bytes())), Err(Fault::Refused(text.into())));
    let expected =
        Unanswered { refused: Some((Token(2), text.into())), untaken: [Token(3)].into(), unknown: Vec::new() };
    assert_eq!(client.connection.end(u64::MAX), expected);
}

#[test]
fn what_was_not_written_whole_was_not_taken() {
    let mut client = Client::new(Purpose::Produce);
    let handshake = client.out.len() as u64;
    client.hear(5, &frame(0, b"OK")).unwrap();
    [1, 2].into_iter().for_each(|token| client.publish(token));
    let one = b"PUB t\n\0\0\0\x01x".len() as u64;
    for (written, unknown) in
        [(0, 0), (handshake, 0), (handshake + one - 1, 0), (handshake + one, 1), (handshake + 2 * one, 2)]
    {
        let mut client = Client::new(Purpose::Produce);
        client.hear(5, &frame(0, b"OK")).unwrap();
        [1, 2].into_iter().for_each(|token| client.publish(token));
        let unanswered = client.connection.end(written);
        assert_eq!((unanswered.unknown.len(), unanswered.untaken.len()), (unknown, 2 - unknown), "{written}");
    }
}

#[test]
fn failed_answers_are_told_and_the_connection_goes_on() {
    let mut client = Client::consumer();
    client.hear(1, &[frame(0, b"{}"), frame(0, b"OK")].concat()).unwrap();
    for text in ["E_FIN_FAILED FIN x failed ID not in flight", "E_REQ_FAILED REQ", "E_TOUCH_FAILED TOUCH"] {
        client.hear(2, &frame(1, text.as_bytes())).unwrap();
        assert_eq!(client.events.last(), Some(&Event::Failed(text.into())));
    }
    client.connection.send(Command::Close, &mut client.out);
    client.hear(3, &frame(0, b"CLOSE_WAIT")).unwrap();
    assert_eq!(client.events.last(), Some(&Event::Closing));
    client.hear(4, &message(b"late")).unwrap();
    assert!(matches!(client.events.last(), Some(Event::Message(_))));
}

#[test]
fn a_peer_that_makes_no_sense_is_left() {
    let malformed = [frame(7, b"x"), message(b"")[..20].to_vec(), b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()];
    for bytes in malformed.iter().take(1).chain(&malformed[2..]) {
        assert!(matches!(Client::consumer().hear(1, bytes), Err(Fault::Malformed(_))), "{bytes:?}");
    }
    assert!(matches!(Client::consumer().hear(1, &frame(0, b"nonsense")), Err(Fault::Malformed(_))));
    assert!(matches!(Client::consumer().hear(1, &message(b"early")), Err(Fault::Unexpected(_))));
    assert!(matches!(Client::producer().hear(1, &frame(0, b"OK")), Err(Fault::Unexpected(_))));
    assert!(matches!(Client::consumer().hear(1, &frame(1, b"E_INVALID")), Err(Fault::Refused(_))));
    // Too large is known before it has come.
    let mut client = Client::consumer();
    client.hear(1, &[frame(0, b"{}"), frame(0, b"OK")].concat()).unwrap();
    assert!(client.hear(2, &(100_031u32).to_be_bytes()).is_ok());
    assert!(matches!(client.hear(2, &2u32.to_be_bytes()), Err(Fault::Malformed(_))));
}

proptest! {
    /// Whatever comes, nothing panics, and nothing is kept that is not on its way to be a frame.
    #[test]
    fn any_bytes_are_a_fault_at_worst(chunks in proptest::collection::vec(any::<Vec<u8>>(), 0..20), frames in any::<Vec<(u8, Vec<u8>)>>()) {
        let mut client = Client::consumer();
        client.hear(1, &[frame(0, b"{}"), frame(0, b"OK")].concat()).unwrap();
        for (kind, data) in frames {
            if client.hear(2, &frame(u32::from(kind % 4), &data)).is_err() {
                return Ok(());
            }
        }
        for chunk in chunks {
            if client.hear(2, &chunk).is_err() {
                break;
            }
            prop_assert!(client.input.len() < 101_000);
        }
    }
}

#[test]
fn sub_may_take_as_long_as_nsqd_asks_nsqlookupds() {
    let mut client = Client::consumer();
    assert_eq!(client.connection.deadline(), at(5_000));
    client.hear(5, &frame(0, b"{}")).unwrap();
    assert!(client.connection.tick(at(10_000)).is_ok(), "a new topic waits for up to 5 s");
    assert!(client.connection.tick(at(20_000)).is_err());
}
