//! Ends a server under load at random moments and starts it again on its data, in many rounds. The server ends by
//! SIGKILL, in one of its syncs, in the middle of a write to a chosen file, by SIGTERM, or by a power loss.
//!
//! Each round starts the server, reads all its queues and compares them with the ledger. Then it puts the server under
//! load and ends it. In some rounds the server is killed again while it recovers. The seed decides the plan, but not
//! the timing of threads and disks. So a failure is likely to come again with the same seed, but not certain.

mod body;
mod data;
mod dead_letters;
mod delayed;
mod ledger;
mod load;
mod plan;
mod transactions;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use body::Identity;
use data::Progress;
use dead_letters::DeadLetters;
use delayed::Delayed;
use ledger::{Finding, Ledger, Restored};
use load::Life;
use plan::{CONSUMERS_PER_QUEUE, Ending, FILES_PER_ROUND, PUBLISHERS, QUEUES, Round};
use transactions::Transactions;

use crate::client::{Arrival, Client};
use crate::dials::{Dial, Dials};
use crate::disk::Disk;
use crate::failure::Failure;
use crate::random::Random;
use crate::server::{Launch, Server, Starting};

const FANOUT: &str = "amq.fanout";
/// The name of the file beside the data directory that says in which write the server ends itself.
const KILL_AT_WRITE: &str = "kill-at-write";
/// If a load makes no progress for this time, the server counts as stuck.
const STUCK: Duration = Duration::from_secs(60);
/// The minimum number of journal files that a round must retire. With fewer, a round proves little.
const FILES_RETIRED_MIN: u64 = 10;
/// In this many rounds there must be a merge.
const ROUNDS_THAT_MERGE: u64 = 10;

/// The reason why a round failed.
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

/// The counts of a whole run.
#[derive(Debug)]
struct Tally {
    kills: u64,
    kills_in_a_sync: u64,
    kills_in_a_write: u64,
    stops: u64,
    power_losses: u64,
    kills_in_recovery: u64,
    restored: Restored,
    /// The minimum over all rounds of the journal files that a round retired, and of the runs that it wrote.
    retired_min: u64,
    runs_min: u64,
}

impl Default for Tally {
    fn default() -> Self {
        let restored = Restored::default();
        Self {
            kills: 0,
            kills_in_a_sync: 0,
            kills_in_a_write: 0,
            stops: 0,
            power_losses: 0,
            kills_in_recovery: 0,
            restored,
            retired_min: u64::MAX,
            runs_min: u64::MAX,
        }
    }
}

/// A run in progress.
#[derive(Debug)]
struct Crash {
    launch: Launch,
    /// `None` if there is no C compiler.
    dials: Option<Dials>,
    /// The disk, if the server always ends with a power loss.
    disk: Option<Disk>,
    ledger: Ledger,
    transactions: Transactions,
    dead_letters: DeadLetters,
    delayed: Delayed,
    seed: u64,
    /// The time when the server was last killed under load, by the ledger's clock.
    killed_ms: u32,
    /// How long the last start took. It gives the time for a kill in recovery.
    start_took: Duration,
    tally: Tally,
}

/// Runs the rounds. A failure names its seed, round, queue, publisher and sequence.
pub fn run(binary: &Path, rounds: u64, seed: u64) -> Result<(), String> {
    println!("crash: {rounds} rounds with seed {seed}");
    let mut crash = Crash::new(binary, seed)?;
    crash.rounds(rounds)?;
    if rounds >= ROUNDS_THAT_MERGE && crash.merges() == 0 {
        return Err(format!("seed {seed}: in {rounds} rounds no files of waiting messages were merged"));
    }
    println!("{}", crash.summary(rounds));
    crash.launch.clean();
    Ok(())
}

/// Like [`run`], but the server always ends with a power loss.
pub fn run_with_power_losses(binary: &Path, rounds: u64, seed: u64) -> Result<(), String> {
    println!("power loss: {rounds} rounds with seed {seed}");
    let mut crash = Crash::new(binary, seed)?.on_a_disk()?;
    crash.rounds(rounds)?;
    println!("{}", crash.summary(rounds));
    // The mounts must be removed before the folder.
    drop(crash.disk);
    crash.launch.clean();
    Ok(())
}

