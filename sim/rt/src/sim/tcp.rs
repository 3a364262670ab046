//! TCP in small: it goes back to the last acknowledged byte when something was lost.
//!
//! In: packets, the retransmission timer, closing. Out: packets and wakes. The books of each end are in `end`, the
//! application's calls in `calls`. The rule: the reader sees exactly the bytes written, in order, or an error. Never a
//! gap, never a byte twice.

use std::io;
use std::time::{Duration, Instant};

use super::end::{End, EndId, Phase};
use super::wire::{Body, Packet, State, Step};

const ACCEPT_RETRIES: u32 = 5;
const SYN_FIRST: Duration = Duration::from_secs(1);
/// How long a closed end still answers (TIME_WAIT), and waits for the peer's end of stream (FIN_WAIT2).
const LINGER: Duration = Duration::from_secs(60);

impl State {
    /// Sends a packet of this end, after all its earlier ones.
    pub(crate) fn emit(&mut self, id: EndId, body: Body) {
        let Some(end) = self.ends.get(&id) else { return };
        let (host, peer, arrival) = (end.host, end.peer, end.arrival);
        let Some(peer) = peer else {
            self.counters.dark_packets += 1;
            return;
        };
        let arrival = self.send(Packet { from: host, to: peer, dst: id.peer(), body }, arrival);
        if let Some(end) = self.ends.get_mut(&id) {
            end.arrival = arrival;
        }
    }

    pub(crate) fn answer_rst(&mut self, packet: &Packet) {
        self.counters.resets += 1;
        tracing::debug!(target: "net", at = self.name(packet.to), to = self.name(packet.from), "reset");
        let rst = Packet { from: packet.to, to: packet.from, dst: packet.dst.peer(), body: Body::Rst };
        self.send(rst, self.now);
    }

    pub(crate) fn receive(&mut self, packet: Packet) {
        let Some(end) = self.ends.get(&packet.dst) else {
            return match packet.body {
                Body::Syn { client, server } => self.receive_syn(&packet, client, server),
                Body::Rst => (),
                _ => self.answer_rst(&packet),
            };
        };
        let (id, phase, host) = (packet.dst, end.phase, end.host);
        match (&packet.body, phase) {
            (Body::Rst, _) => return self.receive_rst(id),
            (_, Phase::Dead) => return self.answer_rst(&packet),
            (Body::Syn { .. }, _) => return self.emit(id, Body::SynAck),
            (Body::SynAck, Phase::Connecting) => {
                self.counters.connects += 1;
                self.open(id);
            }
            (Body::Ack { .. } | Body::Data { .. }, Phase::Accepting { at, number }) => {
                self.open(id);
                self.enqueue(id, host, at, number);
            }
            _ => (),
        }
        match packet.body {
            Body::SynAck => self.acknowledge(id),
            Body::Data { offset, bytes, fin } => self.receive_data(id, offset, &bytes, fin),
            Body::Ack { received, fin, limit } => self.receive_ack(id, received, fin, limit),
            Body::Syn { .. } | Body::Rst => (),
        }
    }

    fn open(&mut self, id: EndId) {
        let Some(end) = self.ends.get_mut(&id) else { return };
        (end.phase, end.tries, end.deadline) = (Phase::Open, 0, None);
        self.wakes.append(&mut end.writers);
        let (local, remote) = (end.local, end.remote);
        tracing::debug!(target: "net", %local, %remote, "open");
    }

    fn receive_rst(&mut self, id: EndId) {
        let Some(end) = self.ends.get(&id) else { return };
        match end.phase {
            Phase::Accepting { .. } => _ = self.ends.remove(&id),
            Phase::Connecting => {
                self.counters.refusals += 1;
                self.fail(id, io::ErrorKind::ConnectionRefused);
            }
            _ if end.eof => self.fail(id, io::ErrorKind::BrokenPipe),
            _ => self.fail(id, io::ErrorKind::ConnectionReset),
        }
    }

    fn receive_data(&mut self, id: EndId, offset: u64, bytes: &[u8], fin: bool) {
        let Some(end) = self.ends.get_mut(&id) else { return };
        let before = end.received;
        end.take_data(offset, bytes, fin);
        if end.orphan && end.received > before {
            return self.abort(id);
        }
        if end.is_readable() {
            self.wakes.append(&mut end.readers);
        }
        self.acknowledge(id);
    }

    fn receive_ack(&mut self, id: EndId, received: u64, fin: bool, limit: u64) {
        let (now, buffer) = (self.now, self.config.send_buffer);
        let Some(end) = self.ends.get_mut(&id) else { return };
        let newly_closed = fin && !end.fin_acked;
        end.take_ack(received, fin, limit, now);
        if end.is_writable(buffer) {
            self.wakes.append(&mut end.writers);
        }
        if end.orphan && newly_closed {
            self.schedule(now + LINGER, Step::Expire(id));
        }
        self.transmit(id);
    }

    pub(super) fn acknowledge(&mut self, id: EndId) {
        let window = self.config.receive_window;
        if let Some(end) = self.ends.get_mut(&id) {
            let ack = end.ack(window);
            self.emit(id, ack);
        }
    }

