//! One end of a connection: a small TCP that goes back to the last acknowledged byte when something was lost.
//!
//! In: calls of the application (read, write, shut down, close), packets, the retransmission timer. Out: packets and wakes.
//! [`End`] keeps the books of one end; the `impl State` below moves its packets.
//! The rule: the reader sees exactly the bytes written, in order, or an error. Never a gap, never a byte twice.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use madsim::task::NodeId;

use super::wire::{Body, Packet, State, Step};

const SEGMENT: usize = 16 * 1024;
const ACCEPT_RETRIES: u32 = 5;
const SYN_FIRST: Duration = Duration::from_secs(1);
/// How long a closed end still answers (TIME_WAIT), and waits for the peer's end of stream (FIN_WAIT2).
const LINGER: Duration = Duration::from_secs(60);

/// A connection's end: which connection, and which of its two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EndId {
    pub(crate) conn: u64,
    pub(crate) server: bool,
}

impl EndId {
    fn peer(self) -> Self {
        Self { server: !self.server, ..self }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Our SYN is under way.
    Connecting,
    /// Our SYN-ACK is under way, on behalf of this listener.
    Accepting {
        at: SocketAddr,
        number: u64,
    },
    Open,
    /// Reset or timed out.
    Dead,
}

#[derive(Debug)]
pub(crate) struct End {
    pub(crate) host: NodeId,
    /// `None`: there is no such machine.
    pub(crate) peer: Option<NodeId>,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) phase: Phase,
    /// The application has let go of it, or died.
    pub(crate) orphan: bool,

    /// Written bytes from offset `acked` on.
    pub(crate) out: VecDeque<u8>,
    pub(crate) acked: u64,
    pub(crate) sent: u64,
    /// The receiver takes bytes up to this offset.
    limit: u64,
    pub(crate) fin: bool,
    fin_sent: bool,
    pub(crate) fin_acked: bool,

    /// Received bytes up to offset `received`, not yet read.
    pub(crate) inbox: VecDeque<u8>,
    received: u64,
    pub(crate) eof: bool,
    /// The limit last told to the sender.
    advertised: u64,

    /// Reported once, by whichever call comes first, as Linux does.
    error: Option<io::ErrorKind>,
    pub(crate) abort_on_close: bool,
    readers: Vec<Waker>,
    writers: Vec<Waker>,

    /// Repetitions since the last progress.
    pub(crate) tries: u32,
    /// When the peer was last heard of, or first owed an answer.
    heard: Instant,
    deadline: Option<Instant>,
    /// The earliest timer in the event heap.
    timer: Option<Instant>,
    /// When our latest packet arrives: no later one overtakes it.
    arrival: Instant,
}

impl End {
    pub(crate) fn new(
        net: &State,
        host: NodeId,
        peer: Option<NodeId>,
        local: SocketAddr,
        remote: SocketAddr,
        phase: Phase,
    ) -> Self {
        let window = net.config.receive_window as u64;
        Self {
            host,
            peer,
            local,
            remote,
            phase,
            orphan: false,
            out: VecDeque::new(),
            acked: 0,
            sent: 0,
            limit: window,
            fin: false,
            fin_sent: false,
            fin_acked: false,
            inbox: VecDeque::new(),
            received: 0,
            eof: false,
            advertised: window,
            error: None,
            abort_on_close: false,
            readers: Vec::new(),
            writers: Vec::new(),
            tries: 0,
            heard: net.now,
            deadline: None,
            timer: None,
            arrival: net.now,
        }
    }

    /// Whether the peer owes an answer.
    fn awaits_answer(&self) -> bool {
        match self.phase {
            Phase::Connecting | Phase::Accepting { .. } => true,
            Phase::Open => !self.out.is_empty() || (self.fin && !self.fin_acked),
            Phase::Dead => false,
        }
    }

