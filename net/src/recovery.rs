//! What is read at the start: all topics' directories, each as core's recovery wants it.
//!
//! Nothing is read before it is known to be on the medium: what a killed process had only written could still be lost
//! in a power cut, and would have been delivered by then. A durable topic with something that cannot be made safe is
//! not used, for its consumers rely on what they have seen. What cannot be read or understood is reported with its file
//! and offset, and is no other topic's problem. Which pages are still wanted of a segment that cannot be read as a
//! whole, and when that is not worth it any more, core says; here each is tried a few times.

use crate::disk::{self, Content, Disk, Found, Op, Outcome, crc};
use crate::durable::Durable;
use crate::reserve;
use crate::storage::{DELETED, Stored, discard, tell_damage};
use bytes::Bytes;
use nsq_core::name::TopicName;
use nsq_core::storage::diskqueue;
use nsq_core::storage::names::{self, FileName, TOPICS, UNREADABLE};
use nsq_core::storage::recovered::Recovered;
use nsq_core::storage::recovery::Recovery;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Topics that are read at the same time.
const AT_ONCE: usize = 8;
/// So often is tried what cannot be read, and with such a pause: what is given up is given up for good.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes that are written again, and fsynced, at a time; of what cannot be read as a whole, one page.
const PIECE: u64 = 8 * 1024 * 1024;
const PAGE: u64 = 4096;
/// So many topics are named in one line of the log.
const NAMED: usize = 20;
/// More than upstream writes into a queue's metadata file.
const META_MAX: usize = 256;

/// Reads all topics' directories. Of several of one name the newest counts: it could only be made when the others had
/// been deleted, or set aside.
///
/// # Errors
/// If the disk does not say what topics there are.
pub(crate) async fn load(disk: &Arc<dyn Disk>, durable: &Durable) -> io::Result<Stored> {
    let mut stored = Stored::default();
    let found = patiently(&**disk, Op::List(TOPICS.into())).await.map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("failed to list the directory {TOPICS}, which holds all messages - {error}"),
        )
    })?;
    let found = found.list();
    if !found.is_empty() {
        // A process that was killed may just have made a directory.
        let names = vec![Op::SyncDir(String::new()), Op::SyncDir(TOPICS.into())];
        stored.names_are_safe = make_safe(&**disk, names, TOPICS).await;
    }
    let (newest, obsolete) = sort_out(&found, &mut stored);
    for directory in obsolete {
        discard(&**disk, directory).await;
    }
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let read = |(topic, incarnation): (TopicName, u64)| {
        let (disk, turns, name) = (Arc::clone(disk), Arc::clone(&turns), topic.clone());
        let is_durable = durable.covers(&topic);
        let reading = tokio::spawn(async move {
            let _turn = turns.acquire().await;
            recover(&*disk, &name, incarnation, is_durable).await
        });
        (topic, incarnation, reading)
    };
    let reading: Vec<_> = newest.into_iter().map(read).collect();
    for (topic, incarnation, reading) in reading {
        // A panic is a bug in reading that topic, and was reported as such.
        match reading.await.unwrap_or_else(|panic| Err(io::Error::other(panic).into())) {
            Ok(recovered) => {
                stored.topics.insert(topic, (incarnation, recovered));
            }
            Err(Unread { why, keeps_its_name }) => {
                let directory = names::directory(&topic, incarnation);
                let why = format!("{TOPICS}/{directory} cannot be read - {why}; the messages in there are not used");
                tracing::error!("DISK: {why}");
                if keeps_its_name || set_aside(&**disk, TOPICS, &directory).await.is_err() {
                    stored.unusable.insert(topic, why);
                } else {
                    // Before anything of a new directory of the topic is acknowledged, the names are fsynced once more.
                    make_safe(&**disk, vec![Op::SyncDir(TOPICS.into())], TOPICS).await;
                }
            }
        }
    }
    tell_of_durable(&stored, durable);
    Ok(stored)
}

/// Tells of topics whose journal was written while they were durable, which they are not any more: whoever has
/// forgotten a flag would learn that from the next power cut.
fn tell_of_durable(stored: &Stored, durable: &Durable) {
    let were = stored.topics.iter().filter(|(_, (_, recovered))| recovered.was_durable).map(|(topic, _)| topic);
    let topics: Vec<_> = were.filter(|topic| !durable.covers(topic)).map(TopicName::as_str).collect();
    if !topics.is_empty() {
        let (count, named) = (topics.len(), topics[..topics.len().min(NAMED)].join(", "));
        let more = if count > NAMED { ", ..." } else { "" };
        tracing::warn!(
            "DURABLE: {count} topics were durable and are not any more, neither --durable nor a --durable-topic is for \
             them: {named}{more}"
        );
    }
}

