//! The phases of the server. `/health/ready` answers from them.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ferrymq_model::{ListenerReport, Managed, Management, Readiness};
use ferrymq_node::{Node, NodeManagement};
use tokio::sync::watch;

/// The phase of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Reading the data directory.
    Recovering,
    /// Recovery is done, not every listener is open.
    Opening,
    /// Serving.
    Serving,
    /// Told to stop.
    Stopping,
}

/// The phase, and a fault that may have occurred.
#[derive(Debug)]
pub struct Progress {
    phase: watch::Sender<Phase>,
    faults: watch::Receiver<Option<String>>,
    node: OnceLock<Arc<Node>>,
    listeners: Mutex<Vec<ListenerReport>>,
}

impl Progress {
    /// A server that starts. `faults` has the reason why it must end, if there is one.
    #[must_use]
    pub fn new(faults: watch::Receiver<Option<String>>) -> Self {
        Self {
            phase: watch::Sender::new(Phase::Recovering),
            faults,
            node: OnceLock::new(),
            listeners: Mutex::default(),
        }
    }

    /// Recovery is done: the node can be asked.
    pub fn opened(&self, node: Arc<Node>) {
        self.node.get_or_init(|| node);
    }

    /// A listener is open.
    pub fn listens(&self, listener: ListenerReport) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
    }

    /// The next phase begins.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }
}

impl Managed for Progress {
    fn readiness(&self) -> Readiness {
        if let Some(reason) = &*self.faults.borrow() {
            return Readiness::NotReady(format!("the server must end: {reason}"));
        }
        let reason = match *self.phase.borrow() {
            Phase::Serving => {
                let full = self.node.get().and_then(|node| node.disk_trouble());
                return full.map_or(Readiness::Ready, |why| Readiness::Blocked(format!("publishers wait: {why}")));
            }
            Phase::Recovering => "the data directory is being recovered",
            Phase::Opening => "listeners are being opened",
            Phase::Stopping => "the server is stopping",
        };
        Readiness::NotReady(reason.into())
    }

    fn listeners(&self) -> Vec<ListenerReport> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn management(&self) -> Option<Arc<dyn Management>> {
        let node = self.node.get()?;
        Some(Arc::new(NodeManagement::new(node.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(progress: &Progress) -> String {
        match progress.readiness() {
            Readiness::Ready => "ready".into(),
            Readiness::NotReady(reason) | Readiness::Blocked(reason) => reason,
        }
    }

    #[test]
    fn ready_is_serving_without_a_fault() {
        let fault = watch::Sender::new(None);
        let progress = Progress::new(fault.subscribe());
        assert_eq!(why(&progress), "the data directory is being recovered");
        progress.enter(Phase::Opening);
        assert_eq!(why(&progress), "listeners are being opened");
        progress.enter(Phase::Serving);
        assert_eq!(why(&progress), "ready");
        fault.send_replace(Some("fdatasync failed".to_owned()));
        assert_eq!(why(&progress), "the server must end: fdatasync failed");
    }

    #[test]
    fn a_server_that_stops_is_not_ready() {
        let fault = watch::Sender::new(None);
        let progress = Progress::new(fault.subscribe());
        progress.enter(Phase::Stopping);
        assert_eq!(why(&progress), "the server is stopping");
    }
}
