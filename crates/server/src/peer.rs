//! A client's socket: what the node writes its effects to, from whichever thread decided them.

use std::{
    fmt,
    io::{self, IoSlice},
    sync::atomic::{AtomicUsize, Ordering},
};

use ferrymq_model::Effect;
use ferrymq_node::{Effects, Peer};
use ferrymq_wire::{Encoder, Outbox};
use parking_lot::Mutex;
use tokio::{net::TcpStream, sync::Notify};

/// A socket and the bytes that wait for it.
pub struct SocketPeer {
    stream: TcpStream,
    /// Shared by the thread that drains the mailbox and the connection's own task, which writes what the socket did not
    /// take at once. Held while encoding and during one write that does not block.
    outgoing: Mutex<Outgoing>,
    /// Bytes in the outbox, for those who must not wait for its lock. Written under that lock.
    waiting: AtomicUsize,
    owner: Notify,
}

struct Outgoing {
    outbox: Outbox,
    /// Set once the handshake has settled how effects are encoded; before that there are only the session's own frames.
    encoder: Option<Box<dyn Encoder>>,
    /// The socket broke: what is sent goes nowhere, and the owner will find out.
    broken: bool,
}

impl fmt::Debug for SocketPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketPeer").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl SocketPeer {
    /// A peer whose handshake begins.
    pub fn new(stream: TcpStream) -> Self {
        let outgoing = Outgoing { outbox: Outbox::default(), encoder: None, broken: false };
        Self { stream, outgoing: Mutex::new(outgoing), waiting: AtomicUsize::new(0), owner: Notify::new() }
    }

    /// The socket, for reading and for waiting.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Effects are encoded with this from now on.
    pub fn encode_with(&self, encoder: Box<dyn Encoder>) {
        self.outgoing.lock().encoder = Some(encoder);
    }

    /// Writes what the socket takes.
    ///
    /// # Errors
    /// Where the socket is broken.
    pub fn flush(&self) -> io::Result<()> {
        let mut outgoing = self.outgoing.lock();
        let result = outgoing.write(&self.stream);
        self.waiting.store(outgoing.outbox.len(), Ordering::Release);
        result
    }

    /// Resolves when the node wants the owner's attention.
    pub async fn woken(&self) {
        self.owner.notified().await;
    }
}

impl Peer for SocketPeer {
    fn send(&self, effects: &Effects) {
        let mut outgoing = self.outgoing.lock();
        effects.for_each(|effect| outgoing.encode(effect));
        let result = outgoing.write(&self.stream);
        self.waiting.store(outgoing.outbox.len(), Ordering::Release);
        if result.is_err() || !outgoing.outbox.is_empty() {
            self.owner.notify_one();
        }
    }

    fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    fn wake(&self) {
        self.owner.notify_one();
    }
}

impl Outgoing {
    fn encode(&mut self, effect: &Effect<'_>) {
        match (effect, &mut self.encoder) {
            (Effect::Frames(bytes), _) => self.outbox.bytes().extend_from_slice(bytes),
            (effect, Some(encoder)) => encoder.encode(effect, &mut self.outbox),
            (_, None) => debug_assert!(false, "nothing is decided for a connection before its handshake is over"),
        }
    }

    fn write(&mut self, stream: &TcpStream) -> io::Result<()> {
        const SLICES_MAX: usize = 64;
        while !self.outbox.is_empty() {
            if self.broken {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.outbox.slices(&mut slices);
            match stream.try_write_vectored(&slices[..count]) {
                Ok(written) => self.outbox.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => {
                    self.broken = true;
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}
