//! Which of a channel's publishes its publisher has been told about.

use std::collections::VecDeque;

use ferrymq_model::{ConfirmMode, Origin, Position, PublishOutcome};

/// The publishes of a channel that wait for the journal, in the channel's mode.
#[derive(Debug)]
pub enum ChannelConfirms {
    /// By their numbers.
    Counted(Confirms),
    /// Each with its own answer.
    Each(EachConfirms),
}

impl ChannelConfirms {
    /// None wait.
    pub fn new(mode: ConfirmMode) -> Self {
        match mode {
            ConfirmMode::Counted => Self::Counted(Confirms::default()),
            ConfirmMode::Each => Self::Each(EachConfirms::default()),
        }
    }
}

/// Publishes that are answered one by one, in the order in which they were decided.
#[derive(Debug, Default)]
pub struct EachConfirms(VecDeque<(Position, Origin, PublishOutcome)>);

impl EachConfirms {
    /// One more publish was decided. It is answered when the journal is durable up to `position`.
    pub fn published(&mut self, origin: Origin, outcome: PublishOutcome, position: Option<Position>) {
        self.0.push_back((position.unwrap_or_default(), origin, outcome));
    }

    /// The next publish that can be answered now.
    pub fn take(&mut self, durable: Position) -> Option<(Origin, PublishOutcome)> {
        let (_, origin, outcome) = self.0.pop_front_if(|(position, ..)| *position <= durable)?;
        Some((origin, outcome))
    }

    pub fn is_waiting(&self) -> bool {
        !self.0.is_empty()
    }
}

/// A channel's publishes that wait for the journal. Tags begin with 1; the publisher knows about those up to
/// `told`. (AMQP-35)
#[derive(Debug, Default)]
pub struct Confirms {
    published: u64,
    told: u64,
    /// Up to which tag publishes are durable once a position is durable; both are ascending.
    waiting: VecDeque<(Position, u64)>,
    /// Tags above `told` that a queue has refused, ascending: the publisher knows about them already.
    refused: VecDeque<u64>,
}

impl Confirms {
    /// `count` more publishes were decided; `position` is set if some of them wait for the journal.
    pub fn published(&mut self, count: u64, position: Option<Position>) {
        self.published += count;
        match (position, self.waiting.back_mut()) {
            (Some(position), Some((last, tag))) if *last == position => *tag = self.published,
            (Some(position), _) => self.waiting.push_back((position, self.published)),
            // Transient ones after durable ones are confirmed with them, so that one confirm covers all.
            (None, Some((_, tag))) => *tag = self.published,
            (None, None) => {}
        }
    }

    /// The publish that will be the `ahead`-th from now on was refused; returns its tag. Called in ascending order,
    /// before [`Confirms::published`] counts it.
    pub fn refuse(&mut self, ahead: u64) -> u64 {
        let tag = self.published + ahead;
        self.refused.push_back(tag);
        tag
    }

    /// The last tag that can be confirmed now, and whether the confirm covers several.
    pub fn take(&mut self, durable: Position) -> Option<(u64, bool)> {
        let mut safe = self.told;
        while let Some((position, tag)) = self.waiting.front()
            && *position <= durable
        {
            safe = *tag;
            self.waiting.pop_front();
        }
        if self.waiting.is_empty() {
            safe = self.published;
        }
        let known = self.refused.iter().take_while(|tag| **tag <= safe).count();
        let count = safe - self.told - known as u64;
        self.told = safe;
        // The publisher knows about refused publishes already, so a confirm must not name one.
        let mut last = safe;
        for tag in self.refused.drain(..known).rev() {
            last -= u64::from(tag == last);
        }
        (count > 0).then_some((last, count > 1))
    }

    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_contiguous_is_confirmed_at_once() {
        let mut confirms = Confirms::default();
        confirms.published(3, Some(Position(10)));
        confirms.published(1, None);
        confirms.published(2, Some(Position(20)));
        assert_eq!(confirms.take(Position(9)), None);
        assert_eq!(confirms.take(Position(10)), Some((4, true)));
        assert!(confirms.is_waiting());
        assert_eq!(confirms.take(Position(20)), Some((6, true)));
        confirms.published(1, None);
        assert_eq!(confirms.take(Position(20)), Some((7, false)));
        assert_eq!(confirms.take(Position(20)), None);
    }

    #[test]
    fn what_was_refused_is_not_confirmed() {
        let mut confirms = Confirms::default();
        assert_eq!(confirms.refuse(1), 1);
        confirms.published(1, None);
        assert_eq!(confirms.take(Position(0)), None, "nothing else was published");
        // 2 is durable, 3 was refused, 4 is durable, 5 and 6 were refused.
        assert_eq!([confirms.refuse(2), confirms.refuse(4), confirms.refuse(5)], [3, 5, 6]);
        confirms.published(5, Some(Position(10)));
        assert_eq!(confirms.take(Position(9)), None);
        assert_eq!(confirms.take(Position(10)), Some((4, true)));
        assert_eq!(confirms.refuse(2), 8);
        confirms.published(2, None);
        assert_eq!(confirms.take(Position(10)), Some((7, false)), "one of two is left");
    }
}
