//! Reads and writes frames, methods and tables. There is no state.
//!
//! No input makes this code panic. It allocates nothing, and it checks each length before it uses it. The results
//! borrow from the input.
#![deny(clippy::indexing_slicing)]

pub mod content;
pub mod field;
pub mod frame;
pub mod methods;
pub mod reply_code;
pub mod table;

use ferrymq_wire::Truncated;

/// The reason why bytes are not AMQP 0-9-1. The peer made a mistake, and its connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A frame type that does not exist.
    FrameType(u8),
    /// A frame with more payload than both sides agreed on.
    FrameTooLarge {
        /// The length in its header.
        payload_bytes: u32,
        /// The length that both sides agreed on.
        payload_bytes_max: u32,
    },
    /// A frame that does not end with 0xCE.
    FrameEnd(u8),
    /// A heartbeat with a payload.
    HeartbeatPayload,
    /// A class and method that do not exist.
    UnknownMethod {
        /// The class.
        class: u16,
        /// The method in it.
        method: u16,
    },
    /// A payload that ends within its fields.
    Truncated,
    /// A payload with bytes after its last field.
    TrailingBytes(usize),
    /// A short string in a method that is not UTF-8.
    NotText,
    /// A field value of a type that does not exist.
    FieldType(u8),
    /// A field table or array whose values do not fill its length exactly.
    TableLength,
    /// A field table nested deeper than [`table::DEPTH_MAX`].
    TableDepth,
    /// Property flags without a property.
    PropertyFlags(u16),
    /// A content header whose reserved weight is not zero.
    Weight(u16),
}

impl From<Truncated> for Malformed {
    fn from(_: Truncated) -> Self {
        Self::Truncated
    }
}
