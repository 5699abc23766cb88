//! One HTTP connection, from the first byte to the last, and the limits that hold before anybody has logged in.

use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Admin;

/// HTTP connections at once. Over it a new one is closed at once.
const CONNECTIONS_MAX: usize = 256;

/// How long a peer may take over the head of a request; an idle connection counts as one that takes too long.
const HEAD_TIME_MAX: Duration = Duration::from_secs(30);

/// How many bytes the head of a request may have. Over it: 431.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// How many connections are open.
#[derive(Debug, Default)]
pub struct Open(AtomicUsize);

impl Open {
    fn enter(&self) -> Option<Entered<'_>> {
        // Given back on drop, also where there was no room.
        let entered = Entered(self);
        (self.0.fetch_add(1, Ordering::Relaxed) < CONNECTIONS_MAX).then_some(entered)
    }
}

struct Entered<'a>(&'a Open);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Admin {
    /// Serves one connection until it ends. The caller has accepted it, and drops the future to end it.
    ///
    /// # Errors
    /// Where the peer does not speak HTTP/1.1, is too slow, or is one too many.
    pub async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> io::Result<()> {
        let Some(_entered) = self.open.enter() else {
            return Err(io::Error::other(format!("{CONNECTIONS_MAX} HTTP connections are open")));
        };
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(self.router.clone()))
            .await
            .map_err(io::Error::other)
    }
}
