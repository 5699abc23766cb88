//! A connection's task: reads the socket, times the session, writes what the socket did not take at once.

use std::{cell::RefCell, io, sync::Arc, time::Duration};

use ferrymq_node::{Node, Peer};
use ferrymq_wire::Session;
use tokio::{
    io::Interest,
    net::TcpStream,
    time::{Instant, Sleep, sleep_until, timeout},
};

use crate::{peer::SocketPeer, process::Process, pump::Pump, tls::Records};

/// Bytes read at once, into a buffer that belongs to the thread and not to the connection.
const READ_BYTES: usize = 256 << 10;

/// Reads in a row before other connections have their turn.
const READS_MAX: usize = 4;

/// How long a peer may take to read its last frames and to close, once the connection has ended.
const LINGER: Duration = Duration::from_secs(2);
/// How long a peer that has asked for the end may take to close.
const FAREWELL: Duration = Duration::from_secs(5);

thread_local! {
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// Serves one connection until it ends.
pub async fn serve(
    stream: TcpStream,
    records: Option<Records>,
    session: Box<dyn Session>,
    node: Arc<Node>,
    process: Arc<Process>,
) {
    let address = stream.peer_addr().map_or_else(|_| "unknown".to_owned(), |address| address.to_string());
    let loopback = stream.peer_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(peer = address, %error, "the socket does not take options");
    }
    let peer = Arc::new(SocketPeer::new(stream, records));
    let client = match node.connect(peer.clone(), address.clone(), loopback) {
        Ok(client) => client,
        Err(refusal) => {
            tracing::warn!(peer = address, "connection refused: {refusal}");
            return;
        }
    };
    let mut connection = Connection { pump: Pump::new(session, client), peer, process, unread: Vec::new() };
    match connection.run().await {
        Ok(()) => tracing::debug!(peer = address, "connection ended"),
        Err(error) => tracing::info!(peer = address, "connection lost: {error}"),
    }
    connection.pump.end();
    if connection.pump.is_closing() {
        let limit = if connection.pump.peer_closes() { FAREWELL } else { LINGER };
        // However it ends, the connection is over.
        drop::<Result<io::Result<()>, _>>(timeout(limit, connection.farewell()).await);
    }
    let Connection { pump, peer, .. } = connection;
    drop(pump);
    linger(&peer).await;
}

/// Lets the peer read what was sent last: closing a socket with unread input would throw that away.
async fn linger(peer: &SocketPeer) {
    peer.end();
    let until_closed = async {
        written(peer).await?;
        socket2::SockRef::from(peer.stream()).shutdown(std::net::Shutdown::Write)?;
        let mut scrap = [0; 4096];
        loop {
            peer.stream().readable().await?;
            match peer.stream().try_read(&mut scrap) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    };
    // However it ends, the connection is over.
    drop::<Result<io::Result<()>, _>>(timeout(LINGER, until_closed).await);
}

/// Resolves when the socket has taken everything.
async fn written(peer: &SocketPeer) -> io::Result<()> {
    loop {
        peer.flush()?;
        if peer.waiting() == 0 {
            return Ok(());
        }
        peer.stream().writable().await?;
    }
}

struct Connection {
    pump: Pump,
    peer: Arc<SocketPeer>,
    process: Arc<Process>,
    /// Bytes of a frame that is not complete.
    unread: Vec<u8>,
}

impl Connection {
    async fn run(&mut self) -> io::Result<()> {
        let peer = self.peer.clone();
        self.pump.opened(self.process.moment(), &mut |encoder| peer.encode_with(encoder));
        let mut alarm = std::pin::pin!(sleep_until(Instant::now()));
        let mut closed = false;
        while !closed && !self.pump.is_closing() {
            let waiting = peer.waiting() > 0;
            let reading = !self.pump.is_paused();
            let interest = match (reading, waiting) {
                (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
                (true, false) => Some(Interest::READABLE),
                (false, true) => Some(Interest::WRITABLE),
                (false, false) => None,
            };
            self.arm(alarm.as_mut());
            let ready = tokio::select! {
                biased;
                ready = peer.stream().ready(interest.unwrap_or(Interest::READABLE)), if interest.is_some() => ready?,
                () = peer.woken() => {
                    self.attend()?;
                    continue;
                }
                () = &mut alarm => {
                    self.attend()?;
                    alarm.as_mut().reset(self.next_alarm());
                    continue;
                }
            };
            if ready.is_writable() && waiting {
                peer.flush()?;
                self.pump.written();
            }
            if reading && (ready.is_readable() || ready.is_read_closed()) {
                closed = self.read()?;
            }
        }
        Ok(())
    }

    /// Sends what was decided before the end: another thread may be at it, and some of it may wait for the journal. Then
    /// the peer closes, if that is for it to do.
    async fn farewell(&mut self) -> io::Result<()> {
        while !self.pump.is_drained() {
            self.peer.woken().await;
            self.attend()?;
        }
        written(&self.peer).await?;
        let mut scrap = [0; 4096];
        while self.pump.peer_closes() {
            self.peer.stream().readable().await?;
            match self.peer.read(&mut scrap) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The deadline moves with every frame; the alarm is only moved when it would ring too late.
    fn arm(&self, alarm: std::pin::Pin<&mut Sleep>) {
        let next = self.next_alarm();
        if next < alarm.deadline() {
            alarm.reset(next);
        }
    }

    fn next_alarm(&self) -> Instant {
        const NEVER: Duration = Duration::from_secs(24 * 3600);
        self.pump.deadline().map_or_else(|| Instant::now() + NEVER, |deadline| self.process.instant(deadline))
    }

    fn attend(&mut self) -> io::Result<()> {
        let peer = self.peer.clone();
        self.pump.attend(self.process.moment(), &mut |encoder| peer.encode_with(encoder));
        peer.flush()?;
        self.pump.written();
        Ok(())
    }

    /// Reads what is there, a few times at most. Says whether the peer has closed.
    fn read(&mut self) -> io::Result<bool> {
        let expects_login = self.pump.expects_login();
        READ_BUFFER.with_borrow_mut(|buffer| {
            for _ in 0..READS_MAX {
                let kept = self.unread.len();
                if buffer.len() < kept + READ_BYTES / 2 {
                    buffer.resize(kept + READ_BYTES, 0);
                }
                buffer[..kept].copy_from_slice(&self.unread);
                let space = buffer.len() - kept;
                let count = match self.peer.read(&mut buffer[kept..]) {
                    Ok(0) => return Ok(true),
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                    Err(error) => return Err(error),
                };
                let input = &buffer[..kept + count];
                let (peer, now) = (&self.peer, self.process.moment());
                let pump = &mut self.pump;
                let mut take = || pump.input(input, now, &mut |encoder| peer.encode_with(encoder));
                // The runtime moves this thread's other connections elsewhere while a password is checked.
                let consumed = if expects_login { tokio::task::block_in_place(take) } else { take() };
                self.unread.clear();
                self.unread.extend_from_slice(&input[consumed..]);
                if self.unread.is_empty() {
                    self.unread = Vec::new();
                }
                if count < space || self.pump.is_closing() || self.pump.is_paused() {
                    break;
                }
            }
            if buffer.len() > 2 * READ_BYTES {
                buffer.truncate(READ_BYTES);
                buffer.shrink_to_fit();
            }
            Ok(false)
        })
    }
}
