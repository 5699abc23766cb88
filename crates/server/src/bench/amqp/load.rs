//! What is sent and how it is settled: options, presets, and the load that results from them.

use std::fmt;

use super::connection::Connection;
use super::target::Target;
use crate::bench::Failure;
use crate::bench::verify::IDENTITY_BYTES;

/// Loads with a name, so that figures can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Preset {
    /// 16 B transient messages, auto ack, one producer, one consumer
    Transient,
    /// 100 B persistent messages on a durable queue, confirm window 1000, ack multiple 50, prefetch 500
    Durable,
}

/// What to send. Single options win over the preset.
#[derive(Debug, Clone, clap::Args)]
pub struct LoadArgs {
    /// The load to start from
    #[arg(long, value_enum, default_value_t = Preset::Transient)]
    load: Preset,
    /// Octets of each body, at least 8
    #[arg(long)]
    size: Option<usize>,
    /// Persistent messages on a durable queue; `--persistent false` for transient ones
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    persistent: Option<bool>,
    /// Ask for confirms, and let each producer have this many messages unconfirmed; 0 for no confirms
    #[arg(long, value_name = "MESSAGES")]
    confirm_window: Option<u64>,
    /// Consume without acknowledgements
    #[arg(long, conflicts_with = "ack_multiple")]
    auto_ack: bool,
    /// Acknowledge once for this many deliveries
    #[arg(long, value_name = "DELIVERIES")]
    ack_multiple: Option<u64>,
    /// Unacknowledged deliveries that the server may have out to one consumer; 0 for no limit
    #[arg(long, value_name = "DELIVERIES")]
    prefetch: Option<u16>,
    /// The queue; it must be empty and is kept. Without this, one is made for the run and deleted after it
    #[arg(long)]
    queue: Option<String>,
}

/// A resolved load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    pub body_bytes: usize,
    pub persistent: bool,
    /// `None`: no confirms.
    pub confirm_window: Option<u64>,
    pub ack: Ack,
    /// 0: no limit.
    pub prefetch: u16,
    pub queue: String,
    /// The queue was made for this run.
    pub queue_is_ours: bool,
}

/// How a consumer settles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    Auto,
    /// One `basic.ack` with `multiple` for this many deliveries.
    Multiple(u64),
}

impl LoadArgs {
    pub fn resolve(self) -> Result<Load, Failure> {
        let preset = self.load.load();
        let ack = match (self.auto_ack, self.ack_multiple) {
            (true, _) => Ack::Auto,
            (false, Some(0)) => return refuse("--ack-multiple counts from 1"),
            (false, Some(count)) => Ack::Multiple(count),
            (false, None) => preset.ack,
        };
        let prefetch = match (ack, self.prefetch) {
            (_, Some(prefetch)) => prefetch,
            // Without acknowledgements a prefetch has no effect.
            (Ack::Auto, None) => 0,
            (Ack::Multiple(_), None) => preset.prefetch,
        };
        let load = Load {
            body_bytes: self.size.unwrap_or(preset.body_bytes),
            persistent: self.persistent.unwrap_or(preset.persistent),
            confirm_window: match self.confirm_window {
                Some(0) => None,
                Some(window) => Some(window),
                None => preset.confirm_window,
            },
            ack,
            prefetch,
            queue_is_ours: self.queue.is_none(),
            queue: self.queue.unwrap_or(preset.queue),
        };
        load.check()?;
        Ok(load)
    }
}

impl Preset {
    fn load(self) -> Load {
        let queue = format!("bench-{}", std::process::id());
        match self {
            Preset::Transient => Load {
                body_bytes: 16,
                persistent: false,
                confirm_window: None,
                ack: Ack::Auto,
                prefetch: 0,
                queue,
                queue_is_ours: true,
            },
            Preset::Durable => Load {
                body_bytes: 100,
                persistent: true,
                confirm_window: Some(1000),
                ack: Ack::Multiple(50),
                prefetch: 500,
                queue,
                queue_is_ours: true,
            },
        }
    }
}

impl Load {
    fn check(&self) -> Result<(), Failure> {
        if self.body_bytes < IDENTITY_BYTES {
            return refuse("--size must be at least 8: a message carries its own number");
        }
        if self.body_bytes > 64 << 20 {
            return refuse("--size must be at most 64 MiB");
        }
        if self.queue.is_empty() || self.queue.len() > 255 {
            return refuse("--queue must have 1 to 255 octets");
        }
        if let Ack::Multiple(count) = self.ack
            && self.prefetch > 0
            && u64::from(self.prefetch) < count
        {
            return refuse("--prefetch is below --ack-multiple: the consumer would wait for ever");
        }
        Ok(())
    }

    /// Declares the queue, on its own connection. That connection stays open until the queue is dropped.
    pub fn set_up(&self, target: &Target) -> Result<Connection, Failure> {
        let mut connection = Connection::open(target)?;
        let waiting = connection.declare_queue(&self.queue, self.persistent)?;
        if waiting > 0 {
            return Err(Failure::Option(format!(
                "queue {} holds {waiting} messages already: purge it, or choose another --queue",
                self.queue
            )));
        }
        Ok(connection)
    }

    /// Deletes the queue if it was made for this run.
    pub fn tear_down(&self, connection: &mut Connection) -> Result<(), Failure> {
        if self.queue_is_ours {
            connection.delete_queue(&self.queue)?;
        }
        Ok(())
    }
}

fn refuse<T>(why: &str) -> Result<T, Failure> {
    Err(Failure::Option(why.to_owned()))
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.persistent { "persistent, durable queue" } else { "transient" };
        write!(f, "{} B {kind}", self.body_bytes)?;
        if let Some(window) = self.confirm_window {
            write!(f, ", confirm window {window}")?;
        }
        match self.ack {
            Ack::Auto => write!(f, ", auto ack")?,
            Ack::Multiple(count) => write!(f, ", ack multiple {count}")?,
        }
        if self.prefetch > 0 {
            write!(f, ", prefetch {}", self.prefetch)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        load: LoadArgs,
    }

    fn load(options: &str) -> Result<Load, Failure> {
        let words = ["bench"].into_iter().chain(options.split_whitespace());
        Line::try_parse_from(words).unwrap().load.resolve()
    }

    #[test]
    fn presets_are_the_published_loads() {
        let table = [
            ("", "16 B transient, auto ack"),
            ("--load transient", "16 B transient, auto ack"),
            ("--load durable", "100 B persistent, durable queue, confirm window 1000, ack multiple 50, prefetch 500"),
        ];
        for (options, expected) in table {
            assert_eq!(load(options).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn single_options_win() {
        let table = [
            ("--load durable --auto-ack --size 8", "8 B persistent, durable queue, confirm window 1000, auto ack"),
            ("--load durable --persistent false --confirm-window 0", "100 B transient, ack multiple 50, prefetch 500"),
            (
                "--persistent --ack-multiple 1 --prefetch 1",
                "16 B persistent, durable queue, ack multiple 1, prefetch 1",
            ),
        ];
        for (options, expected) in table {
            assert_eq!(load(options).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for options in ["--size 7", "--size 999999999", "--ack-multiple 0", "--ack-multiple 51 --prefetch 50"] {
            assert!(load(options).is_err(), "{options}");
        }
    }
}
