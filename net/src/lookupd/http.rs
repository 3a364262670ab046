//! nsqlookupd's HTTP interface (spec: http_flags_tools §2).
//!
//! Requests become questions to the registry, and the answers the JSON that clients of NSQ read. A list that upstream
//! gives in no order is sorted here.

use super::Shared;
use crate::http::{Answer, Api, Asked, Entry, Failure, GET, POST, Query};
use crate::visits::Visits;
use hyper::StatusCode;
use nsq_core::lookupd::{self, Node, Producer, Registration, Wanted};
use nsq_core::name::{ChannelName, TopicName};
use nsq_core::time::{Now, Timestamp};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

/// What a request is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Route {
    Ping,
    Info,
    Topics,
    Channels,
    Lookup,
    Nodes,
    Debug,
    CreateTopic,
    DeleteTopic,
    CreateChannel,
    DeleteChannel,
    Tombstone,
}

impl Api for Shared {
    type Route = Route;
    const ROUTES: &'static [Entry<Route>] = &[
        ("/ping", GET, Route::Ping),
        ("/info", GET, Route::Info),
        ("/topics", GET, Route::Topics),
        ("/channels", GET, Route::Channels),
        ("/lookup", GET, Route::Lookup),
        ("/nodes", GET, Route::Nodes),
        ("/debug", GET, Route::Debug),
        ("/topic/create", POST, Route::CreateTopic),
        ("/topic/delete", POST, Route::DeleteTopic),
        ("/channel/create", POST, Route::CreateChannel),
        ("/channel/delete", POST, Route::DeleteChannel),
        ("/topic/tombstone", POST, Route::Tombstone),
    ];

    fn now(&self) -> Now {
        self.now()
    }

    fn visits(&self) -> &Visits {
        &self.visits
    }

    async fn perform(&self, asked: Asked<'_, Route>) -> Result<Answer, Failure> {
        match asked.route {
            Route::Ping => Ok(Answer::Plain(StatusCode::OK, "OK".into())),
            Route::Info => Ok(Answer::json(&Info { version: &self.identity.version })),
            Route::Topics => {
                Ok(Answer::json(&Topics { topics: self.read().topics().map(TopicName::as_str).collect() }))
            }
            Route::Nodes => {
                Ok(Answer::json(&Nodes { producers: self.read().nodes(self.now()).iter().map(Listed::new).collect() }))
            }
            Route::Debug => Ok(Answer::json(&debug(&self.read().entries()))),
            Route::Channels | Route::Lookup => self.look_up(asked.route, &Query::parse(asked.query)?),
            _ => self.administer(asked.route, &Query::parse(asked.query)?),
        }
    }
}

impl Shared {
    fn look_up(&self, route: Route, query: &Query<'_>) -> Result<Answer, Failure> {
        let wanted = Wanted::new(argument(query, "topic", "MISSING_ARG_TOPIC")?);
        let registry = self.read();
        if let Route::Channels = route {
            let channels = registry.channels(&wanted).into_iter().map(ChannelName::as_str).collect();
            return Ok(Answer::json(&Channels { channels }));
        }
        let found = registry.lookup(self.now(), &wanted).ok_or(Failure::not_found("TOPIC_NOT_FOUND"))?;
        let channels = found.channels.into_iter().map(ChannelName::as_str).collect();
        Ok(Answer::json(&Lookup { channels, producers: found.producers }))
    }

    fn administer(&self, route: Route, query: &Query<'_>) -> Result<Answer, Failure> {
        let topic = argument(query, "topic", "MISSING_ARG_TOPIC")?;
        match route {
            Route::DeleteTopic => {
                self.write().delete_topic(&Wanted::new(topic));
                tracing::info!("DB: removing topic({})", String::from_utf8_lossy(topic));
            }
            Route::Tombstone => {
                let node = String::from_utf8_lossy(argument(query, "node", "MISSING_ARG_NODE")?);
                self.write().tombstone(self.now(), &Wanted::new(topic), &node);
                tracing::info!(
                    "DB: setting tombstone for producer@{node} of topic({})",
                    String::from_utf8_lossy(topic)
                );
            }
            _ => self.administer_names(route, topic, query)?,
        }
        Ok(Answer::Empty)
    }

