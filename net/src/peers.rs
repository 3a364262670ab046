//! A task for each nsqlookupd on the list, which keeps it informed (spec: nsqd_protocol §5.5).
//!
//! Core's [`LookupPeer`] decides; here are its socket, its clock and its log lines. Peers know nothing of each other,
//! and nobody waits for them: one that hangs or lies costs a line in the log.

use crate::broker::Broker;
use crate::lookups::Standing;
use bytes::BytesMut;
use nsq_core::lookup_peer::{Effect, Input, LookupPeer, Lookupd, Nsqd};
use nsq_core::random::seed_for;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The task: keeps a peer for each address on the list, until it is dropped, and the peers with it.
pub(crate) async fn run(broker: Arc<Broker>, nsqd: Nsqd) {
    let mut list = broker.lookups.list();
    let mut peers: BTreeMap<String, Task> = BTreeMap::new();
    loop {
        let listed: BTreeSet<String> = list.borrow_and_update().addresses.iter().flatten().cloned().collect();
        peers.retain(|address, _| listed.contains(address));
        broker.lookups.forget_unlisted();
        for address in listed {
            let start = || Task(tokio::spawn(Peer::new(&broker, &nsqd, address.clone()).run()));
            peers.entry(address.clone()).or_insert_with(start);
        }
        if list.changed().await.is_err() {
            return;
        }
    }
}

/// A task that ends with whoever has started it.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Peer {
    broker: Arc<Broker>,
    address: String,
    machine: LookupPeer,
    news: watch::Receiver<u64>,
    effects: Vec<Effect>,
    /// What is to be sent.
    output: BytesMut,
    wants: Wants,
}

/// What the machine has asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wants {
    Nothing,
    Connection,
    /// It has one, and keeps it.
    Keep,
}

/// Bytes that one read has room for.
const READ: usize = 4 * 1024;

impl Peer {
    fn new(broker: &Arc<Broker>, nsqd: &Nsqd, address: String) -> Self {
        let seed = seed_for(broker.env.seed, &address);
        Self {
            machine: LookupPeer::new(broker.now(), nsqd, broker.options().max_body_size, seed),
            broker: Arc::clone(broker),
            address,
            news: broker.lookups.news.subscribe(),
            effects: Vec::new(),
            output: BytesMut::new(),
            wants: Wants::Nothing,
        }
    }

    async fn run(mut self) {
        loop {
            match self.wants {
                Wants::Connection => {
                    let address = self.address.clone();
                    let connected = tokio::select! {
                        biased;
                        connected = TcpStream::connect(address.as_str()) => connected,
                        () = tokio::time::sleep_until(self.deadline()) => {
                            self.handle(Input::Tick);
                            continue;
                        }
                    };
                    match connected {
                        Ok(stream) => self.talk(stream).await,
                        Err(error) => self.handle(Input::Lost(error.to_string())),
                    }
                }
                Wants::Nothing | Wants::Keep => {
                    self.handle(Input::Tick);
                    if self.wants == Wants::Nothing {
                        tokio::time::sleep_until(self.deadline()).await;
                    }
                }
            }
        }
    }

    /// Serves one connection to its end.
    async fn talk(&mut self, mut stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let (mut reader, mut writer) = stream.split();
        let mut input = BytesMut::new();
        self.wants = Wants::Keep;
        self.handle(Input::Connected);
        while self.wants == Wants::Keep {
            input.reserve(READ);
            let deadline = self.deadline();
            let Self { output, news, .. } = self;
            let step = tokio::select! {
                biased;
                read = reader.read_buf(&mut input) => match read {
                    Ok(0) => Input::Lost(io::ErrorKind::UnexpectedEof.to_string()),
                    Ok(_) => Input::Received(&mut input),
                    Err(error) => Input::Lost(error.to_string()),
                },
                written = writer.write_buf(output), if !output.is_empty() => match written {
                    Ok(_) => continue,
                    Err(error) => Input::Lost(error.to_string()),
                },
                _ = news.changed() => Input::Tick,
                () = tokio::time::sleep_until(deadline) => Input::Tick,
            };
            self.handle(step);
            if input.is_empty() && self.output.is_empty() {
                // Nothing but PINGs will come for a long time.
                (input, self.output) = (BytesMut::new(), BytesMut::new());
            }
        }
    }

    fn deadline(&self) -> tokio::time::Instant {
        let deadline = self.machine.deadline().unwrap_or_else(|| self.broker.now().instant);
        self.broker.clock.at(deadline)
    }

    fn handle(&mut self, input: Input<'_>) {
        let Self { broker, machine, effects, .. } = self;
        let now = broker.now();
        broker.look_up(|directory| machine.handle(now, input, directory, effects));
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Connect => self.wants = Wants::Connection,
                Effect::Send(bytes) => self.output.extend_from_slice(&bytes),
                Effect::Close => {
                    self.wants = Wants::Nothing;
                    self.output.clear();
                }
                Effect::Up => tracing::info!("LOOKUPD({}): everything is registered", self.address),
                Effect::Down { why, is_news: true } => {
                    tracing::warn!("LOOKUPD({}): {why}; trying again until it works", self.address);
                }
                Effect::Down { why, is_news: false } => tracing::debug!("LOOKUPD({}): {why}", self.address),
            }
        }
        let standing = Standing {
            is_untried: self.machine.is_untried(),
            is_connected: self.machine.is_identified(),
            registered: self.machine.registered(),
            is_registered: false,
            http_address: self.machine.lookupd().and_then(Lookupd::http_address),
        };
        self.broker.lookups.stands(&self.address, standing);
    }
}
