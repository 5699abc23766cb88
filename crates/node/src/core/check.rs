//! Checking and repairing a data directory while no server uses it.

use std::{path::Path, sync::Arc};

use ferrymq_broker::{Catalog, HashKey};
use ferrymq_model::{Position, QueueId};
use ferrymq_storage::{Backpressure, Damage, Disk, FatalError, Notify, Options, Store, UnchangedDisk};
use parking_lot::{Condvar, Mutex};

use crate::core::start::NodeError;

/// What was found in a data directory.
#[derive(Debug, Default)]
pub struct Checked {
    /// What a start would log: what the last server had not finished, and files that nothing refers to.
    pub notes: Vec<String>,
    /// What cannot be read, one sentence each, with file, position and the messages that are lost with it.
    pub damages: Vec<String>,
    /// The number of queues. Each priority of a queue counts.
    pub queues: usize,
    /// How many messages they have.
    pub messages: u64,
}

/// Owns the store during the check, and receives the calls of its threads.
#[derive(Debug, Default)]
struct Owner {
    store: Mutex<Option<Store>>,
    durable: Mutex<(Position, Option<FatalError>)>,
    news: Condvar,
}

impl Notify for Owner {
    fn durable(&self, position: Position) {
        self.durable.lock().0 = position;
        self.news.notify_all();
    }

    fn loaded(&self, _: &[QueueId]) {}

    fn backpressure(&self, _: &Backpressure) {}

    fn long_bodies_wait(&self, _: Option<&str>) {}

    fn queue_failed(&self, _: QueueId, _: &str) {}

    fn merged(&self, _: usize) {}

    fn fatal(&self, error: &FatalError) {
        self.durable.lock().1 = Some(error.clone());
        self.news.notify_all();
    }

    fn with_store(&self, visit: &mut dyn FnMut(&mut Store)) {
        if let Some(store) = self.store.lock().as_mut() {
            visit(store);
        }
    }
}

/// Reads everything in a data directory that no server uses. With `repair` it removes what cannot be read: exactly
/// that, permanently. Without, it opens the directory as a start does and changes no file: what a start writes stays in
/// memory.
///
/// # Errors
/// If the directory cannot be opened: it is in use, or damaged in a place that everything depends on.
pub fn check(disk: &Arc<dyn Disk>, directory: &Path, repair: bool) -> Result<Checked, NodeError> {
    let unchanged = || Arc::new(UnchangedDisk::new(Arc::clone(disk))) as Arc<dyn Disk>;
    let disk = &if repair { Arc::clone(disk) } else { unchanged() };
    let owner = Arc::new(Owner::default());
    let options = Options { repair, ..Options::default() };
    let opened = ferrymq_storage::open(Arc::clone(disk), directory, options, owner.clone());
    let (store, recovered) = opened.map_err(NodeError::Storage)?;
    let catalog =
        Catalog::load(&recovered.entries, HashKey::known(), &mut Vec::new()).map_err(NodeError::Catalog)?.catalog;
    let damages = store.verify(disk, directory);
    let checked = Checked {
        notes: recovered.missing.clone(),
        damages: damages.iter().map(|damage| sentence(damage, &catalog)).collect(),
        queues: recovered.queues.len(),
        messages: recovered.queues.iter().map(|queue| queue.messages).sum(),
    };
    *owner.store.lock() = Some(store);
    if repair {
        owner.give_up(damages.iter().filter(|damage| !damage.passes))?;
    }
    let store = owner.store.lock().take().expect("it was put there");
    store.close().map_err(NodeError::Write)?;
    Ok(checked)
}

impl Owner {
    /// Removes what is damaged, and waits until that is on disk.
    fn give_up<'a>(&self, damages: impl Iterator<Item = &'a Damage>) -> Result<(), NodeError> {
        let position = {
            let mut store = self.store.lock();
            let store = store.as_mut().expect("it was put there");
            damages.for_each(|damage| store.give_up(damage));
            store.request_flush();
            store.position()
        };
        let mut durable = self.durable.lock();
        while self.store.lock().as_ref().is_some_and(|store| store.durable_position() < position) {
            if let Some(error) = durable.1.take() {
                return Err(NodeError::Write(error));
            }
            self.news.wait(&mut durable);
        }
        Ok(())
    }
}

/// One damage, with the names of the queues.
fn sentence(damage: &Damage, catalog: &Catalog) -> String {
    let range = |(queue, first, last): &(QueueId, u64, u64)| {
        let name = catalog.queue_by_id(queue.queue()).map_or_else(
            || format!("queue {}", queue.0),
            |found| format!("queue '{}' in vhost '{}'", found.settings.name, found.settings.vhost),
        );
        if first == last {
            format!("message {first} of {name}")
        } else {
            format!("messages {first} to {last} of {name}")
        }
    };
    let lost: Vec<String> = damage.messages.iter().map(range).collect();
    format!("{}; with it: {}", damage.what, lost.join(", "))
}
