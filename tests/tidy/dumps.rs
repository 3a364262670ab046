//! The annotated files in docs/log-format.md: the code must write them, byte for byte.

use nsq_core::message::MessageId;
use nsq_core::name::ChannelName;
use nsq_core::storage::journal::{self, Batch, Entry, Incarnation, Numbers, Place, Position};
use nsq_core::storage::record::{DEFERRED, Header, seal};
use nsq_core::storage::segment::{self, Region};
use nsq_core::time::Timestamp;

const TOPIC: u64 = 7;
const MADE: i64 = 1_700_000_000_000_000_000;
const MINUTE: u64 = 60_000_000_000;
const CAPACITY: u32 = 1024;
const FIRST: MessageId = MessageId(*b"0a1b2c3d4e5f6000");
const LAST: MessageId = MessageId(*b"0a1b2c3d4e5f6001");

/// CRC-32C, bit by bit.
fn crc(before: u32, bytes: &[u8]) -> u32 {
    let shift = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!before, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| shift(crc)))
}

/// When the deferred message was published, and when it is due.
fn deferred() -> (i64, i64) {
    (MADE + 1000, (MADE + 1000).saturating_add_unsigned(MINUTE))
}

fn records() -> Vec<u8> {
    let mut records = Vec::new();
    let (published, due) = deferred();
    for (flags, seq, time, id, body) in
        [(0, 40, MADE, FIRST, &b"hi"[..]), (DEFERRED, 41, published, LAST, &b"later"[..])]
    {
        Header { flags, payload: 26 + body.len() as u32, seq, sum: 0 }.write(&mut records);
        if flags == DEFERRED {
            records.extend(due.to_be_bytes());
            records.extend(MINUTE.to_be_bytes());
        }
        records.extend(time.to_be_bytes());
        records.extend([0; 2]);
        records.extend(id.0);
        records.extend(body);
    }
    seal(&mut records, crc);
    records
}

fn sealed_segment() -> Vec<u8> {
    let mut file = segment::head(TOPIC, 1, Timestamp::from_nanos(MADE), crc).to_vec();
    let (offset, records, first_seq) = (file.len() as u64, records(), 40);
    let used = records.len() as u32;
    file.extend(segment::region_head(5, first_seq, CAPACITY, crc));
    file.extend(records);
    let (chunk, capacity, records, plain, deferred) = (5, CAPACITY, 2, 1, 1);
    let region = Region { chunk, capacity, offset, used, records, plain, deferred, first_seq };
    file.resize(region.end() as usize, 0);
    file.extend(segment::end(&[region], region.end(), LAST, crc));
    file
}

fn journal() -> Vec<u8> {
    let channel = Incarnation(3);
    let place = |offset| Place { chunk: 5, offset };
    let fan = Position { place: place(records().len() as u32), passed: 1 };
    let (_, due) = deferred();
    let mut batch = Batch::default();
    for entry in [
        Entry::Numbers(Numbers { seq: 42, chunk: 6, segment: 2, incarnation: Incarnation(4), id: LAST }),
        Entry::Topic { paused: false, fan },
        Entry::Channel { channel, name: ChannelName::new("mail").unwrap(), paused: false },
        Entry::Fresh { channel, ranges: Vec::new() },
        Entry::Out { channel, place: place(0), attempts: 1, due: 0, delay: 0 },
        Entry::Out { channel, place: place(44), attempts: 0, due, delay: MINUTE / 2 },
    ] {
        batch.push(&entry);
    }
    let mut file = journal::head(TOPIC, 2, crc).to_vec();
    file.extend(batch.finish(crc));
    file
}

/// The bytes of each listing whose lines begin with an offset: bytes in hex and what they are, or up to where all are
/// zero.
fn listings(text: &str) -> Vec<Vec<u8>> {
    let listing = |fence: &str| {
        let mut bytes = Vec::new();
        for line in fence.trim_start().lines() {
            let (offset, rest) = line.split_once("  ")?;
            assert_eq!(usize::from_str_radix(offset, 16).ok()?, bytes.len(), "where does this stand? {line}");
            match rest.strip_prefix("zeros up to ") {
                Some(end) => bytes.resize(usize::from_str_radix(end, 16).ok()?, 0),
                None => {
                    let hex = rest.split("  ").next()?.split_whitespace();
                    bytes.extend(hex.map(|byte| u8::from_str_radix(byte, 16).expect("two digits")));
                }
            }
        }
        Some(bytes).filter(|bytes| !bytes.is_empty())
    };
    text.split("```").skip(1).step_by(2).filter_map(listing).collect()
}

#[test]
fn the_dumps_are_what_the_code_writes() {
    let listings = listings(include_str!("../../docs/log-format.md"));
    assert_eq!(listings.len(), 2, "a segment and a journal");
    assert_eq!(listings[0], sealed_segment());
    assert_eq!(listings[1], journal());
    assert!(segment::read_end(&listings[0][0x460..], crc).is_some(), "its index is valid");
    assert!(journal::read(&listings[1], TOPIC, 2, crc).is_some_and(|contents| contents.end == listings[1].len()));
}