    /// The next bytes that may be sent. While stalled, one segment at a time.
    fn next_segment(&mut self) -> Option<Body> {
        if self.phase != Phase::Open || (self.tries > 0 && self.sent > self.acked) {
            return None;
        }
        let from = (self.sent - self.acked) as usize;
        let len = (self.out.len() - from).min((self.limit - self.sent) as usize).min(SEGMENT);
        let fin = self.fin && !self.fin_sent && from + len == self.out.len();
        if len == 0 && !fin {
            return None;
        }
        let segment = Body::Data { offset: self.sent, bytes: copy_range(&self.out, from, len), fin };
        self.sent += len as u64;
        self.fin_sent |= fin;
        Some(segment)
    }

    /// Forgets what was sent beyond the last acknowledgement and sends its first segment again, or asks for the window.
    fn repeat(&mut self) -> Body {
        self.sent = self.acked;
        self.fin_sent = false;
        self.next_segment().unwrap_or(Body::Data { offset: self.sent, bytes: Vec::new(), fin: false })
    }

    fn take_ack(&mut self, received: u64, fin: bool, limit: u64, now: Instant) {
        let progress = received > self.acked || (fin && !self.fin_acked) || limit > self.limit;
        let news = received.saturating_sub(self.acked).min(self.out.len() as u64);
        self.out.drain(..news as usize);
        self.acked += news;
        self.sent = self.sent.max(self.acked);
        self.fin_acked |= fin;
        self.limit = self.limit.max(limit);
        self.heard = now;
        if progress {
            self.tries = 0;
            self.deadline = None;
        }
    }

    /// Takes what is new in a segment; what lies beyond a gap will come again.
    fn take_data(&mut self, offset: u64, bytes: &[u8], fin: bool) {
        let Some(known) = self.received.checked_sub(offset) else { return };
        let news = bytes.get(known as usize..).unwrap_or_default();
        self.inbox.extend(news);
        self.received += news.len() as u64;
        self.eof |= fin && offset + bytes.len() as u64 == self.received;
    }

    /// The acknowledgement to send now, with the room there is now.
    fn ack(&mut self, window: usize) -> Body {
        self.advertised = self.advertised.max(self.received + (window.saturating_sub(self.inbox.len())) as u64);
        Body::Ack { received: self.received, fin: self.eof, limit: self.advertised }
    }

    fn is_readable(&self) -> bool {
        !self.inbox.is_empty() || self.eof || self.phase == Phase::Dead || self.orphan
    }

