//! Publishers and consumers that work until their server is killed.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::body::Identity;
use super::ledger::{Ledger, OWN_FILE_BYTES};
use super::plan::{PUBLISHERS, QUEUES, WAITING_MAX, WAITING_MIN};
use super::{FANOUT, Trouble, queue_name};
use crate::client::{Arrival, Client};
use crate::failure::Failure;
use crate::random::Random;

const UNCONFIRMED_MAX: usize = 500;
/// How long a paused client waits before it checks again whether it may go on.
const LOOK_UP_EVERY: Duration = Duration::from_millis(2);

/// The state that all clients share between a start and an end of the server.
#[derive(Debug)]
pub struct Life<'a> {
    pub ledger: &'a Ledger,
    pub address: SocketAddr,
    /// True from just before the kill on. Then a lost connection is expected.
    pub killing: AtomicBool,
    /// Whether the server is asked to end, so that it closes its connections.
    pub ends_in_order: bool,
    /// A client has found a fault, so the round ends.
    pub failed: AtomicBool,
}

impl Life<'_> {
    /// Runs a client until the server is killed. Fails if it ends before.
    pub fn until_killed(&self, client: impl FnOnce(&Self) -> Result<(), Trouble>) -> Result<(), Trouble> {
        match client(self) {
            Err(Trouble::Failed(Failure::Lost(_))) if self.killing.load(Relaxed) => Ok(()),
            Err(Trouble::Failed(Failure::Closed(_))) if self.killing.load(Relaxed) && self.ends_in_order => Ok(()),
            ended => {
                self.failed.store(true, Relaxed);
                ended
            }
        }
    }
}

struct Unconfirmed {
    identity: Identity,
    queues: Vec<usize>,
    bytes: usize,
    sent_ms: u32,
}

pub fn publish(life: &Life<'_>, publisher: usize, mut random: Random) -> Result<(), Trouble> {
    let mut client = Client::open(life.address)?;
    client.select_confirms()?;
    client.set_patience(LOOK_UP_EVERY)?;
    let mut next: Vec<u64> = (0..QUEUES).map(|queue| life.ledger.sent(queue, publisher)).collect();
    let mut unconfirmed = VecDeque::new();
    let mut confirmed_tag = 0;
    loop {
        if unconfirmed.len() < UNCONFIRMED_MAX && life.ledger.waiting.load(Relaxed) < WAITING_MAX {
            for _ in 0..=random.below(40) {
                unconfirmed.push_back(publish_one(life, publisher, &mut next, &mut client, &mut random));
            }
            client.flush()?;
        }
        let mut arrival = if unconfirmed.is_empty() { wait(&mut client)? } else { client.receive()? };
        while let Some(arrived) = arrival {
            let Arrival::Confirm { tag, multiple } = arrived else {
                return Err(Failure::Wrong("a delivery came to a publisher".to_owned()).into());
            };
            take_confirm(life, tag, multiple, &mut confirmed_tag, &mut unconfirmed)?;
            arrival = client.received()?;
        }
    }
}

fn wait(client: &mut Client) -> Result<Option<Arrival>, Trouble> {
    Ok(client.receive()?)
}

fn publish_one(
    life: &Life<'_>,
    publisher: usize,
    next: &mut [u64],
    client: &mut Client,
    random: &mut Random,
) -> Unconfirmed {
    let is_fanout = publisher == PUBLISHERS - 1;
    let queue = if is_fanout { 0 } else { random.below(QUEUES as u64) as usize };
    let queues: Vec<usize> = if is_fanout { (0..QUEUES).collect() } else { vec![queue] };
    let bytes = match random.below(5_000) {
        0 => OWN_FILE_BYTES as u64 + random.below(200_000),
        // The server copies shorter bodies and shares these.
        1..100 => 3_000 + random.below(17_000),
        _ => 50 + random.below(500),
    } as usize;
    let identity = Identity { publisher: publisher as u16, queue: queue as u16, sequence: next[queue] };
    next[queue] += 1;
    // One message in four is transient. So after a restart there are gaps between the sequence numbers.
    let persistent = is_fanout || !random.once_in(4);
    let sent_ms = life.ledger.now_ms();
    life.ledger.sending(identity, &queues, persistent);
    let body = identity.body(bytes);
    if is_fanout {
        client.publish(FANOUT, "", true, &body);
    } else {
        client.publish("", &queue_name(queue), persistent, &body);
    }
    Unconfirmed { identity, queues, bytes, sent_ms }
}

