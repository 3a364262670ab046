//! A V1 connection: one task that reads, tells the registry, and writes.
//!
//! The registry is told before the reply leaves, and the replies to one read have left before the next: a peer that
//! does not take its replies is not read. However the connection ends, its registrations end with it.

use super::Shared;
use crate::linger::linger;
use crate::visits::Visit;
use bytes::BytesMut;
use nsq_core::lookupd::{Command, PeerId, Session};
use nsq_core::name::{ChannelName, TopicName};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What one read has room for at least, in bytes; a body that is on its way makes its own.
const READ: usize = 4 * 1024;
/// How long a peer may leave its replies in the socket.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Serves one connection to its end.
pub(super) fn serve(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr) -> impl Future<Output = ()> + Send {
    let visit = shared.visits.begin();
    serve_visit(shared, stream, peer, visit)
}

async fn serve_visit(shared: Arc<Shared>, mut stream: TcpStream, peer: SocketAddr, mut visit: Visit) {
    let peer = Peer { id: shared.next_peer(), address: peer.to_string(), shared: &shared };
    tracing::info!("TCP: new client({})", peer.address);
    let end = tokio::select! {
        biased;
        () = visit.told_to_end() => Err(io::Error::other("nsqlookupd is exiting")),
        end = peer.talk(&mut stream) => end,
    };
    let address = peer.address.clone();
    drop(peer);
    match end {
        Ok(()) => {
            tracing::info!("client({address}): closing");
            tokio::select! {
                biased;
                () = visit.told_to_end() => {}
                () = linger(stream) => {}
            }
        }
        Err(error) => tracing::info!("client({address}): closing - {error}"),
    }
}

/// The peer of a connection, which the registry forgets when this is dropped.
struct Peer<'a> {
    id: PeerId,
    address: String,
    shared: &'a Shared,
}

impl Peer<'_> {
    /// Reads and answers until all is said.
    async fn talk(&self, stream: &mut TcpStream) -> io::Result<()> {
        let shared = self.shared;
        let identity = Arc::clone(&shared.identity);
        let mut session = Session::new(shared.now(), self.address.clone(), identity, &shared.options);
        let (mut input, mut commands, mut output) = (BytesMut::new(), Vec::new(), Vec::new());
        while let Some(deadline) = session.deadline() {
            input.reserve(READ);
            let patience = deadline.since(shared.now().instant);
            match tokio::time::timeout(patience, stream.read_buf(&mut input)).await {
                Ok(bytes) => match bytes? {
                    0 => session.eof(&mut output),
                    _ => session.read(shared.now(), &mut input, &mut commands, &mut output),
                },
                Err(_) => {
                    session.tick(shared.now());
                    if session.is_finished() {
                        return Err(io::Error::new(io::ErrorKind::TimedOut, "the peer was silent for too long"));
                    }
                }
            }
            self.tell(&mut commands);
            if !output.is_empty() {
                tokio::time::timeout(WRITE_TIMEOUT, stream.write_all(&output)).await??;
                output.clear();
            }
            if input.is_empty() {
                // Nothing but PINGs will come for a long time.
                (input, output) = (BytesMut::new(), Vec::new());
            }
        }
        Ok(())
    }

    /// Passes commands on to the registry, and writes down what that changed.
    fn tell(&self, commands: &mut Vec<Command>) {
        if commands.is_empty() {
            return;
        }
        let now = self.shared.now();
        let mut news = Vec::new();
        {
            let mut registry = self.shared.write();
            for command in commands.drain(..) {
                let told = command.clone();
                if registry.handle(now, self.id, command) {
                    news.push(told);
                }
            }
        }
        for command in news {
            let address = &self.address;
            match command {
                Command::Identify(producer) => tracing::info!("client({address}) IDENTIFY {producer}"),
                Command::Register(topic, channel) => {
                    tracing::info!("DB: client({address}) REGISTER {}", names(&topic, channel.as_ref()));
                }
                Command::Unregister(topic, channel) => {
                    tracing::info!("DB: client({address}) UNREGISTER {}", names(&topic, channel.as_ref()));
                }
                Command::Ping => {}
            }
        }
    }
}

impl Drop for Peer<'_> {
    fn drop(&mut self) {
        if self.shared.write().disconnect(self.id).is_some() {
            tracing::info!("DB: client({}) UNREGISTER all", self.address);
        }
    }
}

fn names(topic: &TopicName, channel: Option<&ChannelName>) -> String {
    match channel {
        Some(channel) => format!("topic:{topic} channel:{channel}"),
        None => format!("topic:{topic}"),
    }
}
