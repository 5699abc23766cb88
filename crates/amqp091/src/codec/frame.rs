//! Frames (section 2.3.5): type, channel, payload length, payload, end octet.

use ferrymq_wire::{Parsed, Put, Reader};

use super::{Malformed, content::ContentHeader, methods::WireMethod};

/// The protocol header that a client sends first: `AMQP`, 0, and the version 0-9-1 (section 4.2.2).
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";

/// The protocol header of version 0-9. Like RabbitMQ, we accept it as 0-9-1.
pub const PROTOCOL_HEADER_0_9: [u8; 8] = *b"AMQP\x01\x01\x00\x09";

/// The octet after every payload.
pub const FRAME_END: u8 = 0xCE;

/// The smallest frame limit that two peers may agree on, in bytes (section 4.2.3).
pub const FRAME_BYTES_MIN: u32 = 4096;

/// The number of bytes of a frame that are not payload.
pub const OVERHEAD_BYTES: u32 = 8;

/// The number of bytes before the payload: type, channel and length.
const HEADER_BYTES: usize = 7;

/// The most payload that a frame of this type may have. It may be longer than the limit says by the bytes that are not
/// payload, because several clients do not count these; but a content header may not: it is sent to consumers and back to
/// its publisher as it came, in one frame. (AMQP-6)
#[inline]
const fn payload_bytes_max(kind: FrameKind, frame_bytes_max: u32) -> u32 {
    match kind {
        FrameKind::Header => frame_bytes_max.saturating_sub(OVERHEAD_BYTES),
        _ => frame_bytes_max,
    }
}

/// The heartbeat frame, which is always the same (section 4.2.7).
pub const HEARTBEAT: [u8; 8] = [FrameKind::Heartbeat as u8, 0, 0, 0, 0, 0, 0, FRAME_END];

/// The type of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// A method.
    Method = 1,
    /// A content header.
    Header = 2,
    /// A part of a body.
    Body = 3,
    /// A heartbeat, which has no payload.
    Heartbeat = 8,
}

/// A frame, borrowed from the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its type.
    pub kind: FrameKind,
    /// The channel that it belongs to; 0 is the connection itself.
    pub channel: u16,
    /// The bytes between the frame's header and its end octet.
    pub payload: &'a [u8],
}

/// Reads the frame at the beginning of `input`. A frame may have `frame_bytes_max` bytes.
#[inline]
#[must_use]
pub fn frame(input: &[u8], frame_bytes_max: u32) -> Parsed<Frame<'_>, Malformed> {
    let mut reader = Reader::new(input);
    let (Ok(kind), Ok(channel), Ok(payload_bytes)) = (reader.u8(), reader.u16(), reader.u32()) else {
        return first_octet(input);
    };
    let Some(kind) = kind_of(kind) else { return Parsed::Malformed(Malformed::FrameType(kind)) };
    if payload_bytes > payload_bytes_max(kind, frame_bytes_max) {
        let payload_bytes_max = frame_bytes_max.saturating_sub(OVERHEAD_BYTES);
        return Parsed::Malformed(Malformed::FrameTooLarge { payload_bytes, payload_bytes_max });
    }
    let frame_bytes = HEADER_BYTES + payload_bytes as usize + 1;
    let (Ok(payload), Ok(end)) = (reader.bytes(payload_bytes as usize), reader.u8()) else {
        return Parsed::Incomplete(frame_bytes);
    };
    if end != FRAME_END {
        return Parsed::Malformed(Malformed::FrameEnd(end));
    }
    if kind == FrameKind::Heartbeat && !payload.is_empty() {
        return Parsed::Malformed(Malformed::HeartbeatPayload);
    }
    Parsed::Frame(Frame { kind, channel, payload }, frame_bytes)
}

