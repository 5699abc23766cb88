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

/// The messages to send. Single options override the preset.
#[derive(Debug, Clone, clap::Args)]
pub struct LoadArgs {
    /// The preset; the following options override its values
    #[arg(long, value_enum, default_value_t = Preset::Transient)]
    load: Preset,
    /// Octets of each body, at least 8
    #[arg(long)]
    size: Option<usize>,
    /// Persistent messages on a durable queue; `--persistent false` for transient ones
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    persistent: Option<bool>,
    /// Use confirms, with at most this many unconfirmed messages of each producer; 0 means no confirms
    #[arg(long, value_name = "MESSAGES")]
    confirm_window: Option<u64>,
    /// Consume without acknowledgements
    #[arg(long, conflicts_with = "ack_multiple")]
    auto_ack: bool,
    /// Acknowledge once for this many deliveries
    #[arg(long, value_name = "DELIVERIES")]
    ack_multiple: Option<u64>,
    /// The maximum number of unacknowledged deliveries of one consumer; 0 means no limit
    #[arg(long, value_name = "DELIVERIES")]
    prefetch: Option<u16>,
    /// The queue, which must be empty or missing and is not deleted. Without this, the run declares its own queue and
    /// deletes it
    #[arg(long)]
    queue: Option<String>,
    /// Declare this many queues for the run; each producer sends each message to the next queue
    #[arg(long, default_value_t = 1, conflicts_with_all = ["queue", "fan_out"], value_parser = clap::value_parser!(u16).range(1..=10_000))]
    queues: u16,
    /// Publish to an exchange with this many bindings of the queue; each message matches only the next binding
    #[arg(long, conflicts_with_all = ["queue", "queues", "fan_out"], value_parser = clap::value_parser!(u16).range(1..=10_000))]
    bindings: Option<u16>,
    /// The type of that exchange
    #[arg(long, value_enum, default_value_t = Matching::Topic, requires = "bindings")]
    exchange: Matching,
    /// Declare this many queues for the run; a fanout exchange routes each message to all of them, and all deliveries
    /// count
    #[arg(long, value_name = "QUEUES", conflicts_with = "queue", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    fan_out: Option<u16>,
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
    pub spread: Spread,
}

/// How the messages are distributed to queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// All messages to one queue.
    One,
    /// Each message to the next of this many queues.
    Rotated(u16),
    /// Each message to all of this many queues.
    FanOut(u16),
    /// All messages to one queue, each by the next of this many bindings.
    Bound(u16, Matching),
}

/// The exchange types that match routing keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Matching {
    /// A binding matches an equal key
    Direct,
    /// The key of each binding ends with a wildcard
    Topic,
}

impl Matching {
    fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Topic => "topic",
        }
    }

    /// The key of a binding.
    fn binding_key(self, binding: u16) -> String {
        match self {
            Self::Direct => routing_key(binding),
            Self::Topic => format!("bench.{binding:05}.*"),
        }
    }
}

/// The key of a message that matches only this binding. All keys have the same length.
fn routing_key(binding: u16) -> String {
    format!("bench.{binding:05}.x")
}

impl Spread {
    pub fn queues(self) -> u16 {
        match self {
            Self::One | Self::Bound(..) => 1,
            Self::Rotated(queues) | Self::FanOut(queues) => queues,
        }
    }

    /// The number of deliveries of each message.
    pub fn copies(self) -> u64 {
        match self {
            Self::One | Self::Rotated(_) | Self::Bound(..) => 1,
            Self::FanOut(queues) => u64::from(queues),
        }
    }

    /// How many of a producer's messages a queue gets.
    pub fn share(self, sent: u64, queue: u16) -> u64 {
        match self {
            Self::One | Self::FanOut(_) | Self::Bound(..) => sent,
            Self::Rotated(queues) => (sent + u64::from(queues - 1 - queue)) / u64::from(queues),
        }
    }