/// Tests this test: if syncs do nothing, a round must find a fault.
pub fn run_without_syncs(binary: &Path, rounds: u64, seed: u64) -> Result<(), String> {
    println!("power loss: up to {rounds} rounds with seed {seed}, with syncs that do nothing");
    let mut crash = Crash::new(binary, seed)?.on_a_disk()?;
    let dials = crash.dials.as_ref().ok_or("without a C compiler syncs cannot be made to do nothing")?;
    dials.turn(Dial::NoSync, 1)?;
    for round in 0..=rounds {
        match crash.play(round) {
            Ok(()) => {}
            Err(why) if crash.tally.power_losses > 0 => {
                println!("power loss: found in round {round}, as it must be: {why}");
                drop(crash.disk);
                crash.launch.clean();
                return Ok(());
            }
            Err(why) => return Err(crash.blame(round, &why)),
        }
    }
    Err(format!("seed {seed}: {rounds} power losses did not show that syncs do nothing"))
}

impl Crash {
    fn new(binary: &Path, seed: u64) -> Result<Self, String> {
        let launch = Launch::new(binary, &plan::OPTIONS)?;
        let dials = Dials::build(launch.folder())?;
        let mut environment = dials.as_ref().map(Dials::environment).unwrap_or_default();
        environment.push(("FERRYMQ_KILL_AT_WRITE", launch.folder().join(KILL_AT_WRITE).into()));
        Ok(Self {
            launch: launch.with_environment(environment),
            dials,
            disk: None,
            ledger: Ledger::new(QUEUES, PUBLISHERS),
            transactions: Transactions::default(),
            dead_letters: DeadLetters::default(),
            delayed: Delayed::default(),
            seed,
            killed_ms: 0,
            start_took: Duration::ZERO,
            tally: Tally::default(),
        })
    }

    /// Puts the data on a disk that can lose its power.
    fn on_a_disk(self) -> Result<Self, String> {
        let disk = Disk::new(self.launch.folder())?;
        let launch = self.launch.on(disk.folder());
        Ok(Self { launch, disk: Some(disk), ..self })
    }

    fn rounds(&mut self, rounds: u64) -> Result<(), String> {
        for round in 0..rounds {
            self.play(round).map_err(|why| self.blame(round, &why))?;
        }
        self.last_look(rounds).map_err(|why| self.blame(rounds, &why))
    }

    /// The plan of a round by the seed, as far as this machine can do it.
    fn plan(&self, round: u64) -> Round {
        let mut plan = Round::of(self.seed, round);
        if self.disk.is_some() {
            plan.ending = Ending::PowerLoss;
        } else if self.dials.is_none() && matches!(plan.ending, Ending::KillInSync(_)) {
            plan.ending = Ending::Kill;
        }
        plan
    }

    /// Ends a server that recovers. Returns whether it ended before it was ready.
    fn end_in_recovery(&mut self, starting: Starting) -> Result<bool, String> {
        let Some(disk) = &self.disk else {
            self.tally.kills += 1;
            return starting.kill();
        };
        starting.pause()?;
        disk.freeze()?;
        let in_recovery = starting.kill()?;
        disk.restore()?;
        self.tally.power_losses += 1;
        Ok(in_recovery)
    }

    /// Ends the server. Returns the time, by the ledger's clock.
    fn end(&self, server: &mut Server, ending: Ending) -> Result<u32, String> {
        match ending {
            Ending::Kill => server.kill()?,
            Ending::Stop => {
                // After the signal, the server may not read more input.
                let moment = self.ledger.now_ms();
                server.terminate()?;
                return Ok(moment);
            }
            Ending::KillInSync(number) => self.wait_for_the_sync(server, number)?,
            Ending::KillInWrite(file, number) => self.wait_for_the_write(server, file, number)?,
            Ending::PowerLoss => {
                let disk = self.disk.as_ref().expect("the plan has power losses only with a disk");
                server.pause()?;
                let moment = self.ledger.now_ms();
                disk.freeze()?;
                server.kill()?;
                disk.restore()?;
                return Ok(moment);
            }
        }
        Ok(self.ledger.now_ms())
    }

