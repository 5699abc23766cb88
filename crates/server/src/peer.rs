//! A client's socket, plain or with TLS. The node writes its effects to it, from any thread.

use std::{
    cell::RefCell,
    fmt,
    io::{self, IoSlice},
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use ferrymq_model::{Effect, Name};
use ferrymq_node::{Effects, Peer, StoppedEffects};
use ferrymq_wire::{Encoded, Encoder, Outbox};
use parking_lot::Mutex;
use tokio::{net::TcpStream, sync::Notify};

use crate::{
    files::{FILE_BYTES_AT_ONCE, send_file},
    pump::Encoding,
    tls::Records,
};

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
    /// The same for the part of them that is in files.
    in_files: AtomicUsize,
    /// The same for the effects at which the encoder has stopped.
    stopped: AtomicUsize,
    owner: Notify,
}

struct Outgoing {
    outbox: Outbox,
    /// Set after the handshake, which determines how effects are encoded. Before that there are only the session's
    /// own frames.
    encoder: Option<Box<dyn Encoder>>,
    /// The effects at which the encoder has stopped.
    stopped: StoppedEffects,
    /// The TLS records, if the connection is not plain.
    records: Option<Records>,
    /// The connection is being closed because of the memory that it holds: only refusals and the
    /// session's own bytes are sent.
    discards: bool,
    /// The socket is broken: what is sent is discarded, and the connection's task will notice.
    broken: bool,
    /// The error that broke it, until the connection's task has it.
    failure: Option<io::Error>,
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
        let outgoing = Outgoing {
            outbox: Outbox::default(),
            encoder: None,
            stopped: StoppedEffects::default(),
            records,
            discards: false,
            broken: false,
            failure: None,
        };
        let [waiting, in_files, stopped] = [0; 3].map(AtomicUsize::new);
        Self { stream, is_encrypted, outgoing: outgoing.into(), waiting, in_files, stopped, owner: Notify::new() }
    }

    /// Whether the connection is under TLS.
    pub fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    /// The socket, for waiting.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Writes as much as the socket accepts, but only some of a long file. Returns how many bytes are of files.
    ///
    /// # Errors
    /// If the socket is broken, or a file is shorter than was promised.
    pub fn flush(&self) -> io::Result<usize> {
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

    fn write(&self, outgoing: &mut Outgoing) -> io::Result<usize> {
        let result = outgoing.write(&self.stream);
        outgoing.give_memory_back();
        self.tell_waiting(outgoing);
        result
    }

    fn tell_waiting(&self, outgoing: &Outgoing) {
        self.waiting.store(outgoing.waiting(), Ordering::Release);
        self.in_files.store(outgoing.outbox.file_bytes(), Ordering::Release);
        self.stopped.store(outgoing.stopped.len_bytes(), Ordering::Release);
    }

    /// Writes as much as the socket accepts; the connection's task does the rest.
    fn write_or_notify(&self, outgoing: &mut Outgoing) {
        outgoing.failure = self.write(outgoing).err();
        if outgoing.failure.is_some() || outgoing.waiting() > 0 {
            self.owner.notify_one();
        }
    }

    /// Returns when the node has something for the connection's task.
    pub async fn woken(&self) {
        self.owner.notified().await;
    }
}

impl Encoding for SocketPeer {
    fn encode_with(&self, encoder: Box<dyn Encoder>) {
        self.outgoing.lock().encoder = Some(encoder);
    }

    fn resume(&self, channel: u16) -> usize {
        let mut outgoing = self.outgoing.lock();
        outgoing.borrow_memory();
        let bytes = outgoing.resume(channel);
        self.write_or_notify(&mut outgoing);
        bytes
    }
}

impl Peer for SocketPeer {
    fn send(&self, effects: &Effects) {
        let mut outgoing = self.outgoing.lock();
        outgoing.borrow_memory();
        outgoing.encode(effects);
        self.write_or_notify(&mut outgoing);
    }

    fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    fn in_files(&self) -> usize {
        self.in_files.load(Ordering::Acquire)
    }

    fn stopped(&self) -> usize {
        self.stopped.load(Ordering::Acquire)
    }

