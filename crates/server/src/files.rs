//! Stretches of files on their way to a socket: by the kernel where that is possible, else through a buffer.

use std::{cell::RefCell, fs::File, io};

use ferrymq_model::FileStretch;
use tokio::{io::Interest, net::TcpStream};

/// How much of files one write sends before the connection's task looks at other things, and other connections have
/// their turns: a client that reads fast would take a long file without end.
pub const FILE_BYTES_AT_ONCE: usize = 256 << 10;

/// How much of a file is read at once, where the kernel cannot send it: four TLS records of the greatest length.
const PORTION_BYTES: usize = 64 << 10;

thread_local! {
    static PORTION: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Sends at most `bytes_max` bytes of the stretch, as many as the socket accepts. Returns their number.
///
/// # Errors
/// `WouldBlock` if the socket accepts none now, `UnexpectedEof` if the file is too short, or what the system says.
pub fn send_file(stretch: &FileStretch, stream: &TcpStream, bytes_max: usize) -> io::Result<usize> {
    let count = stretch.bytes.min(bytes_max);
    match stretch.file.system_file().and_then(|file| file.downcast_ref()) {
        Some(file) if cfg!(target_os = "linux") => {
            match stream.try_io(Interest::WRITABLE, || send_by_kernel(file, stretch.position, stream, count)) {
                Ok(0) => Err(too_short(stretch)),
                other => other,
            }
        }
        _ => with_portion(stretch, |bytes| stream.try_write(&bytes[..bytes.len().min(bytes_max)])),
    }
}

#[cfg(target_os = "linux")]
fn send_by_kernel(file: &File, mut position: u64, stream: &TcpStream, count: usize) -> io::Result<usize> {
    Ok(rustix::fs::sendfile(stream, file, Some(&mut position), count)?)
}

#[cfg(not(target_os = "linux"))]
fn send_by_kernel(_: &File, _: u64, _: &TcpStream, _: usize) -> io::Result<usize> {
    unreachable!("only Linux has this call")
}

/// Reads the first bytes of the stretch into a buffer that belongs to the thread, and gives them to `write`, which says how
/// many it has taken.
///
/// # Errors
/// `UnexpectedEof` if the file is too short, what the system says, or what `write` says.
pub fn with_portion(stretch: &FileStretch, write: impl FnOnce(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
    PORTION.with_borrow_mut(|portion| {
        portion.resize(PORTION_BYTES, 0);
        let portion = &mut portion[..stretch.bytes.min(PORTION_BYTES)];
        stretch.file.read_at(stretch.position, portion).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => too_short(stretch),
            _ => error,
        })?;
        write(portion)
    })
}

fn too_short(stretch: &FileStretch) -> io::Error {
    let FileStretch { position, bytes, .. } = stretch;
    let why = format!("a file that is being sent ends before {bytes} bytes from position {position}");
    io::Error::new(io::ErrorKind::UnexpectedEof, why)
}
