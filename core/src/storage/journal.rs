//! The journal: what a topic's channels have done with its messages, in batches of entries.
//!
//! Entries say what is and not what has changed, so that taking one twice changes nothing. A batch is believed as a
//! whole or not at all; after one that does not check out, little of what is said can be.

use super::{Crc, Fields, VERSION, signed, version};
use crate::message::MessageId;
use crate::name::ChannelName;
use alloc::vec::Vec;

/// Bytes of a journal's head.
pub const HEAD: usize = 64;
const MAGIC: &[u8; 8] = b"NSQJRN1\n";
const BATCH_HEAD: usize = 8;

/// Where a message is: the number of its chunk and its offset in there. Ordered as the messages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The chunk's number.
    pub chunk: u64,
    /// The offset of the record's header, bytes.
    pub offset: u32,
}

/// Where a cursor stands: in front of the record at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// In front of this.
    pub place: Place,
    /// How many plain records of the chunk are before it.
    pub passed: u32,
}

/// A channel that was created once; the next one of that name is another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// Numbers that are never used twice: the next ones, and the largest id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Of a record.
    pub seq: u64,
    /// Of a chunk.
    pub chunk: u64,
    /// Of a segment.
    pub segment: u32,
    /// Of a channel's creation.
    pub incarnation: Incarnation,
    /// The largest id given so far.
    pub id: MessageId,
}

/// Plain records from one position to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreshRange {
    /// In front of the first.
    pub begin: Position,
    /// Behind the last.
    pub end: Position,
}

/// How much of a segment was fsynced when an entry was written: what is not there of it is lost, and not torn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Safe {
    /// The end of the last record of those.
    pub end: u64,
    /// All of it was, and its index.
    pub sealed: bool,
}

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants' documentation names their fields")]
pub enum Entry {
    /// Numbers that were used.
    Numbers(Numbers),
    /// How far messages were given to channels, and whether that is paused.
    Topic { paused: bool, fan: Position },
    /// A channel exists.
    Channel { channel: Incarnation, name: ChannelName, paused: bool },
    /// A channel, and all it had, does not exist.
    Gone { channel: Incarnation },
    /// What a channel has not handed out, up to the fan-out position; all of it.
    Fresh { channel: Incarnation, ranges: Vec<FreshRange> },
    /// Handed out, put back or deferred (until `due`, Unix ns, of a delay of so many ns), and not done.
    Out { channel: Incarnation, place: Place, attempts: u16, due: i64, delay: u64 },
    /// Finished or dropped.
    Done { channel: Incarnation, place: Place },
    /// Nothing is out any more.
    Empty { channel: Incarnation },
    /// There is a segment, of which so much is safe, or nobody needs it any more.
    Segment { number: u32, needed: Option<Safe> },
    /// All that is out of chunks with regions before this is said. What was handed out of one before it got its region
    /// is told only after that.
    Placed { segment: u32, offset: u64 },
}

const NUMBERS: u8 = 1;
const TOPIC: u8 = 2;
const CHANNEL: u8 = 3;
const GONE: u8 = 4;
const FRESH: u8 = 5;
const OUT: u8 = 6;
const DONE: u8 = 7;
const EMPTY: u8 = 8;
const SEGMENT: u8 = 9;
const PLACED: u8 = 10;

/// The head of a journal.
pub fn head(incarnation: u64, number: u32, crc: Crc) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(MAGIC);
    head[8..16].copy_from_slice(&incarnation.to_be_bytes());
    head[16..20].copy_from_slice(&number.to_be_bytes());
    signed(head, crc)
}

/// The version of the format, if it is not this one, that the head of a journal names.
pub fn other_version(bytes: &[u8], crc: Crc) -> Option<char> {
    version::<HEAD>(bytes, MAGIC, crc).filter(|&version| version != VERSION)
}

