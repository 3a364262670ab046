//! Every error text of the protocol, in one place (the table of spec: nsqd_protocol §1.5).
//!
//! [`Fatal`] ends the connection; a [`failure`] of FIN, REQ or TOUCH does not. Texts are bytes, for some end in what
//! the client sent, as it came.

use super::quote::Quoted;
use crate::message::MessageId;
use crate::topic::io::{Refusal, Verb};
use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt::{self, Display};

/// A command, as error texts name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Identify,
    Auth,
    Sub,
    Rdy,
    Fin,
    Req,
    Touch,
    Cls,
    Pub,
    Mpub,
    Dpub,
}

impl Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identify => "IDENTIFY",
            Self::Auth => "AUTH",
            Self::Sub => "SUB",
            Self::Rdy => "RDY",
            Self::Fin => "FIN",
            Self::Req => "REQ",
            Self::Touch => "TOUCH",
            Self::Cls => "CLS",
            Self::Pub => "PUB",
            Self::Mpub => "MPUB",
            Self::Dpub => "DPUB",
        })
    }
}

/// An error that ends the connection.
#[derive(Debug)]
pub(super) enum Fatal<'a> {
    /// The first four bytes were not the magic.
    Protocol,
    UnknownCommand(&'a [u8]),
    State(Op),
    HeartbeatsDisabled,
    AuthWords,
    TooFewWords(Op),
    Topic(Op, &'a [u8]),
    Channel(&'a [u8]),
    MessageId,
    ReadyNumber(&'a [u8]),
    /// A count and the largest.
    ReadyRange(u64, u64),
    TimeoutNumber(Op, &'a [u8]),
    /// A delay of DPUB and the longest, ms.
    TimeoutRange(u64, u128),
    SizeUnread(Op),
    SizeInvalid(Op, i32),
    /// The size of a body and the largest.
    TooBig(Op, u64, u64),
    BodyUnread(Op),
    CountUnread,
    CountInvalid(i32),
    /// MPUB's message with this index.
    ItemSizeUnread(u32),
    ItemSizeInvalid(u32, i32),
    /// The size of a message and the largest.
    ItemTooBig(u64, u64),
    ItemUnread,
    IdentifyJson,
    /// A setting of IDENTIFY and its value.
    IdentifyRange(&'static str, i64),
    AuthDisabled,
    /// What a topic said to a command.
    Refused(Op, &'a Refusal),
}

impl Fatal<'_> {
    /// The data of the error frame.
    pub(super) fn text(&self) -> Vec<u8> {
        let mut text = self.to_string().into_bytes();
        if let Self::UnknownCommand(word) | Self::ReadyNumber(word) | Self::TimeoutNumber(_, word) = self {
            text.extend_from_slice(word);
        }
        text
    }
}

impl Display for Fatal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol => f.write_str("E_BAD_PROTOCOL"),
            Self::UnknownCommand(_) => f.write_str("E_INVALID invalid command "),
            Self::State(op) => write!(f, "E_INVALID cannot {op} in current state"),
            Self::HeartbeatsDisabled => f.write_str("E_INVALID cannot SUB with heartbeats disabled"),
            Self::AuthWords => f.write_str("E_INVALID AUTH invalid number of parameters"),
            Self::TooFewWords(op @ (Op::Fin | Op::Req | Op::Touch)) => {
                write!(f, "E_INVALID {op} insufficient number of params")
            }
            Self::TooFewWords(op) => write!(f, "E_INVALID {op} insufficient number of parameters"),
            // Upstream says the code twice, and clients may have come to match on it.
            Self::Topic(Op::Mpub, name) => {
                write!(f, "E_BAD_TOPIC E_BAD_TOPIC MPUB topic name {} is not valid", Quoted(name))
            }
            Self::Topic(op, name) => write!(f, "E_BAD_TOPIC {op} topic name {} is not valid", Quoted(name)),
            Self::Channel(name) => write!(f, "E_BAD_CHANNEL SUB channel name {} is not valid", Quoted(name)),
            Self::MessageId => f.write_str("E_INVALID invalid message ID"),
            Self::ReadyNumber(_) => f.write_str("E_INVALID RDY could not parse count "),
            Self::ReadyRange(count, max) => {
                write!(f, "E_INVALID RDY count {} out of range 0-{max}", count.cast_signed())
            }
            Self::TimeoutNumber(op, _) => write!(f, "E_INVALID {op} could not parse timeout "),
            Self::TimeoutRange(delay, max) => write!(f, "E_INVALID DPUB timeout {delay} out of range 0-{max}"),
            Self::SizeUnread(op) => write!(f, "{} body size", Unread(*op)),
            Self::SizeInvalid(op @ (Op::Pub | Op::Dpub), size) => {
                write!(f, "E_BAD_MESSAGE {op} invalid message body size {size}")
            }
            Self::SizeInvalid(op, size) => write!(f, "E_BAD_BODY {op} invalid body size {size}"),
            Self::TooBig(op @ (Op::Pub | Op::Dpub), size, max) => {
                write!(f, "E_BAD_MESSAGE {op} message too big {size} > {max}")
            }
            Self::TooBig(op, size, max) => write!(f, "E_BAD_BODY {op} body too big {size} > {max}"),
            Self::BodyUnread(op) => write!(f, "{} body", Unread(*op)),
            Self::CountUnread => write!(f, "{} message count", Unread(Op::Mpub)),
            Self::CountInvalid(count) => write!(f, "E_BAD_BODY MPUB invalid message count {count}"),
            Self::ItemSizeUnread(index) => write!(f, "E_BAD_MESSAGE MPUB failed to read message({index}) body size"),
            Self::ItemSizeInvalid(index, size) => {
                write!(f, "E_BAD_MESSAGE MPUB invalid message({index}) body size {size}")
            }
            Self::ItemTooBig(size, max) => write!(f, "E_BAD_MESSAGE MPUB message too big {size} > {max}"),
            Self::ItemUnread => f.write_str("E_BAD_MESSAGE MPUB failed to read message body"),
            Self::IdentifyJson => f.write_str("E_BAD_BODY IDENTIFY failed to decode JSON body"),
            Self::IdentifyRange(what, value) => write!(f, "E_BAD_BODY IDENTIFY {what} ({value}) is invalid"),
            Self::AuthDisabled => f.write_str("E_AUTH_DISABLED AUTH disabled"),
            Self::Refused(op, why) => write!(f, "E_{op}_FAILED {op} failed {}", Reason(why)),
        }
    }
}

/// What FIN, REQ and TOUCH say when they fail, and the connection goes on.
pub(super) fn failure(verb: Verb, id: MessageId, why: &Refusal) -> Vec<u8> {
    let op = match verb {
        Verb::Fin => Op::Fin,
        Verb::Req => Op::Req,
        Verb::Touch => Op::Touch,
    };
    let (code, reason) = (alloc::format!("E_{op}_FAILED {op} "), alloc::format!(" failed {}", Reason(why)));
    [code.as_bytes(), &id.0, reason.as_bytes()].concat()
}

/// A body of one message is named otherwise than the others.
struct Unread(Op);

impl Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            op @ (Op::Pub | Op::Dpub) => write!(f, "E_BAD_MESSAGE {op} failed to read message"),
            op => write!(f, "E_BAD_BODY {op} failed to read"),
        }
    }
}

struct Reason<'a>(&'a Refusal);

impl Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Refusal::NotInFlight => f.write_str("ID not in flight"),
            Refusal::NotOwner => f.write_str("client does not own message"),
            Refusal::TooManyConsumers { topic, channel, limit } => {
                write!(f, "consumers for {topic}:{channel} exceeds limit of {limit}")
            }
            Refusal::QueueFull => f.write_str("queue memory limit reached, see --mem-queue-bytes"),
            Refusal::NotWritten => f.write_str("the disk failed, see nsqd's log"),
            Refusal::Exiting => f.write_str("exiting"),
            Refusal::NoChannel => f.write_str("channel not found"),
            Refusal::NotSaved => f.write_str("metadata could not be saved, see nsqd's log"),
        }
    }
}
