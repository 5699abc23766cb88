//! What a seed decides: the shape of the load, and when each round's kills fall.

use crate::random::Random;

/// The load, the same in all rounds of a run.
pub const QUEUES: usize = 5;
/// The last one publishes through a fanout exchange to all queues at once.
pub const PUBLISHERS: usize = 4;
pub const CONSUMERS_PER_QUEUE: usize = 2;
/// Publishers pause when more than this waits, and consumers stop acking when less does: a backlog that never fits into
/// the resident journal files, and is soon checked.
pub const WAITING_MAX: u64 = 12_000;
pub const WAITING_MIN: u64 = 6_000;
/// Options of the server: journal files of 256 KiB, and runs that are merged as soon as three quarters of them are settled
/// or a queue is in five. Its log says when it merged some.
pub const OPTIONS: [&str; 8] = [
    "--storage-file-bytes",
    "262144",
    "--storage-merge-bytes",
    "4096",
    "--storage-extents-max",
    "4",
    "--log-level",
    "debug",
];
/// How many journal files a round retires at least.
pub const FILES_PER_ROUND: u64 = 12;

const LOAD_MS_MAX: u64 = 3_000;

/// How a life of the server ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ending {
    /// SIGKILL, at a moment.
    Kill,
    /// SIGKILL by itself, in the n-th sync from that moment.
    KillInSync(u64),
    /// It ends itself in the n-th write from that moment to files with this in their path, which it does by half.
    KillInWrite(&'static str, u64),
    /// SIGTERM: it ends in good order.
    Stop,
    /// The disk has no more than what was synced, or written by chance.
    PowerLoss,
}

/// The farthest sync in which a server is killed.
const SYNCS_MAX: u64 = 40;

/// The farthest write in which a server is killed, for each kind of file.
const WRITES_MAX: [(&str, u64); 4] = [("journal/", 400), ("runs/", 60), ("checkpoint", 60), ("bodies/", 2)];

/// One round: load, kill, start, perhaps killed while it recovers, and started again.
#[derive(Debug, Clone, PartialEq)]
pub struct Round {
    pub ending: Ending,
    /// How long the load goes on after it has had its journal files retired.
    pub load_ms: u64,
    /// A kill in recovery, after this part of the time that the last start took.
    pub recovery_kill: Option<f64>,
}

impl Round {
    /// One round in three has a second kill in recovery, which makes them a quarter of all kills.
    pub fn of(seed: u64, round: u64) -> Self {
        let mut random = Random::new(seed, &[round]);
        let load_ms = random.below(LOAD_MS_MAX);
        let part = random.below(1_000) as f64 / 1_000.0;
        let ending = match random.below(6) {
            0 => Ending::Kill,
            1 => Ending::Stop,
            2 | 3 => {
                let (file, most) = WRITES_MAX[random.below(WRITES_MAX.len() as u64) as usize];
                Ending::KillInWrite(file, 1 + random.below(most))
            }
            _ => Ending::KillInSync(1 + random.below(SYNCS_MAX)),
        };
        Self { ending, load_ms, recovery_kill: (round % 3 == 1).then_some(part) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_its_plan_again_and_a_quarter_of_its_kills_in_recovery() {
        let plan = |seed| (0..300).map(|round| Round::of(seed, round)).collect::<Vec<_>>();
        assert_eq!(plan(5), plan(5));
        assert_ne!(plan(5), plan(6));
        let in_recovery = plan(5).iter().filter(|round| round.recovery_kill.is_some()).count();
        assert_eq!(in_recovery * 3, 300);
    }
}
