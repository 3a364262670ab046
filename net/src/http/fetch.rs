//! The client's side of HTTP: one GET on a connection of its own, which is all that asking a nsqlookupd takes.
//!
//! The answer is read up to a bound and no further, and waited for no longer than [`Patience`] allows; dropping the
//! future closes the connection.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::io;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an HTTP server may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// `--http-client-connect-timeout`: to accept a connection.
    pub connect: Duration,
    /// `--http-client-request-timeout`: from then on to the end of its answer.
    pub request: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { connect: Duration::from_secs(2), request: Duration::from_secs(5) }
    }
}

/// What upstream's clients ask for; without it, nsqlookupds before 1.0 answer in another form.
const NSQ_V1: &str = "application/vnd.nsq; version=1.0";
/// The largest answer that is read: a cluster of a thousand nsqds with long names answers with a tenth of it.
const ANSWER_MAX: usize = 4 << 20;

/// GETs `target` (path and query) from `host:port`.
///
/// # Errors
/// If there is no complete answer of at most 4 MiB in time.
pub(crate) async fn get(address: &str, target: &str, patience: Patience) -> io::Result<(StatusCode, Bytes)> {
    let stream = within(patience.connect, "connection", TcpStream::connect(address)).await?;
    within(patience.request, "answer", ask(stream, address, target)).await
}

async fn within<T>(limit: Duration, what: &str, wait: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, format!("no {what} within {limit:?}")));
    timeout(limit, wait).await.unwrap_or_else(late)
}

async fn ask(stream: TcpStream, address: &str, target: &str) -> io::Result<(StatusCode, Bytes)> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let request = Request::get(target)
        .header(HOST, address)
        .header(ACCEPT, NSQ_V1)
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await.map_err(io::Error::other)?;
        Ok((status, body.to_bytes()))
    };
    tokio::pin!(answer, connection);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // Its end comes before the last bytes of the answer have been looked at.
        _ = &mut connection => answer.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// What `get` makes of an answer.
    async fn answered(answer: &'static [u8]) -> io::Result<(StatusCode, Bytes)> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut request).await.unwrap();
            }
            assert!(request.starts_with(b"GET /channels?topic=t HTTP/1.1\r\n"), "{}", request.escape_ascii());
            let _ = stream.write_all(answer).await;
        };
        let (result, ()) = tokio::join!(get(&address, "/channels?topic=t", Patience::default()), server);
        result
    }

    #[tokio::test]
    async fn answers_are_read_whole() {
        let (status, body) = answered(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await.unwrap();
        assert_eq!((status, &body[..]), (StatusCode::OK, &b"{}"[..]));
        let (status, body) = answered(b"HTTP/1.0 404 Not Found\r\n\r\nuntil the end").await.unwrap();
        assert_eq!((status, &body[..]), (StatusCode::NOT_FOUND, &b"until the end"[..]));
    }

    #[tokio::test]
    async fn what_is_no_answer_is_an_error() {
        assert!(answered(b"").await.is_err());
        assert!(answered(b"garbage\r\n\r\n").await.is_err());
        assert!(answered(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort").await.is_err());
        assert!(answered(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n").await.is_err());
        assert!(answered(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n").await.is_err());
    }

    #[tokio::test]
    async fn silence_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let patience = Patience { request: Duration::from_millis(50), ..Patience::default() };
        let error = get(&address, "/channels?topic=t", patience).await.unwrap_err();
        assert_eq!(error.to_string(), "no answer within 50ms");
    }
}
