//! One consuming connection (spec: nsqd_protocol §1.9 FIN, §2.1, §2.6).
//!
//! Comes in: a subscribed connection. Goes out: counts, and end to end latencies where bodies are stamped. The rule:
//! the FINs of all messages of one read leave in one write, and the clock is read once per read.

use super::connection::{Connection, Frame};
use super::gate::{Gate, Phase};
use super::publisher::read_stamp;
use super::tally::Tally;
use anyhow::{Result, bail};
use std::time::Instant;

/// A consuming connection.
pub(super) struct Consumer {
    connection: Connection,
    rdy: u64,
    /// The number of the run whose messages are timed, if any.
    run: Option<u64>,
    fins: Vec<u8>,
    tally: Tally,
}

impl Consumer {
    /// A consumer on a connection that has subscribed.
    pub(super) fn new(connection: Connection, rdy: u64, run: Option<u64>) -> Self {
        Self { connection, rdy, run, fins: Vec::new(), tally: Tally::default() }
    }

    /// Consumes until the run stops.
    pub(super) fn run(mut self, gate: &Gate) -> Result<Tally> {
        self.connection.ready(self.rdy)?;
        while gate.phase() < Phase::Stop {
            if self.connection.receive()? {
                let (count, bytes) = self.take_messages(gate)?;
                self.connection.send(&self.fins)?;
                self.fins.clear();
                gate.add_received(count, bytes);
            }
        }
        Ok(self.tally)
    }

    /// Counts and times what was read and prepares its FINs; returns how many messages and bytes of bodies belong to
    /// this run.
    fn take_messages(&mut self, gate: &Gate) -> Result<(u64, u64)> {
        let now = gate.nanos(Instant::now());
        let (mut count, mut bytes) = (0, 0);
        while let Some(frame) = self.connection.next_frame()? {
            let Frame::Message { attempts, id, body } = frame else { bail!("an answer that nothing was asked for") };
            let size = body.len() as u64;
            self.fins.extend_from_slice(b"FIN ");
            self.fins.extend_from_slice(self.connection.bytes(id));
            self.fins.push(b'\n');
            self.tally.redelivered += u64::from(attempts > 1);
            if let Some(run) = self.run {
                match read_stamp(self.connection.bytes(body)) {
                    Some((number, due)) if number == run => {
                        if due >= gate.measured_from() {
                            self.tally.latency.saturating_record(now.saturating_sub(due));
                        }
                    }
                    _ => {
                        self.tally.foreign += 1;
                        continue;
                    }
                }
            }
            count += 1;
            bytes += size;
        }
        Ok((count, bytes))
    }
}
