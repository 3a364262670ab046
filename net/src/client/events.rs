//! Telling an application how its client is doing.

use nsq_core::client::Notice;

/// What an application gives to be told.
type Listen = dyn Fn(&Notice) + Send + Sync;

/// Calls what the application gave, if it gave anything; the log hears everything.
#[derive(Default)]
pub(super) struct Listener(Option<Box<Listen>>);

impl Listener {
    pub(super) fn new(listen: impl Fn(&Notice) + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(listen)))
    }

    /// To be called without a lock: the application may do anything.
    pub(super) fn tell(&self, notice: &Notice) {
        tracing::debug!("{notice}");
        if let Some(listen) = &self.0 {
            listen(notice);
        }
    }
}
