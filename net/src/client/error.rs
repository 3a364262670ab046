//! What can go wrong for an application, in words that say what to do.

use std::fmt;
use std::time::Duration;

/// Why a client cannot be built.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// There is no address to start from.
    NoAddress,
    /// Not an address: what it is, and what is expected.
    BadAddress(String, &'static str),
    /// Not a name that nsqd takes for a topic.
    BadTopic(String),
    /// Not a name that nsqd takes for a channel.
    BadChannel(String),
    /// A setting is out of its range: what it is called, and the range.
    OutOfRange(&'static str, &'static str),
}

/// Why a publish failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// Not a name that nsqd takes for a topic. Nothing was sent.
    BadTopic(String),
    /// A message without a byte, which nsqd does not take. Nothing was sent.
    Empty,
    /// More bytes than the protocol can express. Nothing was sent.
    TooLarge(usize),
    /// A delay that the protocol cannot express. Nothing was sent.
    TooLong(Duration),
    /// nsqd did not take it; its words. A single message was not published; of several, any may have been.
    Refused(String),
    /// It was sent, but nsqd's answer did not come: it may have been published or not. Why.
    Unknown(String),
    /// No nsqd could be reached in time: it was not published. What went wrong last.
    Unsent(String),
    /// The producer has been stopped. It was not published, unless it was under way when the last clone was dropped.
    Stopped,
}

const NAMES: &str = "1 to 64 characters of a-z, A-Z, 0-9, `.`, `_` and `-`, with or without `#ephemeral` at the end";

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddress => f.write_str("no address: name at least one nsqd, or for a consumer a nsqlookupd"),
            Self::BadAddress(address, expected) => write!(f, "{address:?} is no address: give {expected}"),
            Self::BadTopic(name) => write!(f, "{name:?} is no topic: a topic is {NAMES}"),
            Self::BadChannel(name) => write!(f, "{name:?} is no channel: a channel is {NAMES}"),
            Self::OutOfRange(setting, range) => write!(f, "{setting} is out of range: it is {range}"),
        }
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadTopic(name) => write!(f, "{name:?} is no topic: a topic is {NAMES}"),
            Self::Empty => f.write_str("a message must not be empty"),
            Self::TooLarge(bytes) => write!(f, "{bytes} bytes are too many for one publish: publish in parts"),
            Self::TooLong(delay) => write!(f, "{delay:?} is too long a delay: nsqd takes an hour by default"),
            Self::Refused(reason) => write!(f, "nsqd refused it: {reason}"),
            Self::Unknown(reason) => write!(f, "published perhaps, for the answer did not come: {reason}"),
            Self::Unsent(reason) => write!(f, "not published, for no nsqd could be reached: {reason}"),
            Self::Stopped => f.write_str("not published, for the producer has been stopped"),
        }
    }
}

impl std::error::Error for BuildError {}
impl std::error::Error for PublishError {}
