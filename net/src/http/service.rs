//! One request: find its handler, let it work, finish the answer, write the access log.
//!
//! A handler that panics costs its request a 500 and nobody else anything.

use super::Http;
use super::body::Upload;
use super::gather::{Wanted, health};
use super::query::Query;
use super::respond::{self, Answer, Failure};
use super::router::{self, Found, Route};
use super::{go, text};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, DATE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use nsq_core::time::Timestamp;
use serde::Serialize;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

impl Http {
    /// Answers a request.
    pub(super) async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
        let start = self.broker.now();
        let (head, incoming) = request.into_parts();
        let mut upload = Upload::new(&head.headers, incoming);
        let found = router::find(head.method.as_str(), head.uri.path());
        let is_logged = match found {
            Found::Route(route) => route.is_logged(),
            Found::WrongMethod(_) | Found::Nothing => true,
            Found::Options(_) | Found::Elsewhere(_) => false,
        };
        let mut response = match found {
            Found::Route(route) => self.handle(route, &head.uri, head.method == Method::PUT, &mut upload).await,
            Found::Options(allow) => respond::options(allow),
            Found::WrongMethod(allow) => respond::wrong_method(allow),
            Found::Elsewhere(path) => respond::redirect(head.method == Method::GET, &with_query(path, &head.uri)),
            Found::Nothing => Failure::not_found("NOT_FOUND").into_response(),
        };
        let reusable = upload.drain().await;
        let end = self.broker.now();
        finish(&mut response, reusable, end.timestamp);
        if is_logged {
            let (status, elapsed) = (response.status().as_u16(), go::duration(end.instant.since(start.instant)));
            tracing::info!("{status} {} {} ({peer}) {elapsed}", head.method, head.uri);
        }
        response
    }

    async fn handle(&self, route: Route<'_>, uri: &Uri, is_put: bool, upload: &mut Upload) -> Response<Full<Bytes>> {
        let mut handled = pin!(self.perform(route, uri.query(), is_put, upload));
        let outcome = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| handled.as_mut().poll(cx))) {
            Ok(poll) => poll,
            Err(_) => {
                tracing::error!("a handler has panicked: {uri}");
                Poll::Ready(Err(Failure::INTERNAL))
            }
        });
        match outcome.await {
            Ok(answer) => answer.into_response(),
            Err(failure) => failure.into_response(),
        }
    }

    async fn perform(
        &self,
        route: Route<'_>,
        query: Option<&str>,
        is_put: bool,
        upload: &mut Upload,
    ) -> Result<Answer, Failure> {
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
            Route::Config(option) if is_put => self.set_option(option, upload).await,
            Route::Config(option) => self.option(option),
            Route::GoRuntime => {
                let text =
                    "not available: this nsqd does not run on Go's runtime, it has no block profile and no garbage";
                Ok(Answer::Plain(StatusCode::NOT_IMPLEMENTED, text.into()))
            }
        }
    }

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
}

fn with_query(path: String, uri: &Uri) -> String {
    match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    }
}

fn finish(response: &mut Response<Full<Bytes>>, reusable: bool, now: Timestamp) {
    let headers = response.headers_mut();
    if let Ok(date) = HeaderValue::try_from(go::http_date(now)) {
        headers.insert(DATE, date);
    }
    if !reusable {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
}
