//! Graphs of the cost of a message: the server's processor time against the number of queues, consumers, bindings or
//! waiting messages, both on a logarithmic scale.
//!
//! A point is the median of the runs, with a line from the lowest run to the highest. A flat line is a cost that does
//! not grow.

use serde_json::Value;

use super::list;
use super::svg::{COLOURS, power_of_ten, start};
use crate::bench::{Spread, number};

const LEFT: f64 = 60.0;
const TOP: f64 = 64.0;
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 260.0;

/// The graphs: name in the reports, and title.
const TITLES: [(&str, &str); 8] = [
    ("bytes", "bytes of the body (transient)"),
    ("queues", "queues (transient, 16 B)"),
    ("queues-durable", "queues (durable, 100 B)"),
    ("consumers", "consumers of one queue (transient, 16 B)"),
    ("bindings-topic", "bindings of a topic exchange (transient, 16 B)"),
    ("bindings-direct", "bindings of a direct exchange (transient, 16 B)"),
    ("backlog", "waiting messages (transient, 100 B)"),
    ("backlog-durable", "waiting messages (durable, 100 B)"),
];

/// A server's points, by value.
struct Line {
    server: String,
    points: Vec<(f64, Spread)>,
}

/// A picture for each graph that has points in the reports: name and text.
pub fn pictures(reports: &Value) -> Result<Vec<(String, String)>, String> {
    let mut pictures = Vec::new();
    for (graph, title) in TITLES {
        let lines = lines(reports, graph)?;
        if !lines.is_empty() {
            let title = format!("server CPU for each message in ns, against {title}");
            pictures.push((format!("cost-{graph}.svg"), picture(&title, &lines)));
        }
    }
    Ok(pictures)
}

fn lines(reports: &Value, graph: &str) -> Result<Vec<Line>, String> {
    let mut lines: Vec<Line> = Vec::new();
    for load in list(&reports["loads"]).iter().filter(|load| load["graph"] == graph) {
        let value = number(load, "/value")?;
        for server in list(&load["servers"]) {
            let rates: Result<Vec<f64>, String> = list(&server["reports"])
                .iter()
                .map(|report| number(report, "/deliveries_per_server_cpu_second"))
                .collect();
            let point = (value, Spread::of(rates?.into_iter().map(|rate| 1e9 / rate)));
            let name = server["server"].as_str().unwrap_or_default();
            match lines.iter_mut().find(|line| line.server == name) {
                Some(line) => line.points.push(point),
                None => lines.push(Line { server: name.to_owned(), points: vec![point] }),
            }
        }
    }
    Ok(lines)
}

/// The powers of ten around these figures.
fn powers(figures: impl Iterator<Item = f64> + Clone) -> (i32, i32) {
    let low = figures.clone().fold(f64::INFINITY, f64::min).log10().floor() as i32;
    let high = figures.fold(0.0, f64::max).log10().ceil() as i32;
    (low, high.max(low + 1))
}

fn picture(title: &str, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let (left, right) = powers(points().map(|(value, _)| *value));
    let (low, high) = powers(points().flat_map(|(_, spread)| [spread.lowest, spread.highest]));
    let along = |figure: f64, from: i32, to: i32| (figure.log10() - f64::from(from)) / f64::from(to - from);
    let x = |value: f64| LEFT + WIDTH * along(value, left, right);
    let y = |figure: f64| TOP + HEIGHT * (1.0 - along(figure, low, high));
    let mut svg = start(title, LEFT + WIDTH + 40.0, TOP + HEIGHT + 34.0);
    let mut add = |text: String| svg.push_str(&(text + "\n"));
    for power in left..=right {
        let x = x(10_f64.powi(power));
        add(format!("<path d=\"M{x:.1} {TOP} V{:.1}\" stroke=\"#ddd\"/>", TOP + HEIGHT));
        let below = TOP + HEIGHT + 18.0;
        add(format!("<text x=\"{x:.1}\" y=\"{below}\" text-anchor=\"middle\">{}</text>", power_of_ten(power)));
    }
    for power in low..=high {
        let y = y(10_f64.powi(power));
        add(format!("<path d=\"M{LEFT} {y:.1} H{}\" stroke=\"#ddd\"/>", LEFT + WIDTH));
        let label = power_of_ten(power);
        add(format!("<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", LEFT - 8.0, y + 4.0));
    }
    for (place, (line, colour)) in lines.iter().zip(COLOURS).enumerate() {
        let key = LEFT + 110.0 * place as f64;
        add(format!("<circle cx=\"{key}\" cy=\"38\" r=\"5\" fill=\"{colour}\"/>"));
        add(format!("<text x=\"{}\" y=\"42\">{}</text>", key + 10.0, line.server));
        let path: Vec<String> =
            line.points.iter().map(|(value, spread)| format!("{:.1} {:.1}", x(*value), y(spread.median))).collect();
        add(format!("<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>", path.join(" L")));
        for (value, spread) in &line.points {
            let (x, from, to) = (x(*value), y(spread.lowest), y(spread.highest));
            add(format!("<path d=\"M{x:.1} {from:.1} V{to:.1}\" stroke=\"{colour}\"/>"));
            add(format!("<circle cx=\"{x:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"{colour}\"/>", y(spread.median)));
        }
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn load(value: u32, rates: [f64; 3]) -> Value {
        let reports = rates.map(|rate| json!({"deliveries_per_server_cpu_second": rate}));
        json!({"graph": "queues", "value": value, "servers": [{"server": "FerryMQ", "reports": reports}]})
    }

    #[test]
    fn a_graph_has_a_point_for_each_value() {
        let reports = json!({"loads": [load(1, [1e6, 2e6, 4e6]), load(100, [1e6, 1e6, 1e6])]});
        let found = lines(&reports, "queues").unwrap();
        let points: Vec<(f64, f64)> = found[0].points.iter().map(|(value, spread)| (*value, spread.median)).collect();
        assert_eq!(points, [(1.0, 500.0), (100.0, 1000.0)]);
        assert_eq!(powers([1.0, 100.0].into_iter()), (0, 2));
        let all = pictures(&reports).unwrap();
        assert_eq!(all.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["cost-queues.svg"]);
        assert_eq!(all[0].1.matches("r=\"4\"").count(), 2);
        assert!(pictures(&json!({"loads": [{"graph": "queues", "value": "x"}]})).is_err());
    }
}
