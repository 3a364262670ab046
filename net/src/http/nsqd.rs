//! What nsqd's HTTP interface is made of: its routes (spec: http_flags_tools §1.3), and the way from each to its
//! handler.

use super::gather::{Wanted, health};
use super::query::Query;
use super::respond::{Answer, Failure};
use super::router::{Entry, GET, POST};
use super::service::{Api, Asked};
use super::{Http, text};
use crate::durable::Durable;
use crate::visits::Visits;
use hyper::StatusCode;
use nsq_core::time::Now;
use serde::Serialize;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Ping,
    Info,
    Pub,
    Mpub,
    Stats,
    Topic(Action),
    Channel(Action),
    Config,
    /// Exists in upstream, for Go's runtime.
    GoRuntime,
}

/// What is to be done with a topic or channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Create,
    Delete,
    Empty,
    Pause,
    Unpause,
}

impl Api for Http {
    type Route = Route;
    const ROUTES: &'static [Entry<Route>] = &[
        ("/pub", POST, Route::Pub),
        ("/mpub", POST, Route::Mpub),
        ("/ping", GET, Route::Ping),
        ("/info", GET, Route::Info),
        ("/stats", GET, Route::Stats),
        ("/topic/create", POST, Route::Topic(Action::Create)),
        ("/topic/delete", POST, Route::Topic(Action::Delete)),
        ("/topic/empty", POST, Route::Topic(Action::Empty)),
        ("/topic/pause", POST, Route::Topic(Action::Pause)),
        ("/topic/unpause", POST, Route::Topic(Action::Unpause)),
        ("/channel/create", POST, Route::Channel(Action::Create)),
        ("/channel/delete", POST, Route::Channel(Action::Delete)),
        ("/channel/empty", POST, Route::Channel(Action::Empty)),
        ("/channel/pause", POST, Route::Channel(Action::Pause)),
        ("/channel/unpause", POST, Route::Channel(Action::Unpause)),
        ("/config/:opt", "GET, OPTIONS, PUT", Route::Config),
        ("/debug/freememory", POST, Route::GoRuntime),
        ("/debug/setblockrate", "OPTIONS, PUT", Route::GoRuntime),
    ];

    fn is_logged(route: Route) -> bool {
        !matches!(route, Route::Pub | Route::Mpub)
    }

    fn now(&self) -> Now {
        self.broker.now()
    }

    fn visits(&self) -> &Visits {
        &self.visits
    }

    async fn perform(&self, asked: Asked<'_, Route>) -> Result<Answer, Failure> {
        let Asked { route, parameter, query, is_put, upload } = asked;
        match route {
            Route::Pub => self.publish_one(query, upload).await,
            Route::Mpub => self.publish_many(query, upload).await,
            Route::Ping => Ok(match health(&self.broker) {
                Ok(text) => Answer::Plain(StatusCode::OK, text.into()),
                Err(text) => Answer::Plain(StatusCode::INTERNAL_SERVER_ERROR, text.into()),
            }),
            Route::Info => Ok(self.info()),
            Route::Stats => self.stats(query),
            Route::Topic(action) => self.administer_topic(action, query).await,
            Route::Channel(action) => self.administer_channel(action, query).await,
            Route::Config if is_put => self.set_option(parameter, upload).await,
            Route::Config => self.option(parameter),
            Route::GoRuntime => {
                let text =
                    "not available: this nsqd does not run on Go's runtime, it has no block profile and no garbage";
                Ok(Answer::Plain(StatusCode::NOT_IMPLEMENTED, text.into()))
            }
        }
    }
}

impl Http {
    fn info(&self) -> Answer {
        let (options, identity) = (self.broker.options(), &self.identity);
        Answer::json(&Info {
            version: &options.version,
            broadcast_address: &identity.broadcast_address,
            hostname: &identity.hostname,
            http_port: identity.http_port,
            tcp_port: identity.tcp_port,
            start_time: self.broker.started().as_secs(),
            max_heartbeat_interval: options.max_heartbeat_interval.as_nanos(),
            max_output_buffer_size: options.max_output_buffer_size,
            max_output_buffer_timeout: options.max_output_buffer_timeout.as_nanos(),
            max_deflate_level: options.max_deflate_level,
            topology_zone: &options.topology_zone,
            topology_region: &options.topology_region,
            durable: Mode::of(self.broker.durable()),
        })
    }

    fn stats(&self, query: Option<&str>) -> Result<Answer, Failure> {
        let query = Query::parse(query)?;
        let wanted = Wanted::new(&query);
        let gathered = self.gather(&wanted);
        let stats = gathered.stats(wanted.clients);
        Ok(match query.get("format") {
            Some(b"json") => Answer::json(&stats),
            _ => {
                let now = self.broker.now().timestamp;
                Answer::Text(text::render(&stats, &self.identity.built_with, now).into())
            }
        })
    }
}

/// `/info`; durations are in nanoseconds.
#[derive(Serialize)]
struct Info<'a> {
    version: &'a str,
    broadcast_address: &'a str,
    hostname: &'a str,
    http_port: u16,
    tcp_port: u16,
    start_time: i64,
    max_heartbeat_interval: u128,
    max_output_buffer_size: u64,
    max_output_buffer_timeout: u128,
    max_deflate_level: u8,
    topology_zone: &'a str,
    topology_region: &'a str,
    /// Ours, and told only if there are durable topics.
    #[serde(skip_serializing_if = "Option::is_none")]
    durable: Option<Mode<'a>>,
}

/// Which topics are durable.
#[derive(Serialize)]
#[serde(untagged)]
enum Mode<'a> {
    All(bool),
    Topics(&'a [String]),
}

impl<'a> Mode<'a> {
    fn of(durable: &'a Durable) -> Option<Self> {
        match durable {
            Durable { all: true, .. } => Some(Self::All(true)),
            Durable { patterns, .. } => (!patterns.is_empty()).then_some(Self::Topics(patterns)),
        }
    }
}
