//! The server that a conversation is played against. The trait is small, so that a target can be a server behind a
//! socket or a server in memory with a fake clock.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// One connection of a target. The target chooses the number.
pub type ConnectionId = usize;

/// The result of [`Target::receive`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    Bytes,
    /// The server has closed the connection, and everything that it sent before was received.
    Closed,
    /// The server sent nothing and will send nothing: it is idle, or the target has waited for the maximum time.
    Quiet,
}

pub trait Target {
    fn open(&mut self) -> Result<ConnectionId, String>;

    /// Sends bytes. If the server has closed the connection, this is not an error; the next `receive` reports it.
    fn send(&mut self, connection: ConnectionId, bytes: &[u8]) -> Result<(), String>;

    /// Waits until the server has sent something, and appends it to `into`.
    fn receive(&mut self, connection: ConnectionId, into: &mut Vec<u8>) -> Result<Arrival, String>;

    /// Closes the socket without a close method, like a lost network.
    fn abandon(&mut self, connection: ConnectionId);

    fn advance(&mut self, by: Duration);

    /// The time of the target's clock, since a moment that the target chooses.
    fn time(&self) -> Duration;

    /// Moves a fake clock to the next time at which the server does something, because the conversation waits for that.
    /// A real clock does nothing here.
    fn advance_to_next_timer(&mut self) {}
}

/// A server behind a socket. Its clock is the real clock, so to advance it means to wait.
#[derive(Debug)]
pub struct Tcp {
    address: String,
    sockets: Vec<Option<TcpStream>>,
    beginning: Instant,
}

impl Tcp {
    /// If the server sends no byte for this time, it will not answer. A test that passes does not depend on this time.
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
            // An error means that it is already closed.
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

/// Whether an error means that the server has closed the connection. If it closes while we write, we get a reset.
fn is_gone(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted)
}
