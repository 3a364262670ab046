//! Message files of upstream's nsqd, as far as one has to know them to tell that they are there
//! (spec: nsqd_protocol §4).
//!
//! In come the name and the content of a queue's metadata file, out come whose queue it is and how many messages it
//! held when that was written. The messages themselves are not read.

use crate::name::{ChannelName, TopicName};

/// What the name of a queue's metadata file ends with.
const META: &str = ".diskqueue.meta.dat";

/// Whose queue has a metadata file of that name: a topic's, or one of its channels'. `None` if it is the name of none.
pub fn owner(name: &str) -> Option<(TopicName, Option<ChannelName>)> {
    let queue = name.strip_suffix(META)?;
    match queue.split_once(':') {
        Some((topic, channel)) => Some((TopicName::new(topic)?, Some(ChannelName::new(channel)?))),
        None => Some((TopicName::new(queue)?, None)),
    }
}

/// How many messages the queue held; `None` if it is no metadata file. Upstream lets the number go below zero.
pub fn depth(content: &[u8]) -> Option<u64> {
    let mut lines = core::str::from_utf8(content).ok()?.lines();
    let depth: i64 = lines.next()?.parse().ok()?;
    let is_position = |line: &str| {
        let place = line.split_once(',');
        place.is_some_and(|(file, offset)| file.parse::<i64>().is_ok() && offset.parse::<i64>().is_ok())
    };
    (is_position(lines.next()?) && is_position(lines.next()?)).then_some(depth.max(0).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::borrow::ToOwned;

    #[test]
    fn queues_are_known_by_their_metadata_files() {
        let owner = |name: &str| {
            let (topic, channel) = owner(name)?;
            Some((topic.as_str().to_owned(), channel.map(|channel| channel.as_str().to_owned())))
        };
        let found = |topic: &str, channel: Option<&str>| Some((topic.to_owned(), channel.map(str::to_owned)));
        assert_eq!(owner("t.diskqueue.meta.dat"), found("t", None));
        assert_eq!(owner("t:c.diskqueue.meta.dat"), found("t", Some("c")));
        assert_eq!(owner("...diskqueue.meta.dat"), found("..", None));
        assert_eq!(owner("t.diskqueue.000000:c.d-e.diskqueue.meta.dat"), found("t.diskqueue.000000", Some("c.d-e")));
        for none in ["t.diskqueue.000000.dat", "nsqd.dat", ".diskqueue.meta.dat", "t:.diskqueue.meta.dat", "topics"] {
            assert_eq!(owner(none), None, "{none}");
        }
        assert_eq!(owner("t.diskqueue.meta.dat.123.tmp"), None);
    }

    #[test]
    fn they_tell_how_many_messages_there_are() {
        assert_eq!(depth(b"4\n0,0\n0,140\n"), Some(4));
        assert_eq!(depth(b"0\n3,0\n3,0\n"), Some(0));
        assert_eq!(depth(b"-5\n0,700\n0,350\n"), Some(0));
        for none in [&b""[..], b"garbage", b"4\n", b"4\n0,0\n", b"4\n0\n0,140\n", b"\xff\n0,0\n0,0\n"] {
            assert_eq!(depth(none), None, "{none:?}");
        }
    }
}
