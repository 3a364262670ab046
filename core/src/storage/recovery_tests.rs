//! Recovery of directories made by hand, whole and damaged.

use super::journal::{self, Batch, Entry, FreshRange, Incarnation, Numbers, Place, Position, Safe};
use super::names::FileName;
use super::record::{CARRIED, DEFERRED, HEADER, Header, seal};
use super::recovered::{Channel, Due, Out, Problem, Recovered, Trouble};
use super::recovery::{Piece, Recovery};
use super::segment::{self, Region};
use super::slow_crc;
use crate::message::MessageId;
use crate::name::ChannelName;
use crate::time::Timestamp;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use proptest::prelude::*;

pub(crate) const TOPIC: u64 = 7;
const CHANNEL: Incarnation = Incarnation(4);
const RECORD: u32 = HEADER as u32 + 26;

pub(crate) type Files = BTreeMap<FileName, Vec<u8>>;

/// A segment with these chunks, of so many plain records each and, if it is the last, a deferred one.
fn segment(number: u32, chunks: &[(u64, u32)], first_seq: u64, with_deferred: bool, sealed: bool) -> Vec<u8> {
    let mut file = segment::head(TOPIC, number, Timestamp::from_nanos(1), slow_crc).to_vec();
    let (mut regions, mut seq) = (Vec::new(), first_seq);
    for &(chunk, plain) in chunks {
        let (first_seq, offset) = (seq, file.len() as u64);
        let mut records = Vec::new();
        let deferred = u32::from(with_deferred && chunk == chunks[chunks.len() - 1].0);
        for flags in (0..plain).map(|_| 0).chain((0..deferred).map(|_| DEFERRED)) {
            Header { flags, payload: 26, seq: seq as u32, sum: 0 }.write(&mut records);
            if flags == DEFERRED {
                records.extend_from_slice(&5_000u64.to_be_bytes());
                records.extend_from_slice(&1_000u64.to_be_bytes());
            }
            records.extend_from_slice(&[0; 10]);
            records.extend_from_slice(alloc::format!("{seq:016x}").as_bytes());
            seq += 1;
        }
        seal(&mut records, slow_crc);
        let (used, capacity) = (records.len() as u32, 512);
        file.extend(segment::region_head(chunk, first_seq, capacity, slow_crc));
        records.resize(capacity as usize, 0);
        file.extend(records);
        regions.push(Region { chunk, capacity, offset, used, records: plain + deferred, plain, deferred, first_seq });
    }
    if sealed {
        let at = file.len() as u64;
        let id = MessageId(*alloc::format!("{:016x}", seq - 1).as_bytes().first_chunk().unwrap());
        file.extend(segment::end(&regions, at, id, slow_crc));
    }
    file
}

fn position(chunk: u64, passed: u32) -> Position {
    Position { place: Place { chunk, offset: passed * RECORD }, passed }
}

/// The first two are sealed; of the third, all is new to the journal.
fn needed(number: u32) -> Entry {
    let end = [222, 824, 0][number as usize - 1];
    Entry::Segment { number, needed: Some(Safe { end, sealed: number < 3 }) }
}

/// Two sealed segments and one that was being written; a channel that has handed out two messages and finished one,
/// and a journal that knows nothing of the last chunk.
pub(crate) fn directory() -> Files {
    let mut batch = Batch::default();
    let name = ChannelName::new("c").unwrap();
    let numbers =
        Numbers { seq: 9, chunk: 5, segment: 3, incarnation: Incarnation(5), id: MessageId(*b"0000000000000008") };
    batch.push(&Entry::Numbers(numbers));
    batch.push(&Entry::Topic { paused: false, fan: position(4, 2) });
    batch.push(&Entry::Placed { segment: 2, offset: 0 });
    batch.push(&Entry::Channel { channel: CHANNEL, name, paused: true });
    (1..=3).for_each(|number| batch.push(&needed(number)));
    let mut later = Batch::default();
    let range = FreshRange { begin: position(1, 2), end: position(4, 2) };
    later.push(&Entry::Fresh { channel: CHANNEL, ranges: [range].into() });
    for passed in [0, 1] {
        let place = position(1, passed).place;
        later.push(&Entry::Out { channel: CHANNEL, place, attempts: 3, due: 0, delay: 0 });
    }
    later.push(&Entry::Done { channel: CHANNEL, place: position(1, 0).place });
    let mut journal = journal::head(TOPIC, 2, slow_crc).to_vec();
    journal.extend(batch.finish(slow_crc));
    journal.extend(later.finish(slow_crc));
    let old = journal::head(TOPIC, 1, slow_crc).to_vec();
    [
        (FileName::Journal(1), old),
        (FileName::Journal(2), journal),
        (FileName::Unfinished(3), b"half".to_vec()),
        (FileName::Segment(1), segment(1, &[(1, 3)], 1, false, true)),
        (FileName::Segment(2), segment(2, &[(2, 2), (4, 3)], 4, true, true)),
        (FileName::Segment(3), segment(3, &[(6, 2)], 10, true, false)),
    ]
    .into()
}