    /// Does what needs names that are valid.
    fn administer_names(&self, route: Route, topic: &[u8], query: &Query<'_>) -> Result<(), Failure> {
        let topic = TopicName::new(topic).ok_or(Failure::bad_request("INVALID_ARG_TOPIC"))?;
        if let Route::CreateTopic = route {
            tracing::info!("DB: adding topic({topic})");
            self.write().create_topic(topic);
            return Ok(());
        }
        let channel = argument(query, "channel", "MISSING_ARG_CHANNEL")?;
        let channel = ChannelName::new(channel).ok_or(Failure::bad_request("INVALID_ARG_CHANNEL"))?;
        if let Route::CreateChannel = route {
            tracing::info!("DB: adding channel({channel}) in topic({topic})");
            self.write().create_channel(topic, channel);
        } else {
            let deleted = self.write().delete_channel(&topic, &channel);
            deleted.then_some(()).ok_or(Failure::not_found("CHANNEL_NOT_FOUND"))?;
            tracing::info!("DB: removing channel({channel}) from topic({topic})");
        }
        Ok(())
    }
}

fn argument<'a>(query: &'a Query<'_>, name: &str, missing: &'static str) -> Result<&'a [u8], Failure> {
    query.get(name).ok_or_else(|| Failure::bad_request(missing))
}

#[derive(Serialize)]
struct Info<'a> {
    version: &'a str,
}

#[derive(Serialize)]
struct Topics<'a> {
    topics: Vec<&'a str>,
}

#[derive(Serialize)]
struct Channels<'a> {
    channels: Vec<&'a str>,
}

#[derive(Serialize)]
struct Lookup<'a> {
    channels: Vec<&'a str>,
    producers: Vec<&'a Producer>,
}

#[derive(Serialize)]
struct Nodes<'a> {
    producers: Vec<Listed<'a>>,
}

/// One of `/nodes`. Two lists of the same length, for nsqadmin indexes the first by the second.
#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    producer: &'a Producer,
    tombstones: Vec<bool>,
    topics: Vec<&'a str>,
}

impl<'a> Listed<'a> {
    fn new(node: &Node<'a>) -> Self {
        let (topics, tombstones) = node.topics.iter().map(|(name, hidden)| (name.as_str(), *hidden)).unzip();
        Self { producer: node.producer, tombstones, topics }
    }
}

/// One of `/debug`; keys in alphabetical order.
#[derive(Serialize)]
struct Entered<'a> {
    broadcast_address: &'a str,
    hostname: &'a str,
    http_port: i64,
    id: &'a str,
    #[serde(serialize_with = "nanos")]
    last_update: Timestamp,
    tcp_port: i64,
    tombstoned: bool,
    #[serde(serialize_with = "nanos")]
    tombstoned_at: Timestamp,
    topology_region: &'a str,
    topology_zone: &'a str,
    version: &'a str,
}

/// What upstream shows where there never was a tombstone: Go's year 1, in 64 bits.
const NEVER: Timestamp = Timestamp::from_nanos(-6_795_364_578_871_345_152);

impl<'a> Entered<'a> {
    fn new(entry: &lookupd::Entry<'a>) -> Self {
        let producer = entry.producer;
        Self {
            broadcast_address: &producer.broadcast_address,
            hostname: &producer.hostname,
            http_port: producer.http_port,
            id: &producer.remote_address,
            last_update: entry.last_update.timestamp,
            tcp_port: producer.tcp_port,
            tombstoned: entry.tombstoned_at.is_some(),
            tombstoned_at: entry.tombstoned_at.map_or(NEVER, |at| at.timestamp),
            topology_region: &producer.topology_region,
            topology_zone: &producer.topology_zone,
            version: &producer.version,
        }
    }
}

/// What nobody has registered is left out.
fn debug<'a>(entries: &[(Registration<'a>, Vec<lookupd::Entry<'a>>)]) -> BTreeMap<String, Vec<Entered<'a>>> {
    let key = |registration: &Registration<'_>| match registration {
        Registration::Channel(topic, channel) => format!("channel:{topic}:{channel}"),
        Registration::Client => "client::".to_string(),
        Registration::Topic(topic) => format!("topic:{topic}:"),
    };
    let lists = entries.iter().filter(|(_, list)| !list.is_empty());
    lists.map(|(registration, list)| (key(registration), list.iter().map(Entered::new).collect())).collect()
}

fn nanos<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(time.as_nanos())
}
