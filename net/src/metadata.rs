//! `nsqd.dat`: read at the start, written whenever the directory has changed (spec: nsqd_protocol §3.2).
//!
//! Written beside, synced, renamed over, and the directory synced: after a crash there is the old file or the new one.

use crate::broker::Broker;
use crate::disk::{self, Content, Disk, Op};
use crate::recovery::patiently;
use crate::reserve::{Reserve, explain};
use bytes::Bytes;
use nsq_core::name::TopicName;
use nsq_core::node::{self, Entry};
use nsq_core::topic::disk::Lane;
use nsq_core::topic::io::Refusal;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

const FILE: &str = "nsqd.dat";
const TEMPORARY: &str = "nsqd.dat.tmp";
const UNREADABLE: &str = "nsqd.dat.bad";

/// The directory as it was left. A file that cannot be understood is kept as `nsqd.dat.bad`,
/// with a number if there is one already, and reported.
///
/// # Errors
/// If there is a file and the disk does not give it out.
pub(crate) async fn load(disk: &dyn Disk) -> io::Result<BTreeMap<TopicName, Entry>> {
    let bytes = match patiently(disk, Op::Read(FILE.into(), 0, usize::MAX)).await {
        Ok(outcome) => outcome.content(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(io::Error::new(error.kind(), format!("cannot read {FILE} - {error}"))),
    };
    match node::parse(&bytes) {
        Ok((topics, invalid)) => {
            for name in invalid {
                tracing::warn!("skipping invalid name {name:?} in {FILE}");
            }
            Ok(topics)
        }
        Err(reason) => {
            let kept = match set_aside(disk).await {
                Ok(name) => format!("it is kept as {name}"),
                Err(error) => format!("it cannot be kept - {error}"),
            };
            tracing::error!("failed to parse {FILE} - {reason}; starting without it, {kept}");
            Ok(BTreeMap::new())
        }
    }
}

/// Gives the file a name that no other has, for an earlier start may have kept one.
async fn set_aside(disk: &dyn Disk) -> io::Result<String> {
    let found = patiently(disk, Op::List(String::new())).await?.list();
    let mut name = UNREADABLE.to_owned();
    let mut number = 1;
    while found.iter().any(|found| found.name == name) {
        number += 1;
        name = format!("{UNREADABLE}.{number}");
    }
    patiently(disk, Op::Rename(FILE.into(), name.clone())).await?;
    Ok(name)
}

/// How long a write that has failed is left alone.
const RETRY: Duration = Duration::from_secs(1);

/// The task: writes the directory's latest state when the node wishes so, and again if that fails, until the process
/// ends; then, whether it was written the last time. The start has written it, or has failed to.
pub(crate) async fn run(broker: Arc<Broker>, mut is_saved: bool) -> bool {
    loop {
        tokio::select! {
            biased;
            () = broker.exiting.notified() => return is_saved,
            () = broker.save_wanted.notified() => {}
            () = tokio::time::sleep(RETRY), if !is_saved => {}
        }
        is_saved = save(&broker).await;
    }
}

/// Writes the latest state, and tells the node; whether it was written.
pub(crate) async fn save(broker: &Broker) -> bool {
    let (generation, bytes) = broker.snapshot();
    // One task for all of it: each operation on its own would wait in line behind all topics.
    let writing = write(Arc::clone(&broker.storage.reserve), bytes.into());
    let result = disk::hosted(&*broker.env.disk, Lane::Commit, writing).await.map_err(|error| explain(&error));
    broker.storage.report(FILE, result.as_ref().copied().map_err(String::as_str));
    let is_saved = result.is_ok();
    broker.saved(generation, result.map_err(|_| Refusal::NotSaved));
    is_saved
}

async fn write(reserve: Arc<Reserve>, content: Bytes) -> io::Result<()> {
    reserve.spend(Op::Create(TEMPORARY.into())).await?;
    reserve.spend(Op::Write(TEMPORARY.into(), 0, Content::Whole(content))).await?;
    reserve.spend(Op::Sync(TEMPORARY.into())).await?;
    reserve.spend(Op::Rename(TEMPORARY.into(), FILE.into())).await?;
    reserve.spend(Op::SyncDir(String::new())).await?;
    Ok(())
}