/// Entries of one batch, being collected.
#[derive(Debug, Default)]
pub struct Batch {
    /// Room for the head, then the entries.
    bytes: Vec<u8>,
}

impl Batch {
    /// Adds an entry.
    pub fn push(&mut self, entry: &Entry) {
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(&[0; BATCH_HEAD]);
        }
        write(entry, &mut self.bytes);
    }

    /// Whether it has no entries.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes so far.
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The batch as it is appended to a journal; nothing if there are no entries.
    pub fn finish(self, crc: Crc) -> Vec<u8> {
        let mut bytes = self.unsealed();
        seal(&mut bytes, crc);
        bytes
    }

    /// The batch without its checksum: somebody else will [`seal`] it.
    pub fn unsealed(self) -> Vec<u8> {
        self.bytes
    }
}

/// Fills in length and checksum of one batch, unless it has no entries.
pub fn seal(batch: &mut [u8], crc: Crc) {
    if let Some(length) = batch.len().checked_sub(BATCH_HEAD) {
        batch[..4].copy_from_slice(&(length as u32).to_be_bytes());
        let sum = crc(crc(0, &batch[..4]), &batch[BATCH_HEAD..]);
        batch[4..BATCH_HEAD].copy_from_slice(&sum.to_be_bytes());
    }
}

/// What a journal holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// All entries of all whole batches up to the first damage, in order.
    pub entries: Vec<Entry>,
    /// Those of whole batches behind that: what they say of messages is not the whole story.
    pub later: Vec<Entry>,
    /// Where damage begins and ends: whole batches come behind it.
    pub damage: Vec<(usize, usize)>,
    /// Where the last whole batch ends; the file's length if nothing is torn.
    pub end: usize,
    /// What is behind that was written to its end once.
    pub is_spoiled: bool,
}

/// Reads a journal of that topic and number; `None` if its head or its checkpoint is not whole.
pub fn read(bytes: &[u8], incarnation: u64, number: u32, crc: Crc) -> Option<Contents> {
    let (entries, mut rest) = read_batch(bytes.strip_prefix(&head(incarnation, number, crc))?, crc)?;
    let mut contents = Contents { entries, ..Contents::default() };
    loop {
        while let Some((entries, after)) = read_batch(rest, crc) {
            if contents.damage.is_empty() { &mut contents.entries } else { &mut contents.later }.extend(entries);
            rest = after;
        }
        contents.end = bytes.len() - rest.len();
        // Every batch begins with numbers, so it is seldom that more has to be looked at.
        let may_begin = |&next: &usize| rest.get(next + BATCH_HEAD) == Some(&NUMBERS);
        let is_batch = |&next: &usize| read_batch(&rest[next..], crc).is_some();
        let Some(next) = (1..rest.len()).filter(may_begin).find(is_batch) else {
            contents.is_spoiled = was_whole(rest, crc);
            return Some(contents);
        };
        contents.damage.push((contents.end, contents.end + next));
        rest = &rest[next..];
    }
}

fn read_batch(bytes: &[u8], crc: Crc) -> Option<(Vec<Entry>, &[u8])> {
    let mut fields = Fields(bytes);
    let length = fields.bytes(4)?;
    let sum = fields.u32()?;
    let body = fields.bytes(u32::from_be_bytes(length.try_into().ok()?) as usize)?;
    let after = fields.0;
    let mut fields = Fields(body);
    let mut entries = Vec::new();
    // What is none is mostly known before all of its bytes have been looked at.
    while !fields.0.is_empty() {
        entries.push(read_entry(&mut fields)?);
    }
    (!entries.is_empty() && crc(crc(0, length), body) == sum).then_some((entries, after))
}

/// Whether these bytes, which are no batch, were one: all of it is there, by its length, or, if that is what is
/// damaged, by its checksum. A process that is killed leaves a beginning only.
fn was_whole(bytes: &[u8], crc: Crc) -> bool {
    let mut fields = Fields(bytes);
    let (Some(length), Some(sum)) = (fields.u32(), fields.u32()) else { return false };
    let there = fields.0.len();
    (1..=there).contains(&(length as usize)) || crc(crc(0, &(there as u32).to_be_bytes()), fields.0) == sum
}

