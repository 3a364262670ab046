//! Everything that can be chosen about a producer.

use super::Event;
use super::error::BuildError;
use super::events::Listener;
use super::identity::{check_nsqd, common_settings, random_seed, settle};
use super::producer::Producer;
use nsq_core::client::producer::Options;
use nsq_core::client::{Retry, Settings, Sources};
use std::time::Duration;

/// Made by [`Producer::builder`]. Only an address is needed.
#[must_use = "nothing happens before `build`"]
pub struct ProducerBuilder {
    pub(super) settings: Settings,
    pub(super) sources: Sources,
    pub(super) options: Options,
    pub(super) max_outstanding: usize,
    pub(super) listener: Listener,
    seed: Option<u64>,
}

impl Default for ProducerBuilder {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            sources: Sources::default(),
            options: Options::default(),
            max_outstanding: 1000,
            listener: Listener::default(),
            seed: None,
        }
    }
}

impl ProducerBuilder {
    /// Publishes to this nsqd, `host:port` of TCP. May be called for several: each publish goes to one of them.
    pub fn nsqd(mut self, address: impl Into<String>) -> Self {
        self.sources.nsqds.push(address.into());
        self
    }

    /// Publishes that may be under way at a time, 1,000 by default; further ones wait for their turn.
    pub fn max_outstanding(mut self, publishes: usize) -> Self {
        self.max_outstanding = publishes;
        self
    }

    /// How long a publish may take, reconnecting included; 30 s by default. A connection that has not answered one by
    /// then is given up: what else was sent there ends as [`retry`](Self::retry) says.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.options.timeout = limit;
        self
    }

    /// Whether a publish is sent again when its connection was lost before nsqd's answer came: the message may then be
    /// published twice. Otherwise, and by default, it fails as [`Unknown`](super::PublishError::Unknown). What nsqd has
    /// certainly not taken is always sent again.
    pub fn retry(mut self, duplicates_are_fine: bool) -> Self {
        self.options.retry = duplicates_are_fine;
        self
    }

    common_settings!();

    /// Begins to connect, in the background. To be called within a tokio runtime.
    ///
    /// # Errors
    /// If there is no address or one that makes no sense, or a setting is out of range.
    pub fn build(mut self) -> Result<Producer, BuildError> {
        settle(&mut self.settings)?;
        if self.sources.nsqds.is_empty() {
            return Err(BuildError::NoAddress);
        }
        self.sources.nsqds.iter().try_for_each(|nsqd| check_nsqd(nsqd))?;
        if self.max_outstanding == 0 || self.max_outstanding > MOST_OUTSTANDING {
            return Err(BuildError::OutOfRange("max_outstanding", "1 to 1,000,000"));
        }
        let seed = self.seed.unwrap_or_else(random_seed);
        Ok(Producer::start(self, seed))
    }
}

const MOST_OUTSTANDING: usize = 1_000_000;