pub(crate) fn recover(files: &Files) -> Recovered {
    recover_on(files, |_, _| true)
}

/// On a disk that gives out some pieces and others not.
fn recover_on(files: &Files, mut gives_out: impl FnMut(Piece, usize) -> bool) -> Recovered {
    let mut recovery = Recovery::new(TOPIC, files.iter().map(|(file, bytes)| (*file, bytes.len() as u64)), slow_crc);
    let mut reads = 0;
    while let Some(piece) = recovery.wants() {
        let begin = piece.offset as usize;
        let is_there = gives_out(piece, reads);
        let bytes = files[&piece.file][begin..begin + piece.length].to_vec();
        recovery.handle(if is_there { Ok(bytes) } else { Err("input/output error".into()) });
        reads += 1;
        assert!(reads < 100_000, "it comes to an end");
    }
    recovery.finish()
}

/// Makes all checksums right, in files whose parts are where they are in the ones they were made of.
pub(crate) fn reseal(files: &mut Files, made_of: &Files) {
    for (file, bytes) in files {
        let old = &made_of[file];
        let mut sign = |from: usize, to: usize, at: usize| {
            let sum = slow_crc(0, &bytes[from..to]);
            bytes[at..at + 4].copy_from_slice(&sum.to_be_bytes());
        };
        if old.len() < segment::HEAD {
            continue;
        }
        sign(0, segment::HEAD - 4, segment::HEAD - 4);
        let mut at = segment::HEAD;
        if matches!(file, FileName::Journal(_)) {
            while at < old.len() {
                let end = at + 8 + u32::from_be_bytes(old[at..at + 4].try_into().unwrap()) as usize;
                let sum = slow_crc(slow_crc(0, &bytes[at..at + 4]), &bytes[at + 8..end]);
                bytes[at + 4..at + 8].copy_from_slice(&sum.to_be_bytes());
                at = end;
            }
            continue;
        }
        while old[at..].starts_with(b"CHNK") {
            sign(at, at + segment::REGION_HEAD - 4, at + segment::REGION_HEAD - 4);
            let (mut record, end) = (at + segment::REGION_HEAD, at + segment::REGION_HEAD + 512);
            while record + HEADER < end && old[record..record + 4] != [0; 4] {
                let header = Header::of(&old[record..]);
                let (payload, next) = (record + header.payload_at(), record + header.size());
                sign(payload, next, record + 8);
                sign(record + 4, payload, record);
                record = next;
            }
            at = end;
        }
        if at < old.len() {
            sign(at, old.len() - 4, old.len() - 4);
        }
    }
}

#[test]
fn everything_is_put_together() {
    let recovered = recover(&directory());
    assert_eq!(recovered.problems, []);
    assert_eq!(recovered.obsolete, [FileName::Unfinished(3), FileName::Journal(1)]);
    let Numbers { seq, chunk, segment, incarnation, id } = recovered.numbers;
    assert_eq!((seq, chunk, segment, incarnation), (13, 7, 4, Incarnation(5)));
    assert_eq!(id, MessageId(*b"000000000000000c"));
    assert_eq!(recovered.chunks.keys().copied().collect::<Vec<_>>(), [1, 2, 4, 6]);
    assert_eq!(recovered.fan, position(4, 2));
    let channel = &recovered.channels[&CHANNEL];
    assert!(channel.paused);
    assert_eq!(channel.out, [(position(1, 1).place, Out { attempts: 3, due: None })].into());
    assert_eq!(channel.fresh.iter().map(|range| recovered.messages(*range)).collect::<Vec<_>>(), [1 + 2 + 2]);
    let due = Due { at: 5_000, delay: 1_000 };
    assert_eq!(recovered.deferred, [(position(4, 3).place, due), (position(6, 2).place, due)]);
}

