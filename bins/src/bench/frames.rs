//! Frames from nsqd: bytes of a socket in, borrowed frames out (spec: nsqd_protocol §1.3, §2.1).
//!
//! The load generator shares its cores with the server that it measures, so this scanner allocates nothing per frame:
//! one large buffer is filled by one read and frames are slices of it. The rule: any split of the same bytes over reads
//! gives the same frames.

use std::io::{self, Read};
use std::ops::Range;

/// Bytes of a read buffer: about a thousand messages of 200 bytes for one system call.
pub(super) const READ_BUFFER: usize = 256 * 1024;

/// No frame is longer: beyond it the peer is taken for something else than nsqd.
const MAX_FRAME: usize = 256 * 1024 * 1024;

/// Size and type, in front of every frame's data.
const HEADER: usize = 8;

/// Timestamp, attempts and ID, in front of every message's body.
const MESSAGE_HEADER: usize = 26;

/// What a frame carries; the bytes stay in the [`Frames`] they came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Frame type 0: `OK`, `_heartbeat_`, JSON.
    Response(Range<usize>),
    /// Frame type 1: a code and a description.
    Error(Range<usize>),
    /// Frame type 2.
    Message {
        /// How often nsqd has sent this message, this time included.
        attempts: u16,
        /// The 16 bytes that FIN names.
        id: Range<usize>,
        /// What the producer published.
        body: Range<usize>,
    },
}

/// A read buffer and the frames in it.
pub(super) struct Frames {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Frames {
    /// A scanner whose reads take up to `capacity` bytes; it grows when a single frame is longer.
    pub(super) fn new(capacity: usize) -> Self {
        Self { buffer: vec![0; capacity.max(HEADER)], start: 0, end: 0 }
    }

    /// One read. Returns its bytes; 0 is the end of the stream.
    pub(super) fn fill(&mut self, source: &mut impl Read) -> io::Result<usize> {
        // What remains is less than one frame, so moving it to the front costs next to nothing.
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if let Some(size) = self.size()
            && let Ok(size) = size
            && 4 + size > self.buffer.len()
        {
            self.buffer.resize(4 + size, 0);
        }
        let read = source.read(&mut self.buffer[self.end..])?;
        self.end += read;
        Ok(read)
    }

    /// The next complete frame, if there is one; its ranges are valid until the next [`Frames::fill`].
    pub(super) fn next(&mut self) -> io::Result<Option<Kind>> {
        let Some(size) = self.size().transpose()? else { return Ok(None) };
        if self.end - self.start < 4 + size {
            return Ok(None);
        }
        let data = self.start + HEADER..self.start + 4 + size;
        let kind = self.word(self.start + 4);
        self.start = data.end;
        match kind {
            0 => Ok(Some(Kind::Response(data))),
            1 => Ok(Some(Kind::Error(data))),
            2 if data.len() >= MESSAGE_HEADER => {
                let attempts = u16::from_be_bytes([self.buffer[data.start + 8], self.buffer[data.start + 9]]);
                let body = data.start + MESSAGE_HEADER;
                Ok(Some(Kind::Message { attempts, id: data.start + 10..body, body: body..data.end }))
            }
            2 => Err(invalid(format!("a message frame of {} bytes is shorter than a message's header", data.len()))),
            other => Err(invalid(format!("frame type {other} is unknown"))),
        }
    }

    /// The bytes of a range that [`Frames::next`] returned.
    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.buffer[range]
    }

    /// The size field of the frame at the front, once its header is complete.
    fn size(&self) -> Option<io::Result<usize>> {
        if self.end - self.start < HEADER {
            return None;
        }
        let size = self.word(self.start) as usize;
        if (4..=MAX_FRAME).contains(&size) {
            Some(Ok(size))
        } else {
            Some(Err(invalid(format!("a frame of {size} bytes; is this nsqd's TCP port?"))))
        }
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes([self.buffer[at], self.buffer[at + 1], self.buffer[at + 2], self.buffer[at + 3]])
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame with its bytes copied out, to compare across buffers.
    #[derive(Debug, PartialEq, Eq, Clone)]
    enum Owned {
        Response(Vec<u8>),
        Error(Vec<u8>),
        Message(u16, Vec<u8>, Vec<u8>),
    }

    fn encode(frame: &Owned, out: &mut Vec<u8>) {
        let (kind, data) = match frame {
            Owned::Response(data) => (0u32, data.clone()),
            Owned::Error(data) => (1, data.clone()),
            Owned::Message(attempts, id, body) => {
                (2, [&7u64.to_be_bytes()[..], &attempts.to_be_bytes(), id, body].concat())
            }
        };
        out.extend_from_slice(&(data.len() as u32 + 4).to_be_bytes());
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&data);
    }

    /// Gives at most the next of `sizes` bytes to each read.
    struct Chunks<'a> {
        bytes: &'a [u8],
        sizes: std::iter::Cycle<std::slice::Iter<'a, usize>>,
    }

    impl Read for Chunks<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let size = (*self.sizes.next().unwrap()).min(self.bytes.len()).min(out.len());
            out[..size].copy_from_slice(&self.bytes[..size]);
            self.bytes = &self.bytes[size..];
            Ok(size)
        }
    }

    fn scan(bytes: &[u8], sizes: &[usize], capacity: usize) -> io::Result<Vec<Owned>> {
        let mut source = Chunks { bytes, sizes: sizes.iter().cycle() };
        let mut frames = Frames::new(capacity);
        let mut seen = Vec::new();
        while frames.fill(&mut source)? > 0 {
            while let Some(kind) = frames.next()? {
                let copy = |range: Range<usize>| frames.bytes(range).to_vec();
                seen.push(match kind {
                    Kind::Response(data) => Owned::Response(copy(data)),
                    Kind::Error(data) => Owned::Error(copy(data)),
                    Kind::Message { attempts, id, body } => Owned::Message(attempts, copy(id), copy(body)),
                });
            }
        }
        Ok(seen)
    }

    fn frame() -> impl Strategy<Value = Owned> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..60);
        prop_oneof![
            bytes().prop_map(Owned::Response),
            bytes().prop_map(Owned::Error),
            (any::<u16>(), prop::collection::vec(any::<u8>(), 16), bytes())
                .prop_map(|(attempts, id, body)| Owned::Message(attempts, id, body)),
        ]
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_frames(
            frames in prop::collection::vec(frame(), 0..20),
            sizes in prop::collection::vec(1usize..50, 1..8),
            capacity in 0usize..100,
        ) {
            let mut bytes = Vec::new();
            frames.iter().for_each(|frame| encode(frame, &mut bytes));
            prop_assert_eq!(scan(&bytes, &sizes, capacity).unwrap(), frames);
        }

        #[test]
        fn garbage_never_panics(tail in prop::collection::vec(any::<u8>(), 0..200), size in 1usize..50) {
            // The first two bytes keep the claimed size below 64 KiB; larger claims would only make the test slow.
            let _ = scan(&[&[0, 0], &tail[..]].concat(), &[size], 64);
        }
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        for (bytes, words) in [
            (&b"HTTP/1.1 400 Bad Request"[..], "TCP port"),
            (&[0, 0, 0, 3, 0, 0, 0, 0], "3 bytes"),
            (&[0, 0, 0, 4, 0, 0, 0, 9], "type 9"),
            (&[0, 0, 0, 5, 0, 0, 0, 2, 1], "shorter"),
        ] {
            let error = scan(bytes, &[100], 64).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
