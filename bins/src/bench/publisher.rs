//! One publishing connection (spec: nsqd_protocol §1.9 PUB, MPUB).
//!
//! Comes in: requests encoded once, a depth, and perhaps a schedule. Goes out: the latency of each acknowledgement in a
//! [`Tally`]. One thread writes and reads in turn: it sends what is due and fits the depth in one write, then takes all
//! the `OK`s of one read. The rule: with a schedule, latency counts from the scheduled time, whatever delayed the
//! sending.

use super::connection::{Connection, Frame, TICK};
use super::gate::{Gate, Phase};
use super::options::Options;
use super::pace::Schedule;
use super::tally::{Tally, nanos};
use anyhow::{Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes at the front of a stamped body: the run's number, and the time that the message was due ([`Gate::nanos`]).
pub(super) const STAMP: usize = 16;

/// Requests are written together up to about this many bytes.
const WRITE: usize = 64 * 1024;

/// A publishing connection.
pub(super) struct Publisher {
    connection: Connection,
    requests: Requests,
    depth: usize,
    schedule: Option<Schedule>,
    /// Requests sent, and those among them without an answer by the time from which their latency counts.
    sent: u64,
    unanswered: VecDeque<Instant>,
    exhausted: bool,
    tally: Tally,
}

impl Publisher {
    /// A producer; `run` is the number to stamp into bodies, if they are to be stamped.
    pub(super) fn new(connection: Connection, options: &Options, schedule: Option<Schedule>, run: Option<u64>) -> Self {
        Self {
            connection,
            requests: Requests::new(options, run),
            depth: options.depth,
            schedule,
            sent: 0,
            unanswered: VecDeque::with_capacity(options.depth),
            exhausted: false,
            tally: Tally::default(),
        }
    }

    /// Publishes until the gate grants nothing more and everything sent is answered.
    pub(super) fn run(mut self, gate: &Gate) -> Result<Tally> {
        let _presence = gate.presence();
        precise_timers();
        let mut measuring = false;
        loop {
            if !measuring && gate.phase() >= Phase::Measure {
                measuring = true;
                self.tally = Tally::default();
            }
            let more = self.send_due(gate)?;
            if self.exhausted && self.unanswered.is_empty() {
                return Ok(self.tally);
            }
            if gate.phase() == Phase::Stop {
                bail!("{} publishes were never answered", self.unanswered.len());
            }
            if !more && self.readable()? && self.connection.receive()? {
                self.take_answers(gate)?;
            }
        }
    }

    /// Sends what is due, fits and is granted; true if there may be more to send at once.
    fn send_due(&mut self, gate: &Gate) -> Result<bool> {
        let now = Instant::now();
        let room = self.depth - self.unanswered.len();
        let due = self.schedule.as_ref().map_or(u64::MAX, |schedule| schedule.due_by(now).saturating_sub(self.sent));
        let wanted = room.min(self.requests.copies).min(usize::try_from(due).unwrap_or(usize::MAX));
        if self.exhausted || wanted == 0 {
            self.exhausted |= gate.phase() >= Phase::Drain;
            return Ok(false);
        }
        let granted = gate.claim(wanted);
        self.exhausted = granted < wanted;
        for copy in 0..granted {
            let due = match &self.schedule {
                Some(schedule) => schedule.due(self.sent),
                None => now,
            };
            if self.schedule.is_some() {
                self.tally.lag.saturating_record(nanos(now - due));
            }
            self.requests.stamp(copy, gate.nanos(due));
            self.unanswered.push_back(due);
            self.sent += 1;
        }
        self.connection.send(self.requests.first(granted))?;
        Ok(!self.exhausted && granted < room && self.schedule.is_none())
    }

    /// Waits for an answer; with a schedule and room no longer than until the next request is due.
    fn readable(&self) -> Result<bool> {
        let Some(schedule) = &self.schedule else { return Ok(true) };
        if self.exhausted || self.unanswered.len() == self.depth {
            return Ok(true);
        }
        let wait = schedule.due(self.sent).saturating_duration_since(Instant::now()).min(TICK);
        if self.requests.stamped {
            // The bodies carry the time, nobody times the answers: waking up for them would only take time from the
            // server.
            thread::sleep(wait);
            return wait_readable(&self.connection, Duration::ZERO);
        }
        wait_readable(&self.connection, wait)
    }

    fn take_answers(&mut self, gate: &Gate) -> Result<()> {
        let now = Instant::now();
        let mut answers = 0;
        while let Some(frame) = self.connection.next_frame()? {
            match frame {
                Frame::Response(data) if self.connection.bytes(data.clone()) == b"OK" => {
                    let Some(due) = self.unanswered.pop_front() else { bail!("an OK that nothing was sent for") };
                    self.tally.acknowledgement.saturating_record(nanos(now - due));
                    answers += 1;
                }
                _ => bail!("nsqd answered a publish with something else than OK"),
            }
        }
        gate.add_published(answers * self.requests.batch as u64);
        Ok(())
    }
}

/// Copies of one encoded PUB or MPUB, one after the other.
struct Requests {
    bytes: Vec<u8>,
    batch: usize,
    copies: usize,
    /// Bytes of one copy; where its first body begins; from one body to the next.
    length: usize,
    first_body: usize,
    stride: usize,
    stamped: bool,
}

impl Requests {
    fn new(options: &Options, run: Option<u64>) -> Self {
        let (topic, batch, size) = (&options.topic, options.batch, options.body_size);
        let mut body = vec![b'.'; size];
        if let Some(run) = run {
            body[..STAMP / 2].copy_from_slice(&run.to_be_bytes());
        }
        let field = (size as u32).to_be_bytes();
        let mut request = Vec::new();
        if batch == 1 {
            request.extend_from_slice(format!("PUB {topic}\n").as_bytes());
        } else {
            request.extend_from_slice(format!("MPUB {topic}\n").as_bytes());
            request.extend_from_slice(&((4 + batch * (4 + size)) as u32).to_be_bytes());
            request.extend_from_slice(&(batch as u32).to_be_bytes());
        }
        let first_body = request.len() + 4;
        for _ in 0..batch {
            request.extend_from_slice(&field);
            request.extend_from_slice(&body);
        }
        let length = request.len();
        let copies = (WRITE / length).clamp(1, options.depth);
        Self {
            bytes: request.repeat(copies),
            batch,
            copies,
            length,
            first_body,
            stride: 4 + size,
            stamped: run.is_some(),
        }
    }

    /// Writes the due time into every body of a copy.
    fn stamp(&mut self, copy: usize, nanos: u64) {
        if !self.stamped {
            return;
        }
        let first = copy * self.length + self.first_body + STAMP / 2;
        for message in 0..self.batch {
            let at = first + message * self.stride;
            self.bytes[at..at + 8].copy_from_slice(&nanos.to_be_bytes());
        }
    }

    fn first(&self, count: usize) -> &[u8] {
        &self.bytes[..count * self.length]
    }
}

/// The run's number and the time of a stamped body.
pub(super) fn read_stamp(body: &[u8]) -> Option<(u64, u64)> {
    let (run, rest) = body.split_first_chunk()?;
    let (nanos, _) = rest.split_first_chunk()?;
    Some((u64::from_be_bytes(*run), u64::from_be_bytes(*nanos)))
}

/// Waits until there is something to read, sleeping to the microsecond where a socket's own timeout would round to the
/// kernel's ticks.
fn wait_readable(connection: &Connection, wait: Duration) -> Result<bool> {
    let timeout = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
    match poll(&mut [PollFd::new(connection.stream(), PollFlags::IN)], Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Lets this thread's sleeps end when they are due, not up to 50 us later, without spinning on a core that the server
/// needs.
fn precise_timers() {
    // Where it is refused the schedule is met a little later; the report shows by how much.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1000));
}

#[cfg(test)]
mod tests {
    use super::super::options::Request;
    use super::*;

    fn options(line: &str) -> Options {
        match Options::parse(line.split(' ').map(Into::into)).unwrap() {
            Request::Run(options) => *options,
            _ => panic!("not a run"),
        }
    }

    #[test]
    fn a_publish_is_encoded_as_the_protocol_says() {
        let requests = Requests::new(&options("pub --topic t --batch 1 --body-size 3 --depth 2"), None);
        assert_eq!(requests.first(2), b"PUB t\n\0\0\0\x03...PUB t\n\0\0\0\x03...");
        let requests = Requests::new(&options("pub --topic t --batch 2 --body-size 3"), None);
        assert_eq!(requests.first(1), b"MPUB t\n\0\0\0\x12\0\0\0\x02\0\0\0\x03...\0\0\0\x03...");
    }

    #[test]
    fn every_body_of_a_stamped_copy_carries_the_run_and_its_own_time() {
        let mut requests = Requests::new(&options("e2e --topic t --batch 3 --body-size 20 --depth 2"), Some(7));
        requests.stamp(0, 111);
        requests.stamp(1, 222);
        for (copy, nanos) in [(0, 111), (1, 222)] {
            let bytes = &requests.first(2)[copy * requests.length..];
            let bodies = bytes[b"MPUB t\n".len() + 8..requests.length].chunks(24);
            let stamps: Vec<_> = bodies.map(|body| read_stamp(&body[4..])).collect();
            assert_eq!(stamps, [Some((7, nanos)); 3]);
        }
        assert_eq!(read_stamp(b"short"), None);
    }
}
