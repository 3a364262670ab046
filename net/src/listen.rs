//! A daemon's sockets: binding them, and accepting until the daemon ends.
//!
//! In: addresses as operators write them. Out: bound [`Listeners`], and a task for each connection.

use crate::disk::{EMFILE, ENFILE};
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// Bound sockets that nobody serves yet.
pub struct Listeners {
    pub(crate) tcp: TcpListener,
    tcp_address: SocketAddr,
    pub(crate) http: Option<(TcpListener, SocketAddr)>,
}

/// An address that could not be listened on.
#[derive(Debug)]
pub struct BindError {
    /// The address as it was given.
    pub address: String,
    /// What the system said.
    pub error: io::Error,
}

/// After an error of `accept`, such as too many open files: whoever wants to connect waits in the kernel's queue.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// As long as it lasts, one line in so much time tells of it.
const ACCEPT_REMINDER: Duration = Duration::from_secs(10);

impl Listeners {
    /// Binds `--tcp-address` and, unless it is empty, `--http-address`; port 0 takes any that is free.
    ///
    /// # Errors
    /// The address that could not be bound, and why.
    pub async fn bind(tcp: &str, http: &str) -> Result<Self, BindError> {
        let (tcp, tcp_address) = listen(tcp).await?;
        tracing::info!("TCP: listening on {tcp_address}");
        if http.is_empty() {
            return Ok(Self { tcp, tcp_address, http: None });
        }
        let http = listen(http).await?;
        tracing::info!("HTTP: listening on {}", http.1);
        Ok(Self { tcp, tcp_address, http: Some(http) })
    }

    /// Where clients connect.
    pub const fn tcp_address(&self) -> SocketAddr {
        self.tcp_address
    }

    /// Where HTTP is served, if it is.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|(_, address)| *address)
    }
}

async fn listen(address: &str) -> Result<(TcpListener, SocketAddr), BindError> {
    // Go's way to say all interfaces.
    let full = if address.starts_with(':') { format!("0.0.0.0{address}") } else { address.to_string() };
    let bound = async {
        let listener = TcpListener::bind(full.as_str()).await?;
        let address = listener.local_addr()?;
        io::Result::Ok((listener, address))
    };
    bound.await.map_err(|error| BindError { address: address.to_string(), error })
}

/// Accepts connections until it is dropped, each with a task of its own.
pub(crate) async fn accept<T, F>(
    listener: TcpListener,
    state: Arc<T>,
    serve: impl Fn(Arc<T>, TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut told: Option<Instant> = None;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Frames are batched here, not by the kernel.
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve(Arc::clone(&state), stream, peer));
            }
            Err(error) => {
                if told.is_none_or(|told| told.elapsed() >= ACCEPT_REMINDER) {
                    tracing::error!("failed to accept - {error}{}", remedy(&error));
                    told = Some(Instant::now());
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What an operator can do about an error of `accept`.
fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(EMFILE) => "; every connection needs one: raise the limit (ulimit -Hn, systemd's LimitNOFILE)",
        Some(ENFILE) => "; the system has no more to give: raise fs.file-max",
        _ => "",
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "listen ({}) failed - {}", self.address, self.error)
    }
}

impl std::error::Error for BindError {}