fn write(entry: &Entry, out: &mut Vec<u8>) {
    match entry {
        Entry::Numbers(Numbers { seq, chunk, segment, incarnation, id }) => {
            out.push(NUMBERS);
            out.extend_from_slice(&seq.to_be_bytes());
            out.extend_from_slice(&chunk.to_be_bytes());
            out.extend_from_slice(&segment.to_be_bytes());
            out.extend_from_slice(&incarnation.0.to_be_bytes());
            out.extend_from_slice(&id.0);
        }
        Entry::Topic { paused, fan } => {
            out.extend_from_slice(&[TOPIC, u8::from(*paused)]);
            write_position(*fan, out);
        }
        Entry::Channel { channel, name, paused } => {
            start(CHANNEL, *channel, out);
            out.extend_from_slice(&[u8::from(*paused), name.as_str().len() as u8]);
            out.extend_from_slice(name.as_str().as_bytes());
        }
        Entry::Gone { channel } => start(GONE, *channel, out),
        Entry::Fresh { channel, ranges } => {
            start(FRESH, *channel, out);
            out.extend_from_slice(&(ranges.len() as u32).to_be_bytes());
            for range in ranges {
                write_position(range.begin, out);
                write_position(range.end, out);
            }
        }
        Entry::Out { channel, place, attempts, due, delay } => {
            start(OUT, *channel, out);
            write_place(*place, out);
            out.extend_from_slice(&attempts.to_be_bytes());
            out.extend_from_slice(&due.to_be_bytes());
            out.extend_from_slice(&delay.to_be_bytes());
        }
        Entry::Done { channel, place } => {
            start(DONE, *channel, out);
            write_place(*place, out);
        }
        Entry::Empty { channel } => start(EMPTY, *channel, out),
        Entry::Segment { number, needed } => {
            out.extend_from_slice(&[SEGMENT, needed.map_or(0, |safe| 1 + u8::from(safe.sealed))]);
            out.extend_from_slice(&number.to_be_bytes());
            out.extend_from_slice(&needed.map_or(0, |safe| safe.end).to_be_bytes());
        }
        Entry::Placed { segment, offset } => {
            out.push(PLACED);
            out.extend_from_slice(&segment.to_be_bytes());
            out.extend_from_slice(&offset.to_be_bytes());
        }
    }
}

fn start(kind: u8, channel: Incarnation, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&channel.0.to_be_bytes());
}

fn write_place(place: Place, out: &mut Vec<u8>) {
    out.extend_from_slice(&place.chunk.to_be_bytes());
    out.extend_from_slice(&place.offset.to_be_bytes());
}

fn write_position(position: Position, out: &mut Vec<u8>) {
    write_place(position.place, out);
    out.extend_from_slice(&position.passed.to_be_bytes());
}

