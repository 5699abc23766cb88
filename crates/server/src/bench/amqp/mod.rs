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
    /// Measure a server whose consumer takes only a part of the messages: rates, memory, and the rest at the end
    Lag(lag::LagArgs),
    /// Measure how many times per second clients can bind, declare or subscribe; other loads can run beside this one
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
