//! The loads that `cargo x bench` knows: a name for each, and what the load generator is told.

/// A load.
#[derive(Debug)]
pub struct Load {
    pub name: String,
    pub kind: Kind,
    /// What `ferrymq bench amqp throughput` is told.
    pub args: Vec<String>,
}

/// What a load measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Deliveries.
    Throughput,
    /// How long the messages of another client take meanwhile: 1,000 a second, of 16 B.
    Neighbour,
}

/// Bodies of transient messages: 16 B, 1 KiB, 4 KiB, 16 KiB, 64 KiB and 1 MiB.
const TRANSIENT_BYTES: [u32; 6] = [16, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 1 << 20];
/// Bodies of persistent messages: 100 B, 4 KiB and 64 KiB.
const DURABLE_BYTES: [u32; 3] = [100, 4 << 10, 64 << 10];
/// Bodies of messages that come as fast as the server takes them, beside a neighbour.
const FLOOD_BYTES: [u32; 4] = [16, 1 << 10, 16 << 10, 1 << 20];
/// Connections that flood.
const FLOODERS: [u32; 3] = [1, 2, 4];

/// All of them, in the order in which they are measured.
pub fn all() -> Vec<Load> {
    let throughput = |name: String, args: String| Load { name, kind: Kind::Throughput, args: words(&args) };
    let mut loads = vec![
        throughput("transient".to_owned(), "--load transient".to_owned()),
        throughput("durable".to_owned(), "--load durable".to_owned()),
    ];
    // Those of the presets have names already.
    for bytes in &TRANSIENT_BYTES[1..] {
        loads.push(throughput(format!("transient-{bytes}"), format!("--load transient --size {bytes}")));
    }
    for bytes in &DURABLE_BYTES[1..] {
        loads.push(throughput(format!("durable-{bytes}"), format!("--load durable --size {bytes}")));
    }
    loads.push(throughput("durable-1000-queues".to_owned(), "--load durable --queues 1000".to_owned()));
    loads.push(throughput("fan-out-100".to_owned(), "--load transient --size 1024 --fan-out 100".to_owned()));
    for flooders in FLOODERS {
        for bytes in FLOOD_BYTES {
            loads.push(Load {
                name: format!("neighbour-{flooders}x{bytes}"),
                kind: Kind::Neighbour,
                args: words(&format!("--load transient --size {bytes} --producers {flooders}")),
            });
        }
    }
    loads
}

/// Those that were asked for: by name, `neighbour` for all with a neighbour, `throughput` for all without, or `all`.
pub fn chosen(asked: &str) -> Result<Vec<Load>, String> {
    let mut loads = all();
    let is_meant = |load: &Load, word: &str| match word {
        "all" => true,
        "throughput" => load.kind == Kind::Throughput,
        "neighbour" => load.kind == Kind::Neighbour,
        name => load.name == name,
    };
    if let Some(unknown) = asked.split(',').find(|word| !loads.iter().any(|load| is_meant(load, word))) {
        let names: Vec<String> = loads.into_iter().map(|load| load.name).collect();
        return Err(format!("no load `{unknown}`; there are all, throughput, neighbour, {}", names.join(", ")));
    }
    loads.retain(|load| asked.split(',').any(|word| is_meant(load, word)));
    Ok(loads)
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_chosen_by_name_and_by_kind() {
        let names = |asked| chosen(asked).map(|loads| loads.into_iter().map(|load| load.name).collect::<Vec<_>>());
        assert_eq!(names("durable,transient-1024").unwrap(), ["durable", "transient-1024"]);
        assert_eq!(names("neighbour").unwrap().len(), FLOODERS.len() * FLOOD_BYTES.len());
        assert_eq!(names("throughput,neighbour").unwrap(), names("all").unwrap());
        assert!(names("transient,other").unwrap_err().contains("no load `other`"));
    }
}
