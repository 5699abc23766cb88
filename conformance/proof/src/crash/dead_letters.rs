//! Dead letters when the server is killed. A publisher fills a queue. A consumer rejects all messages in it, and they
//! become dead letters in a second queue. After a restart no message may be in both queues, and a confirmed message
//! must be in one of them.
//!
//! The messages are numbered. After each restart all of them are taken out, and `from` becomes the next number.

use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use super::Trouble;
use super::load::Life;
use super::transactions::read;
use crate::client::{Arrival, Client};
use crate::failure::Failure;
use crate::random::Random;
use crate::server::Server;

const WORK: &str = "crash-dead-work";
const DEAD_LETTERS: &str = "crash-dead-letters";
/// The maximum number of messages before the publisher waits for their confirms.
const MESSAGES_MAX: u64 = 40;
/// The pause after them. It limits the number of messages, because all of them are read after the round.
const PAUSE: Duration = Duration::from_millis(3);
const PREFETCH: u16 = 100;

/// The publisher's record of its messages.
#[derive(Debug, Default)]
pub struct DeadLetters(Mutex<Numbers>);

/// Numbers of messages. Those below `from` were taken out. The others below `confirmed` must be there, and the others
/// below `begun` may be there.
#[derive(Debug, Default, Clone, Copy)]
struct Numbers {
    from: u64,
    confirmed: u64,
    begun: u64,
    dead_letters: u64,
}

impl DeadLetters {
    pub fn declare(client: &mut Client) -> Result<(), Trouble> {
        client.declare(DEAD_LETTERS, true, false)?;
        Ok(client.declare_with_dead_letters(WORK, DEAD_LETTERS)?)
    }

    /// The number of dead letters that were found.
    pub fn dead_letters(&self) -> u64 {
        self.numbers(|numbers| numbers.dead_letters)
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
            self.numbers(|numbers| numbers.begun = end);
            let filling = vec![b'd'; if random.once_in(8) { 10_000 } else { 100 }];
            for number in first..end {
                client.publish("", WORK, true, &[&number.to_be_bytes(), &filling[..]].concat());
            }
            client.flush()?;
            published += end - first;
            let mut confirmed = 0;
            while confirmed < published {
                match client.receive()? {
                    Some(Arrival::Confirm { tag, .. }) => confirmed = tag,
                    _ => return Err(Failure::Wrong("a delivery came to a publisher".to_owned()).into()),
                }
            }
            self.numbers(|numbers| numbers.confirmed = end);
            thread::sleep(PAUSE);
        }
    }

    /// Rejects all messages until the server is killed.
    pub fn reject(life: &Life<'_>) -> Result<(), Trouble> {
        let mut client = Client::open(life.address)?;
        client.consume(WORK, PREFETCH, false)?;
        loop {
            let mut arrival = client.receive()?;
            while let Some(Arrival::Delivery(delivery)) = arrival {
                client.reject(delivery.tag);
                arrival = client.received()?;
            }
            client.flush()?;
        }
    }

    /// Compares the messages of a restarted server with those that were confirmed, and takes them out.
    pub fn look(&self, server: &Server) -> Result<(), Trouble> {
        let numbers = self.numbers(|numbers| *numbers);
        let (waiting, dead_letters) = (read(server, WORK)?, read(server, DEAD_LETTERS)?);
        numbers.check(&waiting, &dead_letters)?;
        let mut client = Client::open(server.address())?;
        client.purge(WORK)?;
        client.purge(DEAD_LETTERS)?;
        client.close()?;
        let (from, dead_letters) = (numbers.begun, numbers.dead_letters + dead_letters.len() as u64);
        self.numbers(|numbers| *numbers = Numbers { from, confirmed: from, begun: from, dead_letters });
        Ok(())
    }
}

impl Numbers {
    fn check(&self, waiting: &[u64], dead_letters: &[u64]) -> Result<(), Failure> {
        let mut found: Vec<u64> = waiting.iter().chain(dead_letters).copied().collect();
        found.sort_unstable();
        let counts = (waiting.len(), dead_letters.len());
        if let Some(twice) = found.windows(2).find(|two| two[0] == two[1]) {
            return Err(Failure::Wrong(format!(
                "message {} is there twice, in its queue or as a dead letter: {counts:?} are there; {self:?}",
                twice[0]
            )));
        }
        if let Some(missing) = (self.from..self.confirmed).find(|number| found.binary_search(number).is_err()) {
            return Err(Failure::Wrong(format!(
                "message {missing} is neither in its queue nor a dead letter: {counts:?} are there; {self:?}"
            )));
        }
        match found.iter().find(|number| !(self.from..self.begun).contains(*number)) {
            Some(strange) => {
                Err(Failure::Wrong(format!("message {strange} was taken out before, or was never sent; {self:?}")))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_a_dead_letter_are_noticed() {
        let numbers = Numbers { from: 10, confirmed: 14, begun: 17, dead_letters: 0 };
        assert!(numbers.check(&[12, 13], &[10, 11]).is_ok());
        assert!(numbers.check(&[13, 15], &[10, 12, 11]).is_ok(), "messages that were not confirmed may be there");
        assert!(numbers.check(&[12, 13], &[10, 11, 12]).is_err(), "in both");
        assert!(numbers.check(&[12, 13], &[10]).is_err(), "in none");
        assert!(numbers.check(&[12, 13], &[10, 11, 11]).is_err(), "twice as a dead letter");
        assert!(numbers.check(&[12, 13], &[9, 10, 11]).is_err(), "it was taken out before");
    }
}
