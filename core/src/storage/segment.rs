//! Segments: files of regions, one for each chunk, with an index at the end once they are sealed.

use super::record;
use super::{Crc, Fields, VERSION, signed, version};
use crate::message::MessageId;
use crate::time::Timestamp;
use alloc::vec::Vec;

/// Bytes of a segment's head.
pub const HEAD: usize = 64;
/// Bytes of a region's head.
pub const REGION_HEAD: usize = 32;
/// Bytes of a segment's foot.
pub const FOOT: usize = 64;
/// Bytes of an entry of the index.
pub const INDEX_ENTRY: usize = 48;

const MAGIC: &[u8; 8] = b"NSQLOG1\n";
const END_MAGIC: &[u8; 8] = b"NSQEND1\n";
const REGION_MAGIC: &[u8; 4] = b"CHNK";

/// A chunk as a segment holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// The chunk's number.
    pub chunk: u64,
    /// Bytes of room for records.
    pub capacity: u32,
    /// Where the region's head is in the file.
    pub offset: u64,
    /// Bytes of records.
    pub used: u32,
    /// All records; those that cursors walk over; deferred ones.
    pub records: u32,
    /// See `records`.
    pub plain: u32,
    /// See `records`.
    pub deferred: u32,
    /// Of the first record.
    pub first_seq: u64,
}

impl Region {
    /// Where its records are in the file.
    pub const fn records_at(&self) -> u64 {
        self.offset + REGION_HEAD as u64
    }

    /// Where the next region begins.
    pub const fn end(&self) -> u64 {
        self.records_at() + self.capacity as u64
    }

    /// Whether an index that begins there may tell of it: what its numbers say of each other is possible.
    fn is_possible(&self, index: u64) -> bool {
        let counted = self.plain.checked_add(self.deferred).is_some_and(|counted| counted <= self.records);
        let fits =
            u64::from(self.records) * record::SMALLEST as u64 <= u64::from(self.used) && self.used <= self.capacity;
        let is_before =
            self.offset >= HEAD as u64 && self.offset <= index && (self.records == 0 || self.end() <= index);
        counted && fits && is_before
    }
}

/// The head of a segment.
pub fn head(incarnation: u64, number: u32, created: Timestamp, crc: Crc) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(MAGIC);
    head[8..16].copy_from_slice(&incarnation.to_be_bytes());
    head[16..20].copy_from_slice(&number.to_be_bytes());
    head[24..32].copy_from_slice(&created.as_nanos().to_be_bytes());
    signed(head, crc)
}

/// What the first bytes of a segment say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// It is that topic's, of that number.
    Ours,
    /// It is another topic's, or has another number.
    Others,
    /// It is a whole head of another version of the format.
    Version(char),
    /// It was written to its end, and is not whole.
    Damaged,
    /// It was not written to its end.
    Unwritten,
}

/// Looks at the head of what should be that topic's segment of that number.
pub fn read_head(bytes: &[u8], incarnation: u64, number: u32, crc: Crc) -> Head {
    let Some(head) = bytes.first_chunk::<HEAD>().filter(|head| head[HEAD - 4..] != [0; 4]) else {
        return Head::Unwritten;
    };
    match version::<HEAD>(head, MAGIC, crc) {
        None => Head::Damaged,
        Some(VERSION) if (&head[8..16], &head[16..20]) == (&incarnation.to_be_bytes(), &number.to_be_bytes()) => {
            Head::Ours
        }
        Some(VERSION) => Head::Others,
        Some(other) => Head::Version(other),
    }
}

/// The head of a region.
pub fn region_head(chunk: u64, first_seq: u64, capacity: u32, crc: Crc) -> [u8; REGION_HEAD] {
    let mut head = [0; REGION_HEAD];
    head[..4].copy_from_slice(REGION_MAGIC);
    head[4..12].copy_from_slice(&chunk.to_be_bytes());
    head[12..20].copy_from_slice(&first_seq.to_be_bytes());
    head[20..24].copy_from_slice(&capacity.to_be_bytes());
    signed(head, crc)
}

/// Chunk, first sequence number and capacity of the region whose head the bytes begin with.
pub fn read_region_head(bytes: &[u8], crc: Crc) -> Option<(u64, u64, u32)> {
    let head = bytes.first_chunk::<REGION_HEAD>()?;
    let mut fields = Fields(head.strip_prefix(REGION_MAGIC)?);
    let named = (fields.chunk_number()?, fields.number()?, fields.u32()?);
    (signed(*head, crc) == *head).then_some(named)
}

/// Index and foot of a segment, to be written at `at`, the end of its last region. No message in it has a larger id
/// than `id`.
pub fn end(regions: &[Region], at: u64, id: MessageId, crc: Crc) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(regions.len() * INDEX_ENTRY + FOOT);
    for region in regions {
        for number in [region.chunk, region.offset, region.first_seq] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        for count in [region.capacity, region.used, region.records, region.plain, region.deferred, 0] {
            bytes.extend_from_slice(&count.to_be_bytes());
        }
    }
    let mut foot = [0; FOOT];
    foot[..8].copy_from_slice(END_MAGIC);
    foot[8..16].copy_from_slice(&at.to_be_bytes());
    foot[16..20].copy_from_slice(&(regions.len() as u32).to_be_bytes());
    foot[24..40].copy_from_slice(&id.0);
    let sum = crc(crc(0, &bytes), &foot[..FOOT - 4]);
    foot[FOOT - 4..].copy_from_slice(&sum.to_be_bytes());
    bytes.extend_from_slice(&foot);
    bytes
}

