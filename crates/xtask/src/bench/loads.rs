//! The loads that `cargo x bench` knows: a name for each, and what the load generator is told.

/// A load.
#[derive(Debug)]
pub struct Load {
    pub name: String,
    pub kind: Kind,
    /// The command behind `ferrymq bench amqp`.
    pub measure: &'static str,
    /// Its arguments.
    pub args: Vec<String>,
}

/// What a load measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Deliveries.
    Throughput,
    /// How long the messages of another client take meanwhile: 1,000 a second, of 16 B.
    Neighbour,
    /// A point of a graph: the server's processor time for each message, with this value of the option.
    Cost { graph: &'static str, value: u32 },
    /// A consumer that takes half of what is published.
    Lag,
}

/// Bodies of transient messages: 16 B, 1 KiB, 4 KiB, 16 KiB, 64 KiB and 1 MiB.
const TRANSIENT_BYTES: [u32; 6] = [16, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 1 << 20];
/// Bodies of persistent messages: 100 B, 4 KiB and 64 KiB.
const DURABLE_BYTES: [u32; 3] = [100, 4 << 10, 64 << 10];
/// Bodies of messages that come as fast as the server takes them, beside a neighbour.
const FLOOD_BYTES: [u32; 4] = [16, 1 << 10, 16 << 10, 1 << 20];
/// Connections that flood.
const FLOODERS: [u32; 3] = [1, 2, 4];
/// What other clients do and undo beside a neighbour.
const CHURNS: [&str; 3] = ["binds", "declares", "subscribes"];
/// A wide fan-out beside a neighbour: this many queues get each message.
const WIDE: u32 = 6_000;
/// Graphs of what a message costs: name, load, option whose value grows, and its values.
const GRAPHS: [(&str, &str, &str, &[u32]); 8] = [
    ("bytes", "--load transient", "--size", &[16, 64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20]),
    ("queues", "--load transient", "--queues", &[1, 10, 100, 1_000]),
    ("queues-durable", "--load durable", "--queues", &[1, 10, 100, 1_000]),
    ("consumers", "--load transient", "--consumers", &[1, 10, 100, 1_000]),
    ("bindings-topic", "--load transient --exchange topic", "--bindings", &[1, 10, 100, 1_000, 10_000]),
    ("bindings-direct", "--load transient --exchange direct", "--bindings", &[1, 10, 100, 1_000, 10_000]),
    ("backlog", "--load durable --persistent false --confirm-window 0", "--backlog", &BACKLOGS),
    ("backlog-durable", "--load durable", "--backlog", &BACKLOGS),
];
/// The number of messages that always wait.
const BACKLOGS: [u32; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// A lagging consumer: name, and load. With a rate, ten minutes leave less than 20 GB on the disk.
const LAGS: [(&str, &str); 5] = [
    ("lag-100", "--load transient --ack-multiple 50 --prefetch 500 --size 100 --rate 200000"),
    ("lag-16384", "--load transient --ack-multiple 50 --prefetch 500 --size 16384 --rate 3000"),
    ("lag-flood-100", "--load transient --ack-multiple 50 --prefetch 500 --size 100"),
    ("lag-flood-100-auto-ack", "--load transient --size 100"),
    ("lag-flood-16384", "--load transient --ack-multiple 50 --prefetch 500 --size 16384"),
];

/// All of them, in the order in which they are measured.
pub fn all() -> Vec<Load> {
    let throughput = |name: &str, args: String| load(name, Kind::Throughput, "throughput", &args);
    let mut loads = vec![
        throughput("transient", "--load transient".to_owned()),
        throughput("durable", "--load durable".to_owned()),
    ];
    // Those of the presets have names already.
    for bytes in &TRANSIENT_BYTES[1..] {
        loads.push(throughput(&format!("transient-{bytes}"), format!("--load transient --size {bytes}")));
    }
    for bytes in &DURABLE_BYTES[1..] {
        loads.push(throughput(&format!("durable-{bytes}"), format!("--load durable --size {bytes}")));
    }
    loads.push(throughput("durable-1000-queues", "--load durable --queues 1000".to_owned()));
    loads.push(throughput("fan-out-100", "--load transient --size 1024 --fan-out 100".to_owned()));
    loads.extend(neighbours());
    for (graph, args, option, values) in GRAPHS {
        for &value in values {
            let kind = Kind::Cost { graph, value };
            loads.push(load(&format!("{graph}-{value}"), kind, "throughput", &format!("{args} {option} {value}")));
        }
    }
    loads.extend(LAGS.map(|(name, args)| load(name, Kind::Lag, "lag", args)));
    loads
}

fn neighbours() -> Vec<Load> {
    let mut loads = Vec::new();
    for flooders in FLOODERS {
        for bytes in FLOOD_BYTES {
            let args = format!("--load transient --size {bytes} --producers {flooders}");
            loads.push(load(&format!("neighbour-{flooders}x{bytes}"), Kind::Neighbour, "throughput", &args));
        }
    }
    for churn in CHURNS {
        let args = format!("--kind {churn} --clients 2");
        loads.push(load(&format!("neighbour-{churn}"), Kind::Neighbour, "churn", &args));
    }
    let wide = format!("--load transient --fan-out {WIDE}");
    loads.push(load(&format!("neighbour-fan-out-{WIDE}"), Kind::Neighbour, "throughput", &wide));
    loads
}

fn load(name: &str, kind: Kind, measure: &'static str, args: &str) -> Load {
    Load { name: name.to_owned(), kind, measure, args: args.split_whitespace().map(str::to_owned).collect() }
}

impl Kind {
    /// Its name in `--loads` and in the reports.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Throughput => "throughput",
            Kind::Neighbour => "neighbour",
            Kind::Cost { .. } => "graphs",
            Kind::Lag => "lag",
        }
    }
}

/// The loads that were chosen: by name, by graph, by kind, or `all`.
pub fn chosen(asked: &str) -> Result<Vec<Load>, String> {
    let mut loads = all();
    let is_meant = |load: &Load, word: &str| {
        word == "all"
            || word == load.kind.word()
            || word == load.name
            || matches!(load.kind, Kind::Cost { graph, .. } if graph == word)
    };
    if let Some(unknown) = asked.split(',').find(|word| !loads.iter().any(|load| is_meant(load, word))) {
        let names: Vec<String> = loads.into_iter().map(|load| load.name).collect();
        return Err(format!(
            "no load `{unknown}`; there are all, throughput, neighbour, graphs, lag, {}",
            names.join(", ")
        ));
    }
    loads.retain(|load| asked.split(',').any(|word| is_meant(load, word)));
    Ok(loads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_chosen_by_name_by_graph_and_by_kind() {
        let names = |asked| chosen(asked).map(|loads| loads.into_iter().map(|load| load.name).collect::<Vec<_>>());
        assert_eq!(names("durable,transient-1024").unwrap(), ["durable", "transient-1024"]);
        assert_eq!(names("neighbour").unwrap().len(), FLOODERS.len() * FLOOD_BYTES.len() + CHURNS.len() + 1);
        assert_eq!(names("queues").unwrap(), ["queues-1", "queues-10", "queues-100", "queues-1000"]);
        assert_eq!(names("throughput,neighbour,graphs,lag").unwrap(), names("all").unwrap());
        assert!(names("transient,other").unwrap_err().contains("no load `other`"));
    }

    #[test]
    fn no_two_loads_have_the_same_name() {
        let mut names: Vec<String> = all().into_iter().map(|load| load.name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
