//! A message in an application's hands.

use super::consumer::Shared;
use bytes::Bytes;
use nsq_core::client::consumer::{Answer, Delivery, DeliveryId, Input};
use nsq_core::message::MessageId;
use nsq_core::time::Timestamp;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A message from [`Consumer::next`](super::Consumer::next).
///
/// It is answered with [`finish`](Self::finish), [`requeue`](Self::requeue) or one of its kin, on any task or thread.
/// One that is dropped without an answer is delivered again when its time is over. Answers are not waited for: if nsqd
/// does not take one, that is an [event](super::Event).
#[must_use = "a message that is not answered comes again"]
pub struct Message {
    delivery: Delivery,
    nsqd: Arc<str>,
    shared: Arc<Shared>,
    /// What becomes of it when it is dropped.
    unanswered: Option<Answer>,
}

impl Message {
    pub(super) const fn new(delivery: Delivery, nsqd: Arc<str>, shared: Arc<Shared>, on_drop: Option<Answer>) -> Self {
        Self { delivery, nsqd, shared, unanswered: on_drop }
    }

    /// What was published.
    pub const fn body(&self) -> &Bytes {
        &self.delivery.message.body
    }

    /// Its id.
    pub const fn id(&self) -> MessageId {
        self.delivery.message.id
    }

    /// Which delivery of it this is; 1 is the first.
    pub const fn attempts(&self) -> u16 {
        self.delivery.message.attempts
    }

    /// When it was published, by nsqd's clock.
    pub const fn timestamp(&self) -> Timestamp {
        Timestamp::from_nanos(self.delivery.message.timestamp)
    }

    /// The address of the nsqd that it came from.
    pub fn nsqd(&self) -> &str {
        &self.nsqd
    }

    /// FIN: it is done, and will not come again.
    pub fn finish(self) {
        self.answer(Answer::Finish);
    }

    /// REQ: it has failed and is to come again, the later the more often it has come. This counts for backoff.
    pub fn requeue(self) {
        self.answer(Answer::Requeue { delay: None, failed: true });
    }

    /// The same after a delay of your choice, in whole milliseconds; nsqd allows up to an hour by default.
    pub fn requeue_after(self, delay: Duration) {
        self.answer(Answer::Requeue { delay: Some(delay), failed: true });
    }

    /// The same without counting for backoff: nothing has failed, it is only not wanted now.
    pub fn requeue_without_backoff(self, delay: Duration) {
        self.answer(Answer::Requeue { delay: Some(delay), failed: false });
    }

    /// TOUCH: it takes longer; the time to answer begins anew. nsqd has a limit, 15 minutes by default.
    pub fn touch(&self) {
        self.say(Answer::Touch);
    }

    fn answer(mut self, answer: Answer) {
        self.unanswered = None;
        self.say(answer);
    }

    fn say(&self, answer: Answer) {
        let Delivery { conn, number, message } = &self.delivery;
        let delivery = DeliveryId { conn: *conn, number: *number, id: message.id, attempts: message.attempts };
        self.shared.handle(Input::Answer(delivery, answer));
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // Somebody who panics has not dealt with it: it comes again.
        if let Some(answer) = self.unanswered.filter(|_| !std::thread::panicking()) {
            self.say(answer);
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id())
            .field("attempts", &self.attempts())
            .field("nsqd", &self.nsqd)
            .field("body", self.body())
            .finish()
    }
}
