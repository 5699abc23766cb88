//! A consumer: reads deliveries, checks each of them, and acknowledges as the load says.

use std::time::Duration;

use super::connection::{Connection, unexpected};
use super::frames::*;
use super::load::{Ack, Load, Spread};
use super::producer::filling;
use super::target::Target;
use crate::bench::Failure;
use crate::bench::verify::{Arrivals, IDENTITY_BYTES, Identity};

/// How often a consumer without deliveries checks whether the run is over.
const LOOK_UP_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub struct Consumer {
    connection: Connection,
    message: Incoming,
    acks: Acks,
    arrivals: Arrivals,
    spread: Spread,
    producers: u16,
}

/// The message whose frames are arriving.
#[derive(Debug)]
struct Incoming {
    /// The pattern that follows the identity in every body.
    expected: Vec<u8>,
    /// Bytes of the body so far.
    received: usize,
    announced: usize,
    identity: [u8; IDENTITY_BYTES],
    intact: bool,
}

#[derive(Debug)]
struct Acks {
    policy: Ack,
    /// The queue of the delivery whose body is not complete.
    coming_from: u16,
    /// The tag of that delivery.
    coming_tag: u64,
    last_tag: u64,
    acked_tag: u64,
    out: Outgoing,
}

impl Consumer {
    /// Consumes from these queues of the load.
    pub fn start(
        target: &Target,
        load: &Load,
        producers: u16,
        queues: impl Iterator<Item = u16>,
    ) -> Result<Consumer, Failure> {
        let mut connection = Connection::open(target)?;
        for queue in queues {
            connection.consume(&load.queue_name(queue), &queue.to_string(), load.prefetch, load.ack == Ack::Auto)?;
        }
        connection.set_patience(LOOK_UP_EVERY)?;
        Ok(Consumer {
            connection,
            message: Incoming::new(load.body_bytes),
            acks: Acks {
                policy: load.ack,
                coming_from: 0,
                coming_tag: 0,
                last_tag: 0,
                acked_tag: 0,
                out: Outgoing::default(),
            },
            arrivals: Arrivals::new(usize::from(producers) * usize::from(load.spread.queues())),
            spread: load.spread,
            producers,
        })
    }

    /// Waits for deliveries and calls `each` for each of them, after the checks. False if none arrive in time.
    pub fn take(&mut self, mut each: impl FnMut(Identity)) -> Result<bool, Failure> {
        if !self.connection.wait()? {
            return Ok(false);
        }
        while let Some(frame) = self.connection.next_frame()? {
            match frame.kind {
                METHOD => self.acks.begin(frame.payload)?,
                HEADER => self.message.begin(frame.payload)?,
                BODY => {
                    if self.message.append(frame.payload) {
                        self.acks.completed();
                        match self.message.identity() {
                            Some(id) => {
                                let queue = self.acks.coming_from;
                                match self.spread.place(id.sequence, queue).filter(|_| id.producer < self.producers) {
                                    Some(sequence) => {
                                        let producer = queue * self.producers + id.producer;
                                        self.arrivals.note(Identity { producer, sequence });
                                    }
                                    None => self.arrivals.note_damaged(),
                                }
                                each(id);
                            }
                            None => self.arrivals.note_damaged(),
                        }
                    }
                }
                HEARTBEAT => {}
                other => return Err(Failure::Protocol(format!("a frame of type {other}"))),
            }
        }
        self.send_acks()?;
        Ok(true)
    }

    /// Messages that arrived, correct or not.
    pub fn count(&self) -> u64 {
        self.arrivals.count()
    }

    /// Acknowledges the rest and returns what the consumer saw.
    pub fn finish(mut self) -> Result<Arrivals, Failure> {
        self.acks.all();
        self.send_acks()?;
        Ok(self.arrivals)
    }

    fn send_acks(&mut self) -> Result<(), Failure> {
        if self.acks.out.0.is_empty() {
            return Ok(());
        }
        let sent = self.connection.send(&self.acks.out.0);
        self.acks.out.0.clear();
        sent
    }
}

impl Incoming {
    fn new(body_bytes: usize) -> Incoming {
        Incoming {
            expected: filling(body_bytes),
            received: 0,
            announced: 0,
            identity: [0; IDENTITY_BYTES],
            intact: true,
        }
    }

