//! `/pub` and `/mpub` (spec: http_flags_tools §1.4, §1.5): the checks in upstream's order, then the topic.
//!
//! Nothing larger than `--max-msg-size` or `--max-body-size` is ever held, chunked or not. Unlike upstream, a request
//! that is refused here creates no topic.

use super::Http;
use super::body::{Unread, Upload};
use super::lines::Lines;
use super::query::Query;
use super::respond::{Answer, Failure};
use bytes::Bytes;
use nsq_core::message::Bodies;
use nsq_core::name::TopicName;
use nsq_core::time::Duration;

impl Http {
    /// One message.
    pub(super) async fn publish_one(&self, query: Option<&str>, upload: &mut Upload) -> Result<Answer, Failure> {
        let body = upload.read(self.broker.options().message_limit()).await.map_err(|why| match why {
            Unread::TooBig => Failure::too_large("MSG_TOO_BIG"),
            Unread::Broken => Failure::INTERNAL,
        })?;
        if body.is_empty() {
            return Err(Failure::bad_request("MSG_EMPTY"));
        }
        let query = Query::parse(query)?;
        let topic = topic_of(&query)?;
        let defer = match query.get("defer") {
            Some(millis) => self.defer(millis).ok_or(Failure::bad_request("INVALID_DEFER"))?,
            None => Duration::ZERO,
        };
        self.publish(&topic, Bodies::one(body), defer).await
    }

    /// Several messages, as lines or in the form of the TCP protocol.
    pub(super) async fn publish_many(&self, query: Option<&str>, upload: &mut Upload) -> Result<Answer, Failure> {
        if upload.declared() > self.broker.options().max_body_size {
            return Err(Failure::too_large("BODY_TOO_BIG"));
        }
        let query = Query::parse(query)?;
        let topic = topic_of(&query)?;
        let bodies = match query.get("binary") {
            None | Some(b"false" | b"0") => self.read_lines(upload).await?,
            Some(value) => {
                if !matches!(value, b"true" | b"1") {
                    let value = value.escape_ascii();
                    tracing::warn!("/mpub: binary={value} is taken for true; please say true or false");
                }
                self.read_binary(upload).await?
            }
        };
        if bodies.is_empty() {
            self.broker.create_topic(&topic).await?;
            return Ok(Answer::Text("OK".into()));
        }
        self.publish(&topic, bodies, Duration::ZERO).await
    }

    async fn publish(&self, topic: &TopicName, bodies: Bodies, defer: Duration) -> Result<Answer, Failure> {
        self.broker.publish(topic, bodies, defer).await?;
        Ok(Answer::Text("OK".into()))
    }

    fn defer(&self, millis: &[u8]) -> Option<Duration> {
        // A sign is allowed, as long as the number is not negative.
        let millis: i64 = std::str::from_utf8(millis).ok()?.parse().ok()?;
        let defer = Duration::from_millis(millis.try_into().ok()?);
        (defer <= self.broker.options().max_req_timeout).then_some(defer)
    }

    async fn read_lines(&self, upload: &mut Upload) -> Result<Bodies, Failure> {
        let options = self.broker.options();
        let mut lines = Lines::new(options.message_limit(), options.max_body_size);
        while let Some(piece) = upload.next().await? {
            lines.push(&piece)?;
        }
        lines.finish()
    }

    async fn read_binary(&self, upload: &mut Upload) -> Result<Bodies, Failure> {
        let options = self.broker.options();
        let body = upload.read(options.max_body_size).await.map_err(|why| match why {
            Unread::TooBig => Failure::too_large("BODY_TOO_BIG"),
            Unread::Broken => Failure::INTERNAL,
        })?;
        sized(body, options.message_limit(), options.max_body_size).map_err(Failure::too_large)
    }
}

fn topic_of(query: &Query<'_>) -> Result<TopicName, Failure> {
    let name = query.get("topic").ok_or(Failure::bad_request("MISSING_ARG_TOPIC"))?;
    TopicName::new(name).ok_or(Failure::bad_request("INVALID_TOPIC"))
}

/// A count and so many sized messages; what is behind them is ignored.
fn sized(mut body: Bytes, max_msg_size: u64, max_body_size: u64) -> Result<Bodies, &'static str> {
    let max_count = max_body_size.saturating_sub(4) / 5;
    let (count, messages) = positive(&body).ok_or("BAD_BODY")?;
    if u64::from(count) > max_count {
        return Err("BAD_BODY");
    }
    let mut rest = messages;
    for _ in 0..count {
        let (size, message) =
            positive(rest).filter(|(size, _)| u64::from(*size) <= max_msg_size).ok_or("BAD_MESSAGE")?;
        rest = message.get(size as usize..).ok_or("BAD_MESSAGE")?;
    }
    let end = body.len() - rest.len();
    body.truncate(end);
    Ok(Bodies::many(body.split_off(4), count))
}

/// A big-endian int32 above zero, and what is behind it.
fn positive(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    let number = u32::try_from(i32::from_be_bytes(*number)).ok()?;
    (number > 0).then_some((number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sized_messages() {
        let mut bodies = sized(Bytes::from_static(b"\0\0\0\x02\0\0\0\x01a\0\0\0\x02bband more"), 2, 100).unwrap();
        assert_eq!((bodies.len(), bodies.body_bytes()), (2, 3));
        let mut seen = Vec::new();
        bodies.take_while(|body| {
            seen.push(body.to_vec());
            true
        });
        assert_eq!(seen, [&b"a"[..], b"bb"]);
    }

    #[test]
    fn bad_sizes() {
        let cases: &[(&[u8], &str)] = &[
            (b"", "BAD_BODY"),
            (b"\0\0", "BAD_BODY"),
            (b"\0\0\0\0", "BAD_BODY"),
            (b"\xff\xff\xff\xff\0\0\0\x01x", "BAD_BODY"),
            (b"\0\0\0\x14\0\0\0\x01x", "BAD_BODY"),
            (b"\0\0\0\x01", "BAD_MESSAGE"),
            (b"\0\0\0\x02\0\0\0\x01x", "BAD_MESSAGE"),
            (b"\0\0\0\x01\0\0\0\0", "BAD_MESSAGE"),
            (b"\0\0\0\x01\x80\0\0\0", "BAD_MESSAGE"),
            (b"\0\0\0\x01\0\0\0\x03xxx", "BAD_MESSAGE"),
            (b"\0\0\0\x01\0\0\0\x02x", "BAD_MESSAGE"),
        ];
        for (body, why) in cases {
            assert_eq!(sized(Bytes::from_static(body), 2, 100).err(), Some(*why), "{body:?}");
        }
    }
}
