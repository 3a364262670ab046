//! Topics on disk: their directories, and the jobs of each.
//!
//! A topic asks for jobs ([`nsq_core::topic::disk`]); here each becomes a task that does its operations one by one on
//! the port and comes back with an [`Input::Disk`]. A directory is made before the first job, and only then; a deleted
//! topic's is renamed before its files go, so that the deletion is one step.

use crate::broker::Broker;
use crate::disk::{self, Content, Disk, Op as PortOp, Outcome, crc};
use crate::durable::Durable;
use crate::reserve::{self, Reserve};
use crate::sync::{Arc, AtomicU64, Mutex, MutexGuard, Ordering, PoisonError};
use crate::topics::SharedTopic;
use nsq_core::name::TopicName;
use nsq_core::storage::names::{self, FileName, TOPICS};
use nsq_core::storage::recovered::{Problem, Recovered, Trouble};
use nsq_core::topic::disk::{Disk as TopicDisk, Failed, Job, Lane, Loaded, Op};
use nsq_core::topic::io::{Input, Refusal};
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{Notify, RwLock, RwLockReadGuard, SetOnce};

/// What the name of a deleted topic's directory ends with.
pub(crate) const DELETED: &str = ".deleted";
/// How long an operation that has to succeed in the end waits after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// How long whoever deletes a topic waits for the disk.
const REMOVAL: Duration = Duration::from_secs(5);
/// So many damaged places of a topic are told one by one.
const TOLD: usize = 20;

/// What was found at the start.
#[derive(Default)]
pub(crate) struct Stored {
    /// The topics that have a directory, each with its incarnation.
    pub(crate) topics: BTreeMap<TopicName, (u64, Recovered)>,
    /// The largest incarnation that was used.
    pub(crate) last_incarnation: u64,
    /// The names of their directories are on the medium.
    pub(crate) names_are_safe: bool,
    /// Topics that have a directory which cannot be read and keeps its name, and why.
    pub(crate) unusable: BTreeMap<TopicName, String>,
}

/// What topics share: where they open their places, and what is known of the disk's state.
pub(crate) struct Storage {
    disk: Arc<dyn Disk>,
    /// For what makes room on a full disk.
    pub(crate) reserve: Arc<Reserve>,
    durable: Durable,
    last_incarnation: AtomicU64,
    names_are_safe: bool,
    /// See [`Stored::unusable`]; by who reports what the topic has met.
    unusable: BTreeMap<String, String>,
    /// What is wrong, by who has met it.
    troubles: Mutex<BTreeMap<String, String>>,
    ending: Mutex<Ending>,
    /// A topic has said that it is stored.
    said: Notify,
}

/// The topics that were told to write everything.
#[derive(Default)]
struct Ending {
    waiting: BTreeSet<TopicName>,
    failed: BTreeMap<TopicName, String>,
}

impl Storage {
    pub(crate) fn new(disk: Arc<dyn Disk>, durable: Durable, stored: &Stored) -> Self {
        let unusable: BTreeMap<_, _> =
            stored.unusable.iter().map(|(topic, why)| (in_topic(topic), why.clone())).collect();
        Self {
            reserve: Arc::new(Reserve::new(Arc::clone(&disk))),
            disk,
            durable,
            last_incarnation: AtomicU64::new(stored.last_incarnation),
            names_are_safe: stored.names_are_safe,
            troubles: Mutex::new(unusable.clone()),
            unusable,
            ending: Mutex::default(),
            said: Notify::new(),
        }
    }

    /// Where the topic is kept: the place with that incarnation, which is there, or a new one.
    pub(crate) fn open(&self, topic: &TopicName, found: Option<u64>) -> (TopicDisk, Arc<Place>) {
        let incarnation = found.unwrap_or_else(|| self.last_incarnation.fetch_add(1, Ordering::Relaxed) + 1);
        let durable = self.durable.covers(topic);
        if durable {
            tracing::info!("TOPIC({topic}): durable, what is acknowledged is on the medium");
        }
        let path = format!("{TOPICS}/{}", names::directory(topic, incarnation));
        let state = match found {
            Some(_) if self.names_are_safe => State::Made,
            Some(_) => State::Begun,
            None if self.unusable.contains_key(&in_topic(topic)) => State::Unusable,
            None => State::Absent,
        };
        let state = RwLock::new(state);
        let place = Place {
            disk: Arc::clone(&self.disk),
            reserve: Arc::clone(&self.reserve),
            path,
            state,
            removed: SetOnce::new(),
        };
        (TopicDisk { incarnation, durable, crc }, Arc::new(place))
    }

