//! What handlers answer, and how that looks on the wire (spec: http_flags_tools §1.2).
//!
//! `X-NSQ-Content-Type` matters: clients take an answer without it for one of NSQ before 1.0. Plain answers, which are
//! for health checks and people, do not have it.

use super::go;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use hyper::{Response, StatusCode};
use nsq_core::topic::io::Refusal;
use serde::Serialize;
use std::borrow::Cow;

/// What a handler comes to.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Nothing to say.
    Empty,
    Text(Cow<'static, str>),
    /// As JSON.
    Json(Vec<u8>),
    /// Text without an envelope, whatever the status.
    Plain(StatusCode, Cow<'static, str>),
}

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(super) status: StatusCode,
    pub(super) message: &'static str,
}

impl Answer {
    pub(crate) fn json(value: &impl Serialize) -> Self {
        Self::Json(go::json(value))
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let ok = StatusCode::OK;
        match self {
            Self::Empty => respond(ok, true, None, Bytes::new()),
            // Go looks at the first bytes to name a type, and finds none if there are no bytes.
            Self::Text(text) if text.is_empty() => respond(ok, true, None, Bytes::new()),
            Self::Text(text) => respond(ok, true, Some(TEXT), bytes(text)),
            Self::Json(json) => respond(ok, true, Some(JSON), json.into()),
            Self::Plain(status, text) => respond(status, false, Some(TEXT), bytes(text)),
        }
    }
}

impl Failure {
    pub(super) const INTERNAL: Self = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR");

    pub(super) const fn new(status: StatusCode, message: &'static str) -> Self {
        Self { status, message }
    }

    pub(crate) const fn bad_request(message: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) const fn not_found(message: &'static str) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(super) const fn too_large(message: &'static str) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let body = format!("{{\"message\":\"{}\"}}", self.message);
        respond(self.status, true, Some(JSON), body.into())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::QueueFull => Self::new(StatusCode::SERVICE_UNAVAILABLE, "QUEUE_FULL"),
            Refusal::NotWritten => Self::new(StatusCode::SERVICE_UNAVAILABLE, "DISK_FAILED"),
            Refusal::Exiting => Self::new(StatusCode::SERVICE_UNAVAILABLE, "EXITING"),
            Refusal::NoChannel => Self::not_found("CHANNEL_NOT_FOUND"),
            // The others are for consumers.
            Refusal::NotSaved | Refusal::NotInFlight | Refusal::NotOwner | Refusal::TooManyConsumers { .. } => {
                Self::INTERNAL
            }
        }
    }
}

/// The answer to OPTIONS.
pub(super) fn options(allow: &'static str) -> Response<Full<Bytes>> {
    let mut response = respond(StatusCode::OK, false, None, Bytes::new());
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}

/// The answer to a method that the path does not have.
pub(super) fn wrong_method(allow: &'static str) -> Response<Full<Bytes>> {
    let mut response = Failure::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED").into_response();
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}

/// Sends the client to another address: a GET may change it for good, others shall do the same again there.
pub(super) fn redirect(is_get: bool, location: &str) -> Response<Full<Bytes>> {
    let Ok(value) = HeaderValue::from_str(location) else {
        return Failure::not_found("NOT_FOUND").into_response();
    };
    let mut response = if is_get {
        let body = format!("<a href=\"{}\">Moved Permanently</a>.\n\n", go::html(location));
        respond(StatusCode::MOVED_PERMANENTLY, false, Some("text/html; charset=utf-8"), body.into())
    } else {
        respond(StatusCode::TEMPORARY_REDIRECT, false, None, Bytes::new())
    };
    response.headers_mut().insert(LOCATION, value);
    response
}

fn respond(status: StatusCode, nsq: bool, kind: Option<&'static str>, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if nsq {
        headers.insert(NSQ_CONTENT_TYPE, HeaderValue::from_static("nsq; version=1.0"));
    }
    if let Some(kind) = kind {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    response
}

fn bytes(text: Cow<'static, str>) -> Bytes {
    match text {
        Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
        Cow::Owned(text) => Bytes::from(text),
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json; charset=utf-8";
const NSQ_CONTENT_TYPE: HeaderName = HeaderName::from_static("x-nsq-content-type");
