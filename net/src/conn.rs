//! A V2 connection: one task that reads, hands commands to topics, and writes.
//!
//! Each turn takes what topics left in the outbox, writes, reads once, and submits all commands read, one lock for each
//! run of commands for one topic. A write that would block never stops the reads: what a consumer finishes must not
//! wait behind what it is sent. Nor does a write that fails: a peer that has gone may have finished much before it
//! went, and all that has arrived counts. Frames leave as soon as there is nothing more to batch.

use crate::broker::{Broker, ConnShared};
use crate::linger::linger;
use crate::outbox::{Mail, Taken};
use crate::output::Output;
use crate::sync::{Arc, AtomicU64, Ordering};
use crate::topics::{Caller, SharedTopic};
use bytes::BytesMut;
use nsq_core::name::TopicName;
use nsq_core::session::{Cause, Command, Session, Target};
use nsq_core::time::Instant;
use nsq_core::topic::io::{ConnId, Input, OUTBOX_LIMIT};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::Sleep;

/// Bytes that one read has room for at least: from a peer that sends little, from one that always has more, and how
/// many times more than a read that has filled its buffer the next one takes.
const READ_MIN: usize = 4 * 1024;
const READ_MAX: usize = 256 * 1024;
const READ_GROWTH: usize = 8;
/// So many commands in a small read are worth one of their own: those behind them need not wait for more to come.
const READ_COMMANDS: usize = 16;
const READ_SMALL: usize = READ_MIN * READ_GROWTH;
/// The same as `READ_MIN` for a consumer, a hundred FINs: the messages that take their place leave while those behind
/// are handled, and the two sides need not take turns.
const READ_FINS: usize = READ_MIN / 2;
/// Bytes of replies that may wait for a peer that does not read them, before its commands are not read either.
const REPLIES_MAX: usize = 1024 * 1024;
/// The same for a consumer, whose commands are always read: beyond that, and a message, it is disconnected.
const CONSUMER_REPLIES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of bodies that a connection may have published and not been answered for before it is not read.
const OWED_MAX: usize = 4 * 1024 * 1024;
/// Turns before other tasks get a chance.
const TURNS: usize = 16;
/// Capacity that an idle connection may keep in each of its buffers.
const IDLE_BUFFER: usize = 4 * 1024;
const IDLE_COMMANDS: usize = 16;
/// Bytes that have left for a consumer's socket before its topic is told at once, and not with the next command.
const ROOM: usize = OUTBOX_LIMIT / 2;

/// Serves one connection to its end. What it is made of is captured by its future and used in place: an `async fn`
/// would hold its arguments twice.
pub(crate) fn serve<S>(broker: Arc<Broker>, stream: S, peer: SocketAddr) -> impl Future<Output = ()> + Send
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tracing::info!("TCP: new client({peer})");
    let id = broker.next_conn();
    let shared = broker.connected(id);
    let registered = Registered { broker: Arc::clone(&broker), id };
    let mut conn = Conn::new(broker, id, shared, stream, peer.to_string());
    async move {
        let end = {
            let mut sleep = pin!(tokio::time::sleep(Duration::ZERO));
            poll_fn(|cx| conn.poll(cx, sleep.as_mut())).await
        };
        conn.leave();
        conn.say_why(&end);
        // The end of the process does not wait for farewells.
        drop(registered);
        if matches!(end, End::Farewell) {
            linger(conn.stream).await;
        }
    }
}

/// A connection in the broker's map, for as long as its task lives.
struct Registered {
    broker: Arc<Broker>,
    id: ConnId,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.broker.disconnected(self.id);
    }
}

struct Conn<S> {
    broker: Arc<Broker>,
    id: ConnId,
    shared: Arc<ConnShared>,
    stream: S,
    session: Session,
    input: BytesMut,
    commands: VecDeque<Command>,
    batch: VecDeque<Input>,
    mail: Mail,
    output: Output,
    /// Bytes of message frames that have left, and of which the topic has not been told.
    room: usize,
    publishing: Option<Publishing>,
    subscribed: Option<Arc<SharedTopic>>,
    eof: bool,
    /// A write has failed: the peer is read to its end, and what would be said to it is for nobody.
    deaf: bool,
    /// It has taken nothing for too long.
    given_up: bool,
    /// Bytes that the next read has room for at least.
    read: usize,
    /// When the timer fires, and since when the peer takes nothing.
    armed: Option<Instant>,
    blocked: Option<Instant>,
}

/// The topic that the connection published to last.
struct Publishing {
    name: TopicName,
    topic: Arc<SharedTopic>,
    count: Arc<AtomicU64>,
}