    /// Whether all topics are durable, and the patterns of those that are.
    pub(crate) const fn durable(&self) -> &Durable {
        &self.durable
    }

    /// Makes the reserve whole if it is not; whether that can be done is reported.
    pub(crate) async fn keep_reserve(&self) {
        if self.reserve.is_whole() {
            // Once a second is too often to wake a thread of the disk for nothing.
            return self.report(reserve::FILE, Ok(()));
        }
        let reserve = Arc::clone(&self.reserve);
        let made = disk::hosted(&*self.disk, Lane::Commit, async move { reserve.make().await });
        let made = made.await.map_err(|error| reserve::explain(&error));
        self.report(reserve::FILE, made.as_ref().copied().map_err(String::as_str));
    }

    /// Whoever it is has met trouble with the disk, or none any more. The same trouble is told once.
    pub(crate) fn report(&self, who: &str, trouble: Result<(), &str>) {
        let mut troubles = lock(&self.troubles);
        match trouble {
            Err(reason) => {
                if troubles.insert(who.to_owned(), reason.to_owned()).is_none_or(|before| before != reason) {
                    tracing::error!("DISK: {who}: {reason}");
                }
            }
            Ok(()) => match self.unusable.get(who) {
                // Whatever becomes of the topic: its directory stays until a later start.
                Some(reason) => drop(troubles.insert(who.to_owned(), reason.clone())),
                None if troubles.remove(who).is_some() => tracing::info!("DISK: {who}: works again"),
                None => {}
            },
        }
    }

    /// # Errors
    /// Something that is wrong.
    pub(crate) fn health(&self) -> Result<(), String> {
        lock(&self.troubles).first_key_value().map_or(Ok(()), |(who, reason)| Err(format!("{who}: {reason}")))
    }

    /// These topics are about to be told that the process ends.
    pub(crate) fn expect(&self, topics: impl Iterator<Item = TopicName>) {
        lock(&self.ending).waiting.extend(topics);
    }

    /// One of them has written everything, or says why it cannot.
    pub(crate) fn stored(&self, topic: TopicName, result: Result<(), String>) {
        let mut ending = lock(&self.ending);
        ending.waiting.remove(&topic);
        if let Err(reason) = result {
            ending.failed.insert(topic, reason);
        }
        self.said.notify_one();
    }

    /// Waits for all of them, but not for one that has panicked; what could not be written, and why.
    pub(crate) async fn all_stored(&self, has_panicked: impl Fn(&TopicName) -> bool) -> BTreeMap<TopicName, String> {
        loop {
            // Whoever tells that it is stored does that under its own lock, which is the outer one.
            let waiting = lock(&self.ending).waiting.clone();
            for topic in waiting.into_iter().filter(&has_panicked) {
                tracing::error!("TOPIC({topic}): a bug has stopped it, what it had in memory is lost");
                self.stored(topic, Err("a bug has stopped it".to_owned()));
            }
            {
                let ending = &mut *lock(&self.ending);
                if ending.waiting.is_empty() {
                    return std::mem::take(&mut ending.failed);
                }
            }
            let _ = tokio::time::timeout(RETRY, self.said.notified()).await;
        }
    }
}

