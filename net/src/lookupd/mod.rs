//! A running nsqlookupd: listeners, what connections share, and a clean end.
//!
//! Core's registry stands behind one lock that is never held over a wait: [`conn`] writes to it what nsqds say,
//! [`http`] reads from it. Nothing is kept on disk; nsqds register again.

mod conn;
mod http;
#[cfg(test)]
mod tests;

use crate::env::{Clock, Wall};
use crate::http as any_http;
use crate::listen::{Listeners, accept};
use crate::visits::Visits;
use nsq_core::lookupd::{Identity, Options, PeerId, Registry};
use nsq_core::time::Now;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use tokio::task::JoinHandle;

/// What a server is started with.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Timeouts of registrations.
    pub options: Options,
    /// What peers and `/info` are told.
    pub identity: Identity,
}

/// A running nsqlookupd. Dropping it stops it at once, [`stop`](Self::stop) in order.
pub struct Server {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

/// What the tasks share.
struct Shared {
    clock: Clock,
    options: Options,
    identity: Arc<Identity>,
    registry: RwLock<Registry>,
    visits: Visits,
    next_peer: AtomicU64,
}

/// How long the end waits for connections to notice.
const GRACE: Duration = Duration::from_secs(2);

impl Server {
    /// Serves; to be called within a runtime.
    pub fn start(listeners: Listeners, config: Config, wall: Wall) -> Self {
        let shared = Arc::new(Shared {
            clock: Clock::new(wall),
            registry: RwLock::new(Registry::new(config.options.clone())),
            options: config.options,
            identity: Arc::new(config.identity),
            visits: Visits::new(),
            next_peer: AtomicU64::new(1),
        });
        let mut tasks = vec![tokio::spawn(accept(listeners.tcp, Arc::clone(&shared), conn::serve))];
        if let Some((listener, _)) = listeners.http {
            tasks.push(tokio::spawn(accept(listener, Arc::clone(&shared), any_http::serve)));
        }
        Self { shared, tasks }
    }

    /// Looks at the registry, changing nothing; for tests and the simulator.
    pub fn inspect<T>(&self, look: impl FnOnce(Now, &Registry) -> T) -> T {
        look(self.shared.now(), &self.shared.read())
    }

    /// Ends in order: no new connections, every connection closed whatever state its peer is in.
    pub async fn stop(mut self) {
        self.tasks.drain(..).for_each(|task| task.abort());
        let left = self.shared.visits.end(GRACE).await;
        if left > 0 {
            tracing::warn!("{left} connections did not end in time");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.drain(..).for_each(|task| task.abort());
        self.shared.visits.close();
    }
}

impl Shared {
    fn now(&self) -> Now {
        self.clock.now()
    }

    fn next_peer(&self) -> PeerId {
        PeerId(self.next_peer.fetch_add(1, Ordering::Relaxed))
    }

    fn read(&self) -> RwLockReadGuard<'_, Registry> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Registry> {
        self.registry.write().unwrap_or_else(PoisonError::into_inner)
    }
}
