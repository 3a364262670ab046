//! `TcpListener`.
//!
//! In: an address to bind. Out: accepted streams, in the order of their handshakes.
//! The rule: dropping it closes the port and resets who waited.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use super::{TcpStream, ToSocketAddrs};
use crate::sim::{Net, NodeId, register};

/// A listening socket of the machine whose task bound it.
#[derive(Debug)]
pub struct TcpListener {
    net: Net,
    host: NodeId,
    addr: SocketAddr,
    number: u64,
}

impl TcpListener {
    /// Listens at the first address that can be bound; port 0 means a free one.
    pub async fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        let (net, host) = (Net::current(), Net::here());
        let mut failed = io::Error::new(io::ErrorKind::InvalidInput, "no address to bind");
        for addr in addr.addrs()? {
            match net.with(|state| state.listen(host, addr)) {
                Ok((addr, number)) => return Ok(Self { net, host, addr, number }),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }

    /// The next connection and its peer.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Polls for the next connection.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        self.net.with(|state| {
            let Some(listener) = state.listener(self.host, self.addr, self.number) else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            let Some(id) = listener.queue.pop_front() else {
                register(&mut listener.wakers, cx);
                return Poll::Pending;
            };
            let stream = TcpStream::of(&self.net, state, id)?;
            let peer = stream.peer_addr()?;
            Poll::Ready(Ok((stream, peer)))
        })
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        self.net.with(|state| state.unlisten(self.host, self.addr, self.number));
    }
}
