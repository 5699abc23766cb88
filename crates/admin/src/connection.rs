//! One HTTP connection, and the limits for clients that have not logged in.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::Extension;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
};

use crate::{Admin, Peer};

/// The default for the maximum number of HTTP connections at the same time. For a further connection the oldest one is
/// closed. So connections that stay open without a request cannot keep out a health check.
pub const CONNECTIONS_MAX: usize = 256;

/// How long a peer may take to send the head of a request. The time runs on an idle connection, too.
const HEAD_TIME_MAX: Duration = Duration::from_secs(30);

/// The maximum length of the head of a request, in bytes. Over it: 431.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// The open connections, the oldest first.
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

    /// Adds a connection. If there are too many, tells the oldest to end.
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
    /// Notified when the connection must end.
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
    /// Serves one connection of this peer until it ends. The caller has accepted it, and drops the future to end it.
    ///
    /// # Errors
    /// If the peer does not speak HTTP/1.1 or is too slow, or if there are too many connections and this is the oldest.
    pub async fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: SocketAddr,
    ) -> io::Result<()> {
        let entered = self.open.enter();
        let router = self.router.clone().layer(Extension(Peer(peer))).layer(Extension(self.hosts.clone()));
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
        tokio::select! {
            served = served => served.map_err(io::Error::other),
            () = entered.ended.notified() => {
                let max = self.open.connections_max;
                Err(io::Error::other(format!("{max} HTTP connections are open, and this was the oldest")))
            }
        }
    }
}
