//! The long body of a stored message is written to its own file before the message is decided: its publisher waits
//! for that, and nobody else does.

use std::cell::Cell;

use ferrymq_model::{Body, Publish};

use super::{
    Client,
    message::{body_bytes, message_of},
    publish::Purpose,
};

impl Client {
    /// Whether this connection waits until a long body is in its file.
    #[must_use]
    pub fn is_filing(&self) -> bool {
        self.filing.as_ref().is_some_and(ferrymq_storage::Filing::waits)
    }

    /// The length of the body for which this connection waits.
    pub(super) fn filing_bytes(&self) -> usize {
        self.filing.as_ref().map_or(0, ferrymq_storage::Filing::body_bytes)
    }

    /// Why the body for which this connection waits could not be written so far.
    pub(super) fn filing_reason(&self) -> Option<String> {
        let reason = self.filing.as_ref()?.reason()?;
        Some(format!("a long message body cannot be written: {reason}"))
    }

    /// Whether the first remaining publish can be decided: its body is in its file, or needs none.
    pub(super) fn has_filed(&mut self) -> bool {
        let Some(filing) = &mut self.filing else { return true };
        let Some(filed) = filing.take() else { return false };
        self.filing = None;
        self.publishes[0].body = Body::Filed(Box::new(filed));
        true
    }

    /// Begins to write the body of a publish to its own file, if its message will be stored and the body is long
    /// enough. Returns whether the publish has to wait for that.
    pub(super) fn files_body(&mut self, publish: &Publish, input: &[u8]) -> bool {
        if self.never_files || !self.node.bodies.takes(body_bytes(publish)) || matches!(publish.body, Body::Filed(_)) {
            return false;
        }
        let mut targets = Vec::new();
        // What is refused here is refused again when the message is published.
        let keeps = Cell::new(false);
        if self.route(publish, input, &mut targets, Purpose::Check(&keeps)).is_err() {
            return false;
        }
        // What an exchange keeps may be stored later, when nobody can wait for a file.
        let is_kept = publish.persistent && keeps.get();
        if !is_kept && !self.node.core.lock().shard.stores(&targets, publish.persistent) {
            return false;
        }
        let body = message_of(publish, input).body;
        let bytes = body.shared().cloned().unwrap_or_else(|| bytes::Bytes::copy_from_slice(body.bytes()));
        let connection = self.connection.clone();
        self.filing = Some(self.node.bodies.file(bytes, Box::new(move || connection.wake())));
        true
    }
}
