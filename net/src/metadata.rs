//! `nsqd.dat`: read at the start, written whenever the directory has changed (spec: nsqd_protocol §3.2).
//!
//! Written beside, synced, renamed over, and the directory synced: after a crash there is the old file or the new one.

use crate::broker::Broker;
use crate::disk::{Disk, Op};
use bytes::Bytes;
use nsq_core::name::TopicName;
use nsq_core::node::{self, Entry};
use nsq_core::topic::io::Refusal;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

const FILE: &str = "nsqd.dat";
const TEMPORARY: &str = "nsqd.dat.tmp";
const UNREADABLE: &str = "nsqd.dat.bad";

/// The directory as it was left. A file that cannot be understood is kept as `nsqd.dat.bad` and reported.
///
/// # Errors
/// If there is a file and the disk does not give it out.
pub(crate) async fn load(disk: &dyn Disk) -> io::Result<BTreeMap<TopicName, Entry>> {
    let bytes = match disk.run(Op::Read(FILE.into())).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    match node::parse(&bytes) {
        Ok((topics, invalid)) => {
            for name in invalid {
                tracing::warn!("skipping invalid name {name:?} in {FILE}");
            }
            Ok(topics)
        }
        Err(reason) => {
            tracing::error!("failed to parse {FILE} - {reason}; starting without it, it is kept as {UNREADABLE}");
            disk.run(Op::Rename(FILE.into(), UNREADABLE.into())).await?;
            Ok(BTreeMap::new())
        }
    }
}

/// The task: writes the directory's latest state when the node wishes so, until the process ends.
pub(crate) async fn run(broker: Arc<Broker>) {
    loop {
        tokio::select! {
            biased;
            () = broker.exiting.notified() => return,
            () = broker.save_wanted.notified() => save(&broker).await,
        }
    }
}

/// Writes the latest state, and tells the node.
pub(crate) async fn save(broker: &Broker) {
    let (generation, bytes) = broker.snapshot();
    let result = write(&*broker.env.disk, bytes.into()).await;
    if let Err(error) = &result {
        tracing::error!("failed to persist metadata - {error}");
    }
    broker.saved(generation, result.map_err(|_| Refusal::NotSaved));
}

async fn write(disk: &dyn Disk, content: Bytes) -> io::Result<()> {
    disk.run(Op::Write(TEMPORARY.into(), content)).await?;
    disk.run(Op::Sync(TEMPORARY.into())).await?;
    disk.run(Op::Rename(TEMPORARY.into(), FILE.into())).await?;
    disk.run(Op::SyncDir).await?;
    Ok(())
}
