//! What a conversation is played against. Four verbs are enough, so that a server in memory with a fake clock can be a
//! target as well as one behind a socket.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// One connection of a target, numbered as the target likes.
pub type ConnectionId = usize;

/// What [`Target::receive`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    Bytes,
    /// The server has closed the connection, and everything it sent before was received.
    Closed,
    /// Nothing came, and nothing will: the target is idle, or its patience has ended.
    Quiet,
}

pub trait Target {
    fn open(&mut self) -> Result<ConnectionId, String>;

    /// Sending to a connection that the server has closed is not an error: the next receive tells.
    fn send(&mut self, connection: ConnectionId, bytes: &[u8]) -> Result<(), String>;

    /// Appends what the server has sent, waiting until there is something.
    fn receive(&mut self, connection: ConnectionId, into: &mut Vec<u8>) -> Result<Arrival, String>;

    /// Closes without a word, as a lost network does.
    fn abandon(&mut self, connection: ConnectionId);

    fn advance(&mut self, by: Duration);

    /// What the clock shows, from a beginning of its own.
    fn time(&self) -> Duration;

    /// The conversation waits for something that the server does when a time has come. Where the clock stands still, it
    /// moves to the next such time; a real one needs no help.
    fn advance_to_next_alarm(&mut self) {}
}

/// A server behind a socket. Its clock is the real one, so advancing it is waiting.
#[derive(Debug)]
pub struct Tcp {
    address: String,
    sockets: Vec<Option<TcpStream>>,
    beginning: Instant,
}

impl Tcp {
    /// When this has passed without a byte, the server is not going to answer. It bounds failures, not successes.
    const PATIENCE: Duration = Duration::from_secs(20);

    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into(), sockets: Vec::new(), beginning: Instant::now() }
    }
}

impl Target for Tcp {
    fn open(&mut self) -> Result<ConnectionId, String> {
        let connect = || {
            let socket = TcpStream::connect(&self.address)?;
            socket.set_nodelay(true)?;
            socket.set_read_timeout(Some(Self::PATIENCE))?;
            Ok::<_, std::io::Error>(socket)
        };
        let socket = connect().map_err(|why| format!("{}: {why}", self.address))?;
        self.sockets.push(Some(socket));
        Ok(self.sockets.len() - 1)
    }

    fn send(&mut self, connection: ConnectionId, bytes: &[u8]) -> Result<(), String> {
        let Some(socket) = &mut self.sockets[connection] else { return Ok(()) };
        match socket.write_all(bytes) {
            Err(why) if !is_gone(why.kind()) => Err(why.to_string()),
            _ => Ok(()),
        }
    }

    fn receive(&mut self, connection: ConnectionId, into: &mut Vec<u8>) -> Result<Arrival, String> {
        let Some(socket) = &mut self.sockets[connection] else { return Ok(Arrival::Closed) };
        let mut buffer = [0; 64 * 1024];
        match socket.read(&mut buffer) {
            Ok(0) => Ok(Arrival::Closed),
            Ok(count) => {
                into.extend_from_slice(&buffer[..count]);
                Ok(Arrival::Bytes)
            }
            Err(why) if is_gone(why.kind()) => Ok(Arrival::Closed),
            Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(Arrival::Quiet),
            Err(why) => Err(why.to_string()),
        }
    }

    fn abandon(&mut self, connection: ConnectionId) {
        if let Some(socket) = self.sockets[connection].take() {
            // It may be closed already, which is what is wanted.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn advance(&mut self, by: Duration) {
        std::thread::sleep(by);
    }

    fn time(&self) -> Duration {
        self.beginning.elapsed()
    }
}

/// A server that closes while we write answers with a reset.
fn is_gone(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted)
}
