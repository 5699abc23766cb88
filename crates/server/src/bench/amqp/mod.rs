//! Load over AMQP 0-9-1, for any server that speaks it.

mod connection;
mod consumer;
mod frames;
mod latency;
mod load;
mod producer;
mod target;
mod throughput;

use super::Failure;

#[derive(Debug, clap::Args)]
pub struct AmqpArgs {
    #[command(subcommand)]
    measure: Measure,
}

#[derive(Debug, clap::Subcommand)]
enum Measure {
    /// How many messages a second the server carries, from producers that never wait on purpose
    Throughput(throughput::ThroughputArgs),
    /// How long a message takes at a given rate, by a schedule that does not wait for the server
    Latency(latency::LatencyArgs),
}

pub fn run(args: AmqpArgs) -> Result<(), Failure> {
    match args.measure {
        Measure::Throughput(args) => throughput::run(args),
        Measure::Latency(args) => latency::run(args),
    }
}