/// Tells of messages that upstream's nsqd has left in the data directory: whoever thinks that they are served has to
/// hear that they are not.
pub(crate) async fn tell_of_foreign(disk: &dyn Disk) {
    let found = patiently(disk, Op::List(String::new())).await.map_or_else(|_| Vec::new(), Outcome::list);
    for Found { name, length } in found {
        let (Some((topic, channel)), Some(_)) = (diskqueue::owner(&name), length) else { continue };
        let content = patiently(disk, Op::Read(name.clone(), 0, META_MAX)).await.map(Outcome::content);
        let count = match content.ok().and_then(|content| diskqueue::depth(&content)) {
            Some(0) => continue,
            Some(count) => count.to_string(),
            None => "an unknown number of".to_owned(),
        };
        let of =
            channel.map_or_else(|| format!("TOPIC({topic})"), |channel| format!("TOPIC({topic}): CHANNEL({channel})"));
        tracing::error!(
            "{of}: {count} messages in files of another nsqd ({name}) are not read by this version; drain them with the \
             nsqd that wrote them"
        );
    }
}

/// Which directories are topics', by their names, and which are of no use any more.
fn sort_out(found: &[Found], stored: &mut Stored) -> (BTreeMap<TopicName, u64>, Vec<String>) {
    for Found { name, .. } in found.iter().filter(|found| found.length.is_some()) {
        if let Some((topic, _)) = names::parse_directory(name) {
            let why = format!("{TOPICS}/{name} is no directory, or a link that leads nowhere; it is left alone");
            tracing::error!("DISK: {why}");
            stored.unusable.insert(topic, why);
        }
    }
    let (mut newest, mut obsolete) = (BTreeMap::new(), Vec::new());
    for Found { name, .. } in found {
        let whole = name.strip_suffix(DELETED).or_else(|| name.strip_suffix(UNREADABLE)).unwrap_or(name);
        let Some((topic, incarnation)) = names::parse_directory(whole) else { continue };
        // Whatever it is, no other topic is to have its name.
        stored.last_incarnation = stored.last_incarnation.max(incarnation);
        if name.ends_with(DELETED) {
            obsolete.push(format!("{TOPICS}/{name}"));
        } else if whole != name {
            tracing::warn!("DISK: {TOPICS}/{name} was set aside, it is left alone");
        } else if stored.unusable.contains_key(&topic) {
            // Which of its directories counts is not known.
        } else if let Some(older) = newest.insert(topic.clone(), incarnation) {
            // They come in the order of their names, so of their incarnations.
            obsolete.push(format!("{TOPICS}/{}", names::directory(&topic, older)));
        }
    }
    (newest, obsolete)
}

/// Does an operation again if it fails, for a failure may pass.
pub(crate) async fn patiently(disk: &dyn Disk, op: Op) -> io::Result<Outcome> {
    let mut tries = 1;
    loop {
        match disk.run(op.clone()).await {
            Err(error) if tries == TRIES || error.kind() == io::ErrorKind::NotFound => return Err(error),
            Err(_) => tokio::time::sleep(PAUSE).await,
            done => return done,
        }
        tries += 1;
    }
}

/// Gives what cannot be read another name: nothing is written over it, no later start takes part of it for all there
/// is, and somebody may know a way to read it.
async fn set_aside(disk: &dyn Disk, directory: &str, name: &str) -> io::Result<()> {
    let from = format!("{directory}/{name}");
    let to = format!("{from}{UNREADABLE}");
    match patiently(disk, Op::Rename(from.clone(), to.clone())).await {
        // It was there, so a try that is said to have failed has done it.
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::error!("DISK: {from} cannot be set aside - {error}");
            Err(error)
        }
        _ => {
            tracing::error!("DISK: {from} is set aside as {to}");
            Ok(())
        }
    }
}