/// Who reports what a topic has met.
pub(crate) fn in_topic(topic: &TopicName) -> String {
    format!("TOPIC({topic})")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells of what could not be read or understood at one time: the first of it, and how much more there is.
pub(crate) fn tell_damage(topic: &TopicName, directory: &str, problems: &[Problem]) {
    let (mut told, mut untold, mut bytes) = (0, 0, 0);
    for problem in problems {
        let damaged = match problem.what {
            Trouble::Damaged(bytes) => Some(bytes),
            Trouble::Unreadable(_) => Some(0),
            _ => None,
        };
        if let Some(damaged) = damaged.filter(|_| told == TOLD) {
            (untold, bytes) = (untold + 1, bytes + damaged);
            continue;
        }
        told += usize::from(damaged.is_some());
        match problem.what {
            Trouble::Lost(..) => tracing::error!("TOPIC({topic}): {problem}"),
            Trouble::Torn(_) => tracing::warn!("TOPIC({topic}): {directory}/{problem}"),
            _ => tracing::error!("TOPIC({topic}): {directory}/{problem}"),
        }
    }
    if untold > 0 {
        tracing::error!("TOPIC({topic}): {directory} is damaged in {untold} more places, {bytes} bytes");
    }
}

/// Where a topic's files are.
pub(crate) struct Place {
    disk: Arc<dyn Disk>,
    reserve: Arc<Reserve>,
    /// Relative to the data directory.
    path: String,
    /// Jobs look at it as long as they run.
    state: RwLock<State>,
    /// No start will bring the topic back.
    removed: SetOnce<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing was written yet.
    Absent,
    /// The directory may be there, and its name may not stay.
    Begun,
    /// The directory is there.
    Made,
    /// The topic was deleted.
    Removed,
    /// Another directory of the topic is there which the next start would take for an older one, and remove.
    Unusable,
}

impl Place {
    /// The directory, relative to the data directory.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    async fn perform(&self, ops: Vec<Op>) -> Result<Option<Loaded>, Failed> {
        let failed = |op| {
            move |error: io::Error| {
                let (reason, is_of_medium) = (reserve::explain(&error), disk::is_of_medium(&error));
                Failed { op, reason, is_of_medium }
            }
        };
        // What is there can be read, whatever comes of making its names safe.
        let only_reads = ops.iter().all(|op| matches!(op, Op::Read { .. }));
        let state = if only_reads { self.state.read().await } else { self.make().await.map_err(failed(0))? };
        let refused = match *state {
            State::Removed => Some("the topic was deleted"),
            State::Unusable => {
                Some("its directory could not be read when nsqd was started; see to that, and start again")
            }
            _ => None,
        };
        if let Some(reason) = refused {
            return Err(Failed { op: 0, reason: reason.into(), is_of_medium: false });
        }
        let mut loaded = None;
        let mut created = Vec::new();
        let mut removed = false;
        for (number, op) in ops.into_iter().enumerate() {
            let first_seq = if let Op::Read { first_seq, .. } = op { Some(first_seq) } else { None };
            let file = written(&op);
            created.extend(file.filter(|_| matches!(op, Op::Create { .. })));
            removed |= matches!(op, Op::Remove { .. });
            match self.run(file, self.translate(op)).await {
                Ok(outcome) => loaded = first_seq.map(|first_seq| Loaded::new(outcome.content(), first_seq, crc)),
                Err(error) => {
                    if let Some(file) = file.filter(|file| created.contains(file)) {
                        // It will not be used, and each try would leave another one.
                        let _ = self.disk.run(PortOp::Remove(self.file(file))).await;
                    }
                    return Err(failed(number)(error));
                }
            }
        }
        if removed {
            // If that is not enough yet, the next one will be.
            let _ = self.reserve.make().await;
        }
        Ok(loaded)
    }

    /// The journal may use the last room on the disk, for it is what makes room; messages may not.
    async fn run(&self, written: Option<FileName>, op: PortOp) -> io::Result<Outcome> {
        match written {
            Some(FileName::Journal(_) | FileName::Unfinished(_)) => self.reserve.spend(op).await,
            Some(FileName::Segment(_)) if !matches!(op, PortOp::Sync(_)) => self.reserve.spare(op).await,
            _ => self.disk.run(op).await,
        }
    }

    fn file(&self, file: FileName) -> String {
        format!("{}/{}", self.path, file.name())
    }

    /// Makes the directory if there is none, and its name safe if a start could not.
    async fn make(&self) -> io::Result<RwLockReadGuard<'_, State>> {
        let state = self.state.read().await;
        if !matches!(*state, State::Absent | State::Begun) {
            return Ok(state);
        }
        drop(state);
        let mut state = self.state.write().await;
        if matches!(*state, State::Absent | State::Begun) {
            unless_there(self.disk.run(PortOp::CreateDir(TOPICS.into())).await)?;
            self.disk.run(PortOp::SyncDir(String::new())).await?;
            let before = std::mem::replace(&mut *state, State::Begun);
            match self.disk.run(PortOp::CreateDir(self.path.clone())).await {
                // A try that has failed may have made it.
                made if before == State::Begun => unless_there(made)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    // It is somebody else's, and stays so.
                    *state = before;
                    return Err(error);
                }
                made => drop(made?),
            }
            self.disk.run(PortOp::SyncDir(TOPICS.into())).await?;
            *state = State::Made;
        }
        Ok(state.downgrade())
    }

    fn translate(&self, op: Op) -> PortOp {
        let path = |file| self.file(file);
        match op {
            Op::Create { file } => PortOp::Create(path(file)),
            Op::Write { file, offset, data } => PortOp::Write(path(file), offset, Content::Sealed(data, crc)),
            Op::Sync { file } => PortOp::Sync(path(file)),
            Op::SyncDirectory => PortOp::SyncDir(self.path.clone()),
            Op::Rename { from, to } => PortOp::Rename(path(from), path(to)),
            Op::Remove { file } => PortOp::Remove(path(file)),
            Op::Read { file, offset, length, .. } => PortOp::Read(path(file), offset, length),
        }
    }

    /// Waits until the deletion of its topic is safe.
    ///
    /// # Errors
    /// If the disk does not let that happen soon. It is tried on.
    pub(crate) async fn removed(&self) -> Result<(), Refusal> {
        let removed = tokio::time::timeout(REMOVAL, self.removed.wait()).await;
        removed.map(|_| ()).map_err(|_| Refusal::NotSaved)
    }

    /// Removes the directory once no job is under way.
    async fn remove(&self, storage: &Storage) {
        let mut state = self.state.write().await;
        let deleted = format!("{}{DELETED}", self.path);
        let was = std::mem::replace(&mut *state, State::Removed);
        drop(state);
        let may_be_there = matches!(was, State::Begun | State::Made);
        if may_be_there {
            self.insist(storage, PortOp::Rename(self.path.clone(), deleted.clone())).await;
            self.insist(storage, PortOp::SyncDir(TOPICS.into())).await;
        }
        // Only the task that removes it sets it.
        let _ = self.removed.set(());
        if may_be_there {
            // Nobody waits for that, but for the room that it makes.
            self.insist(storage, PortOp::RemoveDir(deleted)).await;
        }
    }

    /// Does a part of the removal again and again until it succeeds, or what it is about is not there.
    async fn insist(&self, storage: &Storage, op: PortOp) {
        while let Err(error) = self.disk.run(op.clone()).await {
            if error.kind() == io::ErrorKind::NotFound {
                break;
            }
            let reason = format!("the topic was deleted, failed to {op} - {error}; it is tried again");
            storage.report(&self.path, Err(&reason));
            tokio::time::sleep(RETRY).await;
        }
        storage.report(&self.path, Ok(()));
    }
}

