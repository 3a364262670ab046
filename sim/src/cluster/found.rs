//! What a start would find now: a machine's files, read by core's recovery, without an nsqd and without a trace.

use super::Nsqd;
use bytes::Bytes;
use nsq_core::budget::Budget;
use nsq_core::message::PAYLOAD_HEADER;
use nsq_core::node;
use nsq_core::storage::names::{self, FileName, TOPICS};
use nsq_core::storage::recovery::Recovery;
use nsq_core::topic::Topic;
use nsq_core::topic::disk::{Disk, Loaded};
use nsq_net_sim::disk::crc;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Of each topic and channel, or topic before its channels: the bodies, how often each was handed out, and until when
/// it is deferred.
pub type Found = BTreeMap<(String, Option<String>), Vec<(Bytes, u16, Option<Duration>)>>;

impl Nsqd {
    /// See the module's documentation. What is due is deferred no more.
    pub fn found(&self) -> Found {
        let mut newest = BTreeMap::new();
        for directory in self.disk.list(TOPICS) {
            newest.extend(names::parse_directory(&directory.name));
        }
        let listed = node::parse(&self.disk.read("nsqd.dat", 0, usize::MAX)).map(|(topics, _)| topics);
        let (listed, now, mut found) = (listed.unwrap_or_default(), self.machine.now(), Found::new());
        for (name, incarnation) in newest {
            let directory = format!("{TOPICS}/{}", names::directory(&name, incarnation));
            let read = |file: FileName, at, length| self.disk.read(&format!("{directory}/{}", file.name()), at, length);
            let files = self.disk.list(&directory).into_iter();
            let files = files.filter_map(|found| Some((FileName::parse(&found.name)?, found.length?)));
            let mut recovery = Recovery::new(incarnation, files, crc);
            while let Some(piece) = recovery.wants() {
                recovery.handle(Ok(read(piece.file, piece.offset, piece.length)));
            }
            let (options, budget) = (Arc::new(self.config.options.clone()), Budget::new(usize::MAX));
            let disk = Disk { incarnation, durable: self.config.durable, crc };
            let mut topic = Topic::on_disk(name.clone(), options, budget, 0, disk);
            topic.recover(recovery.finish(), listed.get(&name), now);
            topic.load_all(|segment, at, length, first_seq| {
                Loaded::new(read(FileName::Segment(segment), at, length), Some(first_seq), crc)
            });
            topic.outstanding(|channel, payload, attempts, due| {
                let body = Bytes::copy_from_slice(&payload[PAYLOAD_HEADER..]);
                let due = due.filter(|due| *due > now.instant).map(|due| Duration::from_nanos(due.as_nanos()));
                let place = (name.to_string(), channel.map(ToString::to_string));
                found.entry(place).or_default().push((body, attempts, due));
            });
        }
        found.values_mut().for_each(|messages| messages.sort_unstable());
        found
    }
}
