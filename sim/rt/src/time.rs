//! `tokio::time` on madsim's clock.
//!
//! In: deadlines. Out: futures that are ready when simulated time gets there. As with tokio, a sleep lasts at least one
//! millisecond. The rule: a pending [`Sleep`] that is polled again arms no second timer, so polling in a loop stays
//! cheap.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

pub use std::time::Duration;
pub use tokio::time::Instant;

/// Errors of this module, as in tokio.
pub mod error {
    pub use madsim::time::error::Elapsed;
}

/// Waits for `duration`.
pub fn sleep(duration: Duration) -> Sleep {
    Sleep { timer: madsim::time::sleep(duration), armed: None }
}

/// A sleep of that clock, for a task that has no runtime around it yet.
pub(crate) fn sleep_of(clock: &madsim::time::TimeHandle) -> Sleep {
    Sleep { timer: clock.sleep(Duration::ZERO), armed: None }
}

/// Waits until `deadline`.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { timer: madsim::time::sleep_until(deadline.into_std()), armed: None }
}

/// The future of [`sleep`] and [`sleep_until`].
#[derive(Debug)]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct Sleep {
    timer: madsim::time::Sleep,
    /// Who is woken when the timer now set goes off.
    armed: Option<Waker>,
}

impl Sleep {
    /// When it will be ready.
    pub fn deadline(&self) -> Instant {
        self.timer.deadline().into()
    }

    /// Whether the deadline has passed.
    pub fn is_elapsed(&self) -> bool {
        self.timer.is_elapsed()
    }

    /// Moves the deadline, earlier or later.
    pub fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        Pin::new(&mut self.timer).reset(deadline.into_std());
        self.armed = None;
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.armed.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) && !self.is_elapsed() {
            return Poll::Pending;
        }
        self.armed = Some(cx.waker().clone());
        Pin::new(&mut self.timer).poll(cx)
    }
}

/// Gives `future` at most `duration`; it is polled first, so what is ready in time is never lost.
pub async fn timeout<F: IntoFuture>(duration: Duration, future: F) -> Result<F::Output, error::Elapsed> {
    within(sleep(duration), future.into_future()).await
}

/// Gives `future` until `deadline`.
pub async fn timeout_at<F: IntoFuture>(deadline: Instant, future: F) -> Result<F::Output, error::Elapsed> {
    within(sleep_until(deadline), future.into_future()).await
}

async fn within<F: Future>(limit: Sleep, future: F) -> Result<F::Output, error::Elapsed> {
    tokio::select! {
        biased;
        output = future => Ok(output),
        () = limit => Err(error::Elapsed),
    }
}

/// Ticks at once and then every `period`.
pub fn interval(period: Duration) -> Interval {
    interval_at(Instant::now(), period)
}

/// Ticks at `start` and then every `period`.
///
/// # Panics
/// If `period` is zero, as in tokio.
pub fn interval_at(start: Instant, period: Duration) -> Interval {
    assert!(!period.is_zero(), "`period` must be non-zero.");
    Interval { timer: Box::pin(sleep_until(start)), next: start, period, missed: MissedTickBehavior::default() }
}

pub use tokio::time::MissedTickBehavior;

/// The stream of ticks of [`interval`].
#[derive(Debug)]
pub struct Interval {
    timer: Pin<Box<Sleep>>,
    next: Instant,
    period: Duration,
    missed: MissedTickBehavior,
}

impl Interval {
    /// The next tick: when it was due.
    pub async fn tick(&mut self) -> Instant {
        std::future::poll_fn(|cx| self.poll_tick(cx)).await
    }

    /// Polls for the next tick.
    pub fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<Instant> {
        if Instant::now() < self.next {
            ready!(self.timer.as_mut().poll(cx));
        }
        let (due, now) = (self.next, Instant::now());
        self.next = match self.missed {
            _ if now <= due + self.period => due + self.period,
            MissedTickBehavior::Burst => due + self.period,
            MissedTickBehavior::Delay => now + self.period,
            MissedTickBehavior::Skip => {
                let late = (now - due).as_nanos() % self.period.as_nanos();
                now + self.period - Duration::from_nanos(u64::try_from(late).unwrap_or(0))
            }
        };
        self.timer.as_mut().reset(self.next);
        Poll::Ready(due)
    }

    /// The next tick comes one period from now.
    pub fn reset(&mut self) {
        self.reset_at(Instant::now() + self.period);
    }

    /// The next tick comes at once.
    pub fn reset_immediately(&mut self) {
        self.reset_at(Instant::now());
    }

    /// The next tick comes at `deadline`.
    pub fn reset_at(&mut self, deadline: Instant) {
        self.next = deadline;
        self.timer.as_mut().reset(deadline);
    }

    /// What happens to ticks that nobody waited for.
    pub fn set_missed_tick_behavior(&mut self, behavior: MissedTickBehavior) {
        self.missed = behavior;
    }

    /// The time between two ticks.
    pub fn period(&self) -> Duration {
        self.period
    }
}