#[test]
fn what_is_missing_is_reported_and_the_rest_used() {
    let mut files = directory();
    files.remove(&FileName::Segment(1));
    let recovered = recover(&files);
    let what: Vec<_> = recovered.problems.iter().map(|problem| problem.what.clone()).collect();
    assert_eq!(what, [Trouble::Missing, Trouble::Lost(ChannelName::new("c").unwrap(), 1)]);
    assert_eq!(recovered.channels[&CHANNEL].fresh.iter().map(|it| recovered.messages(*it)).sum::<u64>(), 4);

    let mut files = directory();
    files.get_mut(&FileName::Segment(2)).unwrap()[3] ^= 1;
    let recovered = recover(&files);
    let what: Vec<_> = recovered.problems.iter().map(|problem| problem.what.clone()).collect();
    assert_eq!((&what[..], recovered.chunks.len()), (&[Trouble::Damaged(64)][..], 4), "the index tells all the same");

    let mut files = directory();
    let head = segment::head(TOPIC + 1, 2, Timestamp::from_nanos(1), slow_crc);
    files.get_mut(&FileName::Segment(2)).unwrap()[..64].copy_from_slice(&head);
    let recovered = recover(&files);
    assert_eq!(recovered.problems[0].what, Trouble::NotOurs);
    assert!(!recovered.segments.contains_key(&2), "it is left alone");

    // Without a journal all that is there is given out once more.
    let mut files = directory();
    files.retain(|file, _| !matches!(file, FileName::Journal(_)));
    let recovered = recover(&files);
    assert_eq!((recovered.problems.len(), recovered.channels.len(), recovered.fan.passed), (0, 0, 0));
    assert_eq!(recovered.numbers.segment, 4);
    assert_eq!(recovered.deferred.len(), 2);
}

#[test]
fn another_version_of_the_format_is_not_taken_for_damage() {
    for file in [FileName::Segment(1), FileName::Segment(3), FileName::Journal(1), FileName::Journal(2)] {
        let (mut files, made_of) = (directory(), directory());
        assert_eq!(recover(&files).other_version(), None);
        files.get_mut(&file).unwrap()[6] = b'2';
        // Without its checksum it is damage.
        assert_eq!(recover(&files).other_version(), None);
        reseal(&mut files, &made_of);
        let recovered = recover(&files);
        // The older journal is looked at if the newer one is of no use only.
        let expected = (file != FileName::Journal(1)).then_some((file, &Trouble::Version('2')));
        assert_eq!(recovered.other_version().map(|problem| (problem.file, &problem.what)), expected);
        assert!(!recovered.unreadable.contains(&file), "its name stays");
    }
}

const JOURNAL: FileName = FileName::Journal(2);

/// Of chunk 6 the channel had handed out messages before it got a region, which the checkpoint knows nothing of. Three
/// batches follow, of which the first tells that the first message is out; where that one is.
fn placed_late(sealed: bool, fan: Position) -> (Files, Range<usize>) {
    let mut files = directory();
    files.insert(FileName::Segment(3), segment(3, &[(5, 2), (6, 4)], 10, true, sealed));
    let region = segment::HEAD + segment::REGION_HEAD + 512;
    let id = MessageId(*b"0000000000000010");
    let numbers = Entry::Numbers(Numbers { seq: 17, chunk: 7, segment: 4, incarnation: Incarnation(5), id });
    let range = FreshRange { begin: position(6, 2), end: position(6, 3) };
    let fresh = Entry::Fresh { channel: CHANNEL, ranges: [range].into() };
    let out = |chunk, passed, attempts| {
        let place = position(chunk, passed).place;
        Entry::Out { channel: CHANNEL, place, attempts, due: 0, delay: 0 }
    };
    let name = ChannelName::new("c").unwrap();
    let checkpoint = [
        numbers.clone(),
        Entry::Topic { paused: false, fan },
        Entry::Placed { segment: 3, offset: region as u64 },
        Entry::Channel { channel: CHANNEL, name, paused: false },
        fresh.clone(),
        out(5, 1, 3),
    ];
    let told = [numbers.clone(), Entry::Placed { segment: 4, offset: 0 }, fresh, out(6, 0, 2)];
    let mut journal = journal::head(TOPIC, 2, slow_crc).to_vec();
    let mut ends = Vec::new();
    for entries in [&checkpoint[..], &told, &[numbers], &[Entry::Empty { channel: CHANNEL }]] {
        let mut batch = Batch::default();
        entries.iter().for_each(|entry| batch.push(entry));
        journal.extend(batch.finish(slow_crc));
        ends.push(journal.len());
    }
    files.insert(JOURNAL, journal);
    (files, ends[0]..ends[1])
}

