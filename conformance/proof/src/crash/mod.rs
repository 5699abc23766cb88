//! The server under load, killed at random moments and started again on what it left, round after round.
//!
//! Every round starts the server, takes a look at all that is in its queues and holds it against the ledger, then puts
//! it under load and kills it. In some rounds it is killed again while it recovers. The seed decides the plan; threads
//! and disks do the rest, so a seed makes a failure likely to come again and not certain.

mod body;
mod data;
mod dead_letters;
mod ledger;
mod load;
mod plan;
mod transactions;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use body::Identity;
use data::Progress;
use dead_letters::DeadLetters;
use ledger::{Finding, Ledger, Restored};
use load::Life;
use plan::{CONSUMERS_PER_QUEUE, FILES_PER_ROUND, PUBLISHERS, QUEUES, Round};
use transactions::Transactions;

use crate::client::{Arrival, Client};
use crate::failure::Failure;
use crate::random::Random;
use crate::server::{Launch, Server};

const FANOUT: &str = "amq.fanout";
/// How long a load may stand still before the server counts as stuck.
const STUCK: Duration = Duration::from_secs(60);
/// With fewer journal files retired than these a round would not have proved much.
const FILES_RETIRED_MIN: u64 = 10;
/// In so many rounds there is surely a merge.
const ROUNDS_THAT_MERGE: u64 = 10;

/// Why a round failed.
#[derive(Debug)]
pub enum Trouble {
    Found(Finding),
    Failed(Failure),
}

impl From<Finding> for Trouble {
    fn from(finding: Finding) -> Self {
        Self::Found(finding)
    }
}

impl<T: Into<Failure>> From<T> for Trouble {
    fn from(failure: T) -> Self {
        Self::Failed(failure.into())
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Found(finding) => finding.fmt(f),
            Self::Failed(failure) => failure.fmt(f),
        }
    }
}

/// What a whole run came to.
#[derive(Debug)]
struct Tally {
    kills: u64,
    kills_in_recovery: u64,
    restored: Restored,
    /// Journal files that a round retired, and runs that it wrote, at least.
    retired_min: u64,
    runs_min: u64,
}

impl Default for Tally {
    fn default() -> Self {
        let restored = Restored::default();
        Self { kills: 0, kills_in_recovery: 0, restored, retired_min: u64::MAX, runs_min: u64::MAX }
    }
}

/// A run in progress.
#[derive(Debug)]
struct Crash {
    launch: Launch,
    ledger: Ledger,
    transactions: Transactions,
    dead_letters: DeadLetters,
    seed: u64,
    /// When the server was last killed under load, by the ledger's clock.
    killed_ms: u32,
    /// How long the last start took, from which a kill in recovery is timed.
    start_took: Duration,
    tally: Tally,
}

/// Runs the rounds; a failure names its seed, round, queue, publisher and sequence.
pub fn run(binary: &Path, rounds: u64, seed: u64) -> Result<(), String> {
    println!("crash: {rounds} rounds with seed {seed}");
    let mut crash = Crash {
        launch: Launch::new(binary, &plan::OPTIONS)?,
        ledger: Ledger::new(QUEUES, PUBLISHERS),
        transactions: Transactions::default(),
        dead_letters: DeadLetters::default(),
        seed,
        killed_ms: 0,
        start_took: Duration::ZERO,
        tally: Tally::default(),
    };
    for round in 0..rounds {
        crash.play(round).map_err(|why| crash.blame(round, &why))?;
    }
    crash.last_look(rounds).map_err(|why| crash.blame(rounds, &why))?;
    if rounds >= ROUNDS_THAT_MERGE && crash.merges() == 0 {
        return Err(format!("seed {seed}: in {rounds} rounds no files of waiting messages were merged"));
    }
    println!("{}", crash.summary(rounds));
    crash.launch.clean();
    Ok(())
}

