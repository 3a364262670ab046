//! Everything that can be chosen about a consumer.

use super::Event;
use super::consumer::Consumer;
use super::error::BuildError;
use super::events::Listener;
use super::identity::{check_address, check_nsqd, common_settings, random_seed, settle};
use super::message::Message;
use nsq_core::client::connection::Purpose;
use nsq_core::client::consumer::Options;
use nsq_core::client::{BackoffLimits, Retry, Settings, Sources};
use nsq_core::name::{ChannelName, TopicName};
use std::time::Duration;

/// What takes the messages that are given up.
pub(super) type GiveUp = Box<dyn Fn(Message) + Send + Sync>;

/// Made by [`Consumer::builder`]. Besides topic and channel, only an address is needed.
#[must_use = "nothing happens before `build`"]
pub struct ConsumerBuilder {
    topic: String,
    channel: String,
    pub(super) settings: Settings,
    pub(super) sources: Sources,
    pub(super) options: Options,
    pub(super) give_up: Option<GiveUp>,
    pub(super) listener: Listener,
    seed: Option<u64>,
}

impl ConsumerBuilder {
    pub(super) fn new(topic: String, channel: String) -> Self {
        Self {
            topic,
            channel,
            settings: Settings::default(),
            sources: Sources::default(),
            options: Options::default(),
            give_up: None,
            listener: Listener::default(),
            seed: None,
        }
    }

    /// Finds nsqds by asking this nsqlookupd, `host:port` of HTTP, with or without `http://`. May be called for
    /// several: what any of them lists counts.
    pub fn lookupd(mut self, address: impl Into<String>) -> Self {
        self.sources.lookupds.push(address.into());
        self
    }

    /// Consumes from this nsqd, `host:port` of TCP, whether a nsqlookupd lists it or not. May be called for several.
    pub fn nsqd(mut self, address: impl Into<String>) -> Self {
        self.sources.nsqds.push(address.into());
        self
    }

    /// The most messages to have in flight, over all nsqds; 100 by default.
    pub fn max_in_flight(mut self, messages: u32) -> Self {
        self.options.max_in_flight = messages;
        self
    }

    /// Deliveries of a message after which it is given up, 5 by default; 0 never gives up. A message that comes once
    /// more goes to [`on_give_up`](Self::on_give_up) instead of [`Consumer::next`]; without somebody to take it,
    /// nothing is ever given up. What timed out because it was handled too late counts as delivered, also if
    /// [`Consumer::next`] has never returned it.
    pub fn max_attempts(mut self, attempts: u16) -> Self {
        self.options.max_attempts = attempts;
        self
    }

    /// Takes the messages that are given up, to publish them elsewhere, for example. A message that is dropped here is
    /// finished, unless by a panic: then it comes again. It should be quick: spawn what takes time.
    pub fn on_give_up(mut self, take: impl Fn(Message) + Send + Sync + 'static) -> Self {
        self.give_up = Some(Box::new(take));
        self
    }

    /// How long a message may be in flight before it is delivered again; nsqd's own default is a minute.
    pub fn msg_timeout(mut self, timeout: Duration) -> Self {
        self.settings.msg_timeout = Some(timeout);
        self
    }

    /// Percent of the channel's messages to get, 1 to 99; nsqd throws the others away.
    pub fn sample_rate(mut self, percent: u8) -> Self {
        self.settings.sample_rate = percent;
        self
    }

    /// The largest message to accept, 64 MiB by default: a larger one ends its connection.
    pub fn max_msg_size(mut self, bytes: usize) -> Self {
        self.settings.max_msg_size = bytes;
        self
    }

    /// How long a message waits that is [requeued](Message::requeue): `delay` for each of its attempts so far (90 s by
    /// default), up to `most` (15 min).
    pub fn requeue_delay(mut self, delay: Duration, most: Duration) -> Self {
        self.options.requeue_delay = delay;
        self.options.max_requeue_delay = most;
        self
    }

    /// What happens when messages fail: nothing comes for `first` (1 s by default), doubled with each further failure
    /// up to `most` (2 min); then one message at a time until as many have succeeded. Zero never backs off.
    pub fn backoff(mut self, first: Duration, most: Duration) -> Self {
        self.options.backoff = BackoffLimits { first, most };
        self
    }

    /// How often nsqlookupds are asked (60 s by default), and how many percent of that are added at random each time
    /// (30, which is the most). They are asked at once when a connection is lost.
    pub fn lookup_poll(mut self, interval: Duration, jitter_percent: u8) -> Self {
        self.sources.poll_interval = interval;
        self.sources.poll_jitter = jitter_percent;
        self
    }

    /// How long [`Consumer::stop`] waits for messages to be answered; 30 s by default.
    pub fn stop_timeout(mut self, limit: Duration) -> Self {
        self.options.stop_timeout = limit;
        self
    }

    common_settings!();

    /// Begins to look for nsqds and to connect, in the background. To be called within a tokio runtime.
    ///
    /// # Errors
    /// If topic or channel is no name, there is no address or one that makes no sense, or a setting is out of range.
    pub fn build(mut self) -> Result<Consumer, BuildError> {
        settle(&mut self.settings)?;
        let topic = TopicName::new(&self.topic).ok_or_else(|| BuildError::BadTopic(self.topic.clone()))?;
        let channel = ChannelName::new(&self.channel).ok_or_else(|| BuildError::BadChannel(self.channel.clone()))?;
        if self.sources.nsqds.is_empty() && self.sources.lookupds.is_empty() {
            return Err(BuildError::NoAddress);
        }
        for lookupd in &mut self.sources.lookupds {
            let bare = lookupd.strip_prefix("http://").unwrap_or(lookupd).trim_end_matches('/');
            check_address(bare, "host:port of a nsqlookupd's HTTP, such as 127.0.0.1:4161")?;
            *lookupd = bare.to_string();
        }
        self.sources.nsqds.iter().try_for_each(|nsqd| check_nsqd(nsqd))?;
        if self.give_up.is_none() {
            // What nobody takes would be lost.
            self.options.max_attempts = 0;
        }
        let bad = [
            (self.options.max_in_flight == 0, "max_in_flight", "1 or more"),
            (self.settings.sample_rate > 99, "sample_rate", "0 to 99"),
            (self.sources.poll_jitter > 30, "the jitter of lookup_poll", "0 to 30"),
            (self.sources.poll_interval < Duration::from_millis(10), "the interval of lookup_poll", "10 ms or more"),
            (
                self.settings.msg_timeout.is_some_and(|timeout| timeout < Duration::from_secs(1)),
                "msg_timeout",
                "1 s or more",
            ),
        ];
        if let Some((_, setting, range)) = bad.into_iter().find(|(bad, ..)| *bad) {
            return Err(BuildError::OutOfRange(setting, range));
        }
        let seed = self.seed.unwrap_or_else(random_seed);
        Ok(Consumer::start(self, Purpose::Consume(topic, channel), seed))
    }
}
