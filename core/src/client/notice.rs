//! What a client tells whoever wants to know how it is doing. Nothing here needs an answer.

use crate::message::MessageId;
use crate::time::Duration;
use alloc::string::String;
use core::fmt;

/// Something that happened to a producer or consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// A connection can be used.
    Connected {
        /// Its address.
        nsqd: String,
    },
    /// A connection could not be made.
    ConnectFailed {
        /// Its address.
        nsqd: String,
        /// What went wrong.
        reason: String,
        /// When it is tried again; never, if the nsqd is not listed any more.
        retry: Option<Duration>,
    },
    /// A connection was lost.
    Disconnected {
        /// Its address.
        nsqd: String,
        /// What went wrong.
        reason: String,
        /// When it is tried again; never, if the client is ending.
        retry: Option<Duration>,
    },
    /// A nsqlookupd could not be asked. What it said last still counts; it is asked again at the next poll.
    LookupFailed {
        /// Its address.
        nsqlookupd: String,
        /// What went wrong.
        reason: String,
    },
    /// Handling a message has failed, or has succeeded less often than it had failed: no messages for so long.
    Backoff {
        /// How long.
        pause: Duration,
    },
    /// Messages come as usual again.
    BackoffEnded,
    /// nsqd did not take a FIN, REQ or TOUCH, mostly because the message had timed out; its words name the message.
    AnswerFailed {
        /// Its address.
        nsqd: String,
        /// nsqd's words.
        reason: String,
    },
    /// A message was answered after its connection had been lost: it will come again.
    AnswerLost {
        /// The message.
        id: MessageId,
    },
    /// A message was not answered in time: it will come again. This counts as a failure.
    TimedOut {
        /// Where it came from; empty if that connection is lost.
        nsqd: String,
        /// The message.
        id: MessageId,
    },
    /// A message has come once too often.
    GaveUp {
        /// Where it came from.
        nsqd: String,
        /// The message.
        id: MessageId,
        /// How often it has come.
        attempts: u16,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected { nsqd } => write!(f, "connected to {nsqd}"),
            Self::ConnectFailed { nsqd, reason, .. } => write!(f, "cannot connect to {nsqd}: {reason}"),
            Self::Disconnected { nsqd, reason, .. } => write!(f, "lost {nsqd}: {reason}"),
            Self::LookupFailed { nsqlookupd, reason } => write!(f, "cannot ask {nsqlookupd}: {reason}"),
            Self::Backoff { pause } => write!(f, "backing off for {pause:?}"),
            Self::BackoffEnded => f.write_str("backoff ended"),
            Self::AnswerFailed { nsqd, reason } => write!(f, "{nsqd} said {reason}"),
            Self::AnswerLost { id } => write!(f, "the connection of message {id} was lost before its answer"),
            Self::TimedOut { nsqd, id } => write!(f, "message {id} of {nsqd} timed out"),
            Self::GaveUp { nsqd, id, attempts } => {
                write!(f, "giving up message {id} of {nsqd} at attempt {attempts}")
            }
        }
    }
}
