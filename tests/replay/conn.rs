//! One connection of a transcript: blocking, buffered, every wait bounded by a deadline.
//!
//! Bytes that came wait in the buffer until an expectation takes them; at the end of a scenario it must be empty.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::failure::Outcome;
use super::text::show;

const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const LARGEST: usize = 1 << 28;

/// What a connection needs of a socket.
trait Stream: Read + Write + Send {
    fn set_timeouts(&self, read: Duration, write: Duration) -> io::Result<()>;
    fn close_sending(&self) -> io::Result<()>;
}

macro_rules! stream {
    ($socket:ty) => {
        impl Stream for $socket {
            fn set_timeouts(&self, read: Duration, write: Duration) -> io::Result<()> {
                self.set_read_timeout(Some(read))?;
                self.set_write_timeout(Some(write))
            }

            fn close_sending(&self) -> io::Result<()> {
                self.shutdown(Shutdown::Write)
            }
        }
    };
}
stream!(TcpStream);
stream!(UnixStream);

pub(crate) struct Conn {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    ended: bool,
}

impl Conn {
    pub(crate) fn dial(port: u16) -> Outcome<Self> {
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT);
        Self::over(stream.map_err(|error| format!("cannot connect to {address}: {error}"))?)
    }

    pub(crate) fn dial_unix(path: &str) -> Outcome<Self> {
        let stream = UnixStream::connect(path).map_err(|error| format!("cannot connect to {path}: {error}"))?;
        Ok(Self { stream: Box::new(stream), buffer: Vec::new(), ended: false })
    }

    pub(crate) fn over(stream: TcpStream) -> Outcome<Self> {
        let ready = stream.set_nodelay(true).and_then(|()| stream.set_nonblocking(false));
        ready.map_err(|error| format!("cannot prepare a socket: {error}"))?;
        Ok(Self { stream: Box::new(stream), buffer: Vec::new(), ended: false })
    }

    /// Sends all of it. If the other side is gone, the next expectation tells.
    pub(crate) fn send(&mut self, data: &[u8]) {
        let _ = self.stream.set_timeouts(WRITE_TIMEOUT, WRITE_TIMEOUT).and_then(|()| self.stream.write_all(data));
    }

    pub(crate) fn close_sending(&self) {
        let _ = self.stream.close_sending();
    }

    /// Reads once; false if the time is up or the other side has closed.
    pub(crate) fn fill(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        if self.ended || left.is_zero() {
            return false;
        }
        let mut chunk = [0; 1 << 16];
        let read = self.stream.set_timeouts(left, WRITE_TIMEOUT).and_then(|()| self.stream.read(&mut chunk));
        match &read {
            Ok(length) => {
                self.buffer.extend_from_slice(&chunk[..*length]);
                self.ended = *length == 0;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(error) => self.ended = !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        }
        matches!(read, Ok(1..))
    }

    /// Reads until the other side closes or the time is up.
    pub(crate) fn fill_to_end(&mut self, deadline: Instant) {
        while self.fill(deadline) {}
    }

    /// Whether the other side has closed, as far as was read.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// What came and was not taken yet.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.buffer
    }

    /// Waits for so many bytes without taking them.
    pub(crate) fn peek(&mut self, size: usize, deadline: Instant) -> Outcome<&[u8]> {
        while self.buffer.len() < size {
            if !self.fill(deadline) && self.buffer.len() < size {
                let what = if self.ended { "the connection closed" } else { "nothing more came" };
                let unread = if self.buffer.is_empty() { "nothing".into() } else { show(&self.buffer, 400) };
                return Err(format!("{what}; unread: {unread}").into());
            }
        }
        Ok(&self.buffer[..size])
    }

    pub(crate) fn take(&mut self, size: usize, deadline: Instant) -> Outcome<Vec<u8>> {
        self.peek(size, deadline)?;
        Ok(self.buffer.drain(..size).collect())
    }

    /// Takes everything up to `mark` and the mark itself, which is not returned.
    pub(crate) fn take_until(&mut self, mark: &[u8], deadline: Instant) -> Outcome<Vec<u8>> {
        let end = loop {
            if let Some(end) = self.buffer.windows(mark.len()).position(|window| window == mark) {
                break end;
            }
            self.peek(self.buffer.len() + 1, deadline)?;
        };
        let mut taken = self.take(end + mark.len(), deadline)?;
        taken.truncate(end);
        Ok(taken)
    }

    /// Takes an int32 length and that many bytes.
    pub(crate) fn take_sized(&mut self, deadline: Instant) -> Outcome<Vec<u8>> {
        let head = self.peek(4, deadline)?;
        let size = i32::from_be_bytes(head.try_into().expect("four bytes"));
        let Some(size) = usize::try_from(size).ok().filter(|size| *size < LARGEST) else {
            return Err(format!("not a length: {}", show(&self.buffer, 200)).into());
        };
        let mut taken = self.take(4 + size, deadline)?;
        Ok(taken.split_off(4))
    }
}
