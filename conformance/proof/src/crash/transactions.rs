//! Transactions when the server is killed. A publisher puts messages into three queues in each transaction. After a
//! restart the three queues must have the same messages: all of a transaction or none of it, and all of it if its
//! commit was answered.
//!
//! The messages are numbered. After each restart all of them are taken out, and `from` becomes the next number.

use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use super::Trouble;
use super::load::Life;
use crate::client::{Arrival, Client};
use crate::failure::Failure;
use crate::random::Random;
use crate::server::Server;

const QUEUES: [&str; 3] = ["crash-tx-0", "crash-tx-1", "crash-tx-2"];
/// The maximum number of messages of a transaction in each queue. The longest ones together are longer than a journal
/// file.
const MESSAGES_MAX: u64 = 12;
/// The pause after a transaction. It limits the number of messages, because all of them are read after the round.
const PAUSE: Duration = Duration::from_millis(3);

/// The publisher's record of its transactions.
#[derive(Debug, Default)]
pub struct Transactions(Mutex<Numbers>);

/// Numbers of messages. Those below `from` were taken out. The others below `committed` must be there. The messages of
/// the transaction whose commit was not answered are below `begun`.
#[derive(Debug, Default, Clone, Copy)]
struct Numbers {
    from: u64,
    committed: u64,
    begun: u64,
    commits: u64,
}

impl Transactions {
    pub fn declare(client: &mut Client) -> Result<(), Trouble> {
        for queue in QUEUES {
            client.declare(queue, true, false)?;
        }
        Ok(())
    }

    /// The number of commits that were answered.
    pub fn commits(&self) -> u64 {
        self.numbers(|numbers| numbers.commits)
    }

    fn numbers<T>(&self, look: impl FnOnce(&mut Numbers) -> T) -> T {
        look(&mut self.0.lock().expect("no thread panics while it holds the numbers"))
    }

    /// Commits transactions until the server is killed.
    pub fn publish(&self, life: &Life<'_>, mut random: Random) -> Result<(), Trouble> {
        let mut client = Client::open(life.address)?;
        client.select_transactions()?;
        loop {
            let first = self.numbers(|numbers| numbers.begun);
            let end = first + 1 + random.below(MESSAGES_MAX);
            self.numbers(|numbers| numbers.begun = end);
            let filling = vec![b't'; if random.once_in(4) { 10_000 } else { 100 }];
            for number in first..end {
                let body = [&number.to_be_bytes(), &filling[..]].concat();
                QUEUES.iter().for_each(|queue| client.publish("", queue, true, &body));
            }
            client.commit()?;
            self.numbers(|numbers| {
                numbers.committed = end;
                numbers.commits += 1;
            });
            thread::sleep(PAUSE);
        }
    }

    /// Compares the messages of a restarted server with those that were committed, and takes them out.
    pub fn look(&self, server: &Server) -> Result<(), Trouble> {
        let numbers = self.numbers(|numbers| *numbers);
        let [first, second, third] = QUEUES.map(|queue| read(server, queue));
        let (first, second, third) = (first?, second?, third?);
        numbers.check([&first, &second, &third])?;
        let mut client = Client::open(server.address())?;
        for queue in QUEUES {
            client.purge(queue)?;
        }
        client.close()?;
        let end = numbers.from + first.len() as u64;
        self.numbers(|numbers| *numbers = Numbers { from: end, committed: end, begun: end, ..*numbers });
        Ok(())
    }
}

impl Numbers {
    fn check(&self, queues: [&[u64]; 3]) -> Result<(), Failure> {
        let found = queues[0];
        if queues.iter().any(|other| *other != found) {
            let counts = queues.map(<[u64]>::len);
            return Err(Failure::Wrong(format!(
                "half a transaction: the three queues hold {counts:?} messages; {self:?}"
            )));
        }
        let end = self.from + found.len() as u64;
        if !found.iter().copied().eq(self.from..end) {
            return Err(Failure::Wrong(format!("transactions came in the wrong order; {self:?}")));
        }
        if end != self.committed && end != self.begun {
            return Err(Failure::Wrong(format!(
                "the messages end before {end}, and no transaction ended there; {self:?}"
            )));
        }
        Ok(())
    }
}

/// The numbers of all messages in a queue. The messages stay in the queue.
pub fn read(server: &Server, queue: &str) -> Result<Vec<u64>, Trouble> {
    let mut client = Client::open(server.address())?;
    let announced = client.declare(queue, true, true)?;
    client.consume(queue, 0, false)?;
    let mut numbers = Vec::new();
    while (numbers.len() as u64) < announced {
        let Some(Arrival::Delivery(delivery)) = client.receive()? else {
            return Err(format!("{queue}: {announced} messages are announced, and {} came", numbers.len()).into());
        };
        let number = delivery.body.first_chunk().ok_or_else(|| format!("{queue}: a body that no publisher sent"))?;
        numbers.push(u64::from_be_bytes(*number));
    }
    client.close()?;
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_losses_and_leftovers_are_noticed() {
        let numbers = Numbers { from: 10, committed: 14, begun: 17, commits: 3 };
        let queue = |end: u64| (10..end).collect::<Vec<_>>();
        let check = |ends: [u64; 3]| {
            let queues = ends.map(queue);
            numbers.check([&queues[0], &queues[1], &queues[2]]).is_ok()
        };
        assert!(check([14; 3]) && check([17; 3]));
        assert!(!check([17, 17, 14]), "half a transaction");
        assert!(!check([12; 3]), "a commit is lost");
        assert!(!check([15; 3]), "a part of a transaction in each");
        assert!(numbers.check([&[11, 10, 12, 13]; 3]).is_err(), "out of order");
    }
}