fn read_entry(fields: &mut Fields<'_>) -> Option<Entry> {
    let kind = fields.u8()?;
    match kind {
        NUMBERS => {
            let (seq, chunk, segment) = (fields.number()?, fields.chunk_number()?, fields.file_number()?);
            let (incarnation, id) = (Incarnation(fields.number()?), MessageId(fields.array()?));
            return Some(Entry::Numbers(Numbers { seq, chunk, segment, incarnation, id }));
        }
        TOPIC => return Some(Entry::Topic { paused: fields.u8()? != 0, fan: read_position(fields)? }),
        SEGMENT => {
            let (needed, number, end) = (fields.u8()?, fields.file_number()?, fields.u64()?);
            let needed = (needed > 0).then_some(Safe { end, sealed: needed > 1 });
            return Some(Entry::Segment { number, needed });
        }
        PLACED => return Some(Entry::Placed { segment: fields.file_number()?, offset: fields.u64()? }),
        _ => {}
    }
    let channel = Incarnation(fields.number()?);
    Some(match kind {
        CHANNEL => {
            let paused = fields.u8()? != 0;
            let length = fields.u8()?;
            let name = ChannelName::new(core::str::from_utf8(fields.bytes(length.into())?).ok()?)?;
            Entry::Channel { channel, name, paused }
        }
        GONE => Entry::Gone { channel },
        FRESH => {
            let count = fields.u32()?;
            let range = |fields: &mut Fields<'_>| {
                Some(FreshRange { begin: read_position(fields)?, end: read_position(fields)? })
            };
            Entry::Fresh { channel, ranges: (0..count).map(|_| range(fields)).collect::<Option<_>>()? }
        }
        OUT => {
            let (place, attempts) = (read_place(fields)?, fields.u16()?);
            Entry::Out { channel, place, attempts, due: fields.u64()? as i64, delay: fields.u64()? }
        }
        DONE => Entry::Done { channel, place: read_place(fields)? },
        EMPTY => Entry::Empty { channel },
        _ => return None,
    })
}

fn read_place(fields: &mut Fields<'_>) -> Option<Place> {
    Some(Place { chunk: fields.chunk_number()?, offset: fields.u32()? })
}

fn read_position(fields: &mut Fields<'_>) -> Option<Position> {
    Some(Position { place: read_place(fields)?, passed: fields.u32()? })
}

#[cfg(test)]
mod tests {
    use super::super::{CHUNKS_END, NUMBERS_END, names, slow_crc};
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn place() -> impl Strategy<Value = Place> {
        (0..CHUNKS_END, any::<u32>()).prop_map(|(chunk, offset)| Place { chunk, offset })
    }

    fn position() -> impl Strategy<Value = Position> {
        (place(), any::<u32>()).prop_map(|(place, passed)| Position { place, passed })
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let channel = || (0..NUMBERS_END).prop_map(Incarnation);
        let number = || 0..NUMBERS_END;
        let numbers = (number(), 0..CHUNKS_END, 0..names::NUMBERS_END, channel(), any::<[u8; 16]>());
        let range = (position(), position()).prop_map(|(begin, end)| FreshRange { begin, end });
        prop_oneof![
            numbers.prop_map(|(seq, chunk, segment, incarnation, id)| {
                Entry::Numbers(Numbers { seq, chunk, segment, incarnation, id: MessageId(id) })
            }),
            (any::<bool>(), position()).prop_map(|(paused, fan)| Entry::Topic { paused, fan }),
            (channel(), "[a-z.]{1,64}", any::<bool>()).prop_map(|(channel, name, paused)| {
                Entry::Channel { channel, name: ChannelName::new(&name).unwrap(), paused }
            }),
            channel().prop_map(|channel| Entry::Gone { channel }),
            (channel(), proptest::collection::vec(range, 0..4))
                .prop_map(|(channel, ranges)| Entry::Fresh { channel, ranges }),
            (channel(), place(), any::<u16>(), any::<i64>(), any::<u64>())
                .prop_map(|(channel, place, attempts, due, delay)| Entry::Out { channel, place, attempts, due, delay }),
            (channel(), place()).prop_map(|(channel, place)| Entry::Done { channel, place }),
            channel().prop_map(|channel| Entry::Empty { channel }),
            (0..names::NUMBERS_END, proptest::option::of((any::<u64>(), any::<bool>()))).prop_map(|(number, safe)| {
                Entry::Segment { number, needed: safe.map(|(end, sealed)| Safe { end, sealed }) }
            }),
            (0..names::NUMBERS_END, any::<u64>()).prop_map(|(segment, offset)| Entry::Placed { segment, offset }),
        ]
    }