/// How a connection ended.
#[derive(Debug)]
enum End {
    /// All was said; the peer may still be sending.
    Farewell,
    /// The peer, or the process, has gone.
    Gone(io::Error),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conn<S> {
    fn new(broker: Arc<Broker>, id: ConnId, shared: Arc<ConnShared>, stream: S, peer: String) -> Self {
        let session = Session::new(broker.now(), id, peer, Arc::clone(broker.options()));
        Self {
            broker,
            id,
            shared,
            stream,
            session,
            input: BytesMut::new(),
            commands: VecDeque::new(),
            batch: VecDeque::new(),
            mail: Mail::default(),
            output: Output::default(),
            room: 0,
            publishing: None,
            subscribed: None,
            eof: false,
            deaf: false,
            given_up: false,
            read: READ_MIN,
            armed: None,
            blocked: None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, mut sleep: Pin<&mut Sleep>) -> Poll<End> {
        for _ in 0..TURNS {
            match self.poll_turn(cx) {
                Poll::Ready(Ok(Turn::Worked)) => {}
                Poll::Ready(Ok(Turn::Ended)) => return Poll::Ready(End::Farewell),
                Poll::Ready(Err(error)) => return Poll::Ready(End::Gone(error)),
                Poll::Pending => {
                    self.release_buffers();
                    ready!(self.poll_timer(cx, sleep.as_mut()));
                }
            }
        }
        // A peer that keeps us busy has its deadlines too.
        let _ = self.poll_timer(cx, sleep);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ready if something was done and more may be possible.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Turn>> {
        let mut worked = false;
        match self.shared.outbox.take(cx, &mut self.mail) {
            Taken::Mail => {
                self.deliver();
                worked = true;
            }
            Taken::Nothing => {}
            Taken::Closed => return Poll::Ready(Err(self.closed())),
        }
        worked |= self.poll_write(cx);
        if self.session.is_finished() && self.output.is_empty() {
            return Poll::Ready(Ok(Turn::Ended));
        }
        if self.may_read() && self.poll_read(cx)? {
            self.submit_commands();
            worked = true;
        }
        if worked { Poll::Ready(Ok(Turn::Worked)) } else { Poll::Pending }
    }

    /// Ready when the timer has fired: the session's deadline, or that of a write, may have come.
    fn poll_timer(&mut self, cx: &mut Context<'_>, mut sleep: Pin<&mut Sleep>) -> Poll<()> {
        loop {
            let write_by = self.blocked.zip(self.session.heartbeat_interval()).map(|(since, limit)| since + limit);
            let Some(deadline) = self.session.deadline().into_iter().chain(write_by).min() else {
                return Poll::Pending;
            };
            if self.armed.is_none_or(|armed| deadline < armed) {
                self.armed = Some(deadline);
                sleep.as_mut().reset(self.broker.clock.at(deadline));
            }
            ready!(sleep.as_mut().poll(cx));
            self.armed = None;
            let now = self.broker.now();
            if write_by.is_some_and(|write_by| write_by <= now.instant) {
                self.given_up = true;
                self.shared.outbox.close();
                return Poll::Ready(());
            }
            if deadline <= now.instant {
                let session = &mut self.session;
                self.output.append(|bytes| {
                    session.flush(now, bytes);
                    0
                });
                return Poll::Ready(());
            }
        }
    }

    /// Puts what topics had to say into words.
    fn deliver(&mut self) {
        let (session, Mail { frames, events }) = (&mut self.session, &mut self.mail);
        let now = self.broker.now();
        self.output.append(|bytes| session.write(now, events, frames, bytes));
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> bool {
        if self.deaf {
            self.output.discard();
            return false;
        }
        let mut wrote = false;
        while !self.output.is_empty() {
            let Poll::Ready(written) = self.output.poll_write(cx, Pin::new(&mut self.stream)) else {
                self.blocked.get_or_insert_with(|| self.broker.now().instant);
                break;
            };
            self.blocked = None;
            wrote = true;
            match written {
                Ok(room) => self.room += room,
                Err(error) => {
                    self.go_deaf(&error);
                    return true;
                }
            }
        }
        if self.room >= ROOM {
            self.give_room();
        }
        wrote
    }

    /// What is handed out from now on would only have to come back.
    fn go_deaf(&mut self, error: &io::Error) {
        tracing::debug!("client({}): takes nothing any more - {error}", self.address());
        self.submit_to_subscribed(Input::Ready { conn: self.id, count: 0 });
        self.deaf = true;
        self.deliver();
    }

    /// A consumer is always read; others only while they take their replies, and publish no faster than is written.
    fn may_read(&self) -> bool {
        let keeps_up = self.output.waiting() < REPLIES_MAX && self.session.owes() < OWED_MAX;
        !self.eof && !self.session.is_finished() && (self.subscribed.is_some() || keeps_up)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let message = usize::try_from(self.broker.options().max_msg_size).unwrap_or(usize::MAX);
        if self.output.waiting() > CONSUMER_REPLIES_MAX.saturating_add(message) {
            return Err(io::Error::other("the consumer sends commands but takes no replies"));
        }
        self.input.reserve(self.read);
        let room = self.input.capacity() - self.input.len();
        let read = pin!(self.stream.read_buf(&mut self.input));
        let Poll::Ready(bytes) = read.poll(cx)? else { return Ok(false) };
        if bytes == 0 {
            self.eof = true;
            self.session.eof(self.broker.now());
        } else {
            self.session.read(self.broker.now(), &mut self.input, &mut self.commands);
        }
        let least = if self.subscribed.is_some() { READ_FINS } else { READ_MIN };
        self.read = match bytes {
            _ if bytes == room => READ_MAX.min(self.read * READ_GROWTH),
            ..=READ_MIN => least,
            ..=READ_SMALL if self.commands.len() >= READ_COMMANDS => least,
            _ => self.read,
        };
        Ok(true)
    }

    /// Hands all commands read to their topics, and puts the answers into words.
    fn submit_commands(&mut self) {
        while let Some(Command { target, input }) = self.commands.pop_front() {
            match target {
                Target::Subscribed => self.submit_to_subscribed(input),
                Target::Topic(name) if matches!(input, Input::Subscribe { .. }) => self.subscribe(&name, input),
                Target::Topic(name) => self.publish(&name, input),
            }
        }
        self.deliver();
        self.shared.update(self.session.client(), self.session.state());
    }

    /// Submits a run of FINs, RDYs and the like.
    fn submit_to_subscribed(&mut self, first: Input) {
        let Some(topic) = self.subscribed.clone() else { return };
        self.batch.push_back(first);
        while let Some(next) = self.commands.pop_front_if(|next| next.target == Target::Subscribed) {
            self.batch.push_back(next.input);
        }
        if self.deaf {
            self.batch.retain(|input| !matches!(input, Input::Ready { .. }));
        }
        if self.room > 0 {
            self.batch.push_back(Input::Room { conn: self.id, bytes: std::mem::take(&mut self.room) });
        }
        self.submit(&topic, false);
        // If the topic has gone, so has what the commands were about, and the connection is about to end.
        self.batch.clear();
    }

    /// Submits a run of publishes to one topic.
    fn publish(&mut self, name: &TopicName, first: Input) {
        self.batch.push_back(first);
        let same = |next: &mut Command| {
            matches!(&next.target, Target::Topic(other) if other == name) && matches!(next.input, Input::Publish { .. })
        };
        while let Some(next) = self.commands.pop_front_if(same) {
            self.batch.push_back(next.input);
        }
        let messages = self.batch.iter().map(|input| match input {
            Input::Publish { bodies, .. } => bodies.len() as u64,
            _ => 0,
        });
        let messages: u64 = messages.sum();
        while !self.batch.is_empty() {
            let publishing = match self.publishing.take() {
                Some(publishing) if publishing.name == *name && !publishing.topic.is_gone() => publishing,
                _ => Publishing {
                    name: name.clone(),
                    topic: self.broker.topic(name),
                    count: self.shared.published(name),
                },
            };
            self.submit(&publishing.topic, false);
            if self.batch.is_empty() {
                publishing.count.fetch_add(messages, Ordering::Relaxed);
            }
            self.publishing = Some(publishing);
        }
    }

    fn subscribe(&mut self, name: &TopicName, input: Input) {
        self.batch.push_back(input);
        while !self.batch.is_empty() {
            let topic = self.broker.topic(name);
            self.submit(&topic, true);
            self.subscribed = Some(topic);
        }
    }

    /// Submits the batch; what is left of it afterwards is for the topic's successor.
    fn submit(&mut self, topic: &Arc<SharedTopic>, subscribe: bool) {
        let subscribe = subscribe.then_some(&self.shared.outbox);
        let caller = Caller { conn: self.id, mail: &mut self.mail, subscribe };
        let _ = topic.submit(&self.broker, &mut self.batch, Some(caller));
    }

    /// Tells the topic that frames have left, if it may be waiting for that.
    fn give_room(&mut self) {
        let input = Input::Room { conn: self.id, bytes: std::mem::take(&mut self.room) };
        self.submit_to_subscribed(input);
        self.deliver();
    }

    /// Nothing to do for now: what is idle costs little memory.
    fn release_buffers(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        self.output.shrink(IDLE_BUFFER);
        if self.mail.frames.capacity() > IDLE_BUFFER {
            self.mail = Mail::default();
        }
        if self.commands.capacity() > IDLE_COMMANDS {
            (self.commands, self.batch) = (VecDeque::new(), VecDeque::new());
        }
    }

    /// Why its outbox was closed: the peer was given up, or the process ends.
    fn closed(&self) -> io::Error {
        io::Error::other(if self.given_up { "it takes nothing" } else { "nsqd is exiting" })
    }

    fn address(&self) -> &str {
        &self.session.client().remote_address
    }

    fn say_why(&self, end: &End) {
        let address = self.address();
        match (end, self.session.cause()) {
            (_, Some(Cause::Error(text))) => {
                tracing::error!("client({address}): closing - {}", String::from_utf8_lossy(text));
            }
            (_, Some(Cause::Silence)) => tracing::info!("client({address}): closing - it answers no heartbeat"),
            (_, Some(Cause::Deleted)) => tracing::info!("client({address}): closing - its channel was deleted"),
            (End::Gone(error), None) => tracing::info!("client({address}): closing - {error}"),
            (End::Farewell, None) => tracing::info!("client({address}): closing"),
        }
    }

    fn leave(&self) {
        if let Some(topic) = &self.subscribed {
            topic.leave(&self.broker, self.id);
        }
    }
}

enum Turn {
    Worked,
    Ended,
}
