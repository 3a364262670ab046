//! Names of files and directories. A topic's name is never used as a path as it is: `..` is a legal one.

use crate::name::TopicName;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// The directory under the data directory that holds the topics' directories.
pub const TOPICS: &str = "topics";

/// Numbers of files are smaller: what has a larger one is not ours, and whoever counts on never comes to an end.
pub const NUMBERS_END: u32 = 1 << 31;

/// What is put behind the name of a file that is set aside: it is none of ours any more, and an operator may save it.
pub const UNREADABLE: &str = ".unreadable";

/// A file in a topic's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileName {
    /// Messages.
    Segment(u32),
    /// What channels have done with them.
    Journal(u32),
    /// A journal that was being made.
    Unfinished(u32),
    /// A journal that was set aside. It is not read, but tells that there was one.
    SetAside(u32),
}

/// The name of a topic's directory.
pub fn directory(topic: &TopicName, incarnation: u64) -> String {
    let mut name = String::new();
    for byte in topic.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
            name.push(byte.into());
        } else {
            name += &format!("%{byte:02X}");
        }
    }
    format!("{name}.{incarnation:016x}")
}

/// What [`directory`] was made of; `None` if it was made by somebody else.
pub fn parse_directory(name: &str) -> Option<(TopicName, u64)> {
    let (encoded, incarnation) = name.rsplit_once('.')?;
    let mut decoded = Vec::new();
    let mut bytes = encoded.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex(&[bytes.next()?, bytes.next()?])? as u8,
            byte => byte,
        });
    }
    let topic = TopicName::new(core::str::from_utf8(&decoded).ok()?)?;
    let incarnation = (incarnation.len() == 16).then(|| hex(incarnation.as_bytes()))??;
    // One name, one directory: what only looks alike is not ours.
    (directory(&topic, incarnation) == name).then_some((topic, incarnation))
}

impl FileName {
    /// As it is in the directory.
    pub fn name(self) -> String {
        match self {
            Self::Segment(number) => format!("{number:08x}.log"),
            Self::Journal(number) => format!("{number:08x}.journal"),
            Self::Unfinished(number) => format!("{number:08x}.journal.tmp"),
            Self::SetAside(number) => format!("{number:08x}.journal{UNREADABLE}"),
        }
    }

    /// What a name stands for; `None` if it is none of ours.
    pub fn parse(name: &str) -> Option<Self> {
        let (number, kind) = name.split_once('.')?;
        let number = (number.len() == 8).then(|| hex(number.as_bytes()))?? as u32;
        if number >= NUMBERS_END {
            return None;
        }
        let file = match kind {
            "log" => Self::Segment(number),
            "journal" => Self::Journal(number),
            "journal.tmp" => Self::Unfinished(number),
            "journal.unreadable" => Self::SetAside(number),
            _ => return None,
        };
        (file.name() == name).then_some(file)
    }
}

fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| Some(number << 4 | u64::from((*digit as char).to_digit(16)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_harmless_and_readable_back() {
        for (name, encoded) in [("orders", "orders"), ("..", "%2E%2E"), ("a.b-c_d#ephemeral", "a%2Eb-c_d%23ephemeral")]
        {
            let topic = TopicName::new(name).unwrap();
            let directory = directory(&topic, 0x1234);
            assert_eq!(directory, format!("{encoded}.0000000000001234"));
            assert_eq!(parse_directory(&directory), Some((topic, 0x1234)));
        }
        for strange in [
            "orders",
            "orders.12",
            "a.b.0000000000001234",
            "%2e.0000000000001234",
            "a%2.0000000000001234",
            ".000000000000123G",
        ] {
            assert_eq!(parse_directory(strange), None, "{strange}");
        }
    }

    #[test]
    fn files_are_known_by_their_names() {
        let (journal, aside) = (FileName::Journal(0x7fff_ffff), FileName::SetAside(0x7fff_ffff));
        for file in [FileName::Segment(7), journal, FileName::Unfinished(0), aside] {
            assert_eq!(FileName::parse(&file.name()), Some(file));
        }
        assert_eq!(aside.name(), journal.name() + UNREADABLE);
        for strange in ["7.log", "0000000G.log", "00000007.LOG", "0000000A.log", "00000007.log.bad", "00000007"] {
            assert_eq!(FileName::parse(strange), None, "{strange}");
        }
        assert_eq!(FileName::parse(&(FileName::Segment(7).name() + UNREADABLE)), None);
        for without_successor in ["ffffffff.log", "ffffffff.journal", "ffffffff.journal.tmp", "80000000.log"] {
            assert_eq!(FileName::parse(without_successor), None, "{without_successor}");
        }
    }
}