    fn file(batches: &[Vec<Entry>]) -> Vec<u8> {
        let mut file = head(7, 3, slow_crc).to_vec();
        for entries in batches {
            let mut batch = Batch::default();
            entries.iter().for_each(|entry| batch.push(entry));
            file.extend(batch.finish(slow_crc));
        }
        file
    }

    proptest! {
        #[test]
        fn a_journal_is_read_back_as_far_as_it_is_whole(
            batches in proptest::collection::vec(proptest::collection::vec(entry(), 1..6), 1..5),
            cut in any::<prop::sample::Index>(),
            flip in any::<prop::sample::Index>(),
        ) {
            let whole = file(&batches);
            let contents = read(&whole, 7, 3, slow_crc).unwrap();
            prop_assert_eq!(&contents.entries, &batches.concat());
            prop_assert_eq!(contents.end, whole.len());

            // Whatever is cut off or flipped: some of the batches, from the first on, or nothing.
            let prefixes: Vec<_> = (1..=batches.len()).map(|count| batches[..count].concat()).collect();
            let cut = cut.index(whole.len());
            let mut flipped = whole.clone();
            flipped[flip.index(whole.len())] ^= 0x10;
            for damaged in [&whole[..cut], &flipped[..]] {
                if let Some(contents) = read(damaged, 7, 3, slow_crc) {
                    prop_assert!(prefixes.contains(&contents.entries));
                    prop_assert!(contents.end <= damaged.len());
                }
            }
        }
    }

    #[test]
    fn what_comes_behind_damage_is_told_from_a_torn_tail() {
        let id = MessageId([b'0'; 16]);
        let numbers = |segment| Entry::Numbers(Numbers { seq: 1, chunk: 1, segment, incarnation: Incarnation(1), id });
        let batch = |segment| vec![numbers(segment), Entry::Empty { channel: Incarnation(1) }];
        let batches: Vec<_> = (1..=5).map(batch).collect();
        let length = file(&batches[..1]).len() - HEAD;
        for hit in 1..5 {
            for at in 0..length {
                let mut damaged = file(&batches);
                damaged[HEAD + hit * length + at] ^= 0x10;
                let contents = read(&damaged, 7, 3, slow_crc).unwrap();
                assert_eq!(contents.entries, batches[..hit].concat());
                assert_eq!(contents.later, batches[hit + 1..].concat(), "byte {at} of batch {hit}");
                let (begin, end) = (HEAD + hit * length, HEAD + (hit + 1) * length);
                let (damage, whole) = if hit == 4 { (vec![], begin) } else { (vec![(begin, end)], damaged.len()) };
                assert_eq!((contents.damage, contents.end), (damage, whole));
                assert_eq!(contents.is_spoiled, hit == 4, "byte {at} of batch {hit}");
            }
        }
        // Somebody was killed, or lost power.
        for torn in 1..length {
            let mut damaged = file(&batches);
            damaged.truncate(HEAD + 4 * length + torn);
            assert!(!read(&damaged, 7, 3, slow_crc).unwrap().is_spoiled, "{torn} bytes");
            damaged[HEAD + 4 * length..].fill(0);
            assert!(!read(&damaged, 7, 3, slow_crc).unwrap().is_spoiled, "{torn} zeros");
        }
    }

    #[test]
    fn a_journal_of_another_topic_or_without_checkpoint_is_none() {
        let channel = Incarnation(1);
        let whole = file(&[vec![Entry::Gone { channel }], vec![Entry::Empty { channel }]]);
        assert!(read(&whole, 7, 3, slow_crc).is_some());
        assert_eq!(read(&whole, 8, 3, slow_crc), None);
        assert_eq!(read(&whole, 7, 4, slow_crc), None);
        assert_eq!(read(&whole[..HEAD], 7, 3, slow_crc), None);
        assert_eq!(read(&whole[..HEAD + 9], 7, 3, slow_crc), None);
        assert!(Batch::default().finish(slow_crc).is_empty());
    }
}
