//! Streams of commands, good and spoilt, cut in any way: the cuts make no difference, and no bytes a panic.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

/// All that a stream leads to when it arrives in pieces of these sizes, and what is left after them in one.
fn conversation(stream: &[u8], sizes: impl IntoIterator<Item = usize>) -> (Vec<Command>, Vec<u8>, bool) {
    let mut peer = Peer::silent();
    let (mut rest, mut sizes) = (stream, sizes.into_iter());
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(sizes.next().unwrap_or(rest.len()).min(rest.len()));
        rest = after;
        peer.send(piece);
    }
    let finished = peer.session.is_finished();
    peer.eof();
    (peer.commands, peer.out, finished)
}

fn command() -> impl Strategy<Value = Vec<u8>> {
    let name = "[ab]{1,2}(#ephemeral)?";
    prop_oneof![
        2 => Just(b"PING\n".to_vec()),
        6 => ("(UN)?REGISTER", name, prop::option::of(name)).prop_map(|(verb, topic, channel)| {
            format!("{verb} {topic} {}\r\n", channel.unwrap_or_default()).into_bytes()
        }),
        1 => "[A-Z]{0,9} ?\\PC{0,9}\n".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..20),
    ]
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let body = prop_oneof![
        4 => Just(BODY.as_bytes().to_vec()),
        1 => "(\\{(\"[a-z_]{1,12}\":(-?[0-9]{1,20}|\"\\PC{0,9}\"|null|true|\\[\\]),?){0,4}\\}|\\PC{0,30})"
            .prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..30),
    ];
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (body, vec(command(), 0..12), changes, any::<bool>()).prop_map(|(body, commands, changes, spoil)| {
        let mut stream = [&b"  V1PING\n"[..], &identify(body), &commands.concat()].concat();
        for (at, byte) in changes.into_iter().filter(|_| spoil) {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        stream
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn cuts_make_no_difference(stream in stream(), sizes in vec(1..40usize, 0..30)) {
        let whole = conversation(&stream, []);
        prop_assert_eq!(&whole, &conversation(&stream, sizes));
        prop_assert_eq!(&whole, &conversation(&stream, core::iter::repeat(1)));
    }

    #[test]
    fn no_bytes_panic(data in vec(any::<u8>(), 0..200)) {
        conversation(&data, []);
        conversation(&[b"  V1", &data[..]].concat(), []);
        conversation(&[b"  V1IDENTIFY\n", &data[..]].concat(), []);
    }
}