impl Crash {
    fn play(&mut self, round: u64) -> Result<(), Trouble> {
        let plan = Round::of(self.seed, round);
        let mut how_it_started = "";
        if let Some(part) = plan.recovery_kill {
            let starting = self.launch.begin()?;
            thread::sleep(self.start_took.mul_f64(part));
            let in_recovery = starting.kill()?;
            self.tally.kills += 1;
            self.tally.kills_in_recovery += u64::from(in_recovery);
            how_it_started = if in_recovery { ", killed in recovery before" } else { ", killed after recovery before" };
        }
        let mut server = self.launch.start()?;
        self.start_took = server.took();
        if round == 0 {
            declare(&server)?;
        }
        let restored = self.look(&server, round)?;
        let confirmed_before = self.ledger.confirmed.load(Relaxed);
        let before = Progress::of(&self.launch.data())?;
        let newest_run = self.load(&mut server, &plan, round, before)?;
        self.killed_ms = self.ledger.now_ms();

        let after = Progress::of(&self.launch.data())?;
        let (retired, runs) = (after.retired - before.retired, newest_run.saturating_sub(before.newest_run));
        println!(
            "round {round}: started in {} ms{how_it_started}, {} found, {} confirmed, {retired} journal files retired, \
             {runs} runs written, killed {} ms later",
            self.start_took.as_millis(),
            restored.there,
            self.ledger.confirmed.load(Relaxed) - confirmed_before,
            plan.load_ms,
        );
        if retired < FILES_RETIRED_MIN || runs == 0 {
            return Err(format!("only {retired} journal files were retired, and {runs} runs written").into());
        }
        self.tally.kills += 1;
        self.tally.retired_min = self.tally.retired_min.min(retired);
        self.tally.runs_min = self.tally.runs_min.min(runs);
        Ok(())
    }

    fn last_look(&mut self, rounds: u64) -> Result<(), Trouble> {
        let server = self.launch.start()?;
        self.look(&server, rounds).map(drop)
    }

    /// Takes a look at everything in the queues, and acks some of it.
    fn look(&mut self, server: &Server, round: u64) -> Result<Restored, Trouble> {
        let mut all = Restored::default();
        for queue in 0..QUEUES {
            let random = Random::new(self.seed, &[round, 1_000 + queue as u64]);
            all.add(look_into(&self.ledger, server, queue, self.killed_ms, random)?);
        }
        self.transactions.look(server)?;
        self.dead_letters.look(server)?;
        self.ledger.recount(all.there - all.acked);
        self.tally.restored.add(all);
        Ok(all)
    }

    /// Puts the server under load, and kills it when the plan says. Gives the number of the newest run that was seen: none
    /// may be left.
    fn load(&self, server: &mut Server, plan: &Round, round: u64, before: Progress) -> Result<u64, Trouble> {
        let (killing, failed) = (AtomicBool::new(false), AtomicBool::new(false));
        let life = &Life { ledger: &self.ledger, address: server.address(), killing, failed };
        let random = |purpose: usize| Random::new(self.seed, &[round, purpose as u64]);
        thread::scope(|scope| {
            let mut clients = Vec::new();
            for publisher in 0..PUBLISHERS {
                let random = random(publisher);
                clients.push(scope.spawn(move || life.until_killed(|life| load::publish(life, publisher, random))));
            }
            for consumer in 0..QUEUES * CONSUMERS_PER_QUEUE {
                let (queue, random) = (consumer % QUEUES, random(100 + consumer));
                clients.push(scope.spawn(move || life.until_killed(|life| load::consume(life, queue, random))));
            }
            let random = random(50);
            clients.push(scope.spawn(move || life.until_killed(|life| self.transactions.publish(life, random))));
            let random = Random::new(self.seed, &[round, 51]);
            clients.push(scope.spawn(move || life.until_killed(|life| self.dead_letters.publish(life, random))));
            clients.push(scope.spawn(move || life.until_killed(DeadLetters::reject)));
            let waited = self.wait_for_the_moment(life, server, plan, before);
            life.killing.store(true, Relaxed);
            let killed = server.kill();
            let ended: Vec<_> = clients.into_iter().map(|client| client.join().expect("no client panics")).collect();
            // A finding says more than that the load stopped because of it.
            let found = ended.into_iter().find_map(Result::err);
            found.map_or(Ok(()), Err).and(killed.map_err(Trouble::from)).and(waited.map_err(Trouble::from))
        })
    }

    /// Until enough journal files are retired and a run was written, and then the time that the plan gives. Gives the number
    /// of the newest run that was seen.
    fn wait_for_the_moment(
        &self,
        life: &Life<'_>,
        server: &mut Server,
        plan: &Round,
        before: Progress,
    ) -> Result<u64, String> {
        let data = self.launch.data();
        let (mut last, mut moved, mut newest_run) = (before, Instant::now(), before.newest_run);
        while (last.retired < before.retired + FILES_PER_ROUND || newest_run == before.newest_run)
            && !life.failed.load(Relaxed)
        {
            thread::sleep(Duration::from_millis(5));
            server.check_alive()?;
            let now = Progress::of(&data)?;
            newest_run = newest_run.max(now.newest_run);
            if now != last {
                (last, moved) = (now, Instant::now());
            } else if moved.elapsed() > STUCK {
                return Err(format!("no journal file was retired for {} s", STUCK.as_secs()));
            }
        }
        let enough = Instant::now();
        while enough.elapsed() < Duration::from_millis(plan.load_ms) && !life.failed.load(Relaxed) {
            thread::sleep(Duration::from_millis(1));
            server.check_alive()?;
        }
        Ok(newest_run.max(Progress::of(&data)?.newest_run))
    }

