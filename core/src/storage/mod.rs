//! A topic's log on disk: what its files are called and what is in them (docs/log-format.md), and how they are read
//! back after a start.
//!
//! Everything here is bytes in and bytes out: the topic decides what is written and when, a disk outside of core does
//! it. Nothing that comes from a file is believed before its checksum has been looked at.

pub mod diskqueue;
pub mod journal;
pub mod names;
pub mod record;
pub mod recovered;
pub mod recovery;
#[cfg(test)]
pub(crate) mod recovery_tests;
mod salvage;
pub mod segment;

/// CRC-32C, continued from the checksum of the bytes before (0 if there are none); passed in, because the fast ones
/// need the standard library.
pub type Crc = fn(u32, &[u8]) -> u32;

/// The version of the format: the digit in the magic of a segment and of a journal.
pub const VERSION: char = '1';

/// Numbers of records and channels are smaller than this, and a file that names a larger one is damaged: so whoever
/// counts on from one never comes to an end.
pub(crate) const NUMBERS_END: u64 = 1 << 62;
/// The same for numbers of chunks, of which a place has to have room for twice as many. A topic in which each message
/// has a chunk of its own, 100,000 a second, gets there in eleven years.
pub(crate) const CHUNKS_END: u64 = 1 << 45;

/// With the checksum of all bytes but the last four in those.
fn signed<const N: usize>(mut head: [u8; N], crc: Crc) -> [u8; N] {
    let sum = crc(0, &head[..N - 4]);
    head[N - 4..].copy_from_slice(&sum.to_be_bytes());
    head
}

/// The version of the format that a file's head names, which begins with `magic` but for the version; `None` if its
/// checksum is wrong. Every version has its checksum there, so that each can tell the others from damage.
fn version<const N: usize>(bytes: &[u8], magic: &[u8; 8], crc: Crc) -> Option<char> {
    let head = bytes.first_chunk::<N>()?;
    let is_kind = head[..6] == magic[..6] && head[7] == magic[7];
    (is_kind && signed(*head, crc) == *head).then_some(head[6].into())
}

/// Takes fixed-width fields off the front of bytes.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// The number of a record or a channel.
    fn number(&mut self) -> Option<u64> {
        self.u64().filter(|&number| number < NUMBERS_END)
    }

    /// The number of a chunk.
    fn chunk_number(&mut self) -> Option<u64> {
        self.u64().filter(|&number| number < CHUNKS_END)
    }

    /// The number of a file.
    fn file_number(&mut self) -> Option<u32> {
        self.u32().filter(|&number| number < names::NUMBERS_END)
    }
}

/// A table-driven CRC-32C for tests.
#[cfg(test)]
pub(crate) fn slow_crc(before: u32, bytes: &[u8]) -> u32 {
    let shift = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!before, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| shift(crc)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(super::slow_crc(0, b"123456789"), 0xe306_9283);
        assert_eq!(super::slow_crc(super::slow_crc(0, b"1234"), b"56789"), 0xe306_9283);
    }
}
