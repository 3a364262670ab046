//! Names of topics and channels, parsed once: a value of these types is a valid name (spec: nsqd_protocol §1.10).
//!
//! 1 to 64 bytes of `.a-zA-Z0-9_-`, with an optional suffix `#ephemeral` that counts towards the 64.
//! A name is never used as a path: `..` is a legal topic.

use alloc::sync::Arc;
use core::fmt;

const EPHEMERAL: &str = "#ephemeral";
const MAX: usize = 64;

/// Returns the name as text if it is a valid topic or channel name.
pub fn parse(bytes: &[u8]) -> Option<&str> {
    let stem = bytes.strip_suffix(EPHEMERAL.as_bytes()).unwrap_or(bytes);
    let valid = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if bytes.len() > MAX || stem.is_empty() || !stem.iter().all(valid) {
        return None;
    }
    core::str::from_utf8(bytes).ok()
}

macro_rules! name {
    ($name:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses a name; `None` if it breaks the rules.
            pub fn new(bytes: impl AsRef<[u8]>) -> Option<Self> {
                parse(bytes.as_ref()).map(|name| Self(name.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Ends in `#ephemeral`: kept in memory only, dropped when its last user leaves.
            pub fn is_ephemeral(&self) -> bool {
                self.0.ends_with(EPHEMERAL)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(TopicName, "The name of a topic.");
name!(ChannelName, "The name of a channel; only unique within its topic.");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid() {
        for name in ["t", ".", "-_.", "..", "A-z_0.9", "t#ephemeral", &"x".repeat(64)] {
            assert!(TopicName::new(name).is_some(), "{name}");
        }
        assert!(TopicName::new("t#ephemeral").unwrap().is_ephemeral());
    }

    #[test]
    fn invalid() {
        let long = alloc::format!("{}#ephemeral", "x".repeat(55));
        for name in ["", "#ephemeral", "a b", "a/b", "t#ephemeral#ephemeral", "t#eph", "ä", &"x".repeat(65), &long] {
            assert!(TopicName::new(name).is_none(), "{name}");
        }
    }
}