    fn is_writable(&self, buffer: usize) -> bool {
        self.phase == Phase::Dead
            || self.fin
            || self.orphan
            || (self.phase == Phase::Open && self.out.len() * 3 <= buffer * 2)
    }
}

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

    fn acknowledge(&mut self, id: EndId) {
        let window = self.config.receive_window;
        if let Some(end) = self.ends.get_mut(&id) {
            let ack = end.ack(window);
            self.emit(id, ack);
        }
    }

    /// Sends what may be sent, and sees to it that it is repeated.
    fn transmit(&mut self, id: EndId) {
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

    /// Whether `connect` has an answer.
    pub(crate) fn poll_connected(&mut self, id: EndId, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let Some(end) = self.mine(id) else { return Poll::Ready(Err(gone())) };
        match end.phase {
            Phase::Connecting | Phase::Accepting { .. } => {
                register(&mut end.writers, cx);
                Poll::Pending
            }
            Phase::Open => Poll::Ready(Ok(())),
            Phase::Dead => Poll::Ready(Err(end.error.take().unwrap_or(io::ErrorKind::NotConnected).into())),
        }
    }

    /// What there is to read: `WouldBlock` for nothing yet, no bytes for the end of the stream.
    pub(crate) fn read(&mut self, id: EndId, len: usize, peek: bool) -> io::Result<Vec<u8>> {
        let Some(end) = self.mine(id) else { return Err(gone()) };
        if end.inbox.is_empty() {
            return match end.error.take() {
                Some(error) => Err(error.into()),
                None if end.eof || end.phase == Phase::Dead => Ok(Vec::new()),
                None => Err(io::ErrorKind::WouldBlock.into()),
            };
        }
        let available = len.min(end.inbox.len());
        let (len, short) = self.shorten(available, self.config.short_read);
        self.counters.short_reads += u64::from(short);
        let window = self.config.receive_window;
        let Some(end) = self.mine(id) else { return Err(gone()) };
        let bytes = copy_range(&end.inbox, 0, len);
        if !peek {
            end.inbox.drain(..len);
            self.counters.bytes += len as u64;
            self.open_window(id, window);
        }
        Ok(bytes)
    }

    /// Tells the sender when half the window has come free since it last heard of it.
    fn open_window(&mut self, id: EndId, window: usize) {
        let Some(end) = self.ends.get(&id) else { return };
        let limit = end.received + window.saturating_sub(end.inbox.len()) as u64;
        if end.phase == Phase::Open && !end.eof && limit.saturating_sub(end.advertised) >= (window / 2) as u64 {
            self.acknowledge(id);
        }
    }

    /// Takes what fits of `parts`: `WouldBlock` when nothing does.
    pub(crate) fn write(&mut self, id: EndId, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let buffer = self.config.send_buffer;
        let Some(end) = self.mine(id) else { return Err(gone()) };
        if let Some(error) = end.error.take() {
            return Err(error.into());
        }
        if end.phase == Phase::Dead || end.fin {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let room = buffer.saturating_sub(end.out.len());
        if total > 0 && room == 0 {
            self.counters.full_writes += 1;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (len, short) = self.shorten(total.min(room), self.config.short_write);
        self.counters.short_writes += u64::from(short);
        let Some(end) = self.mine(id) else { return Err(gone()) };
        let mut left = len;
        for part in parts {
            let taken = part.len().min(left);
            end.out.extend(&part[..taken]);
            left -= taken;
        }
        self.transmit(id);
        Ok(len)
    }

    /// Ends our direction: a FIN follows the bytes written so far.
    pub(crate) fn shut_down(&mut self, id: EndId) -> io::Result<()> {
        let Some(end) = self.mine(id) else { return Err(gone()) };
        if end.phase == Phase::Dead {
            return Err(io::ErrorKind::NotConnected.into());
        }
        end.fin = true;
        self.transmit(id);
        Ok(())
    }

    /// Whether a read would not block; if it would, `cx` is woken when that changes.
    pub(crate) fn poll_readable(&mut self, id: EndId, cx: &Context<'_>) -> Poll<()> {
        match self.mine(id) {
            Some(end) if !end.is_readable() => {
                register(&mut end.readers, cx);
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// Whether a write would not block; if it would, `cx` is woken when that changes.
    pub(crate) fn poll_writable(&mut self, id: EndId, cx: &Context<'_>) -> Poll<()> {
        let buffer = self.config.send_buffer;
        match self.mine(id) {
            Some(end) if !end.is_writable(buffer) => {
                register(&mut end.writers, cx);
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// The end as its application sees it: not at all once its process has died.
    pub(crate) fn mine(&mut self, id: EndId) -> Option<&mut End> {
        self.ends.get_mut(&id).filter(|end| !end.orphan)
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the process or machine that held this socket is gone")
}

pub(crate) fn register(wakers: &mut Vec<Waker>, cx: &Context<'_>) {
    if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
        wakers.push(cx.waker().clone());
    }
}

fn copy_range(deque: &VecDeque<u8>, from: usize, len: usize) -> Vec<u8> {
    let (head, tail) = deque.as_slices();
    let mut bytes = Vec::with_capacity(len);
    let middle = head.len().min(from + len).max(from.min(head.len()));
    bytes.extend_from_slice(&head[from.min(head.len())..middle]);
    let rest = len - bytes.len();
    let start = from.saturating_sub(head.len());
    bytes.extend_from_slice(&tail[start..start + rest]);
    bytes
}
