//! The body of the fuzz target `lookupd`: any bytes are what a peer says to nsqlookupd.

use super::{Identity, Options, PeerId, Registry, Session};
use crate::time::Now;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::BytesMut;

/// A stream of commands, cut in two ways, does the same. The first byte tells how many bytes after it are sizes of
/// pieces, used over and over; the rest is the stream.
pub fn lookupd(data: &[u8]) {
    let Some((count, data)) = data.split_first() else { return };
    let (sizes, stream) = data.split_at(data.len().min(usize::from(*count)));
    let whole = conversation(stream, []);
    let cut = conversation(stream, sizes.iter().map(|size| usize::from(*size).max(1)));
    assert_eq!(whole, cut, "pieces of {sizes:?}");
}

/// The replies, and all that is registered before the peer goes.
fn conversation(stream: &[u8], sizes: impl IntoIterator<Item = usize>) -> (Vec<u8>, String) {
    let (now, peer, options) = (Now::default(), PeerId(1), Options::default());
    let mut session = Session::new(now, "127.0.0.1:1".to_string(), Arc::new(Identity::default()), &options);
    let mut registry = Registry::new(options);
    let (mut input, mut commands, mut replies) = (BytesMut::new(), Vec::new(), Vec::new());
    let (mut rest, mut sizes) = (stream, sizes.into_iter());
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(sizes.next().unwrap_or(rest.len()).min(rest.len()));
        rest = after;
        input.extend_from_slice(piece);
        session.read(now, &mut input, &mut commands, &mut replies);
        session.check();
        for command in commands.drain(..) {
            registry.handle(now, peer, command);
        }
        registry.check();
    }
    session.eof(&mut replies);
    assert!(session.is_finished());
    let known = format!("{:?}", registry.entries());
    registry.disconnect(peer);
    registry.check();
    let left = registry.entries().into_iter().all(|(_, producers)| producers.is_empty());
    assert!(left, "something is left of who has gone");
    (replies, known)
}
