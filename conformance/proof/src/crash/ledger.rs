//! The clients' record of all messages. A restarted server is compared with it.
//!
//! ```text
//!  Sent ──confirm──▶ Safe ──ack──▶ Acked ──not there after a restart──▶ Gone
//!    │                ▲              │
//!    └── there after ─┘◀── there ────┘   (allowed for an ack in the last two seconds before a kill)
//!    └── not there after a restart ─────────────────────────────────▶ Gone
//! ```
//! The ledger is changed before a publish or an ack is written to the socket. So it contains everything that the server
//! may have received.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use super::body::Identity;

/// After an ack, the message must not come again: if a message is confirmed that was published this much later, or if
/// the server was killed this much later and the disk has answered until then.
pub const ACK_FINAL_MS: u32 = 2_000;
/// After a delivery this long before a kill, the message must be marked as redelivered.
pub const DELIVERY_REMEMBERED_MS: u32 = 2_000;
/// Longer bodies have a file of their own.
pub const OWN_FILE_BYTES: usize = 1 << 20;
/// The time of an ack that the client may not have sent.
const UNSENT: u32 = u32::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Sent,
    Safe,
    /// Acked at the time `acked_ms`.
    Acked,
    Gone,
}

#[derive(Debug, Clone, Copy)]
struct Message {
    state: State,
    /// Whether it survives a restart.
    persistent: bool,
    acked_ms: u32,
    /// The time of its first delivery; 0 means never.
    delivered_ms: u32,
    /// Whether it was delivered since the last start of the server.
    delivered_now: bool,
}

/// A promise that the server did not keep.
#[derive(Debug)]
pub struct Finding {
    pub queue: usize,
    pub publisher: usize,
    pub sequence: u64,
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queue, publisher, sequence, what } = self;
        write!(f, "queue {queue}, publisher {publisher}, sequence {sequence}: {what}")
    }
}

/// The messages of one queue, by publisher and sequence.
#[derive(Debug)]
pub struct QueueLedger {
    queue: usize,
    publishers: Vec<Vec<Message>>,
}

#[derive(Debug)]
pub struct Ledger {
    begun: Instant,
    /// Each queue has a lock, because its publishers and consumers are different threads.
    queues: Vec<Mutex<QueueLedger>>,
    /// The approximate number of messages that are not acked.
    pub waiting: AtomicU64,
    pub confirmed: AtomicU64,
    /// The number of confirmed messages with bodies over [`OWN_FILE_BYTES`].
    pub long: AtomicU64,
    /// The number of transient messages that were sent.
    pub transient: AtomicU64,
    pub acked: AtomicU64,
    /// The time at which the last confirmed persistent message was sent.
    answered_ms: AtomicU32,
}

/// The result of checking one queue after a restart.
#[derive(Debug, Default, Clone, Copy)]
pub struct Restored {
    pub there: u64,
    /// Messages that were acked in the last two seconds before the kill and came again.
    pub acked_again: u64,
    /// Messages that were delivered in the last two seconds before the kill and came again without a redelivered mark.
    pub unmarked: u64,
    /// Messages that were acked during the check.
    pub acked: u64,
}

impl Ledger {
    pub fn new(queues: usize, publishers: usize) -> Self {
        let queue = |queue| Mutex::new(QueueLedger { queue, publishers: vec![Vec::new(); publishers] });
        Self {
            begun: Instant::now(),
            queues: (0..queues).map(queue).collect(),
            waiting: AtomicU64::new(0),
            confirmed: AtomicU64::new(0),
            long: AtomicU64::new(0),
            transient: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            answered_ms: AtomicU32::new(0),
        }
    }

    pub fn now_ms(&self) -> u32 {
        u32::try_from(self.begun.elapsed().as_millis()).expect("no run takes seven weeks")
    }

