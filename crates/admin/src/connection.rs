//! One HTTP connection, from the first byte to the last, and the limits that hold before anybody has logged in.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
};

use crate::Admin;

/// HTTP connections at once, unless the server says otherwise. Over it the oldest one is closed: whoever probes health comes,
/// asks and goes, and must not be kept out by those who come and do not ask.
pub const CONNECTIONS_MAX: usize = 256;

/// How long a peer may take over the head of a request; an idle connection counts as one that takes too long.
const HEAD_TIME_MAX: Duration = Duration::from_secs(30);

/// How many bytes the head of a request may have. Over it: 431.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// The connections that are open, the oldest first.
#[derive(Debug)]
pub struct Open {
    connections_max: usize,
    connections: Mutex<Connections>,
}

#[derive(Debug, Default)]
struct Connections {
    made: u64,
    open: VecDeque<(u64, Arc<Notify>)>,
}

impl Open {
    pub fn new(connections_max: usize) -> Self {
        Self { connections_max, connections: Mutex::default() }
    }

    /// One more connection; where it is one too many, the oldest is told to end.
    fn enter(&self) -> Entered<'_> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if connections.open.len() >= self.connections_max
            && let Some((_, oldest)) = connections.open.pop_front()
        {
            oldest.notify_one();
        }
        let (number, ended) = (connections.made, Arc::new(Notify::new()));
        connections.made += 1;
        connections.open.push_back((number, ended.clone()));
        Entered { open: self, number, ended }
    }
}

struct Entered<'a> {
    open: &'a Open,
    number: u64,
    /// Told when the connection is to end.
    ended: Arc<Notify>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut connections = self.open.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(at) = connections.open.binary_search_by_key(&self.number, |(number, _)| *number) {
            connections.open.remove(at);
        }
    }
}

impl Admin {
    /// Serves one connection until it ends. The caller has accepted it, and drops the future to end it.
    ///
    /// # Errors
    /// Where the peer does not speak HTTP/1.1, is too slow, or is one too many.
    pub async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> io::Result<()> {
        let entered = self.open.enter();
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(self.router.clone()));
        tokio::select! {
            served = served => served.map_err(io::Error::other),
            () = entered.ended.notified() => {
                let max = self.open.connections_max;
                Err(io::Error::other(format!("{max} HTTP connections are open, and this was the oldest")))
            }
        }
    }
}
