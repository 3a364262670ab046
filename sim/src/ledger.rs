//! What clients saw: the only evidence that the checks go by.
//!
//! Producers and consumers write down what they did and what came back, in true simulated time; operators' actions and
//! the deaths of nodes are written down too. A publish has three outcomes: accepted, refused, and *unknown* when no
//! answer came. Bodies are unique, so a body names its message.

use bytes::Bytes;
use madsim::time::Instant;
use nsq_core::message::MessageId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The ledger of one run; clones are the same ledger.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Mutex<Entries>>);

/// What is written in it.
#[derive(Debug, Default)]
pub struct Entries {
    /// By body.
    pub published: BTreeMap<Bytes, Publish>,
    /// In the order in which they came.
    pub deliveries: Vec<Delivery>,
    /// Of each nsqd's topics and channels, the bodies that only its dead process knew of, or its machine without power.
    pub excused: BTreeMap<Place, BTreeSet<Bytes>>,
    /// Operators' actions that drop messages or channels.
    pub drops: Vec<Drop>,
    /// Spans in which a channel had to be silent, or a topic to keep what it got.
    pub pauses: Vec<Pause>,
    /// Channels that existed.
    pub channels: BTreeMap<Place, Known>,
    /// Nsqds that are dead and do not come back: what is on their disks is there, and goes to nobody.
    pub abandoned: BTreeSet<String>,
    /// Nsqds whose topics are durable.
    pub durable: BTreeSet<String>,
    /// How each life of an nsqd ended.
    pub deaths: BTreeMap<(String, u64), Death>,
}

/// The end of a life.
#[derive(Clone, Copy, Debug)]
pub struct Death {
    /// When it was, or when it was told to end.
    pub at: Instant,
    /// It was told to end, and could write everything.
    pub in_order: bool,
}

/// An nsqd, a topic, a channel; the channel is empty for what its topic has not given to channels.
pub type Place = (String, String, String);

/// A channel that existed.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Since then for sure.
    pub since: Instant,
    /// An operator was told so, and is told when it is on disk.
    pub answered: bool,
}

/// A message that a producer sent.
#[derive(Clone, Debug)]
pub struct Publish {
    /// Where to.
    pub topic: String,
    /// The nsqds any of which may have taken it.
    pub to: Vec<String>,
    /// When it was sent.
    pub sent: Instant,
    /// Not to be delivered before that.
    pub not_before: Option<Instant>,
    /// What came back.
    pub outcome: Outcome,
    /// When it came back, or was given up.
    pub answered: Option<Instant>,
}

/// How a publish ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `OK`: it must be delivered.
    Accepted,
    /// An error frame, for this message alone: it must not be delivered.
    Refused,
    /// No answer, or a refusal of several at once: it may be delivered.
    Unknown,
}

/// A message that came to a consumer.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// From there.
    pub topic: String,
    /// From there.
    pub channel: String,
    /// Which nsqd, and which of its lives.
    pub node: (String, u64),
    /// Which consumer, and which of its connections or lives.
    pub consumer: (usize, u64),
    /// When it came.
    pub at: Instant,
    /// Its id.
    pub id: MessageId,
    /// Which delivery nsqd said it is.
    pub attempts: u16,
    /// Whether nsqd may say that of another delivery, too: see `Nsqd::has_doubles`.
    pub may_be_double: bool,
    /// Its body.
    pub body: Bytes,
    /// When the consumer asked for more time.
    pub touched: Option<Instant>,
    /// What the consumer did with it, and when.
    pub fate: Fate,
}

/// What became of a delivery, on the consumer's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing: left to its timeout, or the consumer has gone.
    Left,
    /// FIN was sent.
    Finished(Instant),
    /// REQ was sent, with that delay.
    Requeued(Instant, Duration),
}

/// An operator dropped messages: what was there when it was asked for, and what came until it was done, may be lost.
#[derive(Clone, Debug)]
pub struct Drop {
    /// On this nsqd.
    pub node: String,
    /// From this topic.
    pub topic: String,
    /// From this channel, or from the topic before its channels.
    pub channel: Option<String>,
    /// What nsqd held there when it was asked for; `None` if some of that was not in memory: it may have been anything.
    pub held: Option<BTreeSet<Bytes>>,
    /// Of that, what was in memory and must not come back: the channel's, or everything if the topic was deleted.
    pub gone: BTreeSet<Bytes>,
    /// When it was asked for.
    pub asked: Instant,
    /// When it was answered, or given up.
    pub done: Instant,
    /// It was answered.
    pub answered: bool,
}

/// A pause.
#[derive(Clone, Debug)]
pub struct Pause {
    /// Of this topic.
    pub topic: String,
    /// Of this channel; of the whole topic if there is none.
    pub channel: Option<String>,
    /// When it was answered.
    pub from: Instant,
    /// When its end was asked for.
    pub until: Option<Instant>,
}

impl Ledger {
    /// Opens it; nobody else can read or write meanwhile.
    pub fn open(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    /// What came of a publish that has been written down.
    pub(crate) fn answer(&mut self, body: &Bytes, outcome: Outcome) {
        let publish = self.published.get_mut(body).expect("it was written down when it was sent");
        (publish.outcome, publish.answered) = (outcome, Some(Instant::now()));
    }

    /// From now on the nsqd owes the channel what it accepts for the topic.
    pub fn channel_exists(&mut self, nsqd: &str, topic: &str, channel: &str, answered: bool) {
        let place = (nsqd.to_owned(), topic.to_owned(), channel.to_owned());
        let known = self.channels.entry(place).or_insert_with(|| Known { since: Instant::now(), answered });
        known.answered |= answered;
    }
}