/// Reads the frame at `at`, if it is complete, has this type and is on this channel. Returns its payload and the
/// position of its end. The caller reads all other input with [`frame`].
#[inline]
#[must_use]
pub fn expected(
    input: &[u8],
    at: usize,
    kind: FrameKind,
    channel: u16,
    frame_bytes_max: u32,
) -> Option<(&[u8], usize)> {
    let (header, rest) = input.get(at..)?.split_first_chunk::<HEADER_BYTES>()?;
    let [octet, high, low, length @ ..] = *header;
    let payload_bytes = u32::from_be_bytes(length);
    let is_next = octet == kind as u8 && u16::from_be_bytes([high, low]) == channel;
    if !is_next || payload_bytes > payload_bytes_max(kind, frame_bytes_max) {
        return None;
    }
    let (payload, rest) = rest.split_at_checked(payload_bytes as usize)?;
    let end = at + HEADER_BYTES + payload.len() + 1;
    (*rest.first()? == FRAME_END).then_some((payload, end))
}

/// Reads the beginning of an incomplete body frame. Returns its channel, the length of its payload, and the part of the
/// payload that has arrived.
#[must_use]
pub fn begun_body(input: &[u8]) -> Option<(u16, u32, &[u8])> {
    let (header, payload) = input.split_first_chunk::<HEADER_BYTES>()?;
    let [octet, high, low, length @ ..] = *header;
    let payload_bytes = u32::from_be_bytes(length);
    let is_begun = octet == FrameKind::Body as u8 && payload.len() <= payload_bytes as usize;
    is_begun.then_some((u16::from_be_bytes([high, low]), payload_bytes, payload))
}

/// The result for input that is shorter than a frame's header. A wrong first octet shows that the input is not a frame.
fn first_octet<'a>(input: &[u8]) -> Parsed<Frame<'a>, Malformed> {
    match input.first() {
        Some(&octet) if kind_of(octet).is_none() => Parsed::Malformed(Malformed::FrameType(octet)),
        _ => Parsed::Incomplete(HEADER_BYTES),
    }
}

const fn kind_of(octet: u8) -> Option<FrameKind> {
    match octet {
        1 => Some(FrameKind::Method),
        2 => Some(FrameKind::Header),
        3 => Some(FrameKind::Body),
        8 => Some(FrameKind::Heartbeat),
        _ => None,
    }
}

/// Appends the header for a payload of `payload_bytes`.
///
/// # Panics
/// If the payload has 4 GiB or more.
#[inline]
pub fn put_frame_header(out: &mut impl Put, kind: FrameKind, channel: u16, payload_bytes: usize) {
    let payload_bytes = u32::try_from(payload_bytes).expect("a payload is shorter than 4 GiB");
    let ([c0, c1], [p0, p1, p2, p3]) = (channel.to_be_bytes(), payload_bytes.to_be_bytes());
    out.put_array([kind as u8, c0, c1, p0, p1, p2, p3]);
}

/// Appends a frame with this payload.
#[inline]
pub fn put_frame(out: &mut impl Put, kind: FrameKind, channel: u16, payload: &[u8]) {
    put_frame_header(out, kind, channel, payload.len());
    out.put(payload);
    out.put_u8(FRAME_END);
}

/// Appends a method frame.
#[inline]
pub fn put_method(out: &mut impl Put, channel: u16, method: &impl WireMethod) {
    put_frame_header(out, FrameKind::Method, channel, method.len_bytes());
    method.write(out);
    out.put_u8(FRAME_END);
}

/// Appends a header frame.
#[inline]
pub fn put_header(out: &mut impl Put, channel: u16, header: &ContentHeader<'_>) {
    put_frame_header(out, FrameKind::Header, channel, header.len_bytes());
    header.write(out);
    out.put_u8(FRAME_END);
}

/// Appends a body in as many frames as it needs (section 4.2.6.2). An empty body needs no frame.
#[inline]
pub fn put_body(out: &mut impl Put, channel: u16, body: &[u8], frame_bytes_max: u32) {
    let piece_bytes_max = (frame_bytes_max - OVERHEAD_BYTES) as usize;
    let mut rest = body;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(piece_bytes_max));
        put_frame(out, FrameKind::Body, channel, piece);
        rest = after;
    }
}
