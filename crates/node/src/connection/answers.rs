//! What a connection is told: confirms, and answers for its peer or its session. Some wait for the journal.

use ferrymq_model::{Answer, Event, OnRefusal, Origin, Position, PublishOutcome, Refusal, Reply};

use crate::connection::{
    confirms::ChannelConfirms,
    mailbox::{ClientState, Mailbox},
};

impl Mailbox {
    /// `count` more publishes of a channel were decided; `position` is set if some of them wait for the journal. A
    /// queue did not accept those in `refused`, counted from 1.
    pub fn published(&mut self, channel: u16, count: u64, refused: &[u64], position: Option<Position>) {
        let Some(found) = self.state.channels.get_mut(&channel) else { return };
        if let Some(ChannelConfirms::Counted(confirms)) = &mut found.confirms {
            for ahead in refused {
                self.effects.not_confirmed(channel, confirms.refuse(*ahead));
            }
            confirms.published(count, position);
            if count > 0 && !std::mem::replace(&mut found.unconfirmed, true) {
                self.state.unconfirmed.push(channel);
            }
        }
    }

    /// One more publish was decided, of a channel that may confirm each publish.
    pub fn published_one(&mut self, origin: Origin, outcome: PublishOutcome, position: Option<Position>) {
        let Some(found) = self.state.channels.get_mut(&origin.channel) else { return };
        if let Some(ChannelConfirms::Each(confirms)) = &mut found.confirms
            && origin.answer != Answer::Nobody
        {
            confirms.published(origin, outcome, position);
            if !std::mem::replace(&mut found.unconfirmed, true) {
                self.state.unconfirmed.push(origin.channel);
            }
        }
    }

    /// Confirms what can be confirmed, with `durable` as the durable position. Channels that wait for the journal
    /// are only looked at when it has advanced. Returns whether the owner must be woken, because the session gets an
    /// answer.
    #[must_use]
    pub fn confirm(&mut self, durable: Position) -> bool {
        let mut is_answered = false;
        let Self { state, effects, events, .. } = self;
        let ClientState { unconfirmed, awaiting_journal, channels, .. } = state;
        let mut waits = |number: &u16| {
            let Some(channel) = channels.get_mut(number) else { return false };
            channel.unconfirmed = match &mut channel.confirms {
                None => false,
                Some(ChannelConfirms::Counted(confirms)) => {
                    if let Some((last, multiple)) = confirms.take(durable) {
                        effects.confirm(*number, last, multiple);
                    }
                    confirms.is_waiting()
                }
                Some(ChannelConfirms::Each(confirms)) => {
                    while let Some((origin, outcome)) = confirms.take(durable) {
                        let reply = Reply::Published(outcome);
                        if origin.answer == Answer::Session {
                            events.push(Event::Answered { origin, reply: Ok(reply) });
                            is_answered = true;
                        } else {
                            effects.reply(origin, reply);
                        }
                    }
                    confirms.is_waiting()
                }
            };
            channel.unconfirmed
        };
        if std::mem::replace(&mut self.looked_at, durable) != durable {
            awaiting_journal.retain(&mut waits);
        }
        awaiting_journal.extend(unconfirmed.drain(..).filter(&mut waits));
        while let Some((_, answer)) = self.held_answers.pop_front_if(|(position, _)| *position <= durable) {
            self.events.push(answer);
            is_answered = true;
        }
        is_answered
    }

    /// Whether each publish of the channel has an answer of its own.
    pub fn confirms_each(&self, channel: u16) -> bool {
        let channel = self.state.channels.get(&channel);
        channel.is_some_and(|channel| matches!(channel.confirms, Some(ChannelConfirms::Each(_))))
    }

    /// Whether the channel's publisher wants confirms.
    pub fn confirms(&self, channel: u16) -> bool {
        self.state.channels.get(&channel).is_some_and(|channel| channel.confirms.is_some())
    }

    /// Whether something in here waits for the journal to advance beyond `durable`.
    pub fn awaits_journal(&self, durable: Position) -> bool {
        self.effects.held().is_some_and(|position| position > durable)
            || !self.held_answers.is_empty()
            || !(self.state.awaiting_journal.is_empty() && self.state.unconfirmed.is_empty())
    }

    /// Answers a request, when the journal is durable up to `after`.
    pub fn reply(&mut self, origin: Origin, after: Option<Position>, reply: Reply) {
        match (origin.answer, after) {
            (Answer::Nobody, _) => {}
            (Answer::Session, None) => self.events.push(Event::Answered { origin, reply: Ok(reply) }),
            (Answer::Session, Some(position)) => {
                self.held_answers.push_back((position, Event::Answered { origin, reply: Ok(reply) }));
            }
            (Answer::Peer, after) => {
                if let Some(position) = after {
                    self.effects.hold(position);
                }
                self.effects.reply(origin, reply);
            }
        }
    }

    /// Refuses a request. If a refusal ends its channel, the channel ignores further requests until the session has
    /// closed it. Otherwise the refusal is the answer; the session gets it unless the peer does. A request of the
    /// connection itself has no channel that could end: its refusal is the answer if the session wants one.
    pub fn refuse(&mut self, origin: Origin, refusal: &Refusal, events: &mut Vec<Event>) {
        let channel = self.state.channels.get_mut(&origin.channel);
        let goes_on = match &channel {
            Some(channel) => channel.on_refusal == OnRefusal::GoOn,
            None => origin.answer == Answer::Session,
        };
        if goes_on && origin.answer != Answer::Peer {
            events.push(Event::Answered { origin, reply: Err(refusal.clone()) });
            return;
        }
        self.effects.refused(origin, refusal.clone());
        if goes_on {
            return;
        }
        if let Some(channel) = channel {
            channel.refused = true;
        }
        events.push(Event::Refused { origin, refusal: refusal.clone() });
    }
}
