//! Every error of the V1 protocol and its text (spec: nsqd_protocol §5.2); each ends the connection.
//!
//! Texts are bytes, for they repeat what the peer sent, as it came.

use super::session::BODY_MAX;
use crate::session::line;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// An error that ends the connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fatal<'a> {
    /// The first four bytes were not the magic.
    Protocol,
    UnknownCommand(&'a [u8]),
    LineTooLong,
    IdentifyAgain,
    SizeUnread,
    SizeInvalid(i32),
    TooBig(i32),
    BodyUnread,
    Json,
    MissingFields,
    /// The commands from here on name themselves.
    NotIdentified,
    TooFewWords(&'static str),
    Topic(&'static str, &'a [u8]),
    Channel(&'static str, &'a [u8]),
}

impl Fatal<'_> {
    /// The data of the reply.
    pub(super) fn text(&self) -> Vec<u8> {
        let text = |text: &str| Vec::from(text);
        let quoted = |before: String, name: &[u8]| [before.as_bytes(), b"'", name, b"' is not valid"].concat();
        match self {
            Self::Protocol => text("E_BAD_PROTOCOL"),
            Self::UnknownCommand(word) => [b"E_INVALID invalid command ", *word].concat(),
            Self::LineTooLong => format!("E_INVALID command line too long, the most is {} bytes", line::MAX).into(),
            Self::IdentifyAgain => text("E_INVALID cannot IDENTIFY again"),
            Self::SizeUnread => text("E_BAD_BODY IDENTIFY failed to read body size"),
            Self::SizeInvalid(size) => format!("E_BAD_BODY IDENTIFY invalid body size {size}").into(),
            Self::TooBig(size) => format!("E_BAD_BODY IDENTIFY body too big {size} > {BODY_MAX}").into(),
            Self::BodyUnread => text("E_BAD_BODY IDENTIFY failed to read body"),
            Self::Json => text("E_BAD_BODY IDENTIFY failed to decode JSON body"),
            Self::MissingFields => text("E_BAD_BODY IDENTIFY missing fields"),
            Self::NotIdentified => text("E_INVALID client must IDENTIFY"),
            Self::TooFewWords(verb) => format!("E_INVALID {verb} insufficient number of params").into(),
            Self::Topic(verb, name) => quoted(format!("E_BAD_TOPIC {verb} topic name "), name),
            Self::Channel(verb, name) => quoted(format!("E_BAD_CHANNEL {verb} channel name "), name),
        }
    }
}
