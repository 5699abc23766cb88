//! Answers to changes of operators, which wait until the journal is durable.

use ferrymq_model::{Position, Refusal};
use futures_channel::oneshot;

use crate::core::node::Node;

/// An answer that waits.
#[derive(Debug)]
pub struct WaitingChange {
    /// Until the journal is durable up to here.
    until: Position,
    answer: oneshot::Sender<()>,
}

impl Node {
    /// Waits until the journal is durable up to this position.
    pub(super) async fn is_durable(&self, position: Position) -> Result<(), Refusal> {
        let (answer, answered) = oneshot::channel();
        self.waiting_changes.lock().push(WaitingChange { until: position, answer });
        // The flush may have returned before this one waited.
        self.answer_changes(self.durable_position());
        answered.await.map_err(|_| stops())
    }

    /// The journal is durable up to here.
    pub(crate) fn answer_changes(&self, durable: Position) {
        let answered: Vec<WaitingChange> =
            self.waiting_changes.lock().extract_if(.., |waiting| waiting.until <= durable).collect();
        for waiting in answered {
            // If nobody waits any more, nobody is told.
            let _ = waiting.answer.send(());
        }
    }
}

/// The answer when there will be none.
pub fn stops() -> Refusal {
    Refusal::ConnectionForced("the server stops".to_owned())
}
