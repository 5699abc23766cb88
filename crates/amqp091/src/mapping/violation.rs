//! The reply codes for malformed input and for refusals.

use ferrymq_model::{Name, Origin, Refusal};

use super::class_and_method;
use crate::codec::{Malformed, frame::put_method, methods, reply_code::ReplyCode};

/// A request that the protocol forbids or that the server cannot carry out. The code decides whether the channel or the
/// connection is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The reply code.
    pub code: ReplyCode,
    /// The explanation, without the name of the code.
    pub text: String,
}

impl Violation {
    /// A violation with its explanation.
    pub fn new(code: ReplyCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// The code and the text, for the log.
    #[must_use]
    pub fn log_text(&self) -> String {
        format!("{} {}", self.code.number(), self.reply_text())
    }

    /// The reply text for the client, as RabbitMQ writes it: the name of the code, a dash, the explanation. It is cut
    /// to the length of a short string.
    #[must_use]
    pub fn reply_text(&self) -> String {
        let mut text = format!("{} - {}", self.code.name(), self.text);
        if text.len() > Name::BYTES_MAX {
            text.truncate(text.floor_char_boundary(Name::BYTES_MAX - 3));
            text.push_str("...");
        }
        text
    }
}

/// The reply code for each variant of a refusal. The text stays the same. (AMQP-10)
impl From<&Refusal> for Violation {
    fn from(refusal: &Refusal) -> Self {
        let code = match refusal {
            Refusal::LoginFailed(_) | Refusal::AccessRefused(_) => ReplyCode::AccessRefused,
            Refusal::LoginMalformed(_) => ReplyCode::SyntaxError,
            Refusal::NotFound { .. } | Refusal::NothingNamed(_) => ReplyCode::NotFound,
            Refusal::ResourceLocked(_) => ReplyCode::ResourceLocked,
            Refusal::PreconditionFailed(_) => ReplyCode::PreconditionFailed,
            Refusal::VhostNotFound(_) | Refusal::NotAllowed(_) => ReplyCode::NotAllowed,
            Refusal::CommandInvalid(_) => ReplyCode::CommandInvalid,
            Refusal::NotImplemented(_) => ReplyCode::NotImplemented,
            Refusal::TooLarge(_) => ReplyCode::ContentTooLarge,
            Refusal::ResourceLimit(_) => ReplyCode::ResourceError,
            Refusal::Fault(_) => ReplyCode::InternalError,
            Refusal::ConnectionForced(_) | Refusal::TakenOver => ReplyCode::ConnectionForced,
        };
        Self::new(code, refusal.to_string())
    }
}

/// The reply code for each kind of malformed input.
impl From<Malformed> for Violation {
    fn from(malformed: Malformed) -> Self {
        let (code, text) = match malformed {
            Malformed::FrameType(octet) => (ReplyCode::FrameError, format!("there is no frame type {octet}")),
            Malformed::FrameTooLarge { payload_bytes, payload_bytes_max } => (
                ReplyCode::FrameError,
                format!(
                    "frame_too_large: a payload of {payload_bytes} octets, at most {payload_bytes_max} were agreed on"
                ),
            ),
            Malformed::FrameEnd(octet) => {
                (ReplyCode::FrameError, format!("invalid_frame_end_marker: {octet} instead of 206"))
            }
            Malformed::HeartbeatPayload => (ReplyCode::FrameError, "a heartbeat has no payload".into()),
            Malformed::UnknownMethod { class, method } => {
                (ReplyCode::NotImplemented, format!("there is no method {method} in class {class}"))
            }
            Malformed::Truncated => (ReplyCode::FrameError, "the payload ends before its fields do".into()),
            Malformed::TrailingBytes(count) => {
                (ReplyCode::FrameError, format!("{count} octets follow the payload's last field"))
            }
            Malformed::NotText => (ReplyCode::FrameError, "Malformed UTF-8 in shortstr".into()),
            // AMQP-1
            Malformed::FieldType(octet) => (ReplyCode::SyntaxError, format!("there is no field type {octet}")),
            Malformed::TableLength => {
                (ReplyCode::SyntaxError, "a table's or array's values do not fill its length".into())
            }
            Malformed::TableDepth => (ReplyCode::SyntaxError, "tables are nested too deep".into()),
            Malformed::PropertyFlags(flags) => {
                (ReplyCode::SyntaxError, format!("no property belongs to the flags {flags}"))
            }
            Malformed::Weight(weight) => {
                (ReplyCode::SyntaxError, format!("a content header's weight is 0, not {weight}"))
            }
        };
        Self::new(code, text)
    }
}

/// Appends the close method for a violation. Returns whether it closes the connection. (AMQP-10)
pub fn put_close(out: &mut Vec<u8>, origin: Origin, violation: &Violation) -> bool {
    let (class_id, method_id) = class_and_method(origin);
    let (reply_code, text) = (violation.code.number(), violation.reply_text());
    let reply_text = text.as_str();
    if violation.code.is_hard() || origin.channel == 0 {
        put_method(out, 0, &methods::ConnectionClose { reply_code, reply_text, class_id, method_id });
        true
    } else {
        put_method(out, origin.channel, &methods::ChannelClose { reply_code, reply_text, class_id, method_id });
        false
    }
}
