//! One socket to an nsqd, and the task that serves it.
//!
//! In: commands, from any thread, into a [`Line`]. Out: core's events, as they come, and at the end why it ended and
//! what became of publishes. The one rule: whatever the peer does, the task ends: it is refused, silent, or closed by
//! us.

use super::clock::Clock;
use bytes::BytesMut;
use nsq_core::client::connection::{Event, Purpose, Unanswered};
use nsq_core::client::{Command, Connection, Settings};
use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{sleep_until, timeout};

/// Where commands wait for their connection's task.
pub(super) struct Line {
    pub(super) address: Arc<str>,
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Default)]
struct Queue {
    commands: VecDeque<Command>,
    closing: bool,
    /// Why nothing more is to be said.
    abandoned: Option<String>,
}

/// What a connection needs to know.
pub(super) struct Terms {
    pub(super) clock: Clock,
    pub(super) settings: Arc<Settings>,
    pub(super) purpose: Purpose,
}

/// Bytes that a read has room for at least.
const READ: usize = 16 * 1024;
/// How long the last commands may take to leave.
const LINGER: Duration = Duration::from_secs(2);

impl Line {
    pub(super) fn new(address: &str) -> Arc<Self> {
        Arc::new(Self { address: address.into(), queue: Mutex::default(), wake: Notify::new() })
    }

    /// Says this to nsqd, in the order of calls.
    pub(super) fn send(&self, command: Command) {
        let mut queue = self.lock();
        queue.commands.push_back(command);
        // More than one in the queue: the task has been woken and has not come yet.
        if queue.commands.len() == 1 {
            self.wake.notify_one();
        }
    }

    /// Ends the connection after all that was said so far.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.wake.notify_one();
    }

    /// Ends the connection at once, whatever was said.
    pub(super) fn abandon(&self, reason: String) {
        self.lock().abandoned = Some(reason);
        self.wake.notify_one();
    }

    async fn closed(&self) {
        while !self.lock().closing {
            self.wake.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects, and serves the connection to its end: why it ended, and what has become of publishes.
    pub(super) async fn run(&self, terms: Terms, events: impl FnMut(&mut Vec<Event>)) -> (String, Unanswered) {
        let limit = terms.settings.connect_timeout;
        let connected = tokio::select! {
            biased;
            () = self.closed() => return ("closed".to_string(), Unanswered::default()),
            connected = timeout(limit, TcpStream::connect(&*self.address)) => connected,
        };
        let stream = match connected {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return (error.to_string(), Unanswered::default()),
            Err(_) => return (format!("no connection within {limit:?}"), Unanswered::default()),
        };
        // Frames are batched here, not by the kernel.
        let _ = stream.set_nodelay(true);
        let mut output = BytesMut::new();
        let connection = Connection::new(terms.clock.now(), terms.settings, terms.purpose, &mut output);
        let mut served = Served { connection, clock: terms.clock, output, written: 0, events };
        let reason = match self.serve(stream, &mut served).await {
            Ok(()) => "closed".to_string(),
            Err(reason) => reason,
        };
        (reason, served.connection.end(served.written))
    }

    async fn serve<E: FnMut(&mut Vec<Event>)>(
        &self,
        mut stream: TcpStream,
        served: &mut Served<E>,
    ) -> Result<(), String> {
        let (mut reading, mut writing) = stream.split();
        let mut input = BytesMut::new();
        let mut commands = VecDeque::new();
        let clock = served.clock;
        let mut silence = pin!(sleep_until(clock.at(served.connection.deadline())));
        loop {
            let closing = {
                let mut queue = self.lock();
                if let Some(reason) = queue.abandoned.take() {
                    return Err(reason);
                }
                std::mem::swap(&mut commands, &mut queue.commands);
                queue.closing
            };
            commands.drain(..).for_each(|command| served.connection.send(command, &mut served.output));
            if closing {
                let rest = async {
                    writing.write_all(&served.output).await?;
                    writing.shutdown().await
                };
                // It has ended either way.
                let _ = timeout(LINGER, rest).await;
                return Ok(());
            }
            input.reserve(READ);
            tokio::select! {
                biased;
                read = reading.read_buf(&mut input) => served.read(read, &mut input)?,
                written = writing.write_buf(&mut served.output), if !served.output.is_empty() => {
                    served.written += written.map_err(|error| error.to_string())? as u64;
                }
                () = self.wake.notified() => {}
                () = &mut silence => {
                    served.connection.tick(clock.now()).map_err(|fault| fault.to_string())?;
                    silence.as_mut().reset(clock.at(served.connection.deadline()));
                }
            }
        }
    }
}

/// A connection being served.
struct Served<E> {
    connection: Connection,
    clock: Clock,
    output: BytesMut,
    /// Bytes that the socket has taken.
    written: u64,
    events: E,
}

impl<E: FnMut(&mut Vec<Event>)> Served<E> {
    fn read(&mut self, read: io::Result<usize>, input: &mut BytesMut) -> Result<(), String> {
        if read.map_err(|error| error.to_string())? == 0 {
            return Err("nsqd closed the connection".to_string());
        }
        let mut events = Vec::new();
        let result = self.connection.read(self.clock.now(), input, &mut events, &mut self.output);
        if !events.is_empty() {
            (self.events)(&mut events);
        }
        result.map_err(|fault| fault.to_string())
    }
}
