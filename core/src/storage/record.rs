//! Records: the bytes of a message in a chunk, in memory and on disk alike.
//!
//! In memory both checksums are 0; [`seal`] fills them in on the way to disk, and [`inspect`] looks at every one on the
//! way back and makes the bytes walkable again: what is damaged becomes one *lost* record in its place, so that offsets
//! stay what they were and whoever comes to it knows what it is.

use super::Crc;
use crate::message::PAYLOAD_HEADER;
use alloc::vec::Vec;

/// Bytes of a record's header.
pub const HEADER: usize = 16;
/// Bytes of the extras of a deferred record: due time and delay.
pub const DEFERRED_EXTRA: usize = 16;
/// Flag in a record's length: extras follow the header; cursors pass over the record.
pub const DEFERRED: u32 = 1 << 31;
/// Flag in a record's length: only the journal tells which channels need it, for it was carried forward, or deferred,
/// while they needed it already; cursors pass over it.
pub const CARRIED: u32 = 1 << 30;
/// Flag in a record's length, in memory only: damaged on disk. Its payload checksum is how many plain records it stands
/// for. With [`CARRIED`], and not for none, it is a gap: so many records of unknown kinds, which may be less plain
/// ones.
pub const LOST: u32 = 1 << 29;
/// The largest payload, bytes.
pub const PAYLOAD_MAX: u32 = LOST - 1;
/// Bytes of the smallest record: one without a body.
pub const SMALLEST: usize = HEADER + PAYLOAD_HEADER;

/// Damage is walked over as one record.
const LARGEST_GAP: usize = HEADER + PAYLOAD_MAX as usize;
const LENGTH_AT: usize = 4;
const SUM_AT: usize = 8;
const SEQ_AT: usize = 12;

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// [`DEFERRED`], [`CARRIED`], [`LOST`].
    pub flags: u32,
    /// Bytes of the payload.
    pub payload: u32,
    /// Low bits of the sequence number.
    pub seq: u32,
    /// Of the payload.
    pub sum: u32,
}

impl Header {
    /// The header at the front of bytes that are known to be a record.
    #[inline]
    pub fn of(bytes: &[u8]) -> Self {
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let length = word(LENGTH_AT);
        Self { flags: length & !PAYLOAD_MAX, payload: length & PAYLOAD_MAX, seq: word(SEQ_AT), sum: word(SUM_AT) }
    }

    /// Appends the header as it is in memory.
    #[inline]
    pub fn write(self, out: &mut Vec<u8>) {
        let mut bytes = [0; HEADER];
        bytes[LENGTH_AT..SUM_AT].copy_from_slice(&(self.flags | self.payload).to_be_bytes());
        bytes[SUM_AT..SEQ_AT].copy_from_slice(&self.sum.to_be_bytes());
        bytes[SEQ_AT..].copy_from_slice(&self.seq.to_be_bytes());
        out.extend_from_slice(&bytes);
    }

    /// The header at the front of bytes that may be none; `None` if there are too few for one.
    #[inline]
    pub fn first(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk::<HEADER>().map(|bytes| Self::of(bytes))
    }

    /// Bytes before the payload.
    #[inline]
    pub const fn payload_at(self) -> usize {
        if self.flags & DEFERRED == 0 { HEADER } else { HEADER + DEFERRED_EXTRA }
    }

    /// Bytes of the whole record.
    #[inline]
    pub const fn size(self) -> usize {
        self.payload_at() + self.payload as usize
    }
}

/// Fills in the checksums of whole records, back to back.
pub fn seal(records: &mut [u8], crc: Crc) {
    let mut rest = records;
    while !rest.is_empty() {
        let header = Header::of(rest);
        let (record, after) = rest.split_at_mut(header.size());
        let sum = crc(0, &record[header.payload_at()..]);
        record[SUM_AT..SEQ_AT].copy_from_slice(&sum.to_be_bytes());
        let sum = header_sum(record, header.payload_at(), crc);
        record[..LENGTH_AT].copy_from_slice(&sum.to_be_bytes());
        rest = after;
    }
}

/// What [`inspect`] found in a chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspected {
    /// Bytes up to the end of the last record that is understood, or lost for sure.
    pub used: usize,
    /// Records, lost ones included; those that cursors walk over; deferred ones.
    pub records: u32,
    /// See `records`.
    pub plain: u32,
    /// See `records`.
    pub deferred: u32,
    /// Where damage begins and ends.
    pub damage: Vec<(usize, usize)>,
    /// Bytes after `used` that are neither a record nor zero.
    pub torn: usize,
    /// The sequence number after the last record.
    pub next_seq: u64,
}

