//! A publish as a message, and what is stored with it.

use ferrymq_broker::KeptMessage;
use ferrymq_model::{Body, BodyRef, Facts, MessageRef, Publish, Span, Time};

#[inline]
pub(super) fn message_of<'a>(publish: &'a Publish, input: &'a [u8]) -> MessageRef<'a> {
    let source = publish.source(input);
    let part = |span: Span| span.of(source);
    MessageRef {
        dialect: publish.dialect,
        exchange: text(part(publish.exchange)),
        routing_key: part(publish.routing_key),
        properties: part(publish.properties),
        annotations: publish.annotations(),
        body: match &publish.body {
            Body::Span(span) => BodyRef::Inline(part(*span)),
            Body::Shared(bytes) => BodyRef::Shared(bytes),
            Body::Filed(filed) => BodyRef::Filed(filed),
        },
    }
}

pub(super) fn kept_of(publish: &Publish, message: &MessageRef<'_>) -> KeptMessage {
    KeptMessage {
        message: message.owned(),
        more_keys: publish.more_keys().into(),
        persistent: publish.persistent,
        priority: publish.priority.unwrap_or(0),
        expiration_ms: publish.expiration_ms,
    }
}

#[inline]
fn text(name: &[u8]) -> &str {
    // The default exchange needs no permission check here.
    if name.is_empty() { "" } else { std::str::from_utf8(name).expect("the session checks that names are text") }
}

pub(super) fn body_bytes(publish: &Publish) -> usize {
    match &publish.body {
        Body::Span(span) => span.len as usize,
        Body::Shared(bytes) => bytes.len(),
        Body::Filed(filed) => filed.bytes.len(),
    }
}

#[inline]
pub(super) fn facts_of(publish: &Publish, message: &MessageRef<'_>, now: Time) -> Facts {
    Facts {
        body_bytes: u32::try_from(message.body.bytes().len()).expect("message_bytes_max is far below 4 GiB"),
        priority: publish.priority.unwrap_or(0),
        expires: publish.expiration_ms.map(|ms| now.after_ms(ms)),
        arrived: now,
    }
}
