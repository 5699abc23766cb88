//! The decisions of a seed: the load, and the times of the kills in each round.

use crate::random::Random;

/// The number of queues.
pub const QUEUES: usize = 5;
/// The number of publishers. The last one publishes through a fanout exchange to all queues at once.
pub const PUBLISHERS: usize = 4;
pub const CONSUMERS_PER_QUEUE: usize = 2;
/// Publishers pause if more messages than this wait, and consumers stop acking if fewer wait. Such a backlog does not
/// fit into the journal files in memory, and it is short enough to be checked soon.
pub const WAITING_MAX: u64 = 12_000;
pub const WAITING_MIN: u64 = 6_000;
/// The options of the server: journal files of 256 KiB, and runs that are merged when three quarters of them are
/// settled or a queue is in five. The log says when the server merges runs.
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
/// The minimum number of journal files that a round retires.
pub const FILES_PER_ROUND: u64 = 12;

const LOAD_MS_MAX: u64 = 3_000;

/// How the server ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ending {
    /// By SIGKILL.
    Kill,
    /// The server kills itself in the n-th sync from the moment in the plan.
    KillInSync(u64),
    /// The server ends itself in the n-th write from that moment to files with this text in their path. It writes half
    /// of the bytes.
    KillInWrite(&'static str, u64),
    /// By SIGTERM: it stops in the regular way.
    Stop,
    /// By a power loss: the disk has only what was synced, and what the system has written by chance.
    PowerLoss,
}

/// The maximum n for [`Ending::KillInSync`].
const SYNCS_MAX: u64 = 40;

/// The maximum n for [`Ending::KillInWrite`], for each kind of file.
const WRITES_MAX: [(&str, u64); 4] = [("journal/", 400), ("runs/", 60), ("checkpoint", 60), ("bodies/", 2)];

/// One round: a load, an end of the server, a start, and perhaps a kill in recovery and another start.
#[derive(Debug, Clone, PartialEq)]
pub struct Round {
    pub ending: Ending,
    /// How long the load goes on after the minimum of journal files has been retired, in milliseconds.
    pub load_ms: u64,
    /// A kill in recovery. The number is the part of the time of the last start after which it comes.
    pub recovery_kill: Option<f64>,
}

impl Round {
    /// The round's plan. One round in three has a second kill in recovery, so these are a quarter of all kills.
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
