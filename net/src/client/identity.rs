//! What both builders have in common: who a client is, and how its connections behave.

/// Methods of a builder that has `settings`, `sources`, `listener` and `seed`.
macro_rules! common_settings {
    () => {
        /// What nsqd's statistics call this process; the machine's name if nothing is given, up to its first dot.
        pub fn client_id(mut self, client_id: impl Into<String>) -> Self {
            self.settings.client_id = client_id.into();
            self
        }

        /// What nsqd's statistics call this machine; `HOSTNAME` of the environment if nothing is given.
        pub fn hostname(mut self, hostname: impl Into<String>) -> Self {
            self.settings.hostname = hostname.into();
            self
        }

        /// The program and its version, for nsqd's statistics.
        pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
            self.settings.user_agent = user_agent.into();
            self
        }

        /// How often nsqd sends a heartbeat, 1 to 60 s, 30 s by default. A connection on which nothing comes for twice
        /// as long is lost.
        pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
            self.settings.heartbeat_interval = interval;
            self
        }

        /// How long connecting and the handshake may take each; 5 s by default.
        pub fn connect_timeout(mut self, limit: Duration) -> Self {
            self.settings.connect_timeout = limit;
            self
        }

        /// Before a lost connection is made again: a delay that doubles from `first` (200 ms by default) to `most` (30
        /// s), half of it random.
        pub fn reconnect(mut self, first: Duration, most: Duration) -> Self {
            self.sources.retry = Retry { first, most };
            self
        }

        /// Called with everything that happens in the background: connections, failures, backoff. It is called one
        /// event at a time, in their order, and should be quick.
        pub fn on_event(mut self, listen: impl Fn(&Event) + Send + Sync + 'static) -> Self {
            self.listener = Listener::new(listen);
            self
        }

        /// All randomness follows from it; by default it is random itself.
        pub fn seed(mut self, seed: u64) -> Self {
            self.seed = Some(seed);
            self
        }
    };
}

pub(super) use common_settings;

use super::error::BuildError;
use nsq_core::client::Settings;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// A seed that is different each time: the standard library's maps have them.
pub(super) fn random_seed() -> u64 {
    RandomState::new().hash_one(0)
}

/// Checks the address of an nsqd.
pub(super) fn check_nsqd(address: &str) -> Result<(), BuildError> {
    check_address(address, "host:port of an nsqd's TCP, such as 127.0.0.1:4150")
}

/// What cannot be an address would fail for ever, in the background.
pub(super) fn check_address(address: &str, expected: &'static str) -> Result<(), BuildError> {
    let bad = || BuildError::BadAddress(address.to_string(), expected);
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    let ipv6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_is_good = match ipv6 {
        Some(ipv6) => ipv6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains(|char: char| char.is_whitespace() || ":/?#@[]\\".contains(char)),
    };
    let port_is_good = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    if host_is_good && port_is_good { Ok(()) } else { Err(bad()) }
}

/// Fills in what was left out, and checks the rest.
pub(super) fn settle(settings: &mut Settings) -> Result<(), BuildError> {
    if settings.hostname.is_empty() {
        settings.hostname = std::env::var("HOSTNAME").unwrap_or_default();
    }
    if settings.client_id.is_empty() {
        settings.client_id = settings.hostname.split('.').next().unwrap_or_default().to_string();
    }
    if !(Duration::from_secs(1)..=Duration::from_secs(60)).contains(&settings.heartbeat_interval) {
        return Err(BuildError::OutOfRange("heartbeat_interval", "1 to 60 s"));
    }
    if settings.connect_timeout.is_zero() {
        return Err(BuildError::OutOfRange("connect_timeout", "more than nothing"));
    }
    Ok(())
}