    /// Waits until the server kills itself in its n-th sync.
    fn wait_for_the_sync(&self, server: &mut Server, number: u64) -> Result<(), String> {
        let dials = self.dials.as_ref().expect("the plan has this ending only with dials");
        dials.turn(Dial::KillAtSync, number.cast_signed())?;
        wait_for_the_end(server, &format!("{number} syncs"))
    }

    /// Waits until the server ends itself in the n-th write to such a file.
    fn wait_for_the_write(&self, server: &mut Server, file: &str, number: u64) -> Result<(), String> {
        let (order, draft) = (self.launch.folder().join(KILL_AT_WRITE), self.launch.folder().join("draft"));
        let written = fs::write(&draft, format!("{file} {number}")).and_then(|()| fs::rename(&draft, &order));
        written.map_err(|why| format!("{}: {why}", order.display()))?;
        wait_for_the_end(server, &format!("{number} writes to {file}"))?;
        fs::remove_file(&order).map_err(|why| format!("{}: {why}", order.display()))
    }

    fn play(&mut self, round: u64) -> Result<(), Trouble> {
        let plan = self.plan(round);
        if let Some(dials) = self.dials.as_ref().filter(|_| self.disk.is_some()) {
            // This disk has no cache of its own, so a write past the page cache is never lost. For this reason half of
            // the rounds do not write past the page cache.
            dials.turn(Dial::NoDirect, i64::from(round.is_multiple_of(2)))?;
        }
        let mut how_it_started = "";
        if let Some(part) = plan.recovery_kill {
            let starting = self.launch.begin()?;
            thread::sleep(self.start_took.mul_f64(part));
            let in_recovery = self.end_in_recovery(starting)?;
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
        let (after, killed_ms) = self.load(&mut server, &plan, round, before)?;
        self.killed_ms = self.ledger.answered_until(killed_ms);
        let (retired, runs) = (after.retired - before.retired, after.newest_run.saturating_sub(before.newest_run));
        println!(
            "round {round}: started in {} ms{how_it_started}, {} found, {} confirmed, {retired} journal files retired, \
             {runs} runs written, {:?} {} ms later",
            self.start_took.as_millis(),
            restored.there,
            self.ledger.confirmed.load(Relaxed) - confirmed_before,
            plan.ending,
            plan.load_ms,
        );
        if retired < FILES_RETIRED_MIN || runs == 0 {
            return Err(format!("only {retired} journal files were retired, and {runs} runs written").into());
        }
        match plan.ending {
            Ending::Kill => self.tally.kills += 1,
            Ending::KillInSync(_) => {
                self.tally.kills += 1;
                self.tally.kills_in_a_sync += 1;
            }
            Ending::KillInWrite(..) => {
                self.tally.kills += 1;
                self.tally.kills_in_a_write += 1;
            }
            Ending::Stop => self.tally.stops += 1,
            Ending::PowerLoss => self.tally.power_losses += 1,
        }
        self.tally.retired_min = self.tally.retired_min.min(retired);
        self.tally.runs_min = self.tally.runs_min.min(runs);
        Ok(())
    }

    fn last_look(&mut self, rounds: u64) -> Result<(), Trouble> {
        let server = self.launch.start()?;
        self.look(&server, rounds).map(drop)
    }

    /// Checks all messages in the queues, and acks some of them.
    fn look(&mut self, server: &Server, round: u64) -> Result<Restored, Trouble> {
        let mut all = Restored::default();
        for queue in 0..QUEUES {
            let random = Random::new(self.seed, &[round, 1_000 + queue as u64]);
            all.add(look_into(&self.ledger, server, queue, self.killed_ms, random)?);
        }
        self.transactions.look(server)?;
        self.dead_letters.look(server)?;
        self.delayed.look(server, || self.ledger.now_ms())?;
        self.ledger.recount(all.there - all.acked);
        self.tally.restored.add(all);
        Ok(all)
    }

    /// Puts the server under load, and ends it at the time in the plan. Returns the progress of its files, and the time
    /// when it ended.
    fn load(
        &self,
        server: &mut Server,
        plan: &Round,
        round: u64,
        before: Progress,
    ) -> Result<(Progress, u32), Trouble> {
        let (killing, failed) = (AtomicBool::new(false), AtomicBool::new(false));
        let (ledger, address, ends_in_order) = (&self.ledger, server.address(), plan.ending == Ending::Stop);
        let life = &Life { ledger, address, killing, ends_in_order, failed };
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
            let random = Random::new(self.seed, &[round, 52]);
            clients.push(scope.spawn(move || life.until_killed(|life| self.delayed.publish(life, random))));
            let waited = self.wait_for_the_moment(life, server, plan, before);
            life.killing.store(true, Relaxed);
            // If no client has found a fault, the server ends as planned. In any case it must end, because its clients
            // would go on.
            let ending = if waited.is_ok() && !life.failed.load(Relaxed) { plan.ending } else { Ending::Kill };
            let ended_at = self.end(server, ending);
            let killed = server.kill();
            let ended: Vec<_> = clients.into_iter().map(|client| client.join().expect("no client panics")).collect();
            // A client's finding says more than the message that the load has stopped.
            let found = ended.into_iter().find_map(Result::err);
            found.map_or(Ok(()), Err)?;
            killed?;
            Ok((waited?, ended_at?))
        })
    }

    /// Waits until enough journal files are retired and a run was written, and then for the time in the plan. Returns
    /// the progress of the files. All runs may have been removed again.
    fn wait_for_the_moment(
        &self,
        life: &Life<'_>,
        server: &mut Server,
        plan: &Round,
        before: Progress,
    ) -> Result<Progress, String> {
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
        let last = Progress::of(&data)?;
        Ok(Progress { newest_run: newest_run.max(last.newest_run), ..last })
    }

    fn blame(&self, round: u64, why: &Trouble) -> String {
        let log = self.launch.log();
        let from = log.lines().count().saturating_sub(30);
        let tail: Vec<&str> = log.lines().skip(from).collect();
        let (seed, kept) = (self.seed, self.launch.folder().display());
        format!("seed {seed}, round {round}: {why}\nkept: {kept}\n--- the server's log ends\n{}", tail.join("\n"))
    }

    /// How many times the log says that the server has merged files of waiting messages.
    fn merges(&self) -> usize {
        self.launch.log().matches("files of waiting messages were merged").count()
    }

    fn summary(&self, rounds: u64) -> String {
        let Tally { restored, retired_min, runs_min, .. } = &self.tally;
        let ends = format!(
            "{} kills, {} of them in a sync and {} in a write, {} clean stops, {} power losses, {} ends in recovery",
            self.tally.kills,
            self.tally.kills_in_a_sync,
            self.tally.kills_in_a_write,
            self.tally.stops,
            self.tally.power_losses,
            self.tally.kills_in_recovery
        );
        let load = format!(
            "{} messages confirmed, {} of them with a file of their own and {} transient, {} transactions committed, {} dead \
             letters, {} delayed, {} acks sent, {} messages found after restarts",
            self.ledger.confirmed.load(Relaxed),
            self.ledger.long.load(Relaxed),
            self.ledger.transient.load(Relaxed),
            self.transactions.commits(),
            self.dead_letters.dead_letters(),
            self.delayed.came(),
            self.ledger.acked.load(Relaxed),
            restored.there,
        );
        format!(
            "crash: {rounds} rounds with seed {}: {ends}; {load}; none lost, out of order, or back when it must not be. No \
             half of a transaction or of a dead letter. Each round retired at least {retired_min} journal files and wrote at \
             least {runs_min} runs; runs were merged {} times. Undone by an end, each within two seconds before it: {} acks, \
             {} marks of a delivery.",
            self.seed,
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
    Delayed::declare(&mut client)?;
    Ok(client.close()?)
}

/// Waits until the server has ended itself.
fn wait_for_the_end(server: &mut Server, after: &str) -> Result<(), String> {
    let since = Instant::now();
    while !server.has_ended()? {
        thread::sleep(Duration::from_millis(1));
        if since.elapsed() > STUCK {
            return Err(format!("there were not {after} in {} s", STUCK.as_secs()));
        }
    }
    Ok(())
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
            // A message may be lost. Then the ledger knows which one.
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
