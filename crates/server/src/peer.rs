//! A client's socket, plain or under TLS: what the node writes its effects to, from whichever thread decided them.

use std::{
    cell::RefCell,
    fmt,
    io::{self, IoSlice},
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use ferrymq_model::{Effect, Name};
use ferrymq_node::{Effects, Peer};
use ferrymq_wire::{Encoder, Outbox};
use parking_lot::Mutex;
use tokio::{net::TcpStream, sync::Notify};

use crate::tls::Records;

/// Slices of one gathered write.
pub const SLICES_MAX: usize = 64;

/// Bytes of TLS read at once, into a buffer that belongs to the thread.
const RECORDS_BYTES: usize = 64 << 10;

/// What a thread keeps of the memory in which it encodes: an input of 256 KiB may cause so much.
const KEPT_BYTES: usize = 1 << 20;

thread_local! {
    static RECORDS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// Where effects are encoded. It belongs to a connection only while the socket has not taken everything.
    static ENCODED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A socket and the bytes that wait for it.
pub struct SocketPeer {
    stream: TcpStream,
    is_encrypted: bool,
    /// Shared by the thread that drains the mailbox and the connection's own task, which writes what the socket did not
    /// take at once. Held while encoding and encrypting, and during one write that does not block.
    outgoing: Mutex<Outgoing>,
    /// What waits for the socket, in bytes, for those who must not wait for its lock. Written under that lock.
    waiting: AtomicUsize,
    owner: Notify,
}

struct Outgoing {
    outbox: Outbox,
    /// Set once the handshake has settled how effects are encoded; before that there are only the session's own frames.
    encoder: Option<Box<dyn Encoder>>,
    /// What is written goes through here where the connection is not plain.
    records: Option<Records>,
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
    pub fn new(stream: TcpStream, records: Option<Records>) -> Self {
        let is_encrypted = records.is_some();
        let outgoing = Mutex::new(Outgoing { outbox: Outbox::default(), encoder: None, records, broken: false });
        Self { stream, is_encrypted, outgoing, waiting: AtomicUsize::new(0), owner: Notify::new() }
    }

    /// The socket, for waiting.
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
        self.write(&mut self.outgoing.lock())
    }

    /// Nothing more will be sent: says so where that is more than to close the socket.
    pub fn end(&self) {
        if let Some(records) = &mut self.outgoing.lock().records {
            records.end();
        }
    }

    /// Reads what has come, as a socket does: no bytes are the end, `WouldBlock` says that there is nothing now.
    ///
    /// # Errors
    /// Where the socket is broken, or what has come is not TLS though it should be.
    pub fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        self.read_with(into, |into| self.stream.try_read(into))
    }

    /// As [`SocketPeer::read`], but asks the socket itself, and not whether the runtime has heard of something to read.
    ///
    /// # Errors
    /// As there.
    pub fn read_unasked(&self, into: &mut [u8]) -> io::Result<usize> {
        self.read_with(into, |into| io::Read::read(&mut &*socket2::SockRef::from(&self.stream), into))
    }

    fn read_with(&self, into: &mut [u8], read: impl Fn(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        if self.is_encrypted { self.read_records(into, read) } else { read(into) }
    }

    fn read_records(&self, into: &mut [u8], read: impl Fn(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        RECORDS.with_borrow_mut(|bytes| {
            bytes.resize(RECORDS_BYTES, 0);
            loop {
                let count = read(bytes)?;
                let mut outgoing = self.outgoing.lock();
                let records = outgoing.records.as_mut().expect("a connection that is encrypted has records");
                let decrypted = records.decrypt(&bytes[..count], into);
                // The handshake is answered, and the peer is told what was wrong with it.
                let written = self.write(&mut outgoing);
                let (made, ended) = decrypted?;
                written?;
                // Records of the handshake make no bytes, and are not the end.
                if made > 0 || ended || count == 0 {
                    return Ok(made);
                }
            }
        })
    }

    fn write(&self, outgoing: &mut Outgoing) -> io::Result<()> {
        let result = outgoing.write(&self.stream);
        outgoing.give_memory_back();
        self.waiting.store(outgoing.waiting(), Ordering::Release);
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
        outgoing.borrow_memory();
        effects.for_each(|effect| outgoing.encode(effect));
        let result = self.write(&mut outgoing);
        if result.is_err() || outgoing.waiting() > 0 {
            self.owner.notify_one();
        }
    }

    fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    fn wake(&self) {
        self.owner.notify_one();
    }

    fn name(&self) -> String {
        let end =
            |address: io::Result<SocketAddr>| address.map_or_else(|_| "unknown".to_owned(), |end| end.to_string());
        format!("{} -> {}", end(self.stream.peer_addr()), end(self.stream.local_addr()))
    }

    fn proves(&self) -> Result<Name, String> {
        let outgoing = self.outgoing.lock();
        outgoing.records.as_ref().map_or_else(|| Err("the connection is not under TLS".to_owned()), Records::proves)
    }
}

impl Outgoing {
    fn borrow_memory(&mut self) {
        if self.outbox.is_empty() {
            self.outbox.lend(ENCODED.take());
        }
    }

    fn give_memory_back(&mut self) {
        if let Some(memory) = self.outbox.take_memory()
            && memory.capacity() <= KEPT_BYTES
        {
            ENCODED.with_borrow_mut(|kept| {
                if kept.capacity() < memory.capacity() {
                    *kept = memory;
                }
            });
        }
    }

    fn encode(&mut self, effect: &Effect<'_>) {
        match (effect, &mut self.encoder) {
            (Effect::Frames(bytes), _) => self.outbox.bytes().extend_from_slice(bytes),
            (effect, Some(encoder)) => encoder.encode(effect, &mut self.outbox),
            (_, None) => debug_assert!(false, "nothing is decided for a connection before its handshake is over"),
        }
    }

    /// What can be written as soon as the socket takes it.
    fn waiting(&self) -> usize {
        match &self.records {
            None => self.outbox.len(),
            Some(records) if records.is_handshaking() => usize::from(records.are_waiting()),
            Some(records) => self.outbox.len() + usize::from(records.are_waiting()),
        }
    }

    fn write(&mut self, stream: &TcpStream) -> io::Result<()> {
        if self.broken {
            return if self.waiting() > 0 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) };
        }
        let written = match &mut self.records {
            None => write_plain(&mut self.outbox, stream),
            Some(records) => records.write(&mut self.outbox, stream),
        };
        self.broken = written.is_err();
        written
    }
}

fn write_plain(outbox: &mut Outbox, stream: &TcpStream) -> io::Result<()> {
    while !outbox.is_empty() {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = outbox.slices(&mut slices);
        match stream.try_write_vectored(&slices[..count]) {
            Ok(written) => outbox.advance(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
