//! `ferrymq check` and `ferrymq repair`: they read a data directory while no server uses it.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use ferrymq_storage::{Disk, RealDisk};

/// Which data directory.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {
    /// The data directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Reads everything in a data directory. With `repair` it removes what cannot be read. The exit code is 0 if
/// nothing is damaged, or if everything was repaired; otherwise 1.
#[must_use]
pub fn run(args: &CheckArgs, repair: bool) -> ExitCode {
    if !args.directory.join("manifest").is_file() {
        eprintln!("error: {} is not a data directory: it has no manifest", args.directory.display());
        return ExitCode::FAILURE;
    }
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    match ferrymq_node::check(&disk, &args.directory, repair) {
        Ok(checked) => {
            for line in checked.notes.iter().chain(&checked.damages) {
                println!("{line}");
            }
            let verdict = match (checked.damages.len(), repair) {
                (0, _) => "all of it can be read",
                (_, true) => "what is listed above was given up",
                (_, false) => "nothing was changed; 'ferrymq repair' gives up what is listed above",
            };
            let counted = |count: u64, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
            let (queues, messages) = (counted(checked.queues as u64, "queue"), counted(checked.messages, "message"));
            println!("{queues}, {messages}: {verdict}");
            if checked.damages.is_empty() || repair { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
