//! Delayed messages when the server is killed. A publisher sends delayed messages, and none may be in its queue before
//! it is due. After a restart each confirmed message comes once, when it is due.
//!
//! The messages are numbered. A message without a confirm may come, but only once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use super::Trouble;
use super::load::Life;
use crate::client::{Arrival, Client};
use crate::failure::Failure;
use crate::random::Random;
use crate::server::Server;

const EXCHANGE: &str = "crash-delay";
const QUEUE: &str = "crash-delayed";
/// The maximum number of messages before the publisher waits for their confirms.
const MESSAGES_MAX: u64 = 20;
const DELAY_MS_MAX: u64 = 4_000;
/// How many milliseconds early a message may come. A server reads the wall clock once, at its start, and then counts
/// whole milliseconds. The wall clock may be corrected between two starts.
const EARLY_MS_MAX: u32 = 10;
/// The pause after them. It limits the number of messages, because all of them are read after the round.
const PAUSE: Duration = Duration::from_millis(5);

/// The publisher's record of its messages.
#[derive(Debug, Default)]
pub struct Delayed(Mutex<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    /// How many messages were sent.
    begun: u64,
    /// The messages that have not come yet, with the times at which they are due, by the ledger's clock.
    due_ms: BTreeMap<u64, u32>,
    /// The messages that were confirmed and have not come yet.
    missing: BTreeSet<u64>,
    came: u64,
}

impl Delayed {
    pub fn declare(client: &mut Client) -> Result<(), Trouble> {
        client.declare(QUEUE, true, false)?;
        client.declare_delaying(EXCHANGE)?;
        Ok(client.bind(QUEUE, EXCHANGE)?)
    }

    /// The number of messages that came when they were due.
    pub fn came(&self) -> u64 {
        self.numbers(|numbers| numbers.came)
    }

    fn numbers<T>(&self, look: impl FnOnce(&mut Numbers) -> T) -> T {
        look(&mut self.0.lock().expect("no thread panics while it holds the numbers"))
    }

    /// Publishes with confirms until the server is killed.
    pub fn publish(&self, life: &Life<'_>, mut random: Random) -> Result<(), Trouble> {
        let mut client = Client::open(life.address)?;
        client.select_confirms()?;
        let mut published = 0;
        loop {
            let first = self.numbers(|numbers| numbers.begun);
            let end = first + 1 + random.below(MESSAGES_MAX);
            for number in first..end {
                let delay_ms = 1 + random.below(DELAY_MS_MAX) as u32;
                let due_ms = life.ledger.now_ms() + delay_ms;
                self.numbers(|numbers| numbers.due_ms.insert(number, due_ms));
                client.publish_delayed(EXCHANGE, "", delay_ms.cast_signed(), &number.to_be_bytes());
            }
            self.numbers(|numbers| numbers.begun = end);
            client.flush()?;
            published += end - first;
            let mut confirmed = 0;
            while confirmed < published {
                match client.receive()? {
                    Some(Arrival::Confirm { tag, .. }) => confirmed = tag,
                    _ => return Err(Failure::Wrong("a delivery came to a publisher".to_owned()).into()),
                }
            }
            self.numbers(|numbers| numbers.missing.extend(first..end));
            thread::sleep(PAUSE);
        }
    }

    /// Reads from a restarted server until all confirmed messages have come, and acks them. `now_ms` returns the time.
    pub fn look(&self, server: &Server, now_ms: impl Fn() -> u32) -> Result<(), Trouble> {
        let mut client = Client::open(server.address())?;
        client.consume(QUEUE, 0, false)?;
        while !self.numbers(|numbers| numbers.missing.is_empty()) {
            let Some(Arrival::Delivery(delivery)) = client.receive()? else {
                let missing = self.numbers(|numbers| (numbers.missing.len(), numbers.missing.first().copied()));
                return Err(format!("{QUEUE}: confirmed messages do not come (count, first: {missing:?})").into());
            };
            let number =
                delivery.body.first_chunk().ok_or_else(|| format!("{QUEUE}: a body that no publisher sent"))?;
            self.numbers(|numbers| numbers.take(u64::from_be_bytes(*number), now_ms()))?;
            client.ack(delivery.tag, false);
        }
        client.flush()?;
        Ok(client.close()?)
    }
}

impl Numbers {
    fn take(&mut self, number: u64, now_ms: u32) -> Result<(), Failure> {
        let Some(due_ms) = self.due_ms.remove(&number) else {
            return Err(Failure::Wrong(format!("delayed message {number} came twice, or was never sent")));
        };
        if now_ms + EARLY_MS_MAX < due_ms {
            return Err(Failure::Wrong(format!("delayed message {number} came {} ms early", due_ms - now_ms)));
        }
        self.missing.remove(&number);
        self.came += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delayed_messages_that_come_early_or_twice_are_noticed() {
        let mut numbers = Numbers { begun: 2, due_ms: [(0, 100), (1, 200)].into(), missing: [0].into(), came: 0 };
        assert!(numbers.take(0, 95).is_ok());
        assert!(numbers.missing.is_empty());
        assert!(numbers.take(0, 110).is_err(), "twice");
        assert!(numbers.take(1, 180).is_err(), "early");
        assert!(numbers.take(2, 300).is_err(), "never sent");
    }
}
