//! One request: find its handler, let it work, finish the answer, write the access log.
//!
//! A handler that panics costs its request a 500 and nobody else anything.

use super::body::Upload;
use super::go;
use super::respond::{self, Answer, Failure};
use super::router::{self, Entry, Found};
use crate::visits::Visits;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, DATE, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use nsq_core::time::{Now, Timestamp};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// A daemon's HTTP interface: its routes, and what they do.
pub(crate) trait Api: Send + Sync + 'static {
    /// What a request is for.
    type Route: Copy + Send + Sync + 'static;
    /// All of them.
    const ROUTES: &'static [Entry<Self::Route>];

    /// Whether the access log tells of it.
    fn is_logged(_route: Self::Route) -> bool {
        true
    }

    /// Both clocks.
    fn now(&self) -> Now;

    /// Where connections are counted.
    fn visits(&self) -> &Visits;

    /// Does what a request asks for.
    fn perform(&self, asked: Asked<'_, Self::Route>) -> impl Future<Output = Result<Answer, Failure>> + Send;
}

/// A request that has a route.
pub(crate) struct Asked<'a, R> {
    pub(crate) route: R,
    /// The last segment of the path, where the route leaves that open.
    pub(crate) parameter: &'a str,
    pub(crate) query: Option<&'a str>,
    pub(crate) is_put: bool,
    pub(crate) upload: &'a mut Upload,
}

/// Answers a request.
pub(super) async fn answer<A: Api>(api: &A, request: Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
    let start = api.now();
    let (head, incoming) = request.into_parts();
    let mut upload = Upload::new(&head.headers, incoming);
    let found = router::find(A::ROUTES, head.method.as_str(), head.uri.path());
    let is_logged = match found {
        Found::Route(route, _) => A::is_logged(route),
        Found::WrongMethod(_) | Found::Nothing => true,
        Found::Options(_) | Found::Elsewhere(_) => false,
    };
    let mut response = match found {
        Found::Route(route, parameter) => {
            let (query, is_put) = (head.uri.query(), head.method == Method::PUT);
            handle(api, &head.uri, Asked { route, parameter, query, is_put, upload: &mut upload }).await
        }
        Found::Options(allow) => respond::options(allow),
        Found::WrongMethod(allow) => respond::wrong_method(allow),
        Found::Elsewhere(path) => respond::redirect(head.method == Method::GET, &with_query(path, &head.uri)),
        Found::Nothing => Failure::not_found("NOT_FOUND").into_response(),
    };
    let reusable = upload.drain().await;
    let end = api.now();
    finish(&mut response, reusable, end.timestamp);
    if is_logged {
        let (status, elapsed) = (response.status().as_u16(), go::duration(end.instant.since(start.instant)));
        tracing::info!("{status} {} {} ({peer}) {elapsed}", head.method, head.uri);
    }
    response
}

async fn handle<A: Api>(api: &A, uri: &Uri, asked: Asked<'_, A::Route>) -> Response<Full<Bytes>> {
    let mut handled = pin!(api.perform(asked));
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
