//! A connection's task: it reads the socket, watches the session's deadlines, and writes what the socket did not
//! accept at once.

use std::{cell::RefCell, io, sync::Arc, time::Duration};

use ferrymq_node::{Node, Peer};
use ferrymq_wire::{Moment, Session};
use tokio::{
    io::Interest,
    net::TcpStream,
    task::yield_now,
    time::{Instant, Sleep, sleep_until, timeout},
};

use crate::{connection_log::ConnectionLog, peer::SocketPeer, process::Process, pump::Pump, tls::Records};

/// The maximum length of one read, into a buffer that belongs to the thread and not to the connection.
const READ_BYTES_MAX: usize = 256 << 10;

/// The minimum length of one read, used when more input would be left at the end of a turn.
const READ_BYTES_MIN: usize = 16 << 10;

/// The same under TLS: see [`SocketPeer::read`].
const ENCRYPTED_READ_BYTES_MIN: usize = 64 << 10;

/// How often a publisher that waits for its consumers checks them.
const CONSUMER_LOOK: Duration = Duration::from_millis(1);
/// How long a peer may take to read its last frames and to close the socket, after the connection has ended.
const LINGER: Duration = Duration::from_secs(2);
/// How long a peer that has asked for the close may take to close the socket.
const FAREWELL: Duration = Duration::from_secs(5);

thread_local! {
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES_MAX]);
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
            if process.log_limits().strangers.passes() {
                tracing::warn!(peer = address, "connection refused: {refusal}");
            }
            return;
        }
    };
    let log = ConnectionLog::new(process.log_limits().clone());
    let pump = Pump::new(session, client, log);
    let mut connection = Connection { pump, peer, process, unread: Vec::new(), read_bytes: READ_BYTES_MAX };
    let ended = connection.run().await;
    connection.pump.log_end(ended);
    connection.pump.end();
    if connection.pump.is_closing() {
        let limit = if connection.pump.peer_closes() { FAREWELL } else { LINGER };
        // In every case the connection is over.
        drop::<Result<io::Result<()>, _>>(timeout(limit, connection.farewell()).await);
    }
    let Connection { pump, peer, .. } = connection;
    drop(pump);
    linger(&peer).await;
}

/// Lets the peer read what was sent last: closing a socket that has unread input would discard it.
async fn linger(peer: &SocketPeer) {
    peer.end();
    let until_closed = async {
        written(peer).await?;
        socket2::SockRef::from(peer.stream()).shutdown(std::net::Shutdown::Write)?;
        // Encrypted input is not decrypted any more.
        closed(peer, |into| peer.stream().try_read(into)).await
    };
    // In every case the connection is over.
    drop::<Result<io::Result<()>, _>>(timeout(LINGER, until_closed).await);
}

