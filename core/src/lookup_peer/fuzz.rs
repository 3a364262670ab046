//! The body of the fuzz target `lookup_replies`: any bytes are what an nsqlookupd says to nsqd, and what it says of a
//! topic's channels.

use super::{Effect, Input, LookupPeer, Nsqd, channels};
use crate::directory::Directory;
use crate::name::{ChannelName, TopicName};
use crate::time::Now;
use alloc::format;
use alloc::vec::Vec;
use bytes::BytesMut;

/// Replies to IDENTIFY and all that follows, cut in two ways, do the same. The first byte tells how many bytes after it
/// are sizes of pieces; the rest is the stream, or the answer to a question for channels.
pub(crate) fn lookup_replies(data: &[u8]) {
    let Some((count, data)) = data.split_first() else { return };
    let (sizes, stream) = data.split_at(data.len().min(usize::from(*count)));
    let whole = conversation(stream, []);
    let cut = conversation(stream, sizes.iter().map(|size| usize::from(*size).max(1)));
    assert_eq!(whole, cut, "pieces of {sizes:?}");
    if let Ok(channels) = channels(stream) {
        assert!(channels.names.len() <= 1000);
        assert!(channels.names.iter().all(|name| !name.is_ephemeral()));
    }
}

/// All that a stream of replies leads to when it comes in pieces of these sizes, and what is left after them in one.
pub(super) fn conversation(stream: &[u8], sizes: impl IntoIterator<Item = usize>) -> Vec<Effect> {
    let (now, mut out, mut input) = (Now::default(), Vec::new(), BytesMut::new());
    let mut peer = LookupPeer::new(now, &Nsqd::default(), 1000, 1);
    let directory = directory();
    peer.handle(now, Input::Tick, &directory, &mut out);
    peer.handle(now, Input::Connected, &directory, &mut out);
    let (mut rest, mut sizes) = (stream, sizes.into_iter());
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(sizes.next().unwrap_or(rest.len()).min(rest.len()));
        rest = after;
        input.extend_from_slice(piece);
        peer.handle(now, Input::Received(&mut input), &directory, &mut out);
        peer.check(&directory);
        assert!(input.len() < 1004, "keeps {} bytes", input.len());
    }
    out
}

/// More than is said at once.
fn directory() -> Directory {
    let mut directory = Directory::default();
    for number in 0..200 {
        let topic = TopicName::new(format!("topic-{number}")).expect("a name");
        directory.create_topic(topic.clone());
        for channel in ["a", "b"] {
            directory.create_channel(&topic, ChannelName::new(channel).expect("a name"), None);
        }
    }
    directory
}
