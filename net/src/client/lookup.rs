//! Asking a nsqlookupd which nsqds have a topic. What may be wrong with the answer is told in words.

use crate::http::fetch::{self, Patience};
use hyper::StatusCode;
use nsq_core::client::lookup;
use nsq_core::name::TopicName;

pub(super) async fn nsqds(address: &str, topic: &TopicName) -> Result<Vec<String>, String> {
    // The one character of names that means something else in a query.
    let target = format!("/lookup?topic={}", topic.as_str().replace('#', "%23"));
    let answer = fetch::get(address, &target, Patience::default()).await;
    let (status, body) = answer.map_err(|error| error.to_string())?;
    match status {
        StatusCode::OK => lookup::parse(&body).map_err(|error| error.to_string()),
        // Nobody has published yet.
        StatusCode::NOT_FOUND if body.windows(NO_TOPIC.len()).any(|part| part == NO_TOPIC) => Ok(Vec::new()),
        status => Err(format!("status {status} instead of a list: is this the HTTP address of a nsqlookupd?")),
    }
}

const NO_TOPIC: &[u8] = b"TOPIC_NOT_FOUND";
