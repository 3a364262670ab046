//! Collects what `/stats` shows, and joins a connection's two sides (spec: http_flags_tools §1.8).
//!
//! Topics know what a connection consumes, the connection itself what it publishes; its id brings the two together, so
//! that a client shows both wherever it is listed. Topics are locked one at a time, briefly, and none while anything
//! is put into words.

use super::Http;
use super::query::Query;
use super::stats::{Channel, Client, Memory, PubCount, Stats, Topic};
use crate::broker::{Broker, ProducerStats};
use nsq_core::time::Timestamp;
use nsq_core::topic::io::ConnId;
use nsq_core::topic::stats::{ChannelStats, ConsumerStats, TopicStats};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What the request asks for.
#[derive(Debug, Default)]
pub(super) struct Wanted<'a> {
    topic: Option<Cow<'a, str>>,
    channel: Option<Cow<'a, str>>,
    pub(super) clients: bool,
    memory: bool,
}

/// All that one answer is made of.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) version: String,
    pub(super) health: String,
    pub(super) started: Timestamp,
    /// `None` if a topic was named that does not exist.
    pub(super) topics: Option<Vec<TopicStats>>,
    /// All topics, if a producer consumes beyond those that were asked for.
    pub(super) elsewhere: Vec<TopicStats>,
    /// `None` if clients are not wanted.
    pub(super) producers: Option<Vec<ProducerStats>>,
    /// Bytes of queued messages, if wanted.
    pub(super) memory: Option<usize>,
}

impl<'a> Wanted<'a> {
    pub(super) fn new(query: &'a Query<'_>) -> Self {
        Self {
            topic: query.filter("topic"),
            channel: query.filter("channel"),
            clients: query.is_on("include_clients"),
            memory: query.is_on("include_mem"),
        }
    }
}

impl Http {
    pub(super) fn gather(&self, wanted: &Wanted<'_>) -> Gathered {
        let broker = &self.broker;
        let mut gathered = Gathered {
            version: broker.options().version.clone(),
            health: health(broker).unwrap_or_else(|why| why),
            started: broker.started(),
            topics: None,
            elsewhere: Vec::new(),
            producers: None,
            memory: wanted.memory.then(|| broker.budget().used()),
        };
        let mut topics = broker.topic_stats(wanted.topic.as_deref(), wanted.channel.as_deref(), wanted.clients);
        if wanted.topic.is_some() && topics.is_empty() {
            return gathered;
        }
        if wanted.channel.is_some() {
            topics.retain(|topic| !topic.channels.is_empty());
        }
        if wanted.clients {
            let mut producers = broker.producer_stats();
            let known = consumers(&topics);
            if producers.iter().any(|producer| producer.state != 0 && !known.contains_key(&producer.conn)) {
                gathered.elsewhere = broker.topic_stats(None, None, true);
            }
            for producer in &mut producers {
                producer.published.retain(|(topic, _)| wanted.topic.as_ref().is_none_or(|only| only == topic.as_str()));
                producer.published.sort();
            }
            gathered.producers = Some(producers).filter(|producers| !producers.is_empty());
        }
        gathered.topics = Some(topics);
        gathered
    }
}

impl Gathered {
    /// The same in the shape of the answer; `clients` as it was wanted.
    pub(super) fn stats(&self, clients: bool) -> Stats<'_> {
        let topics = self.topics.as_deref();
        let mut consumers = consumers(&self.elsewhere);
        consumers.extend(self::consumers(topics.unwrap_or_default()));
        let producers = self.producers.as_deref();
        let published = producers.unwrap_or_default().iter().map(|producer| (producer.conn, producer)).collect();
        Stats {
            version: &self.version,
            health: &self.health,
            start_time: self.started,
            topics: topics.map(|topics| topics.iter().map(|stats| topic(stats, clients, &published)).collect()),
            memory: self.memory.map(Memory::new),
            producers: producers.map(|producers| {
                producers.iter().map(|stats| producer(stats, consumers.get(&stats.conn).copied())).collect()
            }),
        }
    }
}

type Published<'a> = BTreeMap<ConnId, &'a ProducerStats>;

fn consumers(topics: &[TopicStats]) -> BTreeMap<ConnId, &ConsumerStats> {
    let channels = topics.iter().flat_map(|topic| &topic.channels);
    channels.flat_map(|channel| &channel.clients).map(|client| (client.conn, client)).collect()
}

fn topic<'a>(stats: &'a TopicStats, clients: bool, published: &Published<'a>) -> Topic<'a> {
    let client = |stats: &'a ConsumerStats| {
        let pub_counts = published.get(&stats.conn).map(|producer| pub_counts(producer)).unwrap_or_default();
        Client::new(&stats.client, 0, pub_counts).consuming(stats)
    };
    let channel =
        |stats: &'a ChannelStats| Channel::new(stats, clients.then(|| stats.clients.iter().map(client).collect()));
    Topic::new(stats, stats.channels.iter().map(channel).collect())
}

fn producer<'a>(stats: &'a ProducerStats, consumer: Option<&ConsumerStats>) -> Client<'a> {
    let client = Client::new(&stats.client, stats.state, pub_counts(stats));
    match consumer {
        Some(consumer) => client.consuming(consumer),
        None => client,
    }
}

fn pub_counts(stats: &ProducerStats) -> Vec<PubCount<'_>> {
    stats.published.iter().map(|(topic, count)| PubCount { topic: topic.as_str(), count: *count }).collect()
}

/// `OK`, or what `/ping` and `/stats` say instead.
pub(super) fn health(broker: &Broker) -> Result<String, String> {
    match broker.health() {
        Ok(()) => Ok("OK".into()),
        Err(why) => Err(format!("NOK - {why}")),
    }
}