    pub fn queue(&self, queue: usize) -> MutexGuard<'_, QueueLedger> {
        self.queues[queue].lock().expect("no thread panics while it holds a ledger")
    }

    /// Records that a message is about to be published to these queues.
    pub fn sending(&self, identity: Identity, queues: &[usize], persistent: bool) {
        for &queue in queues {
            let mut ledger = self.queue(queue);
            let messages = &mut ledger.publishers[usize::from(identity.publisher)];
            debug_assert_eq!(messages.len() as u64, identity.sequence, "sequences have no gaps");
            messages.push(Message {
                state: State::Sent,
                persistent,
                acked_ms: 0,
                delivered_ms: 0,
                delivered_now: false,
            });
        }
        self.transient.fetch_add(u64::from(!persistent), Relaxed);
        self.waiting.fetch_add(queues.len() as u64, Relaxed);
    }

    /// `sent_ms` is the time at which it was sent.
    pub fn confirmed(&self, identity: Identity, queues: &[usize], bytes: usize, sent_ms: u32) {
        let mut is_persistent = false;
        for &queue in queues {
            let mut ledger = self.queue(queue);
            let message = &mut ledger.publishers[usize::from(identity.publisher)][identity.sequence as usize];
            is_persistent |= message.persistent;
            if message.state == State::Sent {
                message.state = State::Safe;
            }
        }
        if is_persistent {
            self.answered_ms.fetch_max(sent_ms, Relaxed);
        }
        self.confirmed.fetch_add(1, Relaxed);
        self.long.fetch_add(u64::from(bytes > OWN_FILE_BYTES), Relaxed);
    }

    /// Records that messages are about to be acked. The caller calls `acks_sent` with the same messages after sending
    /// the acks.
    pub fn acking(&self, queue: usize, messages: &[Identity]) {
        let mut ledger = self.queue(queue);
        for identity in messages {
            let message = &mut ledger.publishers[usize::from(identity.publisher)][identity.sequence as usize];
            message.state = State::Acked;
            message.acked_ms = UNSENT;
        }
        self.waiting.fetch_sub(messages.len() as u64, Relaxed);
    }

    pub fn acks_sent(&self, queue: usize, messages: &[Identity]) {
        let now = self.now_ms();
        let mut ledger = self.queue(queue);
        for identity in messages {
            ledger.publishers[usize::from(identity.publisher)][identity.sequence as usize].acked_ms = now;
        }
        self.acked.fetch_add(messages.len() as u64, Relaxed);
    }

    /// Until when the server had time and the disk answered, if it was killed at `killed_ms`: a message that was sent
    /// at that time is confirmed. On a busy machine an ack may wait for seconds in the client's socket.
    pub fn answered_until(&self, killed_ms: u32) -> u32 {
        killed_ms.min(self.answered_ms.load(Relaxed))
    }

    /// Sets the number of messages that wait. After a check of all queues it is known exactly.
    pub fn recount(&self, waiting: u64) {
        self.waiting.store(waiting, Relaxed);
    }

    /// The number of messages that a publisher has sent to a queue.
    pub fn sent(&self, queue: usize, publisher: usize) -> u64 {
        self.queue(queue).publishers[publisher].len() as u64
    }
}

impl QueueLedger {
    /// Records a start of the server. All messages may be delivered again.
    pub fn begin_life(&mut self) {
        for message in self.publishers.iter_mut().flatten() {
            message.delivered_now = false;
        }
    }

    /// Records a delivery under load, or a delivery after the connection that held the message has ended.
    pub fn delivered(&mut self, identity: Identity, redelivered: bool, now_ms: u32) -> Result<(), Finding> {
        let message = self.message(identity)?;
        let wrong = match message.state {
            State::Acked if message.acked_ms != UNSENT => {
                Some("it was acked since the last start of the server and came again")
            }
            State::Gone => Some("it was settled before the restart and came again"),
            _ if message.delivered_now && !redelivered => Some("it came twice and is not marked redelivered"),
            _ => None,
        };
        if message.delivered_ms == 0 {
            message.delivered_ms = now_ms.max(1);
        }
        message.delivered_now = true;
        wrong.map_or(Ok(()), |what| Err(self.finding(identity, what)))
    }

    /// Records a message that a restarted server has. The server was killed at `killed_ms`.
    pub fn found(
        &mut self,
        identity: Identity,
        redelivered: bool,
        killed_ms: u32,
        restored: &mut Restored,
    ) -> Result<(), Finding> {
        let now_before = |ms: u32, by: u32| ms.saturating_add(by) <= killed_ms;
        let message = self.message(identity)?;
        let wrong = match message.state {
            _ if !message.persistent => Some("it is transient, and came again after a restart".to_owned()),
            State::Acked if now_before(message.acked_ms, ACK_FINAL_MS) => {
                let ago = killed_ms - message.acked_ms;
                Some(format!("its ack was sent {ago} ms before something that was confirmed, and it came again"))
            }
            State::Gone => Some("it was not there after an earlier restart, and came again".to_owned()),
            _ if message.delivered_now => Some("it came twice to one consumer".to_owned()),
            _ => None,
        };
        restored.there += 1;
        restored.acked_again += u64::from(message.state == State::Acked);
        let mut wrong = wrong;
        if message.delivered_ms != 0 && !redelivered {
            if now_before(message.delivered_ms, DELIVERY_REMEMBERED_MS) && wrong.is_none() {
                let ago = killed_ms - message.delivered_ms;
                wrong = Some(format!(
                    "it was delivered {ago} ms before a message was sent that is confirmed, and came again without a redelivered mark"
                ));
            }
            restored.unmarked += 1;
        }
        message.state = State::Safe;
        message.delivered_now = true;
        message.delivered_ms = message.delivered_ms.max(1);
        wrong.map_or(Ok(()), |what| Err(self.finding(identity, &what)))
    }

