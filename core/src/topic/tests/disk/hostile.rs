//! Files that lie with checksums that are right: nothing panics, whatever they say.

use super::super::bench::{Bench, Seen};
use super::super::sentences::plain_consumer;
use super::world::disk;
use crate::budget::Budget;
use crate::name::{ChannelName, TopicName};
use crate::options::Options;
use crate::storage::names::FileName;
use crate::storage::recovery_tests::{Files, TOPIC, directory, recover, reseal};
use crate::storage::slow_crc;
use crate::time::Duration;
use crate::topic::Topic;
use crate::topic::disk::{Loaded, Op};
use crate::topic::io::{Admin, Input, Slot};
use alloc::sync::Arc;
use proptest::prelude::*;

/// A topic from these files; somebody takes all that it has, and it is so much.
fn live(files: &Files) -> usize {
    let budget = Budget::new(1 << 30);
    let name = TopicName::new("topic").expect("a name");
    let disk = crate::topic::disk::Disk { incarnation: TOPIC, ..disk(true) };
    let now = *Bench::new("other", Options::default(), 1 << 20, 1).clock();
    let options = Arc::new(Options::default());
    let mut topic = Topic::on_disk(name, options, budget.clone(), 1, disk);
    topic.recover(recover(files), None, now);
    topic.check();
    let mut bench = Bench::of(topic, budget);
    let (conn, slot) = (bench.connect(), bench.slot());
    let channel = ChannelName::new("c").expect("a name");
    bench.give([Input::Subscribe { conn, slot, channel: channel.clone(), consumer: plain_consumer() }]);
    bench.give([Input::Ready { conn, count: 2 }]);
    bench.give([Input::Admin { from: conn, slot, action: Admin::PauseChannel(channel, false) }]);
    bench.give([Input::Admin { from: conn, slot, action: Admin::PauseTopic(false) }]);
    let mut taken = 0;
    for _ in 0..60 {
        for job in core::mem::take(&mut bench.jobs) {
            let load = |op: &Op| match *op {
                Op::Read { file, offset, length, first_seq } => Some(read(files, file, offset, length, first_seq)),
                _ => None,
            };
            let result = Ok(job.ops.iter().find_map(load));
            bench.give([Input::Disk { id: job.id, result }]);
        }
        for seen in bench.streams.remove(&conn).unwrap_or_default() {
            if let Seen::Message(delivery) = seen {
                taken += 1;
                bench.give([Input::Finish { conn, id: delivery.id, after: Slot(0) }]);
            }
        }
        bench.topic.check();
        bench.sleep(Duration::from_secs(1));
        bench.settle();
    }
    taken
}

fn read(files: &Files, file: FileName, offset: u64, length: usize, first_seq: Option<u64>) -> Loaded {
    let content = &files[&file];
    let begin = content.len().min(offset as usize);
    Loaded::new(content[begin..content.len().min(begin + length)].to_vec(), first_seq, slow_crc)
}

proptest! {
    #[test]
    fn files_that_lie_stop_nobody(
        lies in proptest::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1..9usize, prop_oneof![Just(0xffu8), Just(0), any::<u8>()]),
            1..5,
        ),
    ) {
        let mut files = directory();
        for (file, at, length, byte) in lies {
            let name = *files.keys().nth(file.index(files.len())).expect("a file");
            let bytes = files.get_mut(&name).expect("it");
            let at = at.index(bytes.len());
            bytes.iter_mut().skip(at).take(length).for_each(|it| *it = byte);
        }
        reseal(&mut files, &directory());
        live(&files);
    }
}

#[test]
fn a_topic_made_by_hand_lives() {
    assert_eq!(live(&directory()), 11);
}