    /// Sends what may be sent, and sees to it that it is repeated.
    pub(super) fn transmit(&mut self, id: EndId) {
        while let Some(segment) = self.ends.get_mut(&id).and_then(End::next_segment) {
            self.emit(id, segment);
        }
        self.arm(id);
    }

    /// Sets the retransmission timer if an answer is owed and it is not set.
    pub(crate) fn arm(&mut self, id: EndId) {
        let Some(end) = self.ends.get(&id) else { return };
        let (host, peer, tries, open) = (end.host, end.peer, end.tries, end.phase == Phase::Open);
        if !end.awaits_answer() || end.deadline.is_some() {
            return;
        }
        let wait = if open {
            let first = self.config.retransmit_first + self.round_trip(host, peer.unwrap_or(host));
            first.saturating_mul(1 << tries.min(20)).min(self.config.retransmit_max)
        } else {
            SYN_FIRST * (1 << tries.min(20))
        };
        let deadline = self.now + wait;
        let now = self.now;
        let Some(end) = self.ends.get_mut(&id) else { return };
        end.deadline = Some(deadline);
        if tries == 0 {
            end.heard = now;
        }
        if end.timer.is_none_or(|timer| deadline < timer) {
            end.timer = Some(deadline);
            self.schedule(deadline, Step::Timer(id));
        }
    }

    /// A timer of the heap went off, perhaps one that was since moved.
    pub(crate) fn timer(&mut self, id: EndId, at: Instant) {
        let now = self.now;
        let Some(end) = self.ends.get_mut(&id) else { return };
        if end.timer != Some(at) {
            return;
        }
        end.timer = None;
        match end.deadline {
            None => (),
            Some(deadline) if deadline > now => {
                end.timer = Some(deadline);
                self.schedule(deadline, Step::Timer(id));
            }
            Some(_) => self.retransmit(id),
        }
    }

    fn retransmit(&mut self, id: EndId) {
        let (now, syn_retries, limit) = (self.now, self.config.syn_retries, self.config.retransmit_limit);
        let Some(end) = self.ends.get_mut(&id) else { return };
        end.tries += 1;
        end.deadline = None;
        let body = match end.phase {
            Phase::Connecting if end.tries > syn_retries => return self.time_out(id),
            Phase::Connecting => {
                self.counters.syn_retries += 1;
                Body::Syn { client: end.local, server: end.remote }
            }
            Phase::Accepting { .. } if end.tries > ACCEPT_RETRIES => {
                self.ends.remove(&id);
                return;
            }
            Phase::Accepting { .. } => Body::SynAck,
            Phase::Open if !end.awaits_answer() => return,
            Phase::Open if now - end.heard >= limit => return self.time_out(id),
            Phase::Open => {
                self.counters.stalls += 1;
                end.repeat()
            }
            Phase::Dead => return,
        };
        self.emit(id, body);
        self.arm(id);
    }

    fn time_out(&mut self, id: EndId) {
        self.counters.timeouts += 1;
        self.fail(id, io::ErrorKind::TimedOut);
    }

    /// The connection is broken: the application learns it, an orphan vanishes.
    fn fail(&mut self, id: EndId, error: io::ErrorKind) {
        let Some(end) = self.ends.get_mut(&id) else { return };
        tracing::debug!(target: "net", local = %end.local, remote = %end.remote, ?error, "broken");
        self.wakes.append(&mut end.readers);
        self.wakes.append(&mut end.writers);
        if end.orphan {
            self.ends.remove(&id);
            return;
        }
        (end.phase, end.error, end.deadline) = (Phase::Dead, Some(error), None);
        end.out.clear();
    }

    /// Resets the connection and forgets it.
    pub(crate) fn abort(&mut self, id: EndId) {
        if self.ends.get(&id).is_some_and(|end| end.phase != Phase::Dead) {
            self.counters.resets += 1;
            self.emit(id, Body::Rst);
        }
        if let Some(end) = self.ends.remove(&id) {
            tracing::debug!(target: "net", local = %end.local, remote = %end.remote, "reset by us");
            self.wakes.extend(end.readers.into_iter().chain(end.writers));
        }
    }

    /// The application lets go: a FIN after what was written, or a reset if it left bytes unread.
    pub(crate) fn close(&mut self, id: EndId) {
        let Some(end) = self.ends.get_mut(&id) else { return };
        match end.phase {
            _ if end.orphan => (),
            Phase::Dead | Phase::Connecting => _ = self.ends.remove(&id),
            Phase::Accepting { .. } => self.abort(id),
            Phase::Open if end.abort_on_close || !end.inbox.is_empty() => self.abort(id),
            Phase::Open => {
                (end.orphan, end.fin) = (true, true);
                self.wakes.append(&mut end.readers);
                self.wakes.append(&mut end.writers);
                if end.fin_acked {
                    self.schedule(self.now + LINGER, Step::Expire(id));
                }
                self.transmit(id);
            }
        }
    }
}
