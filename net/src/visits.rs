//! The connections that the end of a server waits for, and how they learn of it.
//!
//! A connection has a [`Visit`] from the moment it is accepted; the host tells all of them to go, and knows when the
//! last has gone.

use std::time::Duration;
use tokio::sync::watch;

/// The server's side; its value is whether the end has come.
#[derive(Debug)]
pub(crate) struct Visits(watch::Sender<bool>);

/// A connection's side. Dropping it is leaving.
#[derive(Debug)]
pub(crate) struct Visit(watch::Receiver<bool>);

impl Visits {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// A connection was accepted.
    pub(crate) fn begin(&self) -> Visit {
        Visit(self.0.subscribe())
    }

    /// Tells all connections to end, those included that are still to come.
    pub(crate) fn close(&self) {
        self.0.send_replace(true);
    }

    /// Closes, and waits until all have left or the time is up; how many are left.
    pub(crate) async fn end(&self, grace: Duration) -> usize {
        self.close();
        let _ = tokio::time::timeout(grace, self.0.closed()).await;
        self.0.receiver_count()
    }
}

impl Visit {
    /// Completes when the server ends.
    pub(crate) async fn told_to_end(&mut self) {
        // An error means that the server is gone already.
        let _ = self.0.wait_for(|ends| *ends).await;
    }
}