/// Takes a confirm. The oldest unconfirmed message has the tag `confirmed_tag + 1`. The server confirms in order, with
/// and without `multiple`.
fn take_confirm(
    life: &Life<'_>,
    tag: u64,
    multiple: bool,
    confirmed_tag: &mut u64,
    unconfirmed: &mut VecDeque<Unconfirmed>,
) -> Result<(), Trouble> {
    let is_next = multiple && tag > *confirmed_tag || tag == *confirmed_tag + 1;
    if !is_next || tag - *confirmed_tag > unconfirmed.len() as u64 {
        let what = format!("the confirm of tag {tag} came in the wrong order: {confirmed_tag} are confirmed");
        return Err(Failure::Wrong(what).into());
    }
    for message in unconfirmed.drain(..(tag - *confirmed_tag) as usize) {
        life.ledger.confirmed(message.identity, &message.queues, message.bytes, message.sent_ms);
    }
    *confirmed_tag = tag;
    Ok(())
}

/// Consumes, acks in several ways, and always leaves some messages unacked.
pub fn consume(life: &Life<'_>, queue: usize, mut random: Random) -> Result<(), Trouble> {
    let mut client = Client::open(life.address)?;
    client.consume(&queue_name(queue), 50 + random.below(300) as u16, false)?;
    client.set_patience(LOOK_UP_EVERY)?;
    let mut unacked: VecDeque<(u64, Identity)> = VecDeque::new();
    let mut highest = [None; PUBLISHERS];
    loop {
        let mut arrival = client.receive()?;
        while let Some(arrived) = arrival {
            let Arrival::Delivery(delivery) = arrived else {
                return Err(Failure::Wrong("a confirm came to a consumer".to_owned()).into());
            };
            let identity = Identity::of_body(&delivery.body).ok_or_else(|| damaged(queue, &delivery.body))?;
            if life.ends_in_order && life.killing.load(Relaxed) {
                // The server closes one connection after the other. The unacked messages of a closed connection go to
                // the next one, which may read them before we read the close.
                return Ok(());
            }
            let mut ledger = life.ledger.queue(queue);
            ledger.delivered(identity, delivery.redelivered, life.ledger.now_ms())?;
            in_order(&mut highest, identity).map_err(|what| ledger.finding(identity, &what))?;
            drop(ledger);
            unacked.push_back((delivery.tag, identity));
            arrival = client.received()?;
        }
        if life.ledger.waiting.load(Relaxed) > WAITING_MIN {
            ack_some(life, queue, &mut client, &mut unacked, &mut random)?;
        }
    }
}

fn ack_some(
    life: &Life<'_>,
    queue: usize,
    client: &mut Client,
    unacked: &mut VecDeque<(u64, Identity)>,
    random: &mut Random,
) -> Result<(), Trouble> {
    if unacked.is_empty() {
        return Ok(());
    }
    let mut acked = Vec::new();
    if random.once_in(2) {
        let upto = random.below(unacked.len() as u64) as usize;
        client.ack(unacked[upto].0, true);
        acked.extend(unacked.drain(..=upto).map(|(_, identity)| identity));
    } else {
        unacked.retain(|(tag, identity)| {
            let stays = random.once_in(5);
            if !stays {
                client.ack(*tag, false);
                acked.push(*identity);
            }
            stays
        });
    }
    life.ledger.acking(queue, &acked);
    client.flush()?;
    life.ledger.acks_sent(queue, &acked);
    Ok(())
}

pub fn damaged(queue: usize, body: &[u8]) -> Failure {
    Failure::Wrong(format!("queue {queue}: a body of {} octets that no publisher sent", body.len()))
}

/// Checks that the messages of each publisher come to a consumer in the order in which they were published.
pub fn in_order(highest: &mut [Option<u64>; PUBLISHERS], identity: Identity) -> Result<(), String> {
    let Some(last) = highest.get_mut(usize::from(identity.publisher)) else {
        return Err("there is no such publisher".to_owned());
    };
    match last.replace(identity.sequence) {
        Some(last) if last >= identity.sequence => Err(format!("it came after sequence {last}")),
        _ => Ok(()),
    }
}
