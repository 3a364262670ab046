//! In which order replies, failures and message frames leave, and what ends a connection.

use super::Peer;
use crate::message::MessageId;
use crate::options::Options;
use crate::topic::io::{Refusal, Slot, ToConn, Verb};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

const PUB: &str = "PUB t\n\0\0\0\x01x";
const ID: MessageId = MessageId(*b"0123456789abcdef");

fn ok(slot: Slot) -> ToConn {
    ToConn::Reply { slot, result: Ok(()) }
}

fn failed(after: Slot) -> ToConn {
    ToConn::Failed { after, verb: Verb::Fin, id: ID, why: Refusal::NotInFlight }
}

#[test]
fn replies_wait_for_those_before_them() {
    let mut peer = Peer::new();
    let slots = peer.send(PUB).send(PUB).send("IDENTIFY\n\0\0\0\x02{}").send(PUB).slots();
    assert_eq!((slots.len(), peer.session.awaits()), (3, 4));
    peer.reply(slots[1], Ok(())).reply(slots[2], Ok(()));
    assert!(peer.frames().is_empty());
    peer.reply(slots[0], Ok(()));
    assert_eq!(peer.frames(), ["response OK"; 4]);
    assert_eq!(peer.session.awaits(), 0);
    // Answered already, or never asked for.
    peer.reply(slots[0], Err(Refusal::Exiting)).reply(Slot(99), Ok(()));
    assert!(peer.frames().is_empty() && !peer.session.is_finished());
}

#[test]
fn failures_wait_for_the_reply_before_them() {
    let mut peer = Peer::subscribed(Options::default());
    let slots = peer.send(PUB).send("FIN 0123456789abcdef\n").send(PUB).slots();
    peer.reply(slots[1], Ok(()));
    let touch = ToConn::Failed { after: slots[0], verb: Verb::Touch, id: ID, why: Refusal::NotOwner };
    peer.hear(vec![(0, failed(slots[0])), (0, failed(slots[1])), (0, touch)], "");
    assert!(peer.frames().is_empty());
    assert_eq!(peer.session.awaits(), 5);
    peer.reply(slots[0], Ok(()));
    let failure = "error E_FIN_FAILED FIN 0123456789abcdef failed ID not in flight";
    let second = "error E_TOUCH_FAILED TOUCH 0123456789abcdef failed client does not own message";
    assert_eq!(peer.frames(), ["response OK", failure, second, "response OK", failure]);
    peer.hear(vec![(0, failed(slots[0]))], "");
    assert_eq!(peer.frames(), [failure]);
    assert!(!peer.session.is_finished());
}

#[test]
fn failures_have_their_words() {
    let mut peer = Peer::subscribed(Options::default());
    for (verb, why, text) in [
        (Verb::Fin, Refusal::NotOwner, "E_FIN_FAILED FIN 0123456789abcdef failed client does not own message"),
        (Verb::Req, Refusal::Exiting, "E_REQ_FAILED REQ 0123456789abcdef failed exiting"),
        (Verb::Touch, Refusal::NotInFlight, "E_TOUCH_FAILED TOUCH 0123456789abcdef failed ID not in flight"),
    ] {
        peer.hear(vec![(0, ToConn::Failed { after: Slot(1), verb, id: ID, why })], "");
        assert_eq!(peer.frames(), [alloc::format!("error {text}")]);
    }
}

#[test]
fn events_stand_between_frames() {
    let mut peer = Peer::subscribed(Options::default());
    let slots = peer.send(PUB).send(PUB).slots();
    let sent = peer.hear(vec![(3, ok(slots[0])), (3, ok(slots[1])), (9, failed(slots[1]))], "onetwo");
    assert_eq!(sent, 6);
    let failure = "error E_FIN_FAILED FIN 0123456789abcdef failed ID not in flight";
    assert_eq!(peer.frames(), ["one", "response OK", "response OK", "two", failure]);
}

#[test]
fn frames_wait_for_the_reply_to_sub_only() {
    let mut peer = Peer::new();
    let slots = peer.send(PUB).send("SUB t c\nRDY 9\n").send(PUB).slots();
    assert_eq!(peer.hear(vec![(0, ok(slots[1]))], "one"), 0);
    assert_eq!(peer.hear(Vec::new(), "two"), 0);
    assert!(peer.frames().is_empty());
    assert_eq!(peer.hear(vec![(5, ok(slots[0]))], "three"), 11);
    assert_eq!(peer.frames(), ["response OK", "response OK", "onetwothree"]);
    // The last PUB is not answered, and that holds back no message.
    assert_eq!(peer.hear(Vec::new(), "four"), 4);
    assert_eq!(peer.frames(), ["four"]);
}

#[test]
fn frames_without_company_are_handed_over() {
    let mut peer = Peer::subscribed(Options::default());
    let mut frames = vec![b'x'; 1000];
    let at = frames.as_ptr();
    let mut out = Vec::new();
    assert_eq!(peer.session.write(peer.now, &mut Vec::new(), &mut frames, &mut out), 1000);
    assert_eq!((out.len(), out.as_ptr(), frames.len()), (1000, at, 0));
}

