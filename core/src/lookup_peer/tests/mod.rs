//! Tests of nsqd's side; here the world they happen in: a peer, the wire, and core's own nsqlookupd at its other end.

mod conversation;
mod hostile;
mod properties;

use super::*;
use crate::lookupd::{Command, Identity, Options, PeerId, Registration, Registry, Session};
use crate::name::{ChannelName, TopicName};
use crate::time::Timestamp;
use alloc::collections::BTreeSet;
use alloc::string::ToString;
use alloc::sync::Arc;

/// See the module's documentation. Every step is followed by a check of all invariants.
struct World {
    now: Now,
    directory: Directory,
    peer: LookupPeer,
    registry: Registry,
    connecting: bool,
    /// nsqlookupd's end of the connection, if it has one.
    far: Option<Far>,
    /// Bytes on their way to nsqlookupd, and to the peer.
    up: Vec<u8>,
    down: Vec<u8>,
    /// What has arrived at the peer.
    input: BytesMut,
    /// Everything that was sent on the present connection.
    said: Vec<u8>,
    /// What the log would show.
    log: Vec<Effect>,
    connections: u64,
}

struct Far {
    id: PeerId,
    session: Session,
    input: BytesMut,
}

fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap()
}

fn nsqd() -> Nsqd {
    Nsqd {
        broadcast_address: "nsqd.example".into(),
        hostname: "h".into(),
        http_port: 4151,
        tcp_port: 4150,
        topology_region: "r<1>".into(),
        topology_zone: "z".into(),
        version: "1.3.0".into(),
    }
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn remote(id: PeerId) -> String {
    format!("10.0.0.1:{}", id.0)
}

impl World {
    fn new(topics: &[(&str, &[&str])]) -> Self {
        let nanos = 1_000_000_000;
        let now = Now { instant: Instant::from_nanos(nanos), timestamp: Timestamp::from_nanos(0) };
        let mut directory = Directory::default();
        for (name, channels) in topics {
            directory.create_topic(topic(name));
            channels
                .iter()
                .for_each(|name_of_channel| directory.create_channel(&topic(name), channel(name_of_channel), None));
        }
        let mut world = Self {
            now,
            directory,
            peer: LookupPeer::new(now, &nsqd(), 5 << 20, 1),
            registry: Registry::new(Options::default()),
            connecting: false,
            far: None,
            up: Vec::new(),
            down: Vec::new(),
            input: BytesMut::new(),
            said: Vec::new(),
            log: Vec::new(),
            connections: 0,
        };
        world.handle(Input::Tick);
        world
    }

    /// One whose nsqlookupd knows everything already.
    fn registered(topics: &[(&str, &[&str])]) -> Self {
        let mut world = Self::new(topics);
        world.heal();
        (world.said, world.log) = (Vec::new(), Vec::new());
        world
    }

    fn handle(&mut self, input: Input<'_>) {
        let mut effects = Vec::new();
        self.peer.handle(self.now, input, &self.directory, &mut effects);
        self.perform(effects);
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        let mut effects = Vec::new();
        self.peer.handle(self.now, Input::Received(&mut self.input), &self.directory, &mut effects);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Connect => self.connecting = true,
                Effect::Send(bytes) => {
                    self.up.extend_from_slice(&bytes);
                    self.said.extend_from_slice(&bytes);
                }
                Effect::Close => {
                    self.connecting = false;
                    self.hang_up();
                }
                Effect::Up | Effect::Down { .. } => self.log.push(effect),
            }
        }
        self.peer.check(&self.directory);
        self.registry.check();
        assert!(self.peer.deadline() > Some(self.now.instant), "it is never done, and does not spin");
    }

    /// nsqlookupd notices that the connection has ended.
    fn hang_up(&mut self) {
        if let Some(far) = self.far.take() {
            self.registry.disconnect(far.id);
        }
        (self.up, self.down, self.input) = (Vec::new(), Vec::new(), BytesMut::new());
    }

    /// The peer does, too.
    fn cut(&mut self) {
        self.hang_up();
        self.handle(Input::Lost("cut".into()));
    }

    fn accept(&mut self) {
        if self.connecting {
            self.connecting = false;
            self.connections += 1;
            let id = PeerId(self.connections);
            let session = Session::new(self.now, remote(id), Arc::new(Identity::default()), &Options::default());
            self.far = Some(Far { id, session, input: BytesMut::new() });
            self.said.clear();
            self.handle(Input::Connected);
        }
    }

    /// Lets so many bytes arrive, first those to nsqlookupd.
    fn flow(&mut self, up: usize, down: usize) {
        let up: Vec<u8> = self.up.drain(..self.up.len().min(up)).collect();
        if let Some(Far { id, session, input }) = &mut self.far {
            let mut commands: Vec<Command> = Vec::new();
            input.extend_from_slice(&up);
            session.read(self.now, input, &mut commands, &mut self.down);
            for command in commands {
                self.registry.handle(self.now, *id, command);
            }
        }
        let down: Vec<u8> = self.down.drain(..self.down.len().min(down)).collect();
        if !down.is_empty() {
            self.receive(&down);
        }
    }

    fn sleep(&mut self, duration: Duration) {
        let end = self.now.instant + duration;
        while let Some(next) = self.peer.deadline().filter(|next| *next <= end) {
            self.now.instant = self.now.instant.max(next);
            self.handle(Input::Tick);
            assert!(self.peer.deadline() > Some(self.now.instant), "what is due is done");
        }
        self.now.instant = end;
        let before = format!("{:?}", self.peer);
        self.handle(Input::Tick);
        assert_eq!(format!("{:?}", self.peer), before, "too early a tick changes nothing");
    }

    /// Everything works from now on: soon, nsqlookupd must have exactly what there is. A connection whose other end has
    /// vanished is found out by the next PING.
    fn heal(&mut self) {
        let start = self.now.instant;
        loop {
            self.accept();
            self.flow(usize::MAX, usize::MAX);
            let is_done = self.far.is_some() && self.peer.registered() == Some(self.directory.position());
            if is_done && self.known() == self.expected() {
                break;
            }
            if self.up.is_empty() && self.down.is_empty() && !self.connecting {
                let deadline = self.peer.deadline().expect("it is never done");
                self.sleep(deadline.since(self.now.instant));
            }
            let elapsed = self.now.instant.since(start);
            assert!(elapsed <= PING_INTERVAL + PATIENCE + PAUSE_MAX + PATIENCE, "not registered after {elapsed:?}");
        }
    }

    /// What nsqlookupd knows of this connection.
    fn known(&self) -> BTreeSet<String> {
        let mine = |registration: Registration<'_>| match registration {
            Registration::Topic(topic) => Some(topic.to_string()),
            Registration::Channel(topic, channel) => Some(format!("{topic} {channel}")),
            Registration::Client => None,
        };
        let address = self.far.as_ref().map(|far| remote(far.id));
        let entries = self.registry.entries().into_iter();
        let entries =
            entries.filter(|(_, who)| who.iter().any(|who| Some(&who.producer.remote_address) == address.as_ref()));
        entries.filter_map(|(registration, _)| mine(registration)).collect()
    }

    fn expected(&self) -> BTreeSet<String> {
        let topics = self.directory.topics().iter();
        let names = topics.flat_map(|(topic, entry)| {
            let channels = entry.channels.keys().map(move |channel| format!("{topic} {channel}"));
            [topic.to_string()].into_iter().chain(channels)
        });
        names.collect()
    }

    /// What was said since the last look.
    fn says(&mut self) -> String {
        core::mem::take(&mut self.said).escape_ascii().to_string()
    }
}

fn reply(data: &str) -> Vec<u8> {
    [&(data.len() as i32).to_be_bytes()[..], data.as_bytes()].concat()
}
