//! `cargo x fuzz`: searches for a while, and adds the inputs that it finds to the corpus.

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use ferrymq_fuzz::{Corpus, Hunt, TARGETS, Target, Until};

#[derive(Debug, Parser)]
struct CommandLine {
    /// The target; without one, all targets in turn
    target: Option<String>,
    /// How many seconds the search takes for each target
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The seed of the random inputs; the same seed repeats a search
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let line = CommandLine::parse();
    let seed = line.seed.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs())
    });
    match hunt_all(&line, seed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn hunt_all(line: &CommandLine, seed: u64) -> Result<(), String> {
    let wanted = |target: &&Target| line.target.as_deref().is_none_or(|name| name == target.name);
    let targets: Vec<&'static Target> = TARGETS.iter().filter(wanted).collect();
    if targets.is_empty() {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        return Err(format!("there is no such target; the targets are {}", names.join(", ")));
    }
    targets.into_iter().try_for_each(|target| hunt(target, line.seconds, seed))
}

fn hunt(target: &'static Target, seconds: u64, seed: u64) -> Result<(), String> {
    let mut hunt = Hunt::begin(target, Corpus::of(target)?);
    // When an input is made shorter, the target panics again and again. These panics are not printed.
    std::panic::set_hook(Box::new(|_| {}));
    let ended = hunt.run(Until::Time(Instant::now() + Duration::from_secs(seconds)), seed);
    let _ = std::panic::take_hook();
    let tried = hunt.tried;
    let kept = hunt.keep()?;
    println!("{}: {tried} inputs tried with seed {seed}, {kept} of them kept", target.name);
    let Err((why, input)) = ended else { return Ok(()) };
    let path = Corpus::of(target)?.keep(&format!("broken {seed}"), &input)?;
    Err(format!("{}: {why}\nkept: {}", target.name, path.display()))
}
