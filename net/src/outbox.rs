//! Where topics leave what a connection gets: message frames, and events at places between them.
//!
//! Filled under the topic's lock, emptied by the connection's task; whoever fills it wakes the task, after letting go
//! of the topic. How much can be in here is bounded by the consumer's credit, which the topic keeps.

use crate::sync::{Mutex, MutexGuard, PoisonError};
use nsq_core::topic::io::{Outgoing, ToConn};
use std::task::{Context, Waker};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Outbox(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    mail: Mail,
    closed: bool,
    waker: Option<Waker>,
}

/// Frames, and the events that belong in front of a position in them.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    pub(crate) frames: Vec<u8>,
    pub(crate) events: Vec<(usize, ToConn)>,
}

impl Mail {
    /// Appends a group, leaving it empty. Its buffer and ours change places where that saves copying.
    pub(crate) fn append(&mut self, group: &mut Outgoing) {
        let base = self.frames.len();
        if base == 0 {
            std::mem::swap(&mut self.frames, &mut group.frames);
        } else {
            self.frames.append(&mut group.frames);
        }
        self.events.extend(group.events.drain(..).map(|(at, event)| (base + at, event)));
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.events.is_empty()
    }
}

impl Outbox {
    /// Adds to the mail; the waker, if there is one, is to be woken.
    pub(crate) fn push(&self, group: &mut Outgoing) -> Option<Waker> {
        let mut inner = self.lock();
        inner.mail.append(group);
        inner.waker.take()
    }

    /// Adds an event; the waker, if there is one, is to be woken.
    pub(crate) fn tell(&self, event: ToConn) -> Option<Waker> {
        let mut inner = self.lock();
        let end = inner.mail.frames.len();
        inner.mail.events.push((end, event));
        inner.waker.take()
    }

    /// Tells the connection to end at once, because the process does.
    pub(crate) fn close(&self) {
        let waker = {
            let mut inner = self.lock();
            inner.closed = true;
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Exchanges the mail for an empty one. If there was none, `cx` is woken when there is.
    pub(crate) fn take(&self, cx: &Context<'_>, mail: &mut Mail) -> Taken {
        debug_assert!(mail.is_empty());
        let mut inner = self.lock();
        if inner.closed {
            return Taken::Closed;
        }
        if inner.mail.is_empty() {
            match &mut inner.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            return Taken::Nothing;
        }
        std::mem::swap(&mut inner.mail, mail);
        Taken::Mail
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What [`Outbox::take`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Mail,
    Nothing,
    Closed,
}
