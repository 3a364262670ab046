//! One HTTP connection: from the accepted socket to its end.
//!
//! Requests are read and answered by hyper, one after the other; this room adds what an end should be like: no request
//! is cut off because the process stops, no answer is lost because we close while the client still sends, and nobody
//! keeps a connection for ever without using it. Upstream has no such limit; ours is far above every client's own.

use super::service::{self, Api};
use crate::linger::linger;
use crate::visits::Visit;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// How long a connection may take to send the next request's head. Go's clients drop idle connections after 90 s.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// How long the request in progress may take when the process ends.
const GRACE: Duration = Duration::from_millis(500);

/// Serves one connection to its end.
pub(crate) fn serve<A: Api>(api: Arc<A>, stream: TcpStream, peer: SocketAddr) -> impl Future<Output = ()> + Send {
    let visit = api.visits().begin();
    serve_visit(api, stream, peer, visit)
}

async fn serve_visit<A: Api>(api: Arc<A>, stream: TcpStream, peer: SocketAddr, mut visit: Visit) {
    let service = service_fn(move |request| {
        let api = Arc::clone(&api);
        Box::pin(async move { Ok::<_, Infallible>(service::answer(&*api, request, peer).await) })
    });
    let mut conn = http1::Builder::new()
        .timer(Timer)
        .header_read_timeout(HEAD_TIMEOUT)
        // A client that closes its sending side still wants its answer.
        .half_close(true)
        .title_case_headers(true)
        // hyper's own would be of the machine's clock, not of ours.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service);

    let ended = tokio::select! {
        biased;
        () = visit.told_to_end() => None,
        result = poll_fn(|cx| conn.poll_without_shutdown(cx)) => Some(result),
    };
    let result = match ended {
        Some(result) => result,
        None => {
            Pin::new(&mut conn).graceful_shutdown();
            let ended = poll_fn(|cx| conn.poll_without_shutdown(cx));
            tokio::time::timeout(GRACE, ended).await.unwrap_or(Ok(()))
        }
    };
    drop(visit);
    match result {
        Ok(()) => {}
        // hyper has answered it with a 400.
        Err(error) if error.is_parse() => tracing::debug!("HTTP: client({peer}): no HTTP - {error}"),
        Err(error) => return tracing::debug!("HTTP: client({peer}): {error}"),
    }
    linger(conn.into_parts().io.into_inner()).await;
}

/// The runtime's timers, as hyper asks for them.
struct Timer;

struct Sleep(Pin<Box<tokio::time::Sleep>>);

impl hyper::rt::Timer for Timer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Sleep(Box::pin(tokio::time::sleep(duration))))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Sleep(Box::pin(tokio::time::sleep_until(deadline.into()))))
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

impl hyper::rt::Sleep for Sleep {}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}
