//! A whole server on real sockets and threads, for tests of what it withstands.
//!
//! Whoever stops it learns whether any task of it has panicked, and whether every connection has ended in time.

pub(crate) mod moody;

use nsq_core::options::Options;
use nsq_core::time::Timestamp;
use nsq_net::disk::{Directory, Disk};
use nsq_net::env::Env;
use nsq_net::http::{Identity, Patience};
use nsq_net::server::{Config, Listeners, Server};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;

/// Far beyond what anything may take, however busy the machine is.
pub(crate) const LONG: Duration = Duration::from_secs(30);
/// How long the end may take: less than the server waits for connections that do not notice it.
pub(crate) const PROMPT: Duration = Duration::from_secs(1);

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// A server and where to find it.
pub(crate) struct Nsqd {
    pub(crate) server: Server,
    pub(crate) tcp: String,
    pub(crate) http: String,
    pub(crate) dir: TempDir,
}

impl Nsqd {
    pub(crate) async fn start(options: Options, mem_queue_bytes: usize) -> Self {
        let dir = TempDir::new().unwrap();
        let disk = Arc::new(Directory::new(dir.path()));
        Self::start_on(disk, dir, options, mem_queue_bytes).await
    }

    /// The same on a disk that may be slow.
    pub(crate) async fn start_on(disk: Arc<dyn Disk>, dir: TempDir, options: Options, mem_queue_bytes: usize) -> Self {
        Self::start_with(Env { wall: Arc::new(wall), seed: 1, disk }, dir, options, mem_queue_bytes, |_| {}).await
    }

    /// One whose topics are all durable.
    pub(crate) async fn start_durable(env: Env, dir: TempDir) -> Self {
        Self::start_with(env, dir, Options::default(), 1 << 30, |config| config.durable.all = true).await
    }

    /// One that tells these nsqlookupds of its topics.
    pub(crate) async fn start_among(lookupds: Vec<String>) -> Self {
        let dir = TempDir::new().unwrap();
        let disk = Arc::new(Directory::new(dir.path()));
        let env = Env { wall: Arc::new(wall), seed: 1, disk };
        let set = |config: &mut Config| config.lookupd_tcp_addresses = lookupds;
        Self::start_with(env, dir, Options::default(), 1 << 30, set).await
    }

    async fn start_with(
        env: Env,
        dir: TempDir,
        options: Options,
        mem_queue_bytes: usize,
        set: impl FnOnce(&mut Config),
    ) -> Self {
        count_panics();
        let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.unwrap();
        let (tcp, http) = (listeners.tcp_address().to_string(), listeners.http_address().unwrap().to_string());
        let mut config = Config {
            options,
            mem_queue_bytes,
            lookupd_tcp_addresses: Vec::new(),
            durable: nsq_net::durable::Durable::default(),
            http_client: Patience::default(),
            identity: Identity { broadcast_address: "127.0.0.1".into(), ..Identity::default() },
            settings: BTreeMap::new(),
        };
        set(&mut config);
        let server = Server::start(listeners, config, env).await.unwrap();
        Self { server, tcp, http, dir }
    }

    /// Stops it; how many messages it could not write.
    pub(crate) async fn stop(self) -> u64 {
        self.stop_in_order().await.0
    }

    /// The same, and the data directory.
    pub(crate) async fn stop_in_order(self) -> (u64, TempDir) {
        let start = Instant::now();
        let lost = self.server.stop().await.messages;
        let elapsed = start.elapsed();
        assert!(elapsed < PROMPT, "the end took {elapsed:?}");
        assert_eq!(PANICS.load(Ordering::SeqCst), 0, "a task has panicked, see above");
        (lost, self.dir)
    }
}

/// Waits for something that must come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let asked = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(what, asked).await;
}

/// Nobody hears of a panic in a server's tasks, which are on the runtime's threads: this hook counts them.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().name().is_some_and(|name| name.starts_with("tokio")) {
                PANICS.fetch_add(1, Ordering::SeqCst);
            }
            report(info);
        }));
    });
}

pub(crate) fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_nanos(since.as_nanos() as i64)
}
