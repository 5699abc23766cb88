//! The frame codec of AMQP 0-9-1, and the methods in its frames.

use ferrymq_amqp091::codec::frame::{Frame, FrameKind, frame, put_frame};
use ferrymq_amqp091::codec::methods::Method;
use ferrymq_wire::Parsed;

use super::{Marks, tables, variant};

const FRAME_BYTES_MAX: u32 = 4096;

/// Reads one frame after the other, as a session does.
pub fn read(input: &[u8]) -> Marks {
    let mut marks = Marks::new();
    let mut rest = input;
    loop {
        match frame(rest, FRAME_BYTES_MAX) {
            Parsed::Frame(frame, taken) => {
                assert!(taken <= rest.len() && frame.payload.len() < taken, "a frame is within its input");
                written_again(&frame, &rest[..taken]);
                read_payload(&frame, &mut marks);
                rest = &rest[taken..];
            }
            Parsed::Incomplete(needed) => {
                assert!(needed > rest.len(), "the codec asks for more bytes than there are");
                assert!(needed <= FRAME_BYTES_MAX as usize + 8, "the codec asks for at most one frame");
                return marks;
            }
            Parsed::Malformed(why) => {
                marks.insert(format!("frame {}", variant(&why)));
                return marks;
            }
        }
    }
}

fn written_again(frame: &Frame<'_>, bytes: &[u8]) {
    let mut written = Vec::new();
    put_frame(&mut written, frame.kind, frame.channel, frame.payload);
    assert_eq!(written, bytes, "a frame is written with the bytes that were read");
}

fn read_payload(frame: &Frame<'_>, marks: &mut Marks) {
    marks.insert(variant(&frame.kind));
    match frame.kind {
        FrameKind::Method => marks.extend([read_method(frame.payload)]),
        FrameKind::Header => marks.append(&mut tables::read_header(frame.payload)),
        FrameKind::Body | FrameKind::Heartbeat => {}
    }
}

fn read_method(payload: &[u8]) -> String {
    match Method::read(payload) {
        Ok(method) => {
            let mut written = Vec::new();
            method.write(&mut written);
            let again = Method::read(&written).expect("a method that was written can be read");
            // NaN is not equal to itself, so the printed values are compared.
            assert_eq!(format!("{again:?}"), format!("{method:?}"), "the same method is read again");
            variant(&method)
        }
        Err(why) => format!("method {}", variant(&why)),
    }
}
