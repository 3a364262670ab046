//! One HTTP connection: from the accepted socket to its end.
//!
//! Requests are read and answered by hyper, one after the other; this room adds what an end should be like: no request
//! is cut off because the process stops, no answer is lost because we close while the client still sends, and nobody
//! keeps a connection for ever without using it. Upstream has no such limit; ours is far above every client's own.

use super::Http;
use crate::broker::Broker;
use crate::outbox::{Mail, Taken};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use nsq_core::topic::io::ConnId;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a connection may take to send the next request's head. Go's clients drop idle connections after 90 s.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// How long the request in progress may take when the process ends.
const GRACE: Duration = Duration::from_secs(1);
/// How long a client may go on sending what nobody will read, after its last answer.
const LINGER: Duration = Duration::from_millis(500);

/// Serves one connection to its end.
pub(crate) async fn serve(http: Arc<Http>, stream: TcpStream, peer: SocketAddr) {
    let broker = Arc::clone(&http.broker);
    let place = Place { broker: &broker, conn: broker.next_conn() };
    let outbox = Arc::clone(&broker.connected(place.conn).outbox);
    let service = service_fn(move |request| {
        let http = Arc::clone(&http);
        Box::pin(async move { Ok::<_, Infallible>(http.answer(request, peer).await) })
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

    let told_to_end = |cx: &Context<'_>| outbox.take(cx, &mut Mail::default()) == Taken::Closed;
    let ended =
        poll_fn(|cx| if told_to_end(cx) { Poll::Ready(None) } else { conn.poll_without_shutdown(cx).map(Some) });
    let result = match ended.await {
        Some(result) => result,
        None => {
            Pin::new(&mut conn).graceful_shutdown();
            let ended = poll_fn(|cx| conn.poll_without_shutdown(cx));
            tokio::time::timeout(GRACE, ended).await.unwrap_or(Ok(()))
        }
    };
    drop(place);
    match result {
        Ok(()) => {}
        // hyper has answered it with a 400.
        Err(error) if error.is_parse() => tracing::debug!("HTTP: client({peer}): no HTTP - {error}"),
        Err(error) => return tracing::debug!("HTTP: client({peer}): {error}"),
    }
    linger(conn.into_parts().io.into_inner()).await;
}

/// Ends our direction and lets the client finish its own: bytes that arrive at a closed socket would make the client's
/// system throw away the answer before the client has read it.
async fn linger(mut stream: TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let drained = async {
        let mut rest = vec![0; 16 * 1024];
        while stream.read(&mut rest).await.is_ok_and(|count| count > 0) {}
    };
    let _ = tokio::time::timeout(LINGER, drained).await;
}

/// A connection's place among those that the end of the process waits for.
struct Place<'a> {
    broker: &'a Broker,
    conn: ConnId,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.broker.disconnected(self.conn);
    }
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