/// Looks at the records of a chunk, whose first has the sequence number `first_seq`, and makes them as they are in
/// memory: without checksums, the damaged ones [`LOST`].
pub fn inspect(bytes: &mut [u8], first_seq: u64, crc: Crc) -> Inspected {
    let mut found = Inspected { next_seq: first_seq, ..Inspected::default() };
    loop {
        let at = found.used;
        if let Some((header, seq)) = valid_header(&bytes[at..], found.next_seq, crc) {
            found.take(bytes, at, header, crc);
            found.next_seq = seq + 1;
            continue;
        }
        let next = (at + 1..bytes.len())
            .find_map(|next| valid_header(&bytes[next..], found.next_seq, crc).map(|(_, seq)| (next, seq)));
        match next {
            Some((next, seq)) if (HEADER..=LARGEST_GAP).contains(&(next - at)) => found.lose(bytes, at..next, seq),
            // Too small a gap for a record: what comes next is no record either, but part of one.
            Some(_) | None => {
                found.torn = bytes[at..].iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
                found.settle_gaps(&mut bytes[..at]);
                return found;
            }
        }
    }
}

impl Inspected {
    /// A record whose header is right.
    fn take(&mut self, bytes: &mut [u8], at: usize, header: Header, crc: Crc) {
        let end = at + header.size();
        let intact = crc(0, &bytes[at + header.payload_at()..end]) == header.sum;
        let is_plain = header.flags & (DEFERRED | CARRIED) == 0;
        self.records += 1;
        self.plain += u32::from(is_plain);
        self.deferred += u32::from(header.flags & DEFERRED != 0);
        let flags = if intact { header.flags } else { header.flags | LOST };
        let stands_for = u32::from(!intact && is_plain);
        rewrite(&mut bytes[at..], Header { flags, sum: stands_for, ..header });
        if !intact {
            self.damage.push((at, end));
        }
        self.used = end;
    }

    /// Records whose headers are gone; how many, the next one's number tells, but no more than there was room for.
    fn lose(&mut self, bytes: &mut [u8], gap: core::ops::Range<usize>, next_seq: u64) {
        let room = (gap.len() / SMALLEST) as u64;
        let records = room.min(next_seq - self.next_seq) as u32;
        let payload = (gap.len() - HEADER) as u32;
        let header = Header { flags: LOST | CARRIED, payload, seq: self.next_seq as u32, sum: records };
        rewrite(&mut bytes[gap.start..], header);
        self.records += records;
        self.plain += records;
        self.damage.push((gap.start, gap.end));
        self.next_seq = next_seq;
        self.used = gap.end;
    }

    /// What is carried forward is written by itself: where all that is intact are copies, gaps were copies, too, and a
    /// crash while they were written has lost nothing.
    fn settle_gaps(&mut self, records: &mut [u8]) {
        let headers = || walk(records).map(|(_, header)| header);
        let is_intact = |header: &Header| header.flags & LOST == 0;
        let only_copies = headers().filter(is_intact).all(|header| header.flags == CARRIED);
        if self.damage.is_empty() || !only_copies || !headers().any(|header| is_intact(&header)) {
            return;
        }
        self.plain -= headers().filter(|header| header.flags == LOST | CARRIED).map(|gap| gap.sum).sum::<u32>();
        correct_gaps(records, self.plain);
    }
}

/// The records of a chunk as it is in memory, each with its offset.
pub fn walk(records: &[u8]) -> impl Iterator<Item = (usize, Header)> {
    let mut at = 0;
    core::iter::from_fn(move || {
        let header = Header::first(&records[at..])?;
        let record = (at, header);
        at += header.size();
        Some(record)
    })
}

/// How many plain records there are before an offset in a chunk that was inspected, if all in gaps were plain.
pub fn plain_before(records: &[u8], offset: usize) -> u32 {
    let plain = |(_, header): (usize, Header)| match header.flags {
        0 => 1,
        flags if flags & LOST != 0 => header.sum,
        _ => 0,
    };
    walk(records).take_while(|(at, _)| *at < offset).map(plain).sum()
}

/// Corrects the gaps in a chunk that was inspected, and is known to have had so many plain records.
pub fn correct_gaps(records: &mut [u8], plain: u32) {
    let mut surplus = plain_before(records, records.len()).saturating_sub(plain);
    let gaps: Vec<_> = walk(records).filter(|(_, header)| header.flags == LOST | CARRIED).collect();
    for (at, gap) in gaps {
        let less = surplus.min(gap.sum);
        rewrite(&mut records[at..], Header { sum: gap.sum - less, ..gap });
        surplus -= less;
    }
}

fn rewrite(bytes: &mut [u8], header: Header) {
    let mut written = Vec::with_capacity(HEADER);
    header.write(&mut written);
    bytes[..HEADER].copy_from_slice(&written);
}

fn header_sum(record: &[u8], payload_at: usize, crc: Crc) -> u32 {
    crc(crc(0, &record[LENGTH_AT..HEADER]), &record[HEADER..payload_at])
}

/// The header at the front of the bytes, if it checks out, the record fits, and its number is plausible.
fn valid_header(bytes: &[u8], next_seq: u64, crc: Crc) -> Option<(Header, u64)> {
    const FARTHEST: u64 = 1 << 31;
    if bytes.len() < HEADER {
        return None;
    }
    let header = Header::of(bytes);
    let is_possible = header.flags & LOST == 0 && header.payload as usize >= PAYLOAD_HEADER;
    if !is_possible || bytes.len() < header.size() {
        return None;
    }
    let sum = u32::from_be_bytes(bytes[..LENGTH_AT].try_into().ok()?);
    let seq = next_seq + u64::from(header.seq.wrapping_sub(next_seq as u32));
    let is_right = sum == header_sum(bytes, header.payload_at(), crc);
    (is_right && seq - next_seq <= FARTHEST).then_some((header, seq))
}