/// A directory is there; that it was is no failure.
fn unless_there(made: io::Result<Outcome>) -> io::Result<()> {
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// The file that an operation makes or fills.
const fn written(op: &Op) -> Option<FileName> {
    match op {
        Op::Create { file } | Op::Write { file, .. } | Op::Sync { file } => Some(*file),
        _ => None,
    }
}

/// Removes what means nothing any more; if that fails, the next start does it.
pub(crate) async fn discard(disk: &dyn Disk, directory: String) {
    if let Err(error) = disk.run(PortOp::RemoveDir(directory.clone())).await {
        tracing::warn!("DISK: {directory} could not be removed - {error}; it will be at the next start");
    }
}

/// Starts a job of a topic.
pub(crate) fn start(broker: Arc<Broker>, topic: Arc<SharedTopic>, job: Job) {
    let disk = Arc::clone(&topic.place().disk);
    let task = async move {
        if !job.rest.is_zero() {
            topic.place().disk.rest(job.rest).await;
        }
        let performed = unless_it_panics(topic.place().perform(job.ops)).await;
        let result = performed
            .unwrap_or_else(|| Err(Failed { op: 0, reason: "a bug has stopped a job".into(), is_of_medium: false }));
        topic.call(&broker, Some(Input::Disk { id: job.id, result }));
    };
    disk.host(job.lane, Box::pin(task));
}

/// What comes of it. A panic is a bug and was reported as such; who waits for an answer is to have one all the same.
async fn unless_it_panics<T>(work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)));
        polled.map_or(Poll::Ready(None), |polled| polled.map(Some))
    })
    .await
}

/// Removes the directory of a deleted topic, whether somebody waits for that or not.
pub(crate) fn start_to_remove(broker: Arc<Broker>, place: Arc<Place>) {
    // Most topics have nothing on disk.
    if let Ok(mut state) = place.state.try_write()
        && *state == State::Absent
    {
        *state = State::Removed;
        let _ = place.removed.set(());
        return;
    }
    tokio::spawn(async move { place.remove(&broker.storage).await });
}
