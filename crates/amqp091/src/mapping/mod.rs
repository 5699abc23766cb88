//! Translates between AMQP's terms and those of `model`. No other folder knows both.
//!
//! Requests become commands, replies become methods, refusals become reply codes, and field tables become values.

mod death;
mod delay;
mod head;
mod headers;
mod properties;
mod publish;
mod rendered;
mod reply;
mod request;
mod trace;
mod value;
mod violation;

use ferrymq_model::{Answer, Origin};

pub use properties::{DIALECT, PropertyList};
pub use publish::{PublishFacts, publish_facts};
pub use rendered::{is_plain, rendered, short_key};
pub use reply::{count, put_reply, return_reason};
pub use request::{REPLIES, command, names_replies, short, tag};
pub use value::arguments;
pub use violation::{Violation, put_close};

/// The origin of a request. Class and method are in one number; [`class_and_method`] returns the two.
#[must_use]
pub fn origin(channel: u16, (class, method): (u16, u16)) -> Origin {
    Origin { channel, token: u32::from(class) << 16 | u32::from(method), answer: Answer::Peer }
}

/// The class and the method of a request.
#[must_use]
pub fn class_and_method(origin: Origin) -> (u16, u16) {
    ((origin.token >> 16) as u16, origin.token as u16)
}