/// Reads and discards what the peer sends, until it closes the socket. Other tasks run after each read.
async fn closed(peer: &SocketPeer, read: impl Fn(&mut [u8]) -> io::Result<usize>) -> io::Result<()> {
    loop {
        peer.stream().readable().await?;
        match READ_BUFFER.with_borrow_mut(|scrap| read(scrap)) {
            Ok(0) => return Ok(()),
            Ok(_) => yield_now().await,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Returns when the socket has accepted everything.
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
    /// Input that was not used: a part of a frame, or what was left when a turn ended.
    unread: Vec<u8>,
    /// How much one read takes: less if the last turn ended before it used all of its input.
    read_bytes: usize,
}

impl Connection {
    /// Reads and writes until the connection ends. After each turn, which is a limited amount of work, other tasks
    /// run. So nothing that this function awaits waits for the end of a client's input.
    async fn run(&mut self) -> io::Result<()> {
        let peer = self.peer.clone();
        self.pump.opened(self.process.moment(), &*peer);
        let mut timer = std::pin::pin!(sleep_until(Instant::now()));
        let (mut closed, mut next_look) = (false, Instant::now());
        while !closed && !self.pump.is_closing() {
            if self.pump.turn_is_over() {
                self.process.give_way().await;
                let waited = self.pump.waits_for_consumers();
                self.pump.begin_turn();
                if !waited {
                    next_look = Instant::now() + CONSUMER_LOOK;
                }
            }
            let waiting = peer.waiting() > 0;
            let waits = self.pump.waits_for_consumers();
            let open = !waits && !self.pump.is_paused();
            let rest = open && self.pump.wants_rest();
            let reading = open && !rest;
            let interest = match (reading, waiting) {
                (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
                (true, false) => Some(Interest::READABLE),
                (false, true) => Some(Interest::WRITABLE),
                (false, false) => None,
            };
            self.arm(timer.as_mut());
            // In random order: endless input must not delay the other branches.
            tokio::select! {
                ready = peer.stream().ready(interest.unwrap_or(Interest::READABLE)), if interest.is_some() => {
                    let ready = ready?;
                    if ready.is_writable() && waiting {
                        let file_bytes = peer.flush()?;
                        self.pump.written(file_bytes);
                    }
                    if reading && (ready.is_readable() || ready.is_read_closed()) {
                        closed = self.read(SocketPeer::read)?;
                    }
                }
                () = std::future::ready(()), if rest => self.take_rest(),
                () = sleep_until(next_look), if waits => {
                    self.pump.look_at_consumers();
                    next_look = Instant::now() + CONSUMER_LOOK;
                }
                () = peer.woken() => closed = self.look(reading, rest)?,
                () = &mut timer => {
                    closed = self.look(reading, rest)?;
                    timer.as_mut().reset(self.next_timer());
                }
            }
        }
        Ok(())
    }

    /// Sends everything that was decided before the end: another thread may still write, and some of it may wait
    /// for the journal. Then it waits until the peer closes the socket, if the peer should do that.
    async fn farewell(&mut self) -> io::Result<()> {
        while !self.pump.is_drained() {
            self.peer.woken().await;
            self.attend()?;
            yield_now().await;
        }
        written(&self.peer).await?;
        if self.pump.peer_closes() {
            closed(&self.peer, |into| self.peer.read(into)).await?;
        }
        Ok(())
    }

    /// The deadline changes with every frame. The timer is only set again if it would fire too late.
    fn arm(&self, timer: std::pin::Pin<&mut Sleep>) {
        let next = self.next_timer();
        if next < timer.deadline() {
            timer.reset(next);
        }
    }

    fn next_timer(&self) -> Instant {
        const NEVER: Duration = Duration::from_secs(24 * 3600);
        self.pump.deadline().map_or_else(|| Instant::now() + NEVER, |deadline| self.process.instant(deadline))
    }

    /// Handles expired deadlines and what the node has for this connection. True if the peer has closed the socket.
    ///
    /// Bytes of the peer may have arrived that are not read yet. So the peer is read before it counts as silent for too
    /// long. The time is taken before the read, because the process may be stopped for a while between the two.
    fn look(&mut self, mut reading: bool, mut rest: bool) -> io::Result<bool> {
        let now = self.process.moment();
        let mut closed = false;
        if self.pump.deadline().is_some_and(|deadline| deadline <= now) {
            if self.pump.waits_for_consumers() {
                self.pump.wait_for_nobody();
                rest = !self.pump.is_paused() && self.pump.wants_rest();
                reading = !self.pump.is_paused() && !rest;
            }
            if rest {
                self.take_rest();
            } else if reading {
                closed = self.read(SocketPeer::read_unasked)?;
            }
        }
        self.attend_at(now)?;
        Ok(closed)
    }

    fn attend(&mut self) -> io::Result<()> {
        self.attend_at(self.process.moment())
    }

    fn attend_at(&mut self, now: Moment) -> io::Result<()> {
        let peer = self.peer.clone();
        self.pump.attend(now, &*peer);
        let file_bytes = peer.flush()?;
        self.pump.written(file_bytes);
        Ok(())
    }

    /// Reads what has arrived. Returns whether the peer has closed the socket.
    fn read(&mut self, read: impl FnOnce(&SocketPeer, &mut [u8]) -> io::Result<usize>) -> io::Result<bool> {
        if self.pump.wanted() > READ_BYTES_MAX {
            return self.gather(read);
        }
        READ_BUFFER.with_borrow_mut(|buffer| {
            let kept = self.unread.len();
            let space = kept + self.read_bytes;
            if buffer.len() < space {
                buffer.resize(space, 0);
            }
            buffer[..kept].copy_from_slice(&self.unread);
            let count = match read(&self.peer, &mut buffer[kept..space]) {
                Ok(0) => return Ok(true),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            };
            let input = &buffer[..kept + count];
            let consumed = self.take(input);
            self.unread.clear();
            self.unread.extend_from_slice(&input[consumed..]);
            self.unread.shrink_to(if self.unread.is_empty() { 0 } else { READ_BYTES_MAX });
            self.pump.kept(self.unread.capacity());
            if self.pump.wants_rest() {
                let least = if self.peer.is_encrypted() { ENCRYPTED_READ_BYTES_MIN } else { READ_BYTES_MIN };
                self.read_bytes = (self.read_bytes / 2).max(least);
            } else if count == space - kept {
                self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
            }
            if buffer.len() > 2 * READ_BYTES_MAX {
                buffer.truncate(READ_BYTES_MAX);
                buffer.shrink_to_fit();
            }
            Ok(false)
        })
    }

    /// Reads more of a long frame behind what is there of it, so that it is not copied with each read.
    /// Memory is taken as bytes arrive, whatever length the frame claims.
    fn gather(&mut self, read: impl FnOnce(&SocketPeer, &mut [u8]) -> io::Result<usize>) -> io::Result<bool> {
        let kept = self.unread.len();
        self.unread.resize(kept + READ_BYTES_MAX, 0);
        let result = read(&self.peer, &mut self.unread[kept..]);
        self.unread.truncate(kept + result.as_ref().map_or(0, |count| *count));
        match result {
            Ok(0) => return Ok(true),
            // The session sees that something has arrived, although it cannot take it yet.
            Ok(_) => self.take_rest(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.pump.kept(self.unread.capacity()),
            Err(error) => return Err(error),
        }
        Ok(false)
    }

    /// Continues with the input that was left.
    fn take_rest(&mut self) {
        let mut rest = std::mem::take(&mut self.unread);
        let consumed = self.take(&rest);
        rest.drain(..consumed);
        if !rest.is_empty() {
            if consumed > 0 {
                rest.shrink_to(READ_BYTES_MAX);
            }
            self.unread = rest;
        }
        self.pump.kept(self.unread.capacity());
    }

    fn take(&mut self, input: &[u8]) -> usize {
        self.pump.input(input, self.process.moment(), &*self.peer)
    }
}