/// The same for files of a topic, whose new names are safe then: the next journal will not tell of them, and with their
/// old names they would be files that nobody needs.
async fn set_files_aside(disk: &dyn Disk, directory: &str, files: &[FileName]) -> Result<(), Unread> {
    for tries in 1.. {
        for file in files {
            if set_aside(disk, directory, &file.name()).await.is_err() {
                return Err(io::Error::other(format!("{} can be neither read nor set aside", file.name())).into());
            }
        }
        if files.is_empty() {
            break;
        }
        let Err(error) = disk.run(Op::SyncDir(directory.into())).await else { break };
        // What an fsync that failed has dropped comes with no other one: the names have to change once more, now or at
        // a later start.
        for file in files {
            let name = format!("{directory}/{}", file.name());
            let _ = patiently(disk, Op::Rename(format!("{name}{UNREADABLE}"), name)).await;
        }
        if tries == TRIES {
            let why = format!("files cannot be set aside, failed to fsync their new names - {error}");
            return Err(Unread { why, keeps_its_name: true });
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Fsyncs what was found there; whether all of it is safe.
async fn make_safe(disk: &dyn Disk, syncs: Vec<Op>, directory: &str) -> bool {
    let mut is_safe = true;
    for op in syncs {
        if let Err(error) = disk.run(op.clone()).await {
            is_safe = false;
            tracing::error!(
                "DISK: {directory} cannot be made safe, failed to {op} - {error}; a power cut may lose what is in there"
            );
        }
    }
    is_safe
}

/// Why the directory of a topic is of no use.
struct Unread {
    why: String,
    /// There is nothing wrong with it, so a later start is to find it where it is.
    keeps_its_name: bool,
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        // Files of another user, say: whoever has copied them can put that right.
        Self { why: error.to_string(), keeps_its_name: !disk::is_of_medium(&error) }
    }
}

async fn recover(disk: &dyn Disk, topic: &TopicName, incarnation: u64, is_durable: bool) -> Result<Recovered, Unread> {
    let directory = format!("{TOPICS}/{}", names::directory(topic, incarnation));
    let path = |file: FileName| format!("{directory}/{}", file.name());
    let mut syncs = Vec::new();
    for Found { name, length } in patiently(disk, Op::List(directory.clone())).await?.list() {
        let file = FileName::parse(&name).filter(|_| length.is_some());
        if name.ends_with(UNREADABLE) {
            tracing::warn!("DISK: {directory}/{name} was set aside, it is left alone");
        } else if let Some(file) = file {
            syncs.push(Op::Sync(path(file)));
        } else {
            tracing::warn!("DISK: {directory}/{name} is none of this topic's files, it is left alone");
        }
    }
    make_safe(disk, syncs, &directory).await;
    if let Err(error) = patiently(disk, Op::SyncDir(directory.clone())).await {
        // The name of a segment may go with the power, and the messages in it.
        refuse_if(is_durable, "it", &error)?;
        tell_unsafe(&directory, &error);
    }
    // An fsync that fails may drop the end of a file, so their lengths are those of now.
    let found = patiently(disk, Op::List(directory.clone())).await?.list();
    let files: Vec<_> =
        found.into_iter().filter_map(|found| Some((FileName::parse(&found.name)?, found.length?))).collect();
    let mut recovery = Recovery::new(incarnation, files, crc);
    while let Some(piece) = recovery.wants() {
        let read = patiently(disk, Op::Read(path(piece.file), piece.offset, piece.length)).await;
        match read {
            Err(error) if !disk::is_of_medium(&error) => {
                return Err(Unread { why: format!("{}: {error}", piece.file.name()), keeps_its_name: true });
            }
            read => recovery.handle(read.map(Outcome::content).map_err(|error| error.to_string())),
        }
    }
    let recovered = recovery.finish();
    tell_damage(topic, &directory, &recovered.problems);
    if let Some(problem) = recovered.other_version() {
        return Err(Unread { why: format!("{problem}: start the nsqd that wrote it"), keeps_its_name: true });
    }
    set_files_aside(disk, &directory, &recovered.unreadable).await?;
    for (file, part) in recovered.unsafe_parts() {
        if let Err(error) = write_again(disk, path(file), part).await {
            refuse_if(is_durable, &file.name(), &error)?;
            tell_unsafe(&path(file), &error);
        }
    }
    Ok(recovered)
}

/// A durable topic is not used if something in it cannot be made safe. But without room on a disk that never
/// overwrites, messages have to be consumed all the same.
fn refuse_if(is_durable: bool, what: &str, error: &io::Error) -> Result<(), Unread> {
    match is_durable && !reserve::is_full(error) {
        true => Err(Unread { why: format!("{what} cannot be made safe: {error}"), keeps_its_name: true }),
        false => Ok(()),
    }
}

/// Writes what is in a part of a file once more, and fsyncs it: if an fsync failed in the process before this one, the
/// system may show what is not on the medium and hold it for written. For the same reason an fsync of a file is never
/// tried alone.
async fn write_again(disk: &dyn Disk, file: String, part: Range<u64>) -> io::Result<()> {
    let (mut at, mut by_page) = (part.start, 0..0);
    while at < part.end {
        let is_page = by_page.contains(&at);
        let next = if is_page { (at / PAGE + 1) * PAGE } else { at.saturating_add(PIECE) }.min(part.end);
        let read = Op::Read(file.clone(), at, (next - at) as usize);
        let read = if is_page { disk.run(read).await } else { patiently(disk, read).await };
        let content = match read.map(Outcome::content) {
            Ok(content) if content.is_empty() => break,
            Ok(content) => Bytes::from(content),
            Err(error) if !disk::is_of_medium(&error) => return Err(error),
            Err(_) if !is_page => {
                by_page = at..next;
                continue;
            }
            Err(error) => {
                // What is in this page is lost anyway, and the others are not to be withheld for that.
                tell_unsafe(&file, &error);
                at = next;
                continue;
            }
        };
        let mut tries = 1;
        while let Err(error) = write_safely(disk, &file, at, &content).await {
            if tries == TRIES {
                return Err(error);
            }
            tries += 1;
            tokio::time::sleep(PAUSE).await;
        }
        at = next;
    }
    Ok(())
}

fn tell_unsafe(file: &str, error: &io::Error) {
    tracing::error!("DISK: {file} cannot be made safe - {error}; a power cut may lose what is in there");
}

async fn write_safely(disk: &dyn Disk, file: &str, at: u64, content: &Bytes) -> io::Result<()> {
    disk.run(Op::Write(file.to_owned(), at, Content::Whole(content.clone()))).await?;
    disk.run(Op::Sync(file.to_owned())).await.map(|_| ())
}
