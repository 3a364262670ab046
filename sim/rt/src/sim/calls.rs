//! The application's calls on its end of a connection.
//!
//! In: reads, writes, shutdowns, of [`crate::net`]. Out: bytes and errors as Linux gives them, and `Pending` with a
//! waker registered. The rule: an end whose process died is nobody's any more, and each call on it fails.

use std::io;
use std::task::{Context, Poll, Waker};

use super::end::{End, EndId, Phase, copy_range};
use super::wire::State;

impl State {
    /// Whether `connect` has an answer.
    pub(crate) fn poll_connected(&mut self, id: EndId, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let Some(end) = self.mine(id) else { return Poll::Ready(Err(gone())) };
        match end.phase {
            Phase::Connecting | Phase::Accepting { .. } => {
                register(&mut end.writers, cx);
                Poll::Pending
            }
            Phase::Open => Poll::Ready(Ok(())),
            Phase::Dead => Poll::Ready(Err(end.error.take().unwrap_or(io::ErrorKind::NotConnected).into())),
        }
    }

    /// What there is to read: `WouldBlock` for nothing yet, no bytes for the end of the stream.
    pub(crate) fn read(&mut self, id: EndId, len: usize, peek: bool) -> io::Result<Vec<u8>> {
        let Some(end) = self.mine(id) else { return Err(gone()) };
        if end.inbox.is_empty() {
            return match end.error.take() {
                Some(error) => Err(error.into()),
                None if end.eof || end.phase == Phase::Dead => Ok(Vec::new()),
                None => Err(io::ErrorKind::WouldBlock.into()),
            };
        }
        let available = len.min(end.inbox.len());
        let (len, short) = self.shorten(available, self.config.short_read);
        self.counters.short_reads += u64::from(short);
        let window = self.config.receive_window;
        let Some(end) = self.mine(id) else { return Err(gone()) };
        let bytes = copy_range(&end.inbox, 0, len);
        if !peek {
            end.inbox.drain(..len);
            self.counters.bytes += len as u64;
            self.open_window(id, window);
        }
        Ok(bytes)
    }

    /// Tells the sender when half the window has come free since it last heard of it.
    fn open_window(&mut self, id: EndId, window: usize) {
        let Some(end) = self.ends.get(&id) else { return };
        let limit = end.received + window.saturating_sub(end.inbox.len()) as u64;
        if end.phase == Phase::Open && !end.eof && limit.saturating_sub(end.advertised) >= (window / 2) as u64 {
            self.acknowledge(id);
        }
    }

    /// Takes what fits of `parts`: `WouldBlock` when nothing does.
    pub(crate) fn write(&mut self, id: EndId, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let buffer = self.config.send_buffer;
        let Some(end) = self.mine(id) else { return Err(gone()) };
        if let Some(error) = end.error.take() {
            return Err(error.into());
        }
        if end.phase == Phase::Dead || end.fin {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let room = buffer.saturating_sub(end.out.len());
        if total > 0 && room == 0 {
            self.counters.full_writes += 1;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (len, short) = self.shorten(total.min(room), self.config.short_write);
        self.counters.short_writes += u64::from(short);
        let Some(end) = self.mine(id) else { return Err(gone()) };
        let mut left = len;
        for part in parts {
            let taken = part.len().min(left);
            end.out.extend(&part[..taken]);
            left -= taken;
        }
        self.transmit(id);
        Ok(len)
    }

    /// Ends our direction: a FIN follows the bytes written so far.
    pub(crate) fn shut_down(&mut self, id: EndId) -> io::Result<()> {
        let Some(end) = self.mine(id) else { return Err(gone()) };
        if end.phase == Phase::Dead {
            return Err(io::ErrorKind::NotConnected.into());
        }
        end.fin = true;
        self.transmit(id);
        Ok(())
    }

    /// Whether a read would not block; if it would, `cx` is woken when that changes.
    pub(crate) fn poll_readable(&mut self, id: EndId, cx: &Context<'_>) -> Poll<()> {
        match self.mine(id) {
            Some(end) if !end.is_readable() => {
                register(&mut end.readers, cx);
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// Whether a write would not block; if it would, `cx` is woken when that changes.
    pub(crate) fn poll_writable(&mut self, id: EndId, cx: &Context<'_>) -> Poll<()> {
        let buffer = self.config.send_buffer;
        match self.mine(id) {
            Some(end) if !end.is_writable(buffer) => {
                register(&mut end.writers, cx);
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// The end as its application sees it: not at all once its process has died.
    pub(crate) fn mine(&mut self, id: EndId) -> Option<&mut End> {
        self.ends.get_mut(&id).filter(|end| !end.orphan)
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the process or machine that held this socket is gone")
}

pub(crate) fn register(wakers: &mut Vec<Waker>, cx: &Context<'_>) {
    if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
        wakers.push(cx.waker().clone());
    }
}