    fn blame(&self, round: u64, why: &Trouble) -> String {
        let log = self.launch.log();
        let from = log.lines().count().saturating_sub(30);
        let tail: Vec<&str> = log.lines().skip(from).collect();
        let (seed, kept) = (self.seed, self.launch.folder().display());
        format!("seed {seed}, round {round}: {why}\nkept: {kept}\n--- the server's log ends\n{}", tail.join("\n"))
    }

    /// How many times the server says that it has merged files of waiting messages.
    fn merges(&self) -> usize {
        self.launch.log().matches("files of waiting messages were merged").count()
    }

    fn summary(&self, rounds: u64) -> String {
        let Tally { kills, kills_in_recovery, restored, retired_min, runs_min } = &self.tally;
        format!(
            "crash: {rounds} rounds with seed {}: {kills} kills, {kills_in_recovery} of them in recovery; {} messages \
             confirmed, {} of them with a file of their own, {} transactions committed, {} dead letters, {} acks sent, {} \
             messages found after restarts; none lost, out of order, or back when it must not be. No half of a \
             transaction or of a dead letter. Each round \
             retired at least {retired_min} journal files and wrote at least {runs_min} runs; runs were merged {} times. Undone by a kill, each within two seconds before it: {} acks, {} marks of a delivery.",
            self.seed,
            self.ledger.confirmed.load(Relaxed),
            self.ledger.long.load(Relaxed),
            self.transactions.commits(),
            self.dead_letters.letters(),
            self.ledger.acked.load(Relaxed),
            restored.there,
            self.merges(),
            restored.acked_again,
            restored.unmarked,
        )
    }
}

impl Restored {
    fn add(&mut self, other: Self) {
        self.there += other.there;
        self.acked_again += other.acked_again;
        self.unmarked += other.unmarked;
        self.acked += other.acked;
    }
}

fn queue_name(queue: usize) -> String {
    format!("crash-{queue}")
}

fn declare(server: &Server) -> Result<(), Trouble> {
    let mut client = Client::open(server.address())?;
    for queue in 0..QUEUES {
        client.declare(&queue_name(queue), true, false)?;
        client.bind(&queue_name(queue), FANOUT)?;
    }
    Transactions::declare(&mut client)?;
    DeadLetters::declare(&mut client)?;
    Ok(client.close()?)
}

fn look_into(
    ledger: &Ledger,
    server: &Server,
    queue: usize,
    killed_ms: u32,
    mut random: Random,
) -> Result<Restored, Trouble> {
    let mut client = Client::open(server.address())?;
    let announced = client.declare(&queue_name(queue), true, true)?;
    client.consume(&queue_name(queue), 0, false)?;
    ledger.queue(queue).begin_life();
    let (mut restored, mut deliveries) = (Restored::default(), Vec::new());
    let mut highest = [None; PUBLISHERS];
    while restored.there < announced {
        let Some(Arrival::Delivery(delivery)) = client.receive()? else {
            let came = restored.there;
            // What is missing may be a message that was lost; then the ledger knows which.
            ledger.queue(queue).found_all()?;
            return Err(format!("queue {queue}: {announced} messages are announced, and {came} came").into());
        };
        let identity = Identity::of_body(&delivery.body).ok_or_else(|| load::damaged(queue, &delivery.body))?;
        let mut ledger = ledger.queue(queue);
        ledger.found(identity, delivery.redelivered, killed_ms, &mut restored)?;
        load::in_order(&mut highest, identity).map_err(|what| ledger.finding(identity, &what))?;
        deliveries.push((delivery.tag, identity));
    }
    ledger.queue(queue).found_all()?;
    let acked: Vec<(u64, Identity)> = deliveries.into_iter().filter(|_| random.once_in(8)).collect();
    let identities: Vec<Identity> = acked.iter().map(|(_, identity)| *identity).collect();
    for (tag, _) in &acked {
        client.ack(*tag, false);
    }
    restored.acked = identities.len() as u64;
    ledger.acking(queue, &identities);
    client.flush()?;
    ledger.acks_sent(queue, &identities);
    client.close()?;
    Ok(restored)
}