#[test]
fn what_a_damaged_batch_told_of_a_chunk_is_out() {
    let due = Some(Due { at: 5_000, delay: 1_000 });
    let end = Position { place: Place { chunk: 6, offset: 5 * RECORD + 16 }, passed: 4 };
    for (sealed, fan, is_last) in [
        (true, position(6, 3), true),
        (false, position(6, 3), true),
        (true, end, true),
        (false, end, true),
        (true, position(6, 3), false),
        (false, end, false),
    ] {
        let (mut files, batch) = placed_late(sealed, fan);
        files.get_mut(&JOURNAL).unwrap().truncate(if is_last { batch.end } else { usize::MAX });
        let found = |files: &Files, problems: &[Trouble]| {
            let recovered = recover(files);
            let what: Vec<_> = recovered.problems.into_iter().map(|problem| problem.what).collect();
            assert_eq!(what, problems);
            let Channel { fresh, out, .. } = &recovered.channels[&CHANNEL];
            assert_eq!(fresh[..], [FreshRange { begin: position(6, 2), end: position(6, 3) }]);
            assert_eq!(recovered.deferred.is_empty(), fan == end, "it is beyond, or was given to the channel");
            out.clone()
        };
        let outs = |places: &[(Position, u16, Option<Due>)]| -> BTreeMap<Place, Out> {
            places.iter().map(|&(it, attempts, due)| (it.place, Out { attempts, due })).collect()
        };
        let before = (position(5, 1), 3, None);
        if is_last {
            assert_eq!(found(&files, &[]), outs(&[before, (position(6, 0), 2, None)]));
        }
        let mut late = outs(&[before, (position(6, 0), 1, None), (position(6, 1), 1, None)]);
        if fan == end {
            late.extend(outs(&[(position(6, 3), 1, None), (position(6, 4), 1, due)]));
        }
        for at in batch.clone() {
            let mut damaged = files.clone();
            damaged.get_mut(&JOURNAL).unwrap()[at] ^= 1 << (at % 8);
            assert_eq!(found(&damaged, &[Trouble::Damaged(batch.len() as u64)]), late, "byte {at}");
        }
        // Whoever was killed had said that it was in memory only.
        for torn in (1..batch.len()).filter(|_| is_last) {
            let mut torn_off = files.clone();
            torn_off.get_mut(&JOURNAL).unwrap().truncate(batch.start + torn);
            assert_eq!(found(&torn_off, &[Trouble::Torn(torn as u64)]), outs(&[before]));
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_set_aside_as_a_whole() {
    let reads = (0..).find(|&count| recover_on(&directory(), |_, read| read < count).problems.is_empty()).unwrap();
    for failing in 0..reads {
        let files = directory();
        let recovered = recover_on(&files, |_, read| read != failing);
        let Some(&file) = recovered.unreadable.first() else {
            // All but the records of a chunk was understood before: they are for whoever comes to them.
            let (segment, region) = recovered.chunks[&4];
            let (file, at, what) =
                (FileName::Segment(segment), region.records_at(), Trouble::Damaged(region.used.into()));
            assert_eq!(recovered.problems[1..], [Problem { file, offset: at, what }]);
            assert_eq!((recovered.chunks, recovered.channels), (recover(&files).chunks, recover(&files).channels));
            continue;
        };
        let problem = &recovered.problems[0];
        assert!(problem.file == file && matches!(problem.what, Trouble::Unreadable(_)), "{problem:?}");
        assert!(
            !recovered.obsolete.contains(&file) && recovered.journal.is_none_or(|it| FileName::Journal(it) != file)
        );
        assert!(recovered.chunks.values().all(|(segment, _)| FileName::Segment(*segment) != file));
        assert!(recovered.segments.keys().all(|segment| FileName::Segment(*segment) != file));
        assert!(recovered.numbers.segment == 4 && recovered.last_journal == 3, "no number is used again");
        // Once it is set aside it makes no difference what the disk does.
        let mut rest = files.clone();
        rest.remove(&file);
        let then = recover(&rest);
        assert_eq!((then.chunks, then.channels, then.fan), (recovered.chunks, recovered.channels, recovered.fan));
        let lost = |what: &Trouble| if let Trouble::Lost(_, count) = what { *count } else { 0 };
        let lost: u64 = recovered.problems.iter().map(|problem| lost(&problem.what)).sum();
        let known = match file {
            // Out of the first one somebody has a message, and of three fresh ones nothing is known.
            FileName::Segment(1) => 1,
            // The two that were handed out or fresh in the last chunk of the range.
            FileName::Segment(2) => 2,
            _ => 0,
        };
        assert_eq!(lost, known, "{file:?}");
    }
}

const PAGE: usize = 4096;

/// On a disk that cannot read one page of a file; how often that was tried.
fn recover_but(files: &Files, file: FileName, page: usize) -> (Recovered, usize) {
    let (bad, mut failed) = (page * PAGE..(page + 1) * PAGE, 0);
    let recovered = recover_on(files, |piece, _| {
        let begin = piece.offset as usize;
        let is_bad = piece.file == file && begin < bad.end && bad.start < begin + piece.length;
        failed += usize::from(is_bad);
        !is_bad
    });
    (recovered, failed)
}

/// The usual directory, but with chunks 6 to 37 of twelve records each in the last segment, and the fifth page has the
/// last two of them and the index.
fn with_pages(sealed: bool) -> Files {
    let mut files = directory();
    let chunks: Vec<_> = (6..38).map(|chunk| (chunk, 12)).collect();
    files.insert(FileName::Segment(3), segment(3, &chunks, 10, false, sealed));
    let mut batch = Batch::default();
    batch.push(&Entry::Segment { number: 3, needed: Some(Safe { end: 0, sealed }) });
    files.get_mut(&FileName::Journal(2)).unwrap().extend(batch.finish(slow_crc));
    files
}

#[test]
fn a_page_that_cannot_be_read_costs_what_is_in_it() {
    let file = FileName::Segment(3);
    for (sealed, page) in [false, true].into_iter().flat_map(|sealed| (0..5).map(move |page| (sealed, page))) {
        let files = with_pages(sealed);
        let (recovered, failed) = recover_but(&files, file, page);
        assert!(recovered.unreadable.is_empty() && recovered.obsolete == recover(&files).obsolete);
        assert!(failed <= 2, "sealed {sealed}, page {page}: it is tried {failed} times");
        let Some((first, others)) = recovered.problems.split_first() else {
            assert!(sealed && (1..4).contains(&page), "it is not looked at");
            continue;
        };
        assert!(matches!(first.what, Trouble::Unreadable(_)), "{first}");
        assert_eq!((first.file, first.offset as usize / PAGE), (file, page));
        // The index tells of all, if it can be read.
        let bad = if sealed && page < 4 { 0..0 } else { page * PAGE..(page + 1) * PAGE };
        let begin = |chunk: u64| segment::HEAD + (chunk - 6) as usize * (segment::REGION_HEAD + 512);
        let has_head = |chunk: &u64| begin(*chunk) >= bad.end || begin(*chunk) + segment::REGION_HEAD <= bad.start;
        let expected: Vec<_> = [1, 2, 4].into_iter().chain((6..38).filter(has_head)).collect();
        assert_eq!(recovered.chunks.keys().copied().collect::<Vec<_>>(), expected, "sealed {sealed}, page {page}");
        // Of the chunks that are there nothing is damaged but what is in the page, and that is told.
        assert_eq!(others.is_empty(), bad.is_empty(), "{others:?}");
        for problem in others {
            let Trouble::Damaged(bytes) = problem.what else { panic!("{problem}") };
            let (from, to) = (problem.offset as usize, (problem.offset + bytes) as usize);
            let is_near = bad.start < from + RECORD as usize && to <= bad.end + segment::REGION_HEAD + 512;
            assert!(is_near && from < bad.end && bad.start < to, "{problem}");
        }
        let is_told = |chunk| {
            let has = |it: &Problem| matches!(it.what, Trouble::Damaged(bytes) if (it.offset..it.offset + bytes).contains(&chunk));
            others.iter().any(has)
        };
        assert!((6..38).all(|chunk| has_head(&chunk) || is_told(begin(chunk) as u64)), "{others:?}");
    }
}

#[test]
fn the_end_of_what_was_written_is_not_taken_for_torn() {
    // One chunk, whose last records are in the second page, which is not full.
    let mut files = directory();
    let (before, room) = (segment::HEAD + segment::REGION_HEAD, 2 * PAGE);
    let mut bytes = segment(3, &[], 10, false, false);
    bytes.extend(segment::region_head(6, 10, room as u32, slow_crc));
    let mut records = Vec::new();
    for seq in 10..110 {
        Header { flags: 0, payload: 26, seq, sum: 0 }.write(&mut records);
        records.extend_from_slice(&[0; 26]);
    }
    seal(&mut records, slow_crc);
    bytes.extend(records);
    let length = bytes.len();
    files.insert(FileName::Segment(3), bytes);
    let (recovered, _) = recover_but(&files, FileName::Segment(3), 1);
    let region = recovered.chunks[&6].1;
    assert_eq!(region.records as usize, (PAGE - before) / RECORD as usize);
    let end = before + region.used as usize;
    let what: Vec<_> = recovered.problems.iter().map(|it| (it.offset as usize, it.what.clone())).collect();
    assert_eq!(what[1..], [(end, Trouble::Damaged((length - end) as u64))], "{what:?}");
}

#[test]
fn numbers_that_cannot_be_read_are_not_used_again() {
    let mut files = with_pages(false);
    let (recovered, _) = recover_but(&files, FileName::Segment(3), 4);
    assert_eq!(*recovered.chunks.last_key_value().unwrap().0, 35);
    let Numbers { chunk, segment, .. } = recovered.numbers;
    assert!(chunk > 1_000_000 && segment == 5, "{chunk} {segment}");
    assert_eq!(recover(&files).numbers.chunk, 38);
    // The next start knows them from the journal of this one.
    let mut batch = Batch::default();
    batch.push(&Entry::Numbers(recovered.numbers));
    (1..=3).for_each(|number| batch.push(&needed(number)));
    let mut journal = journal::head(TOPIC, 4, slow_crc).to_vec();
    journal.extend(batch.finish(slow_crc));
    files.insert(FileName::Journal(4), journal);
    assert_eq!(recover_but(&files, FileName::Segment(3), 4).0.numbers, recovered.numbers);
}

#[test]
fn half_a_journal_is_none() {
    let mut files = directory();
    let file = FileName::Journal(2);
    files.get_mut(&file).unwrap().resize(2 * PAGE, 0);
    let (recovered, _) = recover_but(&files, file, 1);
    assert_eq!((recovered.journal, &recovered.unreadable[..]), (None, &[file, FileName::Journal(1)][..]));
}

/// Seed 282 of the simulation `pages_that_cannot_be_read_cost_what_is_in_them`.
#[test]
fn a_journal_that_was_set_aside_is_missed_until_there_is_a_newer_one() {
    // A copy, or a message that was deferred in memory: only the journal tells who needs it.
    let mut bytes = segment(1, &[], 1, false, false);
    bytes.extend(segment::region_head(1, 1, RECORD, slow_crc));
    let mut record = Vec::new();
    Header { flags: CARRIED, payload: 26, seq: 1, sum: 0 }.write(&mut record);
    record.extend_from_slice(&[0; 26]);
    seal(&mut record, slow_crc);
    bytes.extend(record);
    let journal = |number| {
        let mut bytes = journal::head(TOPIC, number, slow_crc).to_vec();
        let mut batch = Batch::default();
        batch.push(&Entry::Topic { paused: false, fan: position(1, 0) });
        bytes.extend(batch.finish(slow_crc));
        (FileName::Journal(number), bytes)
    };
    let aside = |number| (FileName::SetAside(number), Vec::new());
    for (journals, is_missed, last) in [
        (vec![], false, 0),
        (vec![journal(1)], false, 1),
        (vec![aside(2)], true, 2),
        (vec![aside(2), journal(1)], true, 2),
        (vec![aside(2), journal(3)], false, 3),
    ] {
        let mut files: Files = journals.into_iter().collect();
        files.insert(FileName::Segment(1), bytes.clone());
        let recovered = recover(&files);
        let expected = is_missed.then_some(position(1, 0).place);
        assert_eq!(recovered.carried, expected.into_iter().collect::<Vec<_>>(), "{:?}", files.keys());
        assert_eq!((recovered.last_journal, &recovered.problems[..]), (last, &[][..]));
    }
}

#[test]
fn a_disk_that_reads_nothing_more_is_not_asked_for_ever() {
    let mut files = directory();
    for number in 3..100 {
        let chunks: Vec<_> = (0..32).map(|chunk| (u64::from(number) * 32 + chunk, 12)).collect();
        files.insert(FileName::Segment(number), segment(number, &chunks, 10 + u64::from(number) * 384, false, false));
    }
    let file = FileName::Segment(3);
    let mut failed = 0;
    let recovered = recover_on(&with_pages(false), |piece, _| {
        failed += usize::from(piece.file == file);
        piece.file != file
    });
    assert_eq!((failed, &recovered.unreadable[..]), (2, &[file][..]), "nothing of it can be read");
    for readable in [0, PAGE as u64] {
        let mut failed = 0;
        let recovered = recover_on(&files, |piece, _| {
            let is_away = matches!(piece.file, FileName::Segment(3..)) && piece.offset + piece.length as u64 > readable;
            failed += usize::from(is_away);
            !is_away
        });
        assert_eq!(recovered.unreadable.len() + recovered.segments.len(), 99);
        assert!(failed < 97 + 2 * 64, "{failed}");
    }
}

#[test]
fn what_was_fresh_in_a_segment_that_is_gone_is_counted() {
    let mut files = directory();
    let last = segment(3, &[(4, 3), (6, 2)], 40, true, true);
    files.insert(FileName::Segment(3), last);
    files.remove(&FileName::Segment(2));
    let what: Vec<_> = recover(&files).problems.into_iter().map(|problem| problem.what).collect();
    // The numbers 4 to 39 are nowhere.
    assert_eq!(what, [Trouble::Missing, Trouble::Lost(ChannelName::new("c").unwrap(), 36)]);
}

#[test]
fn a_region_whose_head_is_damaged_does_not_cost_those_behind_it() {
    let mut files = directory();
    let three = segment(3, &[(6, 2), (7, 1), (8, 2)], 10, false, false);
    let second = segment::HEAD + segment::REGION_HEAD + 512;
    for damage in [1, segment::REGION_HEAD] {
        let mut bytes = three.clone();
        bytes[second..second + damage].fill(0);
        files.insert(FileName::Segment(3), bytes);
        let recovered = recover(&files);
        assert_eq!(recovered.chunks.keys().copied().collect::<Vec<_>>(), [1, 2, 4, 6, 8]);
        let found: Vec<_> = recovered.problems.iter().map(|it| (it.offset, it.what.clone())).collect();
        assert_eq!(found, [(second as u64, Trouble::Damaged(512 + segment::REGION_HEAD as u64))]);
        assert_eq!((recovered.numbers.seq, recovered.numbers.chunk), (15, 9));
    }
}

#[test]
fn room_for_a_chunk_that_was_never_written_is_no_damage() {
    let second = segment::HEAD + segment::REGION_HEAD + 512;
    // The window in which the next head is looked for ends before it, in it, and behind it.
    for extra in [0, 64 * 1024 - 560, 64 * 1024 - 544, 64 * 1024, 1 << 20] {
        let mut files = directory();
        let mut bytes = segment(3, &[(6, 2), (7, 1), (8, 2)], 10, false, false);
        bytes[second..second + segment::REGION_HEAD + 512].fill(0);
        bytes.splice(second..second, core::iter::repeat_n(0, extra));
        files.insert(FileName::Segment(3), bytes);
        // Nobody needed the first message that the channel had handed out, so its chunk is in no index.
        let (file, rest) = (FileName::Segment(1), segment(1, &[], 1, false, true));
        files.insert(file, rest);
        let recovered = recover(&files);
        assert_eq!(recovered.problems, [], "{extra}");
        assert_eq!(recovered.chunks.keys().copied().collect::<Vec<_>>(), [2, 4, 6, 8]);
    }
}

#[test]
fn of_two_copies_of_a_chunk_the_one_counts_that_is_intact_farther() {
    let record = |number: usize| segment::HEAD + segment::REGION_HEAD + number * RECORD as usize;
    for sealed in [true, false] {
        // Damage in the third copy, damage in the fourth one, and which of them is to be used then.
        for (third, fourth, used) in [(None, None, 4), (None, Some(1), 3), (Some(0), Some(1), 4), (Some(1), Some(1), 4)]
        {
            let mut files = directory();
            let mut copies = [3, 4].map(|number| (number, segment(number, &[(6, 4)], 10, true, sealed && number == 4)));
            copies[0].1[record(2)..].fill(0);
            for ((_, bytes), damage) in copies.iter_mut().zip([third, fourth]) {
                damage.into_iter().for_each(|at| bytes[record(at) + 20] ^= 1);
            }
            files.extend(copies.map(|(number, bytes)| (FileName::Segment(number), bytes)));
            let recovered = recover(&files);
            assert_eq!(recovered.chunks[&6].0, used, "{third:?} {fourth:?}");
            let found = recovered.deferred.iter().filter(|(place, _)| place.chunk == 6).map(|(place, _)| *place);
            let deferred = [position(6, 4).place];
            assert_eq!(found.collect::<Vec<_>>(), deferred[..usize::from(used == 4)]);
        }
    }
}

#[test]
fn an_index_that_cannot_be_is_none() {
    for (records, deferred, used) in [(0u32, 1u32, 42u32), (0, 1, 0), (1, 2, 84), (9, 0, 84), (2, 0, 600)] {
        let mut files = directory();
        let bytes = files.get_mut(&FileName::Segment(2)).unwrap();
        // In the entry of the second chunk.
        let entry = bytes.len() - segment::FOOT - segment::INDEX_ENTRY;
        for (at, number) in [(28, used), (32, records), (36, 0), (40, deferred)] {
            bytes[entry + at..entry + at + 4].copy_from_slice(&number.to_be_bytes());
        }
        reseal(&mut files, &directory());
        let mut recovered = recover(&files);
        let problems = core::mem::take(&mut recovered.problems);
        assert_eq!(recovered, recover(&directory()), "the regions tell");
        assert!(matches!(problems[..], [Problem { what: Trouble::Torn(_), .. }]), "{problems:?}");
    }
}

#[test]
fn an_index_that_may_have_outlived_its_records_is_not_believed() {
    let region = segment::HEAD + segment::REGION_HEAD + 512;
    for (is_sealed, expected) in [(true, Some(4)), (false, None)] {
        let mut files = directory();
        let mut batch = Batch::default();
        let safe = Safe { end: 180, sealed: is_sealed };
        batch.push(&Entry::Segment { number: 2, needed: Some(safe) });
        files.get_mut(&FileName::Journal(2)).unwrap().extend(batch.finish(slow_crc));
        // Power was lost while both were written, and the sectors of the second chunk were not.
        let bytes = files.get_mut(&FileName::Segment(2)).unwrap();
        bytes[region..region + segment::REGION_HEAD + 512].fill(0);
        let recovered = recover(&files);
        assert_eq!(recovered.chunks.get(&4).map(|(_, region)| region.records), expected);
        assert!(recovered.problems.iter().all(|problem| is_sealed || !matches!(problem.what, Trouble::Damaged(_))));
    }
}

#[test]
fn a_torn_tail_ends_the_last_segment() {
    let mut files = directory();
    let last = files.get_mut(&FileName::Segment(3)).unwrap();
    last.truncate(segment::HEAD + segment::REGION_HEAD + RECORD as usize + 20);
    let recovered = recover(&files);
    assert_eq!(recovered.chunks[&6].1.plain, 1);
    assert_eq!(recovered.problems.len(), 1);
    assert!(matches!(recovered.problems[0].what, Trouble::Torn(_)), "{}", recovered.problems[0]);
}

proptest! {
    #[test]
    fn damage_never_stops_it(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..6),
    ) {
        let mut files = directory();
        for (file, at, byte, how) in changes {
            let name = *files.keys().nth(file.index(files.len())).unwrap();
            let bytes = files.get_mut(&name).unwrap();
            let at = at.index(bytes.len().max(1));
            match how {
                0 => bytes.truncate(at),
                1 => bytes.extend_from_slice(&[byte; 40]),
                _ => bytes.iter_mut().skip(at).take(1).for_each(|it| *it = byte),
            }
        }
        let recovered = recover(&files);
        prop_assert_eq!(&recovered, &recover(&files));
        for channel in recovered.channels.values() {
            prop_assert!(channel.out.keys().all(|place| recovered.chunks.contains_key(&place.chunk)));
        }
        prop_assert!(recovered.numbers.segment >= 3 && recovered.deferred.is_sorted_by_key(|(place, _)| *place));
    }
}