/// Where the index of a sealed segment is and how many entries it has, by what looks like its foot.
pub fn index_place(foot: &[u8], file_length: u64) -> Option<(u64, usize)> {
    let mut fields = Fields(foot.strip_prefix(END_MAGIC).filter(|_| foot.len() == FOOT)?);
    let (at, entries) = (fields.u64()?, fields.u32()? as usize);
    let end = at.checked_add((entries * INDEX_ENTRY + FOOT) as u64)?;
    (end == file_length).then_some((at, entries))
}

/// The regions that the index tells of, and the id in the foot, if their checksum is right.
pub fn read_end(bytes: &[u8], crc: Crc) -> Option<(Vec<Region>, MessageId)> {
    let (index, foot) = bytes.split_at_checked(bytes.len().checked_sub(FOOT)?)?;
    let (content, sum) = foot.split_last_chunk::<4>()?;
    if crc(crc(0, index), content) != u32::from_be_bytes(*sum) || index.len() % INDEX_ENTRY != 0 {
        return None;
    }
    let at = u64::from_be_bytes(content[8..16].try_into().ok()?);
    let region = |entry: &[u8]| {
        let mut fields = Fields(entry);
        let region = Region {
            chunk: fields.chunk_number()?,
            offset: fields.u64()?,
            first_seq: fields.number()?,
            capacity: fields.u32()?,
            used: fields.u32()?,
            records: fields.u32()?,
            plain: fields.u32()?,
            deferred: fields.u32()?,
        };
        region.is_possible(at).then_some(region)
    };
    let regions = index.chunks_exact(INDEX_ENTRY).map(region).collect::<Option<Vec<_>>>()?;
    let mut spans: Vec<_> =
        regions.iter().filter(|it| it.records > 0).map(|region| (region.offset, region.end())).collect();
    spans.sort_unstable();
    if !spans.is_sorted_by(|one, next| one.1 <= next.0) {
        return None;
    }
    Some((regions, MessageId(content[24..40].try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::super::record::{Header, seal};
    use super::super::slow_crc;
    use super::*;

    /// A segment of two chunks, of which the first has two records and the second one.
    fn segment() -> (Vec<u8>, Vec<Region>) {
        let mut file = head(7, 3, Timestamp::from_nanos(1_000), slow_crc).to_vec();
        let mut regions = Vec::new();
        let mut seq = 40;
        for (chunk, count) in [(5, 2), (4, 1)] {
            let offset = file.len() as u64;
            file.extend(region_head(chunk, seq, 256, slow_crc));
            let mut records = Vec::new();
            for number in 0..count {
                Header { flags: 0, payload: 30, seq: seq as u32 + number, sum: 0 }.write(&mut records);
                records.extend_from_slice(&[number as u8 + 1; 30]);
            }
            seal(&mut records, slow_crc);
            let used = records.len() as u32;
            records.resize(256, 0);
            file.extend(records);
            let (records, plain, first_seq) = (count, count, seq);
            regions.push(Region { chunk, capacity: 256, offset, used, records, plain, deferred: 0, first_seq });
            seq += u64::from(count);
        }
        (file, regions)
    }

    #[test]
    fn heads_are_told_apart() {
        let head = head(7, 3, Timestamp::from_nanos(1_000), slow_crc);
        let read = |head: &[u8]| read_head(head, 7, 3, slow_crc);
        assert_eq!(read(&head), Head::Ours);
        assert_eq!(read_head(&head, 8, 3, slow_crc), Head::Others);
        assert_eq!(read_head(&head, 7, 4, slow_crc), Head::Others);
        for torn in [0, 8, 63] {
            assert_eq!(read(&head[..torn]), Head::Unwritten);
        }
        for byte in 0..HEAD {
            let mut damaged = head;
            damaged[byte] ^= 1;
            assert_eq!(read(&damaged), Head::Damaged, "byte {byte}");
            if byte < HEAD - 4 {
                let expected = match byte {
                    0..6 | 7 => Head::Damaged,
                    6 => Head::Version('0'),
                    8..20 => Head::Others,
                    _ => Head::Ours,
                };
                assert_eq!(read(&signed(damaged, slow_crc)), expected, "byte {byte}, with the right checksum");
            }
        }
    }

    #[test]
    fn an_index_is_read_back() {
        let (mut file, regions) = segment();
        let length = file.len() as u64;
        assert_eq!(regions.last().map(Region::end), Some(length));
        let id = MessageId(*b"0123456789abcdef");
        file.extend(end(&regions, length, id, slow_crc));
        let foot = &file[file.len() - FOOT..];
        assert_eq!(index_place(foot, file.len() as u64), Some((length, 2)));
        assert_eq!(read_end(&file[length as usize..], slow_crc), Some((regions, id)));
    }

    #[test]
    fn a_foot_that_lies_is_none() {
        let (mut file, regions) = segment();
        let length = file.len();
        file.extend(end(&regions, length as u64, MessageId([b'0'; 16]), slow_crc));
        let total = file.len();
        assert_eq!(index_place(&file[total - FOOT..], total as u64 + 1), None, "the file has another length");
        assert_eq!(index_place(&[0; FOOT], total as u64), None);
        assert_eq!(read_end(&[0; 10], slow_crc), None);
        for at in length..total {
            let mut flipped = file[length..].to_vec();
            flipped[at - length] ^= 1;
            assert_eq!(read_end(&flipped, slow_crc), None, "byte {at}");
        }
    }
}