#[cfg(test)]
mod tests {
    use super::super::slow_crc;
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    const FIRST: u64 = (7 << 32) - 3;

    /// Records with these payload sizes and flags, as they are in memory, and where each begins.
    fn chunk(records: &[(u32, u32)]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut begins) = (Vec::new(), Vec::new());
        for (number, &(payload, flags)) in records.iter().enumerate() {
            begins.push(bytes.len());
            let header = Header { flags, payload, seq: (FIRST + number as u64) as u32, sum: 0 };
            header.write(&mut bytes);
            bytes.extend((HEADER..header.size()).map(|at| (at * 7 + number) as u8));
        }
        (bytes, begins)
    }

    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        seal(&mut bytes, slow_crc);
        bytes
    }

    fn records() -> impl Strategy<Value = Vec<(u32, u32)>> {
        let flags = prop_oneof![3 => Just(0), 1 => Just(DEFERRED), 1 => Just(CARRIED)];
        proptest::collection::vec((26..80u32, flags), 1..8)
    }

    proptest! {
        #[test]
        fn what_was_sealed_comes_back(records in records(), zeros in 0..100usize) {
            let (memory, _) = chunk(&records);
            let mut disk = sealed(memory.clone());
            prop_assert_ne!(&disk, &memory);
            disk.resize(memory.len() + zeros, 0);
            let found = inspect(&mut disk, FIRST, slow_crc);
            prop_assert_eq!(&disk[..memory.len()], &memory[..]);
            let count = |flag| records.iter().filter(|(_, flags)| *flags == flag).count() as u32;
            let expected = Inspected {
                used: memory.len(),
                records: records.len() as u32,
                plain: count(0),
                deferred: count(DEFERRED),
                next_seq: FIRST + records.len() as u64,
                ..Inspected::default()
            };
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn one_flipped_bit_costs_one_record(records in records(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let (memory, begins) = chunk(&records);
            let mut disk = sealed(memory.clone());
            let at = at.index(disk.len());
            disk[at] ^= 1 << bit;
            let found = inspect(&mut disk, FIRST, slow_crc);
            let hit = begins.iter().rposition(|&begin| begin <= at).unwrap();
            let begin = begins[hit];
            let header = Header::of(&memory[begin..]);
            let (end, is_last) = (begin + header.size(), hit + 1 == records.len());
            if is_last && at - begin < header.payload_at() {
                // Nothing after it tells that it was one.
                prop_assert_eq!((found.used, found.records), (begin, hit as u32));
                prop_assert!(found.torn > 0 && found.damage.is_empty());
            } else {
                prop_assert_eq!(&found.damage, &vec![(begin, end)]);
                prop_assert_eq!((found.used, found.records, found.torn), (memory.len(), records.len() as u32, 0));
                let lost = Header::of(&disk[begin..]);
                prop_assert_eq!((lost.flags & LOST, lost.size()), (LOST, end - begin));
                // Everything else is as it was.
                prop_assert_eq!((&disk[..begin], &disk[end..]), (&memory[..begin], &memory[end..]));
            }
        }

        #[test]
        fn gaps_among_copies_were_copies(count in 2..8usize, hit in any::<prop::sample::Index>(), others in 0..2usize) {
            let mut records = vec![(30, CARRIED); count];
            records.extend(vec![(30, 0); others]);
            let (memory, begins) = chunk(&records);
            let mut disk = sealed(memory);
            let hit = hit.index(count - 1);
            // Its header is gone, and another record follows.
            disk[begins[hit] + 5] ^= 1;
            let found = inspect(&mut disk, FIRST, slow_crc);
            prop_assert_eq!((found.records, found.damage.len()), (records.len() as u32, 1));
            // With others among them it is not known what it was.
            prop_assert_eq!(found.plain as usize, if others == 0 { 0 } else { 1 + others });
            prop_assert_eq!(plain_before(&disk, disk.len()), found.plain);
        }

        #[test]
        fn a_cut_costs_the_tail(records in records(), cut in any::<prop::sample::Index>()) {
            let (memory, begins) = chunk(&records);
            let mut disk = sealed(memory);
            let (length, cut) = (disk.len(), cut.index(disk.len()));
            // Zeros that are cut off are not missed.
            let cut = cut + disk[cut..].iter().take_while(|byte| **byte == 0).count();
            disk[cut..].fill(0);
            let found = inspect(&mut disk, FIRST, slow_crc);
            let whole = begins[1..].iter().chain([&length]).filter(|&&end| end <= cut).count();
            // A header may survive the cut of its payload: then it is known that the record was there.
            prop_assert!(found.records as usize == whole || (found.records as usize == whole + 1 && found.damage.len() == 1));
        }

        #[test]
        fn garbage_is_no_record(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let found = inspect(&mut bytes, FIRST, slow_crc);
            prop_assert_eq!((found.used, found.records), (0, 0));
        }
    }
}
