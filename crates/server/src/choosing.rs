//! A port on which several protocols are spoken: a client's first bytes say which one it speaks.

use std::sync::Arc;

use ferrymq_model::Event;
use ferrymq_wire::{Moment, Output, Received, Session, Step, Then};

use crate::protocol::NewSession;

/// A protocol among those of a port.
pub struct Choice {
    /// What its clients can send first. No header is the beginning of another one, of this protocol or of another.
    pub headers: &'static [&'static [u8]],
    /// Begins a session of it.
    pub new_session: NewSession,
}

/// Begins the sessions of a port. Where there is only one protocol, these are its own.
///
/// # Panics
/// If there is none.
pub fn sessions_of(mut choices: Vec<Choice>) -> NewSession {
    if choices.len() == 1 {
        return choices.remove(0).new_session;
    }
    assert!(!choices.is_empty(), "a port has a protocol");
    let choices: Arc<[Choice]> = choices.into();
    Arc::new(move || Box::new(Chooser::new(choices.clone())))
}

impl std::fmt::Debug for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Choice").field("headers", &self.headers).finish_non_exhaustive()
    }
}

/// The session of a connection whose client has not said what it speaks. It uses no byte, and the session that takes its
/// place gets them all: that of the first protocol, if they are a header of none. Until then the first protocol decides
/// everything else, such as how long a client may take.
#[derive(Debug)]
struct Chooser {
    choices: Arc<[Choice]>,
    first: Box<dyn Session>,
    opened: Moment,
}

impl Chooser {
    fn new(choices: Arc<[Choice]>) -> Self {
        let first = (choices[0].new_session)();
        Self { choices, first, opened: Moment(0) }
    }
}

impl Session for Chooser {
    fn opened(&mut self, now: Moment, out: &mut Output) {
        self.opened = now;
        self.first.opened(now, out);
        debug_assert!(out.steps.is_empty(), "on a port of several protocols the client speaks first");
    }

    fn receive(&mut self, input: &[u8], _: Moment, out: &mut Output) -> Received {
        let Some(choice) = choose(&self.choices, input) else {
            return Received { consumed: 0, then: Then::More { at_least: input.len() + 1 } };
        };
        let mut session = (choice.new_session)();
        session.opened(self.opened, out);
        out.steps.push(Step::HandOver(session));
        Received { consumed: 0, then: Then::Again }
    }

    fn event(&mut self, event: Event, now: Moment, out: &mut Output) {
        self.first.event(event, now, out);
    }

    fn deadline(&self) -> Option<Moment> {
        self.first.deadline()
    }

    fn timeout(&mut self, now: Moment, out: &mut Output) {
        self.first.timeout(now, out);
    }

    fn is_closed(&self) -> bool {
        self.first.is_closed()
    }
}

/// The protocol of a client that begins with `input`; `None` while it can be one of several.
fn choose<'a>(choices: &'a [Choice], input: &[u8]) -> Option<&'a Choice> {
    let can_be = |header: &&[u8]| header.starts_with(&input[..input.len().min(header.len())]);
    let mut possible = choices.iter().filter(|choice| choice.headers.iter().any(can_be));
    match (possible.next(), possible.next()) {
        (Some(_), Some(_)) => None,
        (Some(only), None) => Some(only),
        (None, _) => choices.first(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of the protocol that is chosen, with the headers of AMQP 0-9-1 and 1.0 and of another one.
    fn chosen(input: &[u8]) -> Option<usize> {
        let headers: [&'static [&'static [u8]]; 3] = [
            &[b"AMQP\x00\x00\x09\x01", b"AMQP\x01\x01\x00\x09"],
            &[b"AMQP\x00\x01\x00\x00", b"AMQP\x02\x01\x00\x00", b"AMQP\x03\x01\x00\x00"],
            &[b"X"],
        ];
        let choices = headers.map(|headers| Choice { headers, new_session: Arc::new(|| unreachable!("none begins")) });
        let chosen = choose(&choices, input)?;
        choices.iter().position(|choice| std::ptr::eq(choice, chosen))
    }

    #[test]
    fn a_protocol_is_chosen_as_soon_as_only_one_is_left() {
        for undecided in [&b""[..], b"A", b"AMQP", b"AMQP\x00"] {
            assert_eq!(chosen(undecided), None, "{}", undecided.escape_ascii());
        }
        for first in [&b"AMQP\x00\x00"[..], b"AMQP\x00\x00\x09\x01", b"AMQP\x01", b"AMQP\x00\x00\x09\x01\x01\x00"] {
            assert_eq!(chosen(first), Some(0), "{}", first.escape_ascii());
        }
        for second in [&b"AMQP\x00\x01"[..], b"AMQP\x02", b"AMQP\x03\x01\x00\x00\x00\x00"] {
            assert_eq!(chosen(second), Some(1), "{}", second.escape_ascii());
        }
        assert_eq!(chosen(b"XAMQP"), Some(2));
    }

    #[test]
    fn the_first_one_answers_what_none_of_them_speaks() {
        for none in [&b"B"[..], b"AMQp", b"AMQP\x04\x01\x00\x00", b"AMQP\x00\x02", b"GET / HTTP/1.1"] {
            assert_eq!(chosen(none), Some(0), "{}", none.escape_ascii());
        }
    }
}