#[test]
fn a_fatal_error_is_the_last_reply() {
    let mut peer = Peer::subscribed(Options::default());
    let slots = peer.send(PUB).send(PUB).send("BOGUS\nPUB t\n\0\0\0\x01x").slots();
    assert_eq!(slots.len(), 2, "nothing is read after it");
    peer.reply(slots[1], Ok(()));
    assert!(peer.frames().is_empty() && !peer.session.is_finished());
    peer.hear(vec![(3, ok(slots[0])), (3, failed(slots[1]))], "onetwo");
    let failure = "error E_FIN_FAILED FIN 0123456789abcdef failed ID not in flight";
    let last = "error E_INVALID invalid command BOGUS";
    assert_eq!(peer.frames(), ["one", "response OK", "response OK", failure, "two", last]);
    assert!(peer.session.is_finished());
    assert_eq!(peer.session.deadline(), None);
}

#[test]
fn a_refusal_waits_for_its_turn_and_ends_the_connection() {
    let mut peer = Peer::new();
    let slots = peer.send(PUB).send(PUB).send(PUB).slots();
    peer.reply(slots[1], Err(Refusal::Exiting));
    assert!(peer.frames().is_empty() && !peer.session.is_finished());
    peer.send(PUB);
    assert!(peer.commands.is_empty(), "nothing is read any more");
    peer.reply(slots[2], Ok(())).reply(slots[0], Ok(()));
    assert_eq!(peer.frames(), ["response OK", "error E_PUB_FAILED PUB failed exiting"]);
    assert!(peer.session.is_finished());
}

#[test]
fn a_half_close_is_followed_by_all_replies() {
    let mut peer = Peer::new();
    let slots = peer.send(PUB).send(PUB).send("PUB t").eof().slots();
    assert!(!peer.session.is_finished());
    peer.reply(slots[0], Ok(()));
    assert!(!peer.session.is_finished());
    peer.reply(slots[1], Ok(()));
    assert_eq!(peer.frames(), ["response OK"; 2]);
    assert!(peer.session.is_finished());
}

#[test]
fn a_deleted_channel_hangs_up() {
    let mut peer = Peer::subscribed(Options::default());
    let slots = peer.send(PUB).send(PUB).slots();
    peer.hear(vec![(0, ok(slots[0])), (3, ToConn::Disconnect), (3, ok(slots[1]))], "onetwo");
    assert_eq!(peer.frames(), ["response OK", "one"]);
    assert!(peer.session.is_finished());
}

#[test]
fn slots_wrap_around() {
    let mut peer = Peer::new();
    peer.session.replies.wind(u32::MAX - 1);
    let slots = peer.send(PUB).send(PUB).send(PUB).send(PUB).slots();
    assert_eq!(slots, [Slot(u32::MAX), Slot(0), Slot(1), Slot(2)]);
    for at in [2, 3, 1] {
        peer.reply(slots[at], Ok(()));
        assert!(peer.frames().is_empty());
    }
    peer.reply(slots[0], Ok(()));
    assert_eq!(peer.frames(), ["response OK"; 4]);
}

proptest! {
    /// Whatever the order of answers, replies leave as asked for, and each failure behind the reply it goes behind.
    #[test]
    fn any_order_of_answers(
        asked in proptest::collection::vec(0..3u8, 1..12),
        order in any::<proptest::sample::Index>().prop_perturb(|_, mut rng| rng.random::<u64>()),
    ) {
        let mut peer = Peer::subscribed(Options::default());
        let (mut expected, mut events) = (Vec::<String>::new(), Vec::new());
        let mut last = Slot(1);
        let mut closed = false;
        for kind in asked {
            match kind {
                0 => {
                    last = peer.send(PUB).slots()[0];
                    events.push(ok(last));
                    expected.push("response OK".into());
                }
                1 if !closed => {
                    closed = true;
                    last = peer.send("CLS\n").slots()[0];
                    events.push(ok(last));
                    expected.push("response CLOSE_WAIT".into());
                }
                _ => {
                    let id = MessageId(alloc::format!("{:016}", expected.len()).as_bytes().try_into().unwrap());
                    events.push(ToConn::Failed { after: last, verb: Verb::Req, id, why: Refusal::NotOwner });
                    expected.push(alloc::format!("error E_REQ_FAILED REQ {id} failed client does not own message"));
                }
            }
        }
        // Failures come from one topic and keep their order; replies come from anywhere at any time.
        let (mut failures, mut replies): (Vec<_>, Vec<_>) =
            events.into_iter().partition(|event| matches!(event, ToConn::Failed { .. }));
        let mut random = order;
        failures.reverse();
        let mut got = Vec::new();
        while !failures.is_empty() || !replies.is_empty() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (random >> 33) as usize;
            let event = if replies.is_empty() || (at & 1 == 1 && !failures.is_empty()) {
                failures.pop().unwrap()
            } else {
                let at = at / 2 % replies.len();
                replies.swap_remove(at)
            };
            peer.hear(vec![(0, event)], "");
            got.extend(peer.frames());
        }
        // A failure may be late for its place, but never early, and all comes.
        let replies = |frames: &[String]| frames.iter().filter(|f| f.starts_with("response")).cloned().collect::<Vec<_>>();
        prop_assert_eq!(replies(&got), replies(&expected));
        let behind = |frames: &[String], at: usize| replies(&frames[..at]).len();
        for (at, failure) in expected.iter().enumerate().filter(|(_, frame)| frame.starts_with("error")) {
            let place = got.iter().position(|frame| frame == failure).unwrap();
            prop_assert!(behind(&got, place) >= behind(&expected, at));
        }
        prop_assert_eq!(got.len(), expected.len());
        prop_assert_eq!(peer.session.awaits(), 0);
    }
}
