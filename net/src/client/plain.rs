//! A plain producer and a plain consumer of one nsqd: what the tests and the simulator speak to the server with.
//!
//! No reconnecting, no discovery, no backoff: an error ends a client, and whoever uses it decides what that means.
//! Dropped futures are safe between frames only, so [`Consumer::next`] keeps half a frame for its next call.

use bytes::{Bytes, BytesMut};
use nsq_core::message::MessageId;
use nsq_core::wire::{self, Frame, Message};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How a publish ended, if the answer came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// `OK`: nsqd has it.
    Accepted,
    /// An error frame with this text: none of a single message was taken; of several, any may have been.
    Refused(String),
}

/// A connection to an nsqd, after the magic.
struct Connection {
    stream: TcpStream,
    input: BytesMut,
    output: BytesMut,
}

impl Connection {
    async fn open(address: &str, identify: Option<&str>) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut connection = Self { stream, input: BytesMut::new(), output: BytesMut::from(&wire::MAGIC[..]) };
        if let Some(json) = identify {
            wire::identify(json.as_bytes(), &mut connection.output);
            connection.flush().await?;
            connection.response().await?;
        }
        Ok(connection)
    }

    async fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            self.stream.write_buf(&mut self.output).await?;
        }
        Ok(())
    }

    /// The next frame that is not a heartbeat; heartbeats are answered. Safe to drop while it waits.
    async fn next(&mut self) -> io::Result<Frame> {
        loop {
            self.flush().await?;
            match wire::decode(&mut self.input).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.0))? {
                Some(Frame::Response(data)) if data == wire::HEARTBEAT => wire::nop(&mut self.output),
                Some(frame) => return Ok(frame),
                None => {
                    if self.stream.read_buf(&mut self.input).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
    }

    async fn response(&mut self) -> io::Result<Bytes> {
        match self.next().await? {
            Frame::Response(data) => Ok(data),
            other => Err(io::Error::other(format!("expected a response, got {other:?}"))),
        }
    }
}

/// Publishes to one nsqd, one request at a time.
pub struct Producer(Connection);

impl Producer {
    /// Connects; IDENTIFYs with the JSON if there is any.
    ///
    /// # Errors
    /// If the connection cannot be made, or IDENTIFY is refused.
    pub async fn connect(address: &str, identify: Option<&str>) -> io::Result<Self> {
        Connection::open(address, identify).await.map(Self)
    }

    /// PUB, or DPUB if there is a delay.
    ///
    /// # Errors
    /// If no answer came: nsqd may have taken the message or not.
    pub async fn publish(&mut self, topic: &str, body: &[u8], delay: Duration) -> io::Result<Published> {
        if delay.is_zero() {
            wire::publish(topic, body, &mut self.0.output);
        } else {
            wire::publish_deferred(topic, delay, body, &mut self.0.output);
        }
        self.answer().await
    }

    /// MPUB.
    ///
    /// # Errors
    /// If no answer came: nsqd may have taken any of the messages.
    pub async fn publish_many(&mut self, topic: &str, bodies: &[impl AsRef<[u8]>]) -> io::Result<Published> {
        wire::publish_many(topic, bodies, &mut self.0.output);
        self.answer().await
    }

    async fn answer(&mut self) -> io::Result<Published> {
        match self.0.next().await? {
            Frame::Response(_) => Ok(Published::Accepted),
            Frame::Error(text) => Ok(Published::Refused(String::from_utf8_lossy(&text).into_owned())),
            Frame::Message(_) => Err(io::Error::other("a producer got a message")),
        }
    }
}

/// Consumes from one nsqd. Commands are sent with the next call of [`next`](Self::next) or [`flush`](Self::flush).
pub struct Consumer(Connection);

/// What comes to a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message to finish or requeue.
    Message(Message),
    /// FIN, REQ or TOUCH failed; the text names the message.
    Failed(String),
    /// The answer to CLS.
    Closed,
}

impl Consumer {
    /// Connects and SUBs; IDENTIFYs with the JSON first if there is any.
    ///
    /// # Errors
    /// If the connection cannot be made, or a command is refused.
    pub async fn connect(address: &str, identify: Option<&str>, topic: &str, channel: &str) -> io::Result<Self> {
        let mut connection = Connection::open(address, identify).await?;
        wire::subscribe(topic, channel, &mut connection.output);
        connection.response().await?;
        Ok(Self(connection))
    }

    /// RDY: the most messages to hold at a time.
    pub fn ready(&mut self, count: u32) {
        wire::ready(count, &mut self.0.output);
    }

    /// FIN
    pub fn finish(&mut self, id: MessageId) {
        wire::finish(id, &mut self.0.output);
    }

    /// REQ
    pub fn requeue(&mut self, id: MessageId, delay: Duration) {
        wire::requeue(id, delay, &mut self.0.output);
    }

    /// TOUCH
    pub fn touch(&mut self, id: MessageId) {
        wire::touch(id, &mut self.0.output);
    }

    /// CLS
    pub fn close(&mut self) {
        wire::close(&mut self.0.output);
    }

    /// Sends the commands given so far.
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.0.flush().await
    }

    /// Sends the commands given so far, and waits for what comes next. May be dropped while it waits.
    ///
    /// # Errors
    /// If the connection is lost, or nsqd ended it with an error.
    pub async fn next(&mut self) -> io::Result<Event> {
        match self.0.next().await? {
            Frame::Message(message) => Ok(Event::Message(message)),
            Frame::Response(data) if data == "CLOSE_WAIT" => Ok(Event::Closed),
            Frame::Response(data) => Err(io::Error::other(format!("unexpected response {data:?}"))),
            Frame::Error(text) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                let failed = ["E_FIN_FAILED", "E_REQ_FAILED", "E_TOUCH_FAILED"];
                if failed.iter().any(|code| text.starts_with(code)) {
                    Ok(Event::Failed(text))
                } else {
                    Err(io::Error::other(text))
                }
            }
        }
    }
}
