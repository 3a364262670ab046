//! `sink`: a server that only moves bytes, the ceiling for what `pub` and `sub` can show on a machine.
//!
//! Comes in: V2 connections. PUB and MPUB are skipped over and answered with `OK`; a consumer gets the same message
//! again and again, as many as its RDY and its FINs allow. Nothing is queued, checked or kept. The rule: one read, one
//! scan, one write, as the best of servers could do.

use super::frames::READ_BUFFER;
use super::options::Options;
use anyhow::{Context, Result, bail};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// What the sink accepts as RDY. It writes before it reads again, so all FINs of that many messages must fit the
/// socket's buffers.
const MAX_RDY: usize = 2500;

/// The longest command line that is waited for.
const MAX_LINE: usize = 1024;

/// Serves until the process is killed.
pub(super) fn run(options: &Options) -> Result<()> {
    let listener =
        TcpListener::bind(&options.address).with_context(|| format!("cannot listen on {}", options.address))?;
    eprintln!("sink: listening on {}, pid {}", listener.local_addr()?, std::process::id());
    serve(&listener, options.body_size)
}

/// Serves connections that arrive at `listener`, a thread each; messages have bodies of `body_size` bytes.
pub(super) fn serve(listener: &TcpListener, body_size: usize) -> Result<()> {
    let message = message(body_size);
    thread::scope(|scope| {
        for stream in listener.incoming() {
            let stream = stream.context("cannot accept a connection")?;
            let message = &message;
            scope.spawn(move || {
                // Clients that leave in the middle of a run are the rule here, so only what is not the socket's end is
                // worth a line.
                if let Err(error) = Peer::new(stream, message).serve()
                    && !error.is::<io::Error>()
                {
                    eprintln!("sink: {error:#}");
                }
            });
        }
        Ok(())
    })
}

/// One connection: its unscanned bytes are `buffer[start..end]`.
struct Peer<'a> {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes of bodies that are still to arrive.
    skip: usize,
    replies: Vec<u8>,
    rdy: usize,
    in_flight: usize,
    message: &'a [u8],
    /// As many copies of the message as one write carries.
    messages: Vec<u8>,
}

impl<'a> Peer<'a> {
    fn new(stream: TcpStream, message: &'a [u8]) -> Self {
        let messages = message.repeat((READ_BUFFER / message.len()).max(1));
        let buffer = vec![0; READ_BUFFER];
        Self { stream, buffer, start: 0, end: 0, skip: 0, replies: Vec::new(), rdy: 0, in_flight: 0, message, messages }
    }

    fn serve(mut self) -> Result<()> {
        self.stream.set_nodelay(true)?;
        let mut magic = [0; 4];
        self.stream.read_exact(&mut magic)?;
        if &magic != b"  V2" {
            bail!("a peer began with {:?}, not with the magic of V2", String::from_utf8_lossy(&magic));
        }
        loop {
            if self.start == self.end {
                (self.start, self.end) = (0, 0);
            } else if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            match self.stream.read(&mut self.buffer[self.end..])? {
                0 => return Ok(()),
                read => self.end += read,
            }
            while self.command()? {}
            self.stream.write_all(&self.replies)?;
            self.replies.clear();
            self.deliver()?;
        }
    }

    /// Scans one command; false if it is not complete yet.
    fn command(&mut self) -> Result<bool> {
        let skipped = self.skip.min(self.end - self.start);
        self.start += skipped;
        self.skip -= skipped;
        let bytes = &self.buffer[self.start..self.end];
        let Some(line) = bytes.iter().take(MAX_LINE).position(|byte| *byte == b'\n') else {
            if bytes.len() >= MAX_LINE {
                bail!("a command line of more than {MAX_LINE} bytes");
            }
            return Ok(false);
        };
        let rest = &bytes[line + 1..];
        let body = |rest: &[u8]| rest.first_chunk().map(|size| u32::from_be_bytes(*size) as usize);
        match &bytes[..line] {
            [b'F', b'I', b'N', ..] => self.in_flight = self.in_flight.saturating_sub(1),
            [b'P', b'U', b'B', ..] | [b'M', b'P', b'U', b'B', ..] => {
                let Some(size) = body(rest) else { return Ok(false) };
                self.start += 4;
                self.skip = size;
                self.replies.extend_from_slice(&response(b"OK"));
            }
            [b'I', b'D', b'E', b'N', ..] => {
                let Some(size) = body(rest) else { return Ok(false) };
                self.start += 4;
                self.skip = size;
                let reply = format!(r#"{{"version":"sink","max_rdy_count":{MAX_RDY}}}"#);
                self.replies.extend_from_slice(&response(reply.as_bytes()));
            }
            [b'S', b'U', b'B', ..] => self.replies.extend_from_slice(&response(b"OK")),
            [b'R', b'D', b'Y', b' ', count @ ..] => {
                let count = str::from_utf8(count).ok().and_then(|count| count.parse().ok());
                self.rdy = count.filter(|count| *count <= MAX_RDY).context("RDY with a count out of range")?;
            }
            b"NOP" => (),
            other => bail!("the sink does not know {:?}", String::from_utf8_lossy(other)),
        }
        self.start += line + 1;
        Ok(true)
    }

    /// Sends what RDY allows.
    fn deliver(&mut self) -> Result<()> {
        while self.in_flight < self.rdy {
            let count = (self.rdy - self.in_flight).min(self.messages.len() / self.message.len());
            self.stream.write_all(&self.messages[..count * self.message.len()])?;
            self.in_flight += count;
        }
        Ok(())
    }
}

fn response(data: &[u8]) -> Vec<u8> {
    [&(data.len() as u32 + 4).to_be_bytes()[..], &[0; 4], data].concat()
}

/// A message frame, attempt 1.
fn message(body_size: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend_from_slice(&(4 + 26 + body_size as u32).to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    frame.extend_from_slice(b"0123456789abcdef");
    frame.resize(frame.len() + body_size, b'.');
    frame
}
