//! The last moments of a connection that has been told all there was to say.
//!
//! Bytes that arrive at a closed socket would make the peer's system throw away the answer before the peer has read it:
//! our direction ends, and the peer gets a moment to finish its own.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// How long a peer may go on sending what nobody will read.
const LINGER: Duration = Duration::from_millis(500);

/// Closes the connection in good order. In a box, so that a connection does not carry the room for it through its life.
pub(crate) fn linger<S>(mut stream: S) -> Pin<Box<dyn Future<Output = ()> + Send>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    Box::pin(async move {
        let farewell = async {
            if stream.shutdown().await.is_ok() {
                let mut rest = vec![0; 16 * 1024];
                while stream.read(&mut rest).await.is_ok_and(|count| count > 0) {}
            }
        };
        let _ = tokio::time::timeout(LINGER, farewell).await;
    })
}
