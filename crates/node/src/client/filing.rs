//! Long bodies of messages that are stored get their files before the messages are decided: their publisher waits for that,
//! and nobody else does.

use ferrymq_model::{Body, Publish};

use super::{
    Client,
    publish::{Purpose, body_bytes, message_of},
};

impl Client {
    /// Whether this connection waits for a long body to be in its file.
    #[must_use]
    pub fn is_filing(&self) -> bool {
        self.filing.as_ref().is_some_and(ferrymq_storage::Filing::waits)
    }

    /// Bytes of the body that this connection waits for.
    pub(super) fn filing_bytes(&self) -> usize {
        self.filing.as_ref().map_or(0, ferrymq_storage::Filing::body_bytes)
    }

    /// Why the body that this connection waits for could not be written so far.
    pub(super) fn filing_reason(&self) -> Option<String> {
        let reason = self.filing.as_ref()?.reason()?;
        Some(format!("a long message body cannot be written: {reason}"))
    }

    /// Whether the first of the publishes that are left can be decided: its body is in its file, or needs none.
    pub(super) fn has_filed(&mut self) -> bool {
        let Some(filing) = &mut self.filing else { return true };
        let Some(filed) = filing.take() else { return false };
        self.filing = None;
        self.publishes[0].body = Body::Filed(Box::new(filed));
        true
    }

    /// Begins to write the body of a publish to a file of its own, where its message is going to be stored and the body is that
    /// long. Says whether the publish has to wait for that.
    pub(super) fn files_body(&mut self, publish: &Publish, input: &[u8]) -> bool {
        if !self.node.bodies.takes(body_bytes(publish)) || matches!(publish.body, Body::Filed(_)) {
            return false;
        }
        let mut targets = Vec::new();
        // What is refused here is refused where the message is published.
        if self.route(publish, input, &mut targets, Purpose::Check).is_err()
            || !self.node.core.lock().shard.stores(&targets, publish.persistent)
        {
            return false;
        }
        let body = message_of(publish, input).body;
        let bytes = body.shared().cloned().unwrap_or_else(|| bytes::Bytes::copy_from_slice(body.bytes()));
        let connection = self.connection.clone();
        self.filing = Some(self.node.bodies.file(bytes, Box::new(move || connection.wake())));
        true
    }
}
