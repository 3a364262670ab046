//! The books of one end of a connection: what was written, sent, acknowledged, received and read.
//!
//! In: the application's bytes and the peer's packets. Out: the next segment, the next acknowledgement. No packet is
//! moved here, see `tcp`. The rule: offsets count the bytes of a direction from its start, so a byte that comes twice
//! is known and a gap is seen.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::task::Waker;
use std::time::Instant;

use madsim::task::NodeId;

use super::wire::{Body, State};

const SEGMENT: usize = 16 * 1024;

/// A connection's end: which connection, and which of its two sides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EndId {
    pub(crate) conn: u64,
    pub(crate) server: bool,
}

impl EndId {
    pub(super) fn peer(self) -> Self {
        Self { server: !self.server, ..self }
    }
}

impl fmt::Debug for EndId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}{}", self.conn, if self.server { "s" } else { "c" })
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
    pub(super) limit: u64,
    pub(crate) fin: bool,
    pub(super) fin_sent: bool,
    pub(crate) fin_acked: bool,

    /// Received bytes up to offset `received`, not yet read.
    pub(crate) inbox: VecDeque<u8>,
    pub(super) received: u64,
    pub(crate) eof: bool,
    /// The limit last told to the sender.
    pub(super) advertised: u64,

    /// Reported once, by whichever call comes first, as Linux does.
    pub(super) error: Option<io::ErrorKind>,
    pub(crate) abort_on_close: bool,
    pub(super) readers: Vec<Waker>,
    pub(super) writers: Vec<Waker>,

    /// Repetitions since the last progress.
    pub(crate) tries: u32,
    /// When the peer was last heard of, or first owed an answer.
    pub(super) heard: Instant,
    pub(super) deadline: Option<Instant>,
    /// The earliest timer in the event heap.
    pub(super) timer: Option<Instant>,
    /// When our latest packet arrives: no later one overtakes it.
    pub(super) arrival: Instant,
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
    pub(super) fn awaits_answer(&self) -> bool {
        match self.phase {
            Phase::Connecting | Phase::Accepting { .. } => true,
            Phase::Open => !self.out.is_empty() || (self.fin && !self.fin_acked),
            Phase::Dead => false,
        }
    }

    /// The next bytes that may be sent. While stalled, one segment at a time.
    pub(super) fn next_segment(&mut self) -> Option<Body> {
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
    pub(super) fn repeat(&mut self) -> Body {
        self.sent = self.acked;
        self.fin_sent = false;
        self.next_segment().unwrap_or(Body::Data { offset: self.sent, bytes: Vec::new(), fin: false })
    }

    pub(super) fn take_ack(&mut self, received: u64, fin: bool, limit: u64, now: Instant) {
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
    pub(super) fn take_data(&mut self, offset: u64, bytes: &[u8], fin: bool) {
        let Some(known) = self.received.checked_sub(offset) else { return };
        let news = bytes.get(known as usize..).unwrap_or_default();
        self.inbox.extend(news);
        self.received += news.len() as u64;
        self.eof |= fin && offset + bytes.len() as u64 == self.received;
    }

    /// The acknowledgement to send now, with the room there is now.
    pub(super) fn ack(&mut self, window: usize) -> Body {
        self.advertised = self.advertised.max(self.received + (window.saturating_sub(self.inbox.len())) as u64);
        Body::Ack { received: self.received, fin: self.eof, limit: self.advertised }
    }

    pub(super) fn is_readable(&self) -> bool {
        !self.inbox.is_empty() || self.eof || self.phase == Phase::Dead || self.orphan
    }

    pub(super) fn is_writable(&self, buffer: usize) -> bool {
        self.phase == Phase::Dead
            || self.fin
            || self.orphan
            || (self.phase == Phase::Open && self.out.len() * 3 <= buffer * 2)
    }
}

/// `len` bytes of `deque` from index `from` on.
pub(super) fn copy_range(deque: &VecDeque<u8>, from: usize, len: usize) -> Vec<u8> {
    let (head, tail) = deque.as_slices();
    let mut bytes = Vec::with_capacity(len);
    let middle = head.len().min(from + len).max(from.min(head.len()));
    bytes.extend_from_slice(&head[from.min(head.len())..middle]);
    let rest = len - bytes.len();
    let start = from.saturating_sub(head.len());
    bytes.extend_from_slice(&tail[start..start + rest]);
    bytes
}
