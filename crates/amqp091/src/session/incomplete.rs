//! Finds frames and messages of which a part has arrived and then no more. After a while their connection is closed,
//! because the part that has arrived takes memory.

use ferrymq_wire::Moment;

/// Checks from time to time whether an incomplete frame or message has grown since the last check.
#[derive(Debug, Default)]
pub(super) struct Incomplete {
    /// The time of the next check; `None` while nothing is incomplete.
    look_at: Option<Moment>,
    /// The number of bytes of all complete frames so far.
    frames: u64,
    /// The number of bytes of an incomplete frame.
    rest: usize,
    /// What was incomplete at the last check.
    seen: Option<Box<Seen>>,
}

#[derive(Debug)]
struct Seen {
    frames: u64,
    rest: usize,
    /// The channels with an incomplete message, and the number of its bytes.
    messages: Vec<(u16, usize)>,
}

impl Incomplete {
    /// Notes that `frames` bytes of complete frames were read and that `rest` bytes of the next frame are there.
    /// `gathers` says whether a channel has an incomplete message. If it has, or if there is a rest, the next check is
    /// in `ms` milliseconds. 0 means that there are no checks.
    #[inline]
    pub fn read(&mut self, frames: usize, rest: usize, now: Moment, ms: u64, gathers: impl FnOnce() -> bool) {
        self.frames = self.frames.wrapping_add(frames as u64);
        self.rest = rest;
        if self.look_at.is_none() && ms > 0 && (rest > 0 || gathers()) {
            self.look_at = Some(now.after_ms(ms));
        }
    }

    pub fn deadline(&self) -> Option<Moment> {
        self.look_at
    }

    /// Checks, if it is time for that. Returns true if an incomplete frame or one of the incomplete `messages` (channel
    /// and number of bytes) has not grown since the last check. If the server did not read (`is_read`), the peer could
    /// not send, and the result is false.
    pub fn has_stopped(
        &mut self,
        now: Moment,
        ms: u64,
        is_read: bool,
        messages: impl Iterator<Item = (u16, usize)>,
    ) -> bool {
        if self.look_at.is_none_or(|at| now < at) {
            return false;
        }
        let found = Seen { frames: self.frames, rest: self.rest, messages: messages.collect() };
        let is_same = |seen: &Seen| {
            let same_rest = found.rest > 0 && (seen.frames, seen.rest) == (found.frames, found.rest);
            same_rest || found.messages.iter().any(|message| seen.messages.contains(message))
        };
        let stopped = is_read && self.seen.as_deref().is_some_and(is_same);
        let is_incomplete = found.rest > 0 || !found.messages.is_empty();
        self.look_at = is_incomplete.then(|| now.after_ms(ms));
        self.seen = (is_read && is_incomplete).then(|| found.into());
        stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000;

    /// The result of a check after each of these steps: bytes of complete frames, of an incomplete frame, and of an
    /// incomplete message.
    fn looks(steps: &[(usize, usize, usize)], is_read: bool) -> Vec<bool> {
        let (mut incomplete, mut now) = (Incomplete::default(), Moment(0));
        let mut looks = Vec::new();
        for &(frames, rest, message) in steps {
            incomplete.read(frames, rest, now, MS, || message > 0);
            now = now.after_ms(MS);
            let messages = (message > 0).then_some((1, message));
            looks.push(incomplete.has_stopped(now, MS, is_read, messages.into_iter()));
        }
        looks
    }

    #[test]
    fn what_does_not_grow_has_stopped() {
        assert_eq!(looks(&[(0, 5, 0), (0, 5, 0)], true), [false, true]);
        assert_eq!(looks(&[(8, 0, 100), (0, 0, 100)], true), [false, true]);
        // Heartbeats are complete frames, but they add nothing to a message.
        assert_eq!(looks(&[(8, 0, 100), (8, 0, 100)], true), [false, true]);
    }

    #[test]
    fn what_grows_or_ends_goes_on() {
        assert_eq!(looks(&[(0, 5, 0), (0, 6, 0), (20, 6, 0), (0, 0, 0), (0, 0, 0)], true), [false; 5]);
        assert_eq!(looks(&[(8, 0, 100), (8, 0, 101), (8, 0, 0), (8, 0, 101)], true), [false; 4]);
    }

    #[test]
    fn who_is_not_read_cannot_go_on() {
        assert_eq!(looks(&[(0, 5, 9), (0, 5, 9), (0, 5, 9)], false), [false; 3]);
    }

    #[test]
    fn without_a_limit_nobody_looks() {
        let mut incomplete = Incomplete::default();
        incomplete.read(0, 5, Moment(0), 0, || true);
        assert_eq!(incomplete.deadline(), None);
    }
}
