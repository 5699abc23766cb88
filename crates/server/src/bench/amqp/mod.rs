//! Load over AMQP 0-9-1, for any server that speaks it.

mod churn;
mod connection;
mod consumer;
mod frames;
mod heartbeats;
mod lag;
mod latency;
mod load;
mod producer;
mod run;
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
    /// Measure how many messages per second the server delivers, from producers that publish as fast as they can
    Throughput(throughput::ThroughputArgs),
    /// Measure how long messages take at a given rate, which does not depend on the server
    Latency(latency::LatencyArgs),
    /// What a server does when the consumer takes only a part of what is published: rates, memory, and the drain at the
    /// end
    Lag(lag::LagArgs),
    /// How often a second clients can bind, declare or subscribe; a load beside which others are measured
    Churn(churn::ChurnArgs),
}

pub fn run(args: AmqpArgs) -> Result<(), Failure> {
    match args.measure {
        Measure::Throughput(args) => throughput::run(args),
        Measure::Latency(args) => latency::run(args),
        Measure::Lag(args) => lag::run(args),
        Measure::Churn(args) => churn::run(args),
    }
}
