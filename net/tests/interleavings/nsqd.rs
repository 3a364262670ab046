//! An nsqd in a bottle: the broker and its connections, their peers at the other end of a pipe, a clock to be moved.
//!
//! All of it lives inside one run of shuttle; whatever waits for ever fails the run.

use crate::broker::Broker;
use crate::conn;
use crate::durable::Durable;
use crate::env::Env;
use crate::storage::Stored;
use crate::timers::Timers;
use bytes::BytesMut;
use nsq_core::message::Bodies;
use nsq_core::name::{ChannelName, TopicName};
use nsq_core::node::{self, Entry};
use nsq_core::options::Options;
use nsq_core::time::Timestamp;
use nsq_core::topic::io::{Admin, Refusal};
use nsq_core::topic::stats::ChannelStats;
use nsq_core::wire::{self, Frame, Message};
use nsq_net::disk::Directory;
use shuttle::future::{JoinHandle, block_on, spawn};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// See the module's documentation.
#[derive(Clone)]
pub(crate) struct Nsqd {
    pub(crate) broker: Arc<Broker>,
    clock: Arc<AtomicI64>,
}

/// A peer, after the magic.
pub(crate) struct Client {
    stream: DuplexStream,
    input: BytesMut,
    served: JoinHandle<()>,
}

/// Bytes that a pipe holds: so few that most writes block.
const PIPE: usize = 100;

impl Nsqd {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(AtomicI64::new(1_000_000_000));
        let wall = Arc::clone(&clock);
        let env = Env {
            wall: Arc::new(move || Timestamp::from_nanos(wall.load(Ordering::SeqCst))),
            seed: 1,
            disk: Arc::new(Directory::new(Path::new(""))),
        };
        let (durable, nothing) = (Durable::default(), Stored::default());
        Self { broker: Broker::new(Options::default(), env, usize::MAX, durable, BTreeMap::new(), nothing), clock }
    }

    pub(crate) fn connect(&self) -> Client {
        let (mut stream, server) = tokio::io::duplex(PIPE);
        let served = spawn(conn::serve(Arc::clone(&self.broker), server, "192.0.2.1:4242".parse().unwrap()));
        block_on(stream.write_all(wire::MAGIC)).unwrap();
        Client { stream, input: BytesMut::new(), served }
    }

    /// Subscribes, asks for so many messages at a time, and reads the answer to SUB.
    pub(crate) fn consumer(&self, topic: &str, channel: &str, ready: u32) -> Client {
        let mut client = self.connect();
        client.send(|out| {
            wire::subscribe(topic, channel, out);
            wire::ready(ready, out);
        });
        // Whatever the topic had to hand out, this comes first.
        assert_eq!(client.next(), Some(Frame::Response("OK".into())));
        client
    }

    /// Publishes as an HTTP request does.
    pub(crate) fn publish(&self, topic: &str, body: String, defer: Duration) {
        block_on(self.broker.publish(&topic_name(topic), Bodies::one(body.into()), defer)).unwrap();
    }

    pub(crate) fn create_topic(&self, topic: &str) {
        self.saving(self.broker.create_topic(&topic_name(topic))).unwrap();
    }

    pub(crate) fn administer(&self, topic: &str, action: Admin) -> Option<Result<(), Refusal>> {
        self.saving(self.broker.administer(&topic_name(topic), action))
    }

    /// Waits for an operation, and writes the directory meanwhile, for that is what operations wait for.
    fn saving<T>(&self, operation: impl Future<Output = T>) -> T {
        block_on(async {
            tokio::select! {
                biased;
                result = operation => result,
                () = self.save() => panic!("the process has ended"),
            }
        })
    }

    /// Lets time pass, and calls the topics that have become due.
    pub(crate) fn tick(&self, time: Duration) {
        self.clock.fetch_add(time.as_nanos() as i64, Ordering::SeqCst);
        Timers::call_due(&self.broker);
    }

    /// Writes the directory when that is wanted, until the process ends.
    pub(crate) async fn save(&self) {
        loop {
            tokio::select! {
                biased;
                () = self.broker.exiting.notified() => return,
                () = self.broker.save_wanted.notified() => {}
            }
            let (generation, _) = self.broker.snapshot();
            self.broker.saved(generation, Ok(()));
        }
    }

    pub(crate) fn channels(&self, topic: &str) -> Vec<ChannelStats> {
        self.broker.topic_stats(Some(topic), None, false).pop().expect("the topic").channels
    }

    /// When all clients have gone: nothing is left of them, and the directory has what there is.
    pub(crate) fn check(&self) {
        assert_eq!(self.broker.open_conns(), 0);
        let mut present: BTreeMap<TopicName, Entry> = BTreeMap::new();
        self.broker.inspect(|topic| {
            topic.check();
            if !topic.is_gone() {
                present.insert(topic.name().clone(), topic.entry());
            }
        });
        let (_, file) = self.broker.snapshot();
        assert_eq!(node::parse(&file).unwrap().0, present, "nsqd.dat lists what there is");
    }
}

impl Client {
    pub(crate) fn send(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let mut out = BytesMut::new();
        write(&mut out);
        // A peer that has hung up is found out by reading.
        let _ = block_on(self.stream.write_all(&out));
    }

    /// The next frame; `None` if the connection has ended.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = wire::decode(&mut self.input).unwrap() {
                return Some(frame);
            }
            if block_on(self.stream.read_buf(&mut self.input)).unwrap() == 0 {
                return None;
            }
        }
    }

    /// The next message, unless the connection has ended.
    pub(crate) fn message(&mut self) -> Option<Message> {
        match self.next()? {
            Frame::Message(message) => Some(message),
            other => panic!("{other:?} instead of a message"),
        }
    }

    /// Takes so many messages, finishing each before the next; returns their bodies, sorted.
    pub(crate) fn take(&mut self, count: usize) -> Vec<String> {
        let mut bodies: Vec<_> = (0..count)
            .map(|_| {
                let message = self.message().expect("a message");
                assert_eq!(message.attempts, 1, "{message:?}");
                self.send(|out| wire::finish(message.id, out));
                String::from_utf8(message.body.to_vec()).unwrap()
            })
            .collect();
        bodies.sort();
        bodies
    }

    /// Hangs up, and waits until nsqd has noticed.
    pub(crate) fn close(self) {
        drop(self.stream);
        block_on(self.served).unwrap();
    }
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

pub(crate) fn channel_name(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap()
}