    fn begin(&mut self, header: &[u8]) -> Result<(), Failure> {
        let mut fields = Fields(header);
        fields.take(4)?;
        self.announced = fields.u64()? as usize;
        if self.announced == 0 {
            return Err(Failure::Protocol(
                "an empty message, which we never send: is the queue used by others?".to_owned(),
            ));
        }
        self.received = 0;
        self.intact = self.announced == self.expected.len();
        Ok(())
    }

    /// Adds a body frame. True when the body is complete.
    fn append(&mut self, part: &[u8]) -> bool {
        let from = self.received;
        self.received += part.len();
        let mut checked = part;
        if from == 0 {
            match part.split_first_chunk() {
                Some((identity, rest)) => {
                    self.identity = *identity;
                    checked = rest;
                }
                None => self.intact = false,
            }
        }
        let expected = self.expected.get(self.received - checked.len()..self.received);
        self.intact &= expected == Some(checked);
        self.received >= self.announced
    }

    fn identity(&self) -> Option<Identity> {
        self.intact.then(|| Identity::from_bytes(self.identity))
    }
}

impl Acks {
    fn begin(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let mut fields = Fields(payload);
        match fields.method()? {
            BASIC_DELIVER => {}
            other => return Err(unexpected(other)),
        }
        let tag = fields.short()?;
        let queue = std::str::from_utf8(tag).ok().and_then(|tag| tag.parse().ok());
        self.coming_from =
            queue.ok_or_else(|| Failure::Protocol("a delivery to a consumer that is not ours".to_owned()))?;
        self.coming_tag = fields.u64()?;
        Ok(())
    }

    fn completed(&mut self) {
        self.last_tag = self.coming_tag;
        if let Ack::Multiple(count) = self.policy
            && self.last_tag - self.acked_tag >= count
        {
            self.all();
        }
    }

    fn all(&mut self) {
        if self.policy == Ack::Auto || self.last_tag == self.acked_tag {
            return;
        }
        let tag = self.last_tag;
        self.out.method(CHANNEL, BASIC_ACK, |out| {
            out.u64(tag).u8(1);
        });
        self.acked_tag = tag;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives the consumer bodies in parts, as frames do, and returns the outcome of the message.
    fn receive(announced: usize, parts: &[&[u8]]) -> Option<Identity> {
        let mut message = Incoming::new(16);
        let mut header = Outgoing::default();
        header.u16(60).u16(0).u64(announced as u64).u16(0);
        message.begin(&header.0).unwrap();
        let whole: Vec<bool> = parts.iter().map(|part| message.append(part)).collect();
        assert_eq!(whole.iter().filter(|&&whole| whole).count(), 1);
        message.identity()
    }

    fn body() -> (Identity, Vec<u8>) {
        let id = Identity { producer: 3, sequence: 99 };
        let mut body = filling(16);
        body[..IDENTITY_BYTES].copy_from_slice(&id.to_bytes());
        (id, body)
    }

    #[test]
    fn a_body_is_recognized_in_one_frame_and_in_several() {
        let (id, body) = body();
        assert_eq!(receive(16, &[&body]), Some(id));
        assert_eq!(receive(16, &[&body[..8], &body[8..9], &body[9..]]), Some(id));
    }

    #[test]
    fn a_changed_octet_is_damage() {
        let (_, mut body) = body();
        body[15] ^= 1;
        assert_eq!(receive(16, &[&body]), None);
    }

    #[test]
    fn another_length_is_damage() {
        let (_, body) = body();
        assert_eq!(receive(9, &[&body[..9]]), None);
        assert_eq!(receive(4, &[&body[..4]]), None);
        assert_eq!(receive(17, &[&[&body[..], b"x"].concat()]), None);
    }

    #[test]
    fn one_ack_stands_for_as_many_deliveries_as_asked() {
        let mut acks = Acks {
            policy: Ack::Multiple(50),
            coming_from: 0,
            coming_tag: 0,
            last_tag: 0,
            acked_tag: 0,
            out: Outgoing::default(),
        };
        let ack_bytes = 21;
        for tag in 1..=120 {
            let mut deliver = Outgoing::default();
            deliver.u16(60).u16(60).short("0").u64(tag).u8(0);
            acks.begin(&deliver.0).unwrap();
            acks.completed();
        }
        assert_eq!(acks.out.0.len(), 2 * ack_bytes);
        acks.all();
        acks.all();
        assert_eq!(acks.out.0.len(), 3 * ack_bytes);
        assert_eq!(acks.acked_tag, 120);
    }
}
