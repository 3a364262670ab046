//! `TcpStream`.
//!
//! In: bytes to write. Out: bytes read, or the errors Linux would give.
//! The rule: each call is one step of the network, so a waker is registered in the same step that found nothing.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::ToSocketAddrs;
use super::split::{self, OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf};
use crate::sim::{EndId, Net, State};

/// A connection, of the machine whose task made it.
#[derive(Debug)]
pub struct TcpStream {
    net: Net,
    id: EndId,
    local: SocketAddr,
    peer: SocketAddr,
}

impl TcpStream {
    /// Connects to the first address that answers.
    pub async fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        let mut failed = io::Error::new(io::ErrorKind::InvalidInput, "no address to connect to");
        for addr in addr.addrs()? {
            match Self::connect_to(addr).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn connect_to(peer: SocketAddr) -> io::Result<Self> {
        let (net, host) = (Net::current(), Net::here());
        let (id, local) = net.with(|state| state.connect(host, peer))?;
        // Made before it is open: if this future is dropped, so is the attempt.
        let stream = Self { net, id, local, peer };
        std::future::poll_fn(|cx| stream.net.with(|state| state.poll_connected(id, cx))).await?;
        Ok(stream)
    }

    /// An accepted connection.
    pub(super) fn of(net: &Net, state: &mut State, id: EndId) -> io::Result<Self> {
        let end = state.mine(id).ok_or(io::ErrorKind::ConnectionAborted)?;
        Ok(Self { net: net.clone(), id, local: end.local, peer: end.remote })
    }

    /// Our address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    /// The other side's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }

    /// Accepted and ignored: the model sends at once in any case.
    pub fn set_nodelay(&self, _nodelay: bool) -> io::Result<()> {
        Ok(())
    }

    /// Always true, see [`set_nodelay`](Self::set_nodelay).
    pub fn nodelay(&self) -> io::Result<bool> {
        Ok(true)
    }

    /// `Some(0)` makes a drop reset the connection; other values change nothing, as no drop ever blocks.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        let abort = linger == Some(Duration::ZERO);
        self.net.with(|state| state.mine(self.id).map(|end| end.abort_on_close = abort));
        Ok(())
    }

    /// A drop resets the connection.
    pub fn set_zero_linger(&self) -> io::Result<()> {
        self.set_linger(Some(Duration::ZERO))
    }

    /// Waits until a read would give something: bytes, the end, or an error.
    pub async fn readable(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_read_ready(cx)).await
    }

    /// Waits until a write would take something, or fail.
    pub async fn writable(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_write_ready(cx)).await
    }

    /// Polls for what [`readable`](Self::readable) waits for.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.net.with(|state| state.poll_readable(self.id, cx)).map(Ok)
    }

    /// Polls for what [`writable`](Self::writable) waits for.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.net.with(|state| state.poll_writable(self.id, cx)).map(Ok)
    }

    /// Reads what there is; `WouldBlock` if there is nothing yet.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let bytes = self.net.with(|state| state.read(self.id, buf.len(), false))?;
        buf[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    /// Reads what there is into the free room of `buf`; `WouldBlock` if there is nothing yet.
    pub fn try_read_buf<B: bytes::BufMut>(&self, buf: &mut B) -> io::Result<usize> {
        let room = buf.chunk_mut().len();
        let bytes = self.net.with(|state| state.read(self.id, room, false))?;
        buf.put_slice(&bytes);
        Ok(bytes.len())
    }

    /// Writes what fits; `WouldBlock` if nothing does.
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        self.try_write_vectored(&[io::IoSlice::new(buf)])
    }

    /// Writes what fits of several buffers; `WouldBlock` if nothing does.
    pub fn try_write_vectored(&self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.net.with(|state| state.write(self.id, bufs))
    }

    /// Reads without taking.
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        std::future::poll_fn(|cx| {
            let mut buf = ReadBuf::new(buf);
            self.poll_take(cx, &mut buf, true).map_ok(|()| buf.filled().len())
        })
        .await
    }

    /// Borrowed halves for reading and writing.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        split::split(self)
    }

    /// Owned halves for reading and writing; dropping the second ends our direction.
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        split::into_split(self)
    }

    pub(super) fn poll_take(&self, cx: &Context<'_>, buf: &mut ReadBuf<'_>, peek: bool) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.net.with(|state| match state.read(self.id, buf.remaining(), peek) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => state.poll_readable(self.id, cx).map(Ok),
            result => Poll::Ready(result.map(|bytes| buf.put_slice(&bytes))),
        })
    }

    pub(super) fn poll_put(&self, cx: &Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.net.with(|state| match state.write(self.id, bufs) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => state.poll_writable(self.id, cx).map(|()| Ok(0)),
            result => Poll::Ready(result),
        })
    }

    pub(super) fn shut_down(&self) -> io::Result<()> {
        self.net.with(|state| state.shut_down(self.id))
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_take(cx, buf, false)
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_put(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_put(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shut_down())
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        self.net.with(|state| state.close(self.id));
    }
}
