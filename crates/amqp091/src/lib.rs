//! AMQP 0-9-1, as RabbitMQ 3.13 speaks it: the published definition with its errata, and RabbitMQ's extensions
//! (confirms, `basic.nack`, `connection.blocked`, consumer cancel notification, `CC` and `BCC`,
//! bindings between exchanges, direct reply-to, `connection.update-secret`).
//!
//! | AMQP | here |
//! |---|---|
//! | connection | a [`Connection`], the session of one socket |
//! | channel | a number in each command's origin; the node has the state of the channel |
//! | consumer, consumer tag | a subscription and its name on the channel |
//! | prefetch count | credit of a subscription, or with `global` of the channel |
//! | `basic.ack`; `nack` and `reject` with and without requeue | settle: accept; release and reject |
//! | content properties | stored as they arrived, in the dialect [`DIALECT`]; parsed when needed |
//! | `delivery-mode` 2 | persistent |
//! | direct reply-to | a subscription without a queue, to an address that the node makes |
//! | reply code | the variant of a refusal decides it |
//!
//! [`codec`] turns bytes into frames, the session turns frames into commands, and [`FrameEncoder`] turns effects into
//! frames. Only `mapping` translates between AMQP's terms and those of `model`.
//!
//! Not built: login mechanisms other than PLAIN, AMQPLAIN and EXTERNAL. They are refused with 503.

pub mod codec;
mod mapping;
mod session;

pub use mapping::{DIALECT, PropertyList};
pub use session::{Connection, FrameEncoder, Greeting};
