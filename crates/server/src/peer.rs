//! A client's socket, plain or with TLS. The node writes its effects to it, from any thread.

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

/// The number of slices in one gathered write.
pub const SLICES_MAX: usize = 64;

/// The number of TLS bytes that one read takes, into a buffer that belongs to the thread.
const RECORDS_BYTES: usize = 64 << 10;

/// The longest part of a record that may have arrived before (RFC 8446, section 5.2).
const RECORD_BYTES_MAX: usize = 17 << 10;

/// How much of its encoding buffer a thread keeps: an input of 256 KiB may cause this much output.
const KEPT_BYTES: usize = 1 << 20;

thread_local! {
    static RECORDS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// The buffer for encoded effects. It belongs to a connection only while the socket has not accepted
    /// everything.
    static ENCODED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A socket and the bytes that wait for it.
pub struct SocketPeer {
    stream: TcpStream,
    is_encrypted: bool,
    /// The thread that drains the mailbox and the connection's own task share it; the task writes what the socket
    /// did not accept at once. Locked while effects are encoded and encrypted, and during one write that does not
    /// block.
    outgoing: Mutex<Outgoing>,
    /// How many bytes wait for the socket, for those who must not wait for the lock. Written under that lock.
    waiting: AtomicUsize,
    owner: Notify,
}

struct Outgoing {
    outbox: Outbox,
    /// Set after the handshake, which determines how effects are encoded. Before that there are only the session's
    /// own frames.
    encoder: Option<Box<dyn Encoder>>,
    /// The TLS records, if the connection is not plain.
    records: Option<Records>,
    /// The socket is broken: what is sent is discarded, and the connection's task will notice.
    broken: bool,
}

impl fmt::Debug for SocketPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketPeer").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl SocketPeer {
    /// A peer at the start of its handshake.
    pub fn new(stream: TcpStream, records: Option<Records>) -> Self {
        let is_encrypted = records.is_some();
        let outgoing = Mutex::new(Outgoing { outbox: Outbox::default(), encoder: None, records, broken: false });
        Self { stream, is_encrypted, outgoing, waiting: AtomicUsize::new(0), owner: Notify::new() }
    }

    /// Whether the connection is under TLS.
    pub fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    /// The socket, for waiting.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// From now on effects are encoded with this.
    pub fn encode_with(&self, encoder: Box<dyn Encoder>) {
        self.outgoing.lock().encoder = Some(encoder);
    }

    /// Writes as much as the socket accepts.
    ///
    /// # Errors
    /// If the socket is broken.
    pub fn flush(&self) -> io::Result<()> {
        self.write(&mut self.outgoing.lock())
    }

    /// Nothing more will be sent. With TLS this sends the last record.
    pub fn end(&self) {
        if let Some(records) = &mut self.outgoing.lock().records {
            records.end();
        }
    }

    /// Reads what has arrived, like a socket: 0 bytes mean the end, `WouldBlock` means that there is nothing now. Under
    /// TLS, `into` must have at least 32 KiB.
    ///
    /// # Errors
    /// If the socket is broken, or if the input should be TLS and is not.
    pub fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        self.read_with(into, |into| self.stream.try_read(into))
    }

    /// Like [`SocketPeer::read`], but asks the socket itself, and not the runtime's readiness.
    ///
    /// # Errors
    /// Like there.
    pub fn read_unasked(&self, into: &mut [u8]) -> io::Result<usize> {
        self.read_with(into, |into| io::Read::read(&mut &*socket2::SockRef::from(&self.stream), into))
    }

    fn read_with(&self, into: &mut [u8], read: impl Fn(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        if self.is_encrypted { self.read_records(into, read) } else { read(into) }
    }

    fn read_records(&self, into: &mut [u8], read: impl Fn(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        RECORDS.with_borrow_mut(|bytes| {
            bytes.resize(RECORDS_BYTES, 0);
            let space = RECORDS_BYTES.min(into.len() - RECORD_BYTES_MAX);
            loop {
                let count = read(&mut bytes[..space])?;
                let mut outgoing = self.outgoing.lock();
                let records = outgoing.records.as_mut().expect("a connection that is encrypted has records");
                let decrypted = records.decrypt(&bytes[..count], into);
                // Answers the handshake, or tells the peer what was wrong with it.
                let written = self.write(&mut outgoing);
                let (made, ended) = decrypted?;
                written?;
                // Handshake records contain no bytes for us, and are not the end.
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

    /// Returns when the node has something for the connection's task.
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

    fn certificate_user(&self) -> Result<Name, String> {
        let outgoing = self.outgoing.lock();
        outgoing
            .records
            .as_ref()
            .map_or_else(|| Err("the connection is not under TLS".to_owned()), Records::certificate_user)
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

    /// What can be written as soon as the socket accepts it.
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