    /// Ends a check: the caller has passed all messages of the restarted server to `found`. Fails if a message is
    /// missing that is confirmed and not acked.
    pub fn found_all(&mut self) -> Result<(), Finding> {
        let mut lost = None;
        for (publisher, messages) in self.publishers.iter_mut().enumerate() {
            for (sequence, message) in (0..).zip(messages) {
                if message.delivered_now || message.state == State::Gone {
                    continue;
                }
                if message.state == State::Safe && message.persistent && lost.is_none() {
                    lost = Some((publisher, sequence));
                }
                message.state = State::Gone;
            }
        }
        let Some((publisher, sequence)) = lost else { return Ok(()) };
        let what = "LOST: it was confirmed and not acked, and is not there after the restart".to_owned();
        Err(Finding { queue: self.queue, publisher, sequence, what })
    }

    fn message(&mut self, identity: Identity) -> Result<&mut Message, Finding> {
        let unknown = self.finding(identity, "it was never sent to this queue");
        let publisher = self.publishers.get_mut(usize::from(identity.publisher));
        publisher.and_then(|messages| messages.get_mut(identity.sequence as usize)).ok_or(unknown)
    }

    pub fn finding(&self, identity: Identity, what: &str) -> Finding {
        Finding {
            queue: self.queue,
            publisher: identity.publisher.into(),
            sequence: identity.sequence,
            what: what.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: Identity = Identity { publisher: 0, queue: 0, sequence: 0 };

    /// A ledger with one confirmed message.
    fn ledger() -> Ledger {
        let ledger = Ledger::new(1, 1);
        ledger.sending(MESSAGE, &[0], true);
        ledger.confirmed(MESSAGE, &[0], 100, 7);
        ledger
    }

    fn restart(ledger: &Ledger, found: Option<bool>, killed_ms: u32) -> Result<(), Finding> {
        let mut queue = ledger.queue(0);
        queue.begin_life();
        if let Some(redelivered) = found {
            queue.found(MESSAGE, redelivered, killed_ms, &mut Restored::default())?;
        }
        queue.found_all()
    }

    #[test]
    fn a_confirmed_message_must_be_there() {
        assert!(restart(&ledger(), Some(false), 0).is_ok());
        assert!(restart(&ledger(), None, 0).unwrap_err().what.starts_with("LOST"));
    }

    #[test]
    fn what_was_not_confirmed_may_be_lost_but_not_come_later() {
        let ledger = Ledger::new(1, 1);
        ledger.sending(MESSAGE, &[0], true);
        assert!(restart(&ledger, None, 0).is_ok());
        assert!(restart(&ledger, Some(false), 0).is_err());
    }

    #[test]
    fn a_transient_message_goes_with_a_restart() {
        let ledger = Ledger::new(1, 1);
        ledger.sending(MESSAGE, &[0], false);
        ledger.confirmed(MESSAGE, &[0], 100, 7);
        assert!(restart(&ledger, Some(false), 0).is_err());
        assert!(restart(&ledger, None, 0).is_ok());
    }

    #[test]
    fn an_ack_is_final_after_two_seconds() {
        let acked = || {
            let ledger = ledger();
            ledger.acking(0, &[MESSAGE]);
            ledger.acks_sent(0, &[MESSAGE]);
            ledger
        };
        assert!(restart(&acked(), None, ACK_FINAL_MS * 2).is_ok());
        assert!(restart(&acked(), Some(true), ACK_FINAL_MS / 2).is_ok());
        assert!(restart(&acked(), Some(true), ACK_FINAL_MS * 2).is_err());
        let settled = acked();
        assert!(restart(&settled, None, 1).is_ok());
        assert!(restart(&settled, Some(true), 1).is_err(), "a message that was gone must not come again");
    }

    #[test]
    fn a_server_without_an_answer_may_not_have_read_what_was_sent() {
        assert_eq!(ledger().answered_until(9), 7);
        assert_eq!(ledger().answered_until(5), 5, "a kill may come before the confirm is read");
        let transient = Ledger::new(1, 1);
        transient.sending(MESSAGE, &[0], false);
        transient.confirmed(MESSAGE, &[0], 100, 7);
        assert_eq!(transient.answered_until(9), 0, "the disk was not needed");
    }

    #[test]
    fn what_comes_twice_is_marked() {
        let ledger = ledger();
        ledger.queue(0).delivered(MESSAGE, false, 1).unwrap();
        assert!(ledger.queue(0).delivered(MESSAGE, false, 2).is_err());
        assert!(ledger.queue(0).delivered(MESSAGE, true, 2).is_ok());
        assert!(restart(&ledger, Some(true), DELIVERY_REMEMBERED_MS * 2).is_ok());
        assert!(restart(&ledger, Some(false), DELIVERY_REMEMBERED_MS * 2).is_err());
    }

    #[test]
    fn strangers_are_noticed() {
        let stranger = Identity { sequence: 7, ..MESSAGE };
        assert!(ledger().queue(0).delivered(stranger, false, 1).is_err());
    }
}
