//! Bytes on their way to a socket.
//!
//! In: whatever the session appends. Out: what the socket takes. What it has taken is given back even if the peer never
//! quite catches up, so that this costs as much memory as is waiting and no more than as much again.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Output {
    bytes: Vec<u8>,
    /// How many of them the socket has taken.
    written: usize,
    /// Bytes of message frames among those that it has not.
    frames: usize,
}

/// Fewer written bytes than this are not worth moving those behind them.
const WORTH_MOVING: usize = 4 * 1024;

impl Output {
    /// Where to append, which returns how many bytes of message frames it has appended.
    pub(crate) fn append(&mut self, append: impl FnOnce(&mut Vec<u8>) -> usize) {
        self.frames += append(&mut self.bytes);
    }

    /// Bytes that wait for the socket.
    pub(crate) const fn waiting(&self) -> usize {
        self.bytes.len() - self.written
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.waiting() == 0
    }

    /// Writes once. Returns how many bytes of message frames have left.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        stream: Pin<&mut impl AsyncWrite>,
    ) -> Poll<io::Result<usize>> {
        let bytes = match stream.poll_write(cx, &self.bytes[self.written..]) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(bytes)) => bytes,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        };
        self.written += bytes;
        if self.is_empty() {
            self.bytes.clear();
            self.written = 0;
        } else if self.written >= self.waiting().max(WORTH_MOVING) {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        // Replies stand between frames; which bytes are whose matters only once all have left.
        let frames = bytes.min(self.frames);
        self.frames -= frames;
        Poll::Ready(Ok(frames))
    }

    /// Drops what waits.
    pub(crate) fn discard(&mut self) {
        *self = Self::default();
    }

    /// Keeps no more than so many bytes of memory, if nothing waits.
    pub(crate) fn shrink(&mut self, most: usize) {
        if self.bytes.is_empty() && self.bytes.capacity() > most {
            self.bytes = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    /// A socket that takes so many bytes.
    struct Socket {
        room: usize,
        taken: Vec<u8>,
    }

    impl AsyncWrite for Socket {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            if self.room == 0 {
                return Poll::Pending;
            }
            let bytes = &bytes[..bytes.len().min(self.room)];
            self.room -= bytes.len();
            self.taken.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_peer_that_never_quite_catches_up_costs_no_memory() {
        let cx = &mut Context::from_waker(Waker::noop());
        let mut socket = Socket { room: 0, taken: Vec::new() };
        let mut output = Output::default();
        let (mut sent, mut left) = (Vec::new(), 0);
        for step in 0..2000_usize {
            // As a topic does that hands out more whenever something has left.
            let more = if step == 0 { 64_000 } else { 32_000 };
            let frame = vec![step as u8; more];
            sent.extend_from_slice(&frame);
            output.append(|bytes| {
                bytes.extend_from_slice(&frame);
                more
            });
            socket.room = 32_000;
            while let Poll::Ready(result) = output.poll_write(cx, Pin::new(&mut socket)) {
                left += result.unwrap();
            }
            assert_eq!((socket.taken.len(), output.waiting()), (left, sent.len() - left));
            assert!(
                output.bytes.capacity() <= 256 * 1024,
                "{} bytes for 64,000 in step {step}",
                output.bytes.capacity()
            );
        }
        assert_eq!(socket.taken, sent[..left]);
    }
}
