//! Telling an application how its client is doing, and the log what its operator has to know.
//!
//! In: notices, one at a time. Out: calls of what the application gave, and lines of the log. The one rule: what is
//! wrong is a warning once, until it is well again; that it is still wrong is for those who look for it.

use nsq_core::client::Notice;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tracing::Level;

/// What an application gives to be told.
type Listen = dyn Fn(&Notice) + Send + Sync;

/// Calls what the application gave, if it gave anything; the log hears everything.
#[derive(Default)]
pub(super) struct Listener {
    listen: Option<Box<Listen>>,
    /// Addresses of servers that cannot be reached.
    troubles: Mutex<BTreeSet<String>>,
}

impl Listener {
    pub(super) fn new(listen: impl Fn(&Notice) + Send + Sync + 'static) -> Self {
        Self { listen: Some(Box::new(listen)), troubles: Mutex::default() }
    }

    /// To be called without a lock: the application may do anything.
    pub(super) fn tell(&self, notice: &Notice) {
        match self.weigh(notice) {
            Level::WARN => tracing::warn!("{notice}"),
            Level::INFO => tracing::info!("{notice}"),
            _ => tracing::debug!("{notice}"),
        }
        if let Some(listen) = &self.listen {
            guarded("on_event", || listen(notice));
        }
    }

    /// A nsqlookupd has answered.
    pub(super) fn recovered(&self, nsqlookupd: &str) {
        if self.troubles().remove(nsqlookupd) {
            tracing::info!("{nsqlookupd} answers again");
        }
    }

    fn weigh(&self, notice: &Notice) -> Level {
        let mut troubles = self.troubles();
        let is_new = match notice {
            Notice::GaveUp { .. } | Notice::TimedOut { .. } => return Level::WARN,
            Notice::Connected { nsqd } => {
                troubles.remove(nsqd);
                return Level::INFO;
            }
            // Nobody lists it any more, or the client is ending.
            Notice::ConnectFailed { nsqd, retry: None, .. } | Notice::Disconnected { nsqd, retry: None, .. } => {
                troubles.remove(nsqd);
                false
            }
            Notice::ConnectFailed { nsqd, .. } | Notice::Disconnected { nsqd, .. } => troubles.insert(nsqd.clone()),
            Notice::LookupFailed { nsqlookupd, .. } => troubles.insert(nsqlookupd.clone()),
            _ => false,
        };
        if is_new { Level::WARN } else { Level::DEBUG }
    }

    fn troubles(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls what an application gave: its panic is not to be the end of its client.
pub(super) fn guarded(name: &str, call: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(call)).is_err() {
        tracing::error!("{name} panicked; the client goes on");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn trouble_is_a_warning_once_until_it_is_over() {
        let listener = Listener::default();
        let nsqd = || "a:1".to_string();
        let failed = || Notice::ConnectFailed { nsqd: nsqd(), reason: String::new(), retry: Some(Duration::ZERO) };
        let lost = Notice::Disconnected { nsqd: nsqd(), reason: String::new(), retry: Some(Duration::ZERO) };
        assert_eq!([failed(), failed()].map(|notice| listener.weigh(&notice)), [Level::WARN, Level::DEBUG]);
        assert_eq!(listener.weigh(&Notice::Connected { nsqd: nsqd() }), Level::INFO);
        assert_eq!([lost, failed()].map(|notice| listener.weigh(&notice)), [Level::WARN, Level::DEBUG]);
        let unanswered = Notice::LookupFailed { nsqlookupd: "l:1".to_string(), reason: String::new() };
        assert_eq!([&unanswered; 2].map(|notice| listener.weigh(notice)), [Level::WARN, Level::DEBUG]);
        listener.recovered("l:1");
        assert_eq!(listener.weigh(&unanswered), Level::WARN);
        let forgotten = Notice::ConnectFailed { nsqd: nsqd(), reason: String::new(), retry: None };
        assert_eq!(listener.weigh(&forgotten), Level::DEBUG);
        assert_eq!(listener.troubles().len(), 1, "what is forgotten takes no room");
    }
}
