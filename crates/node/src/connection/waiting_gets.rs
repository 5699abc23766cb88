//! The gets of a channel that wait for the disk.

use ferrymq_model::{Answer, QueueId};

use crate::connection::mailbox::{Get, Mailbox};

/// How many gets of a channel whose answers its session gets may wait at the same time.
const SESSION_GETS_MAX: usize = 64;

/// A get that waits.
#[derive(Clone, Copy, Debug)]
pub struct ChannelGet {
    /// Its number among all that wait.
    pub number: u64,
    /// The queue for whose message it waits.
    pub queue: QueueId,
    answer: Answer,
}

impl Mailbox {
    /// A get of a channel waits from now on.
    pub fn get_waits(&mut self, get: &Get, number: u64) {
        if let Some(channel) = self.state.channels.get_mut(&get.origin.channel) {
            channel.gets.push(ChannelGet { number, queue: get.queue, answer: get.origin.answer });
        }
    }

    /// It does not wait any more.
    pub fn get_ended(&mut self, get: &Get, number: u64) {
        if let Some(channel) = self.state.channels.get_mut(&get.origin.channel) {
            channel.gets.retain(|waiting| waiting.number != number);
        }
    }

    /// Whether later requests of the channel wait for a get whose answer is not for the session.
    pub fn awaits_get(&self, channel: u16) -> bool {
        let channel = self.state.channels.get(&channel).filter(|channel| !channel.refused);
        channel.is_some_and(|channel| channel.gets.iter().any(|waiting| waiting.answer != Answer::Session))
    }

    /// Whether any get of the connection waits.
    pub fn has_waiting_gets(&self) -> bool {
        self.state.channels.values().any(|channel| !channel.gets.is_empty())
    }

    /// Whether so many gets of the channel wait that another one has to wait for them.
    pub fn awaits_many_gets(&self, channel: u16) -> bool {
        let channel = self.state.channels.get(&channel).filter(|channel| !channel.refused);
        channel.is_some_and(|channel| channel.gets.len() >= SESSION_GETS_MAX)
    }
}
