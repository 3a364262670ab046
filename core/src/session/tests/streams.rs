//! Streams of commands, good and spoilt, cut in any way: the cuts make no difference, and no bytes a panic.

use super::{int32, sized};
use crate::fuzz::{self, Conversation};
use crate::options::Options;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use proptest::collection::vec;
use proptest::prelude::*;

fn options() -> Options {
    Options { max_msg_size: 100, max_body_size: 1000, max_rdy_count: 50, ..Options::default() }
}

/// One command, well-formed.
fn command() -> impl Strategy<Value = Vec<u8>> {
    let topic = "t|t|t|[a-c.]{1,3}(#ephemeral)?";
    let body = || vec(any::<u8>(), 1..60);
    let line = |text: alloc::string::String| text.into_bytes();
    prop_oneof![
        4 => (topic, body()).prop_map(|(topic, body)| [format!("PUB {topic}\n").as_bytes(), &sized(body)].concat()),
        2 => (topic, 0..4000u32, body()).prop_map(|(topic, delay, body)| {
            [format!("DPUB {topic} {delay}\r\n").as_bytes(), &sized(body)].concat()
        }),
        3 => (topic, vec(body(), 1..8)).prop_map(|(topic, bodies)| {
            let items: Vec<u8> = bodies.iter().flat_map(sized).collect();
            let body = [&int32(bodies.len() as i32)[..], &items].concat();
            [format!("MPUB {topic}\n").as_bytes(), &sized(body)].concat()
        }),
        4 => "[0-9a-f]{16}".prop_map(move |id| line(format!("FIN {id}\n"))),
        1 => "[0-9a-f]{16}".prop_map(move |id| line(format!("FIN {id} \r\n"))),
        2 => ("[0-9a-f]{16}", 0..99_999_999u64).prop_map(move |(id, delay)| line(format!("REQ {id} {delay}\n"))),
        1 => "[0-9a-f]{16}".prop_map(move |id| line(format!("TOUCH {id}\n"))),
        2 => (0..51u32).prop_map(move |count| line(format!("RDY {count}\n"))),
        1 => Just(b"NOP\n".to_vec()),
    ]
}

/// A connection's bytes: magic, perhaps IDENTIFY, SUB, commands, perhaps CLS and more; or the same with some bytes
/// changed.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let identify = prop_oneof![
        Just(Vec::new()),
        "\\{(\"sample_rate\":[0-9]{1,3})?\\}".prop_map(|json| [&b"IDENTIFY\n"[..], &sized(json)].concat()),
        Just([&b"IDENTIFY\n"[..], &sized(r#"{"feature_negotiation":true,"msg_timeout":1000}"#)].concat()),
    ];
    let end =
        prop_oneof![Just(&b""[..]), Just(&b"CLS\n"[..]), Just(&b"CLS\nRDY 5\nPUB t\n\0\0\0\x01xBOGUS\nNOP\n"[..])];
    let changes = prop_oneof![3 => vec((any::<prop::sample::Index>(), any::<u8>()), 0..1),
        2 => vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)];
    (identify, vec(command(), 0..12), end, changes, any::<bool>()).prop_map(
        |(identify, commands, end, changes, cut)| {
            let mut stream = [&b"  V2"[..], &identify, b"SUB t c\n", &commands.concat(), end].concat();
            for (at, byte) in changes {
                let at = at.index(stream.len());
                stream[at] = byte;
            }
            if cut {
                stream.truncate(stream.len() * 3 / 4);
            }
            stream
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn cuts_make_no_difference(stream in stream(), sizes in vec(1..40usize, 0..30)) {
        let options = Arc::new(options());
        let whole = Conversation::new(&options, &stream, [stream.len()]);
        prop_assert_eq!(&whole, &Conversation::new(&options, &stream, sizes));
        prop_assert_eq!(&whole, &Conversation::new(&options, &stream, core::iter::repeat(1)));
    }

    #[test]
    fn no_bytes_panic(data in vec(any::<u8>(), 0..400)) {
        fuzz::session(&data);
        fuzz::session(&[b"\x02\x01\x07  V2", &data[..]].concat());
        fuzz::identify(&data);
    }

    /// Words and bodies that nobody thought of, in places where they matter.
    #[test]
    fn no_words_panic(op in "(PUB|MPUB|DPUB|SUB|RDY|FIN|REQ|TOUCH|IDENTIFY|AUTH|CLS|NOP)", rest in vec(any::<u8>(), 0..60)) {
        fuzz::session(&[b"\x03\x05\x01\x09  V2SUB t c\n", op.as_bytes(), b" ", &rest].concat());
        fuzz::session(&[b"\x03\x05\x01\x09  V2", op.as_bytes(), b" t 1\n\0\0\0\x10", &rest].concat());
    }

    #[test]
    fn no_json_panics(json in "(\\{(\"[a-z_]{1,12}\":(-?[0-9]{1,20}|\"\\PC{0,9}\"|null|true|\\[\\]),?){0,4}\\}|\\PC{0,30})") {
        fuzz::identify(json.as_bytes());
    }
}
