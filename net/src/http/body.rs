//! The body of a request, read only as far as a handler wants it.
//!
//! In: what hyper hands over. Out: bytes, never more than the limit that was asked for. Whatever a handler leaves
//! unread is thrown away if it is small, so that the connection can be used again, and ends the connection otherwise.

use super::respond::Failure;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::{Body, Incoming};
use hyper::header::EXPECT;
use std::time::Duration;

/// How long a client may pause in the middle of a body.
const STALL: Duration = Duration::from_secs(60);
/// How much unread body is worth keeping a connection, in bytes and in time.
const DRAIN: usize = 256 * 1024;
const DRAIN_TIME: Duration = Duration::from_millis(500);

/// See the module's documentation.
pub(crate) struct Upload {
    incoming: Incoming,
    /// The client sends nothing before it is asked to, which the first read does.
    waits: bool,
}

/// Why a body could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    TooBig,
    Broken,
}

impl Upload {
    pub(super) fn new(headers: &HeaderMap, incoming: Incoming) -> Self {
        Self { incoming, waits: headers.contains_key(EXPECT) }
    }

    /// The length that the client announced, in bytes; 0 if it did not.
    pub(super) fn declared(&self) -> u64 {
        self.incoming.size_hint().exact().unwrap_or(0)
    }

    /// The next piece.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        self.waits = false;
        loop {
            match tokio::time::timeout(STALL, self.incoming.frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Ok(Some(Err(_))) | Err(_) => return Err(Failure::INTERNAL),
            }
        }
    }

    /// All of it. A body that arrives in one piece is not copied.
    pub(super) async fn read(&mut self, limit: u64) -> Result<Bytes, Unread> {
        if self.declared() > limit {
            return Err(Unread::TooBig);
        }
        let mut whole = BytesMut::new();
        while let Some(piece) = self.next().await.map_err(|_| Unread::Broken)? {
            if (whole.len() + piece.len()) as u64 > limit {
                return Err(Unread::TooBig);
            }
            if whole.is_empty() && self.incoming.is_end_stream() {
                return Ok(piece);
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// Throws away what is left; whether the connection can be used again.
    pub(super) async fn drain(&mut self) -> bool {
        if self.incoming.is_end_stream() {
            return true;
        }
        if self.waits || self.declared() > DRAIN as u64 {
            return false;
        }
        let drained = async {
            let mut taken = 0;
            while let Ok(Some(piece)) = self.next().await {
                taken += piece.len();
                if taken > DRAIN {
                    return false;
                }
            }
            self.incoming.is_end_stream()
        };
        tokio::time::timeout(DRAIN_TIME, drained).await.unwrap_or(false)
    }
}