    fn discard(&self) {
        let mut outgoing = self.outgoing.lock();
        outgoing.discards = true;
        outgoing.stopped = StoppedEffects::default();
        outgoing.outbox.discard();
        self.tell_waiting(&outgoing);
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

    /// Encodes effects behind what waits. The session's own bytes pass the effects at which the encoder has stopped.
    fn encode(&mut self, effects: &Effects) {
        let Self { outbox, encoder, stopped, discards, .. } = self;
        let Some(encoder) = encoder.as_deref_mut().filter(|_| !*discards) else { return self.encode_few(effects) };
        effects.encode_each(stopped, |effect| {
            let encoded = match effect {
                Effect::Frames(bytes) => send_bytes(bytes, outbox),
                effect => encoder.encode(effect, outbox),
            };
            outbox.end_frame();
            stopped_on(encoded)
        });
    }

    /// Before the handshake is over, and while the connection is being closed because of its memory, most effects are
    /// not sent.
    #[cold]
    fn encode_few(&mut self, effects: &Effects) {
        let Self { outbox, encoder, stopped, discards, .. } = self;
        effects.encode_each(stopped, |effect| {
            let encoded = match (effect, &mut *encoder) {
                (Effect::Frames(bytes), _) => send_bytes(bytes, outbox),
                (effect, _) if *discards && !matches!(effect, Effect::Refused { .. }) => Encoded::Whole,
                (effect, Some(encoder)) => encoder.encode(effect, outbox),
                (_, None) => {
                    debug_assert!(false, "nothing is decided for a connection before its handshake is over");
                    Encoded::Whole
                }
            };
            outbox.end_frame();
            stopped_on(encoded)
        });
    }

    /// Goes on with the effects at which the encoder has stopped on a channel. Returns how many bytes it made.
    fn resume(&mut self, channel: u16) -> usize {
        let Self { outbox, encoder: Some(encoder), stopped, .. } = self else { return 0 };
        let before = outbox.len();
        encoder.resume(channel);
        stopped.resume(channel, |effect| encoder.encode(effect, outbox) == Encoded::Whole);
        outbox.len() - before
    }

    /// What can be written as soon as the socket accepts it.
    fn waiting(&self) -> usize {
        match &self.records {
            None => self.outbox.len(),
            Some(records) if records.is_handshaking() => usize::from(records.are_waiting()),
            Some(records) => self.outbox.len() + usize::from(records.are_waiting()),
        }
    }

    /// Writes as much as the socket accepts. Returns how many bytes are of files.
    fn write(&mut self, stream: &TcpStream) -> io::Result<usize> {
        if self.broken {
            if self.waiting() == 0 {
                return Ok(0);
            }
            return Err(self.failure.take().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()));
        }
        let written = match &mut self.records {
            None => write_plain(&mut self.outbox, stream),
            Some(records) => records.write(&mut self.outbox, stream),
        };
        self.broken = written.is_err();
        written
    }
}

/// The session's own bytes are sent as they are.
fn send_bytes(bytes: &[u8], outbox: &mut Outbox) -> Encoded {
    outbox.bytes().extend_from_slice(bytes);
    Encoded::Whole
}

/// The channel on which the encoder has stopped, if it has.
#[inline]
fn stopped_on(encoded: Encoded) -> Option<u16> {
    match encoded {
        Encoded::Whole => None,
        Encoded::Stopped { channel } => Some(channel),
    }
}

/// Writes as much as the socket accepts, but only some of a long file. Returns how many bytes are of files.
pub fn write_plain(outbox: &mut Outbox, stream: &TcpStream) -> io::Result<usize> {
    let mut of_files = 0;
    while !outbox.is_empty() && of_files < FILE_BYTES_AT_ONCE {
        let written = if let Some(stretch) = outbox.file() {
            send_file(stretch, stream, FILE_BYTES_AT_ONCE - of_files).inspect(|written| of_files += written)
        } else {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = outbox.slices(&mut slices);
            stream.try_write_vectored(&slices[..count])
        };
        match written {
            Ok(written) => outbox.advance(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(of_files)
}