    /// The position of a producer's message among its queue's messages. `None` if the queue must not have it.
    pub fn place(self, sequence: u64, queue: u16) -> Option<u64> {
        match self {
            Self::One | Self::FanOut(_) | Self::Bound(..) => Some(sequence),
            Self::Rotated(queues) => {
                (sequence % u64::from(queues) == u64::from(queue)).then(|| sequence / u64::from(queues))
            }
        }
    }
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
            spread: match (self.queues, self.fan_out, self.bindings) {
                (_, Some(queues), _) => Spread::FanOut(queues),
                (_, None, Some(bindings)) => Spread::Bound(bindings, self.exchange),
                (1, None, None) => Spread::One,
                (queues, None, None) => Spread::Rotated(queues),
            },
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
                spread: Spread::One,
            },
            Preset::Durable => Load {
                body_bytes: 100,
                persistent: true,
                confirm_window: Some(1000),
                ack: Ack::Multiple(50),
                prefetch: 500,
                queue,
                queue_is_ours: true,
                spread: Spread::One,
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

    /// The name of one of the queues. All names have the same length.
    pub fn queue_name(&self, queue: u16) -> String {
        match self.spread {
            Spread::One | Spread::Bound(..) => self.queue.clone(),
            Spread::Rotated(_) | Spread::FanOut(_) => format!("{}-{queue:05}", self.queue),
        }
    }

    /// The exchange and the routing key of a producer's message.
    pub fn address(&self, sequence: u64) -> (String, String) {
        match self.spread {
            Spread::One => (String::new(), self.queue.clone()),
            Spread::Rotated(queues) => (String::new(), self.queue_name((sequence % u64::from(queues)) as u16)),
            Spread::FanOut(_) => (self.exchange_name(), String::new()),
            Spread::Bound(bindings, _) => (self.exchange_name(), routing_key((sequence % u64::from(bindings)) as u16)),
        }
    }

    /// The routing keys that a producer's messages use in turn; empty if all have the same key.
    pub fn routing_keys(&self) -> Vec<String> {
        match self.spread {
            Spread::Rotated(queues) => (0..queues).map(|queue| self.queue_name(queue)).collect(),
            Spread::Bound(bindings, _) => (0..bindings).map(routing_key).collect(),
            Spread::One | Spread::FanOut(_) => Vec::new(),
        }
    }

    /// The exchange that is declared for the run, if the load needs one.
    fn exchange_name(&self) -> String {
        format!("{}-exchange", self.queue)
    }

    /// Makes the queues, on a connection of its own that stays open until they are dropped.
    pub fn set_up(&self, target: &Target) -> Result<Connection, Failure> {
        let mut connection = Connection::open(target)?;
        match self.spread {
            Spread::FanOut(_) => connection.declare_exchange(&self.exchange_name(), "fanout")?,
            Spread::Bound(_, matching) => connection.declare_exchange(&self.exchange_name(), matching.name())?,
            Spread::One | Spread::Rotated(_) => {}
        }
        for queue in (0..self.spread.queues()).map(|queue| self.queue_name(queue)) {
            let waiting = connection.declare_queue(&queue, self.persistent)?;
            if waiting > 0 {
                return Err(Failure::Option(format!(
                    "queue {queue} holds {waiting} messages already: purge it, or choose another --queue"
                )));
            }
            match self.spread {
                Spread::FanOut(_) => connection.bind(&queue, &self.exchange_name(), "")?,
                Spread::Bound(bindings, matching) => {
                    for binding in 0..bindings {
                        connection.bind(&queue, &self.exchange_name(), &matching.binding_key(binding))?;
                    }
                }
                Spread::One | Spread::Rotated(_) => {}
            }
        }
        Ok(connection)
    }

    /// Deletes the queues, if they were declared for this run.
    pub fn tear_down(&self, connection: &mut Connection) -> Result<(), Failure> {
        if self.queue_is_ours {
            for queue in 0..self.spread.queues() {
                connection.delete_queue(&self.queue_name(queue))?;
            }
        }
        if let Spread::FanOut(_) | Spread::Bound(..) = self.spread {
            connection.delete_exchange(&self.exchange_name())?;
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
        match self.spread {
            Spread::One => Ok(()),
            Spread::Rotated(queues) => write!(f, ", over {queues} queues"),
            Spread::FanOut(queues) => write!(f, ", each to {queues} queues"),
            Spread::Bound(bindings, matching) => {
                write!(f, ", by {bindings} bindings of a {} exchange", matching.name())
            }
        }
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
    fn messages_are_spread_over_queues() {
        let rotated = Spread::Rotated(3);
        assert_eq!([0, 1, 2].map(|queue| rotated.share(7, queue)), [3, 2, 2]);
        assert_eq!([rotated.place(4, 1), rotated.place(4, 0)], [Some(1), None]);
        let all = Spread::FanOut(3);
        assert_eq!((all.share(7, 2), all.place(4, 2), all.copies()), (7, Some(4), 3));
        let bound = load("--bindings 300 --exchange direct").unwrap();
        assert_eq!(bound.to_string(), "16 B transient, auto ack, by 300 bindings of a direct exchange");
        assert_eq!((bound.address(307).1, bound.routing_keys().len()), ("bench.00007.x".to_owned(), 300));
        let load = load("--queues 1000 --size 100").unwrap();
        assert_eq!(load.to_string(), "100 B transient, auto ack, over 1000 queues");
        assert!(load.address(1_007).1.ends_with("-00007"));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for options in ["--size 7", "--size 999999999", "--ack-multiple 0", "--ack-multiple 51 --prefetch 50"] {
            assert!(load(options).is_err(), "{options}");
        }
    }
}
