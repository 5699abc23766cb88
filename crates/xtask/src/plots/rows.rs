//! Pictures with a row for each load and a point for each server: the median, with a line from the lowest run to the
//! highest.
//!
//! The scale is logarithmic, so that equal distances are equal ratios.

use serde_json::Value;

use super::svg::{COLOURS, power_of_ten, start};
use crate::bench::{Spread, number};

/// A picture: its file, its title, the kind of loads in it, and the figure that it shows.
pub const PICTURES: [(&str, &str, &str, &str, f64); 5] = [
    ("throughput", "deliveries per second", "throughput", "/deliveries_per_second", 1.0),
    ("cost", "server CPU for each delivery, in microseconds", "throughput", "/deliveries_per_server_cpu_second", COST),
    ("memory", "anonymous memory of the server at most, in MiB", "throughput", "/server_anonymous_bytes_max", MIB),
    ("neighbour-p99", "a neighbour's p99 beside a flood, in ms", "neighbour", "/neighbour/delivery_us/p99", 1_000.0),
    (
        "neighbour-p99-9",
        "a neighbour's p99.9 beside a flood, in ms",
        "neighbour",
        "/neighbour/delivery_us/p99_9",
        1_000.0,
    ),
];

const MIB: f64 = (1 << 20) as f64;
/// Not a unit: the figure is a rate, and its inverse is shown.
const COST: f64 = -1e6;

const LABELS: f64 = 190.0;
const WIDTH: f64 = 560.0;
const ROW: f64 = 26.0;
const TOP: f64 = 64.0;
/// A load, and what each server reached under it.
pub struct Row {
    load: String,
    servers: Vec<(String, Spread)>,
}

pub fn rows(reports: &Value, kind: &str, path: &str, unit: f64) -> Result<Vec<Row>, String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut rows = Vec::new();
    for load in list(&reports["loads"]).iter().filter(|load| load["kind"] == kind) {
        let mut servers = Vec::new();
        for server in list(&load["servers"]) {
            let figures: Result<Vec<f64>, String> = list(&server["reports"])
                .iter()
                .map(|report| {
                    let figure = number(report, path)?;
                    Ok(if unit == COST { 1e6 / figure } else { figure / unit })
                })
                .collect();
            servers.push((text(&server["server"]), Spread::of(figures?.into_iter())));
        }
        rows.push(Row { load: text(&load["load"]), servers });
    }
    Ok(rows)
}

/// The powers of ten around all figures.
fn scale(rows: &[Row]) -> (i32, i32) {
    let all = || rows.iter().flat_map(|row| &row.servers);
    let lowest = all().map(|(_, spread)| spread.lowest).fold(f64::INFINITY, f64::min);
    let highest = all().map(|(_, spread)| spread.highest).fold(0.0, f64::max);
    let low = lowest.max(1e-6).log10().floor() as i32;
    (low, (highest.max(1e-6).log10().ceil() as i32).max(low + 1))
}

pub fn picture(title: &str, rows: &[Row]) -> String {
    let (low, high) = scale(rows);
    let at = |figure: f64| LABELS + WIDTH * (figure.max(1e-6).log10() - f64::from(low)) / f64::from(high - low);
    let bottom = TOP + ROW * rows.len() as f64;
    let (width, height) = (LABELS + WIDTH + 40.0, bottom + 30.0);
    let mut svg = start(title, width, height);
    let mut line = |text: String| svg.push_str(&(text + "\n"));
    let names = rows.iter().map(|row| row.servers.len()).max().unwrap_or(0);
    for (place, colour) in COLOURS.iter().enumerate().take(names) {
        let name = rows.iter().find_map(|row| row.servers.get(place)).map_or("", |(name, _)| name);
        let x = LABELS + 110.0 * place as f64;
        line(format!("<circle cx=\"{x}\" cy=\"38\" r=\"5\" fill=\"{colour}\"/>"));
        line(format!("<text x=\"{}\" y=\"42\">{name}</text>", x + 10.0));
    }
    for power in low..=high {
        let x = at(10_f64.powi(power));
        line(format!("<path d=\"M{x:.1} {} V{bottom}\" stroke=\"#ddd\"/>", TOP - 8.0));
        line(format!(
            "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 18.0,
            power_of_ten(power)
        ));
    }
    for (number, row) in rows.iter().enumerate() {
        let y = TOP + ROW * (number as f64 + 0.5);
        line(format!("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>", LABELS - 12.0, y + 4.0, row.load));
        for ((_, spread), (colour, shift)) in row.servers.iter().zip(COLOURS.iter().zip([-4.0, 4.0])) {
            let (from, to, y) = (at(spread.lowest), at(spread.highest), y + shift);
            line(format!("<path d=\"M{from:.1} {y} H{to:.1}\" stroke=\"{colour}\" stroke-width=\"2\"/>"));
            line(format!("<circle cx=\"{:.1}\" cy=\"{y}\" r=\"4\" fill=\"{colour}\"/>", at(spread.median)));
        }
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn reports() -> Value {
        let report = |rate: f64| json!({"deliveries_per_second": rate, "deliveries_per_server_cpu_second": rate / 2.0});
        let server = |name: &str, rates: [f64; 3]| json!({"server": name, "reports": rates.map(report)});
        let servers = [server("FerryMQ", [2e6, 3e6, 1e6]), server("RabbitMQ", [1e5, 1e5, 1e5])];
        json!({"loads": [{"load": "transient", "kind": "throughput", "servers": servers}]})
    }

    #[test]
    fn a_row_has_the_spread_of_each_server() {
        let found = rows(&reports(), "throughput", "/deliveries_per_second", 1.0).unwrap();
        assert_eq!(found[0].servers[0].1, Spread { lowest: 1e6, median: 2e6, highest: 3e6 });
        assert_eq!(scale(&found), (5, 7));
        let cost = rows(&reports(), "throughput", "/deliveries_per_server_cpu_second", COST).unwrap();
        assert_eq!(cost[0].servers[1].1.median, 20.0);
        assert!(rows(&reports(), "neighbour", "/x", 1.0).unwrap().is_empty());
        assert!(rows(&reports(), "throughput", "/x", 1.0).is_err());
    }

    #[test]
    fn a_picture_shows_every_server() {
        let rows = rows(&reports(), "throughput", "/deliveries_per_second", 1.0).unwrap();
        let svg = picture("deliveries", &rows);
        for part in ["FerryMQ", "RabbitMQ", ">transient<", COLOURS[0], COLOURS[1]] {
            assert!(svg.contains(part), "{part}");
        }
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    }
}
