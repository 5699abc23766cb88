//! Pictures of a lagging consumer over time: published and delivered messages, and the server's memory. There is one
//! picture for the first run of each load and server.

use serde_json::Value;

use super::list;
use super::svg::{COLOURS, start};
use crate::bench::number;

const LEFT: f64 = 70.0;
const WIDTH: f64 = 600.0;
const PANEL: f64 = 150.0;
/// The tops of the two panels.
const TOPS: [f64; 2] = [64.0, 264.0];
const MIB: f64 = (1 << 20) as f64;

/// A panel: its title and its lines. A line has its path in a sample, and the number by which its values are divided.
type Panel = (&'static str, &'static [(&'static str, &'static str, f64)]);

const PANELS: [Panel; 2] = [
    (
        "messages per second",
        &[("published", "/publishes_per_second", 1.0), ("delivered", "/deliveries_per_second", 1.0)],
    ),
    ("anonymous memory of the server, in MiB", &[("", "/server_anonymous_bytes", MIB)]),
];

/// A picture for each load with a lagging consumer: name and text.
pub fn pictures(reports: &Value) -> Result<Vec<(String, String)>, String> {
    let mut pictures = Vec::new();
    for load in list(&reports["loads"]).iter().filter(|load| load["kind"] == "lag") {
        for server in list(&load["servers"]) {
            let (load, server_name) = (text(&load["load"]), text(&server["server"]));
            let Some(report) = list(&server["reports"]).first() else { continue };
            let title = format!("{server_name}: {}", text(&report["load"]));
            let name = format!("{load}-{}.svg", server_name.to_lowercase());
            pictures.push((name, picture(&title, list(&report["samples"]))?));
        }
    }
    Ok(pictures)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn picture(title: &str, samples: &[Value]) -> Result<String, String> {
    let seconds: Result<Vec<f64>, String> = samples.iter().map(|sample| number(sample, "/seconds")).collect();
    let seconds = seconds?;
    let last = seconds.last().copied().unwrap_or(1.0);
    let x = |second: f64| LEFT + WIDTH * second / last;
    let mut svg = start(title, LEFT + WIDTH + 40.0, TOPS[1] + PANEL + 34.0);
    let mut add = |text: String| svg.push_str(&(text + "\n"));
    for ((title, curves), top) in PANELS.into_iter().zip(TOPS) {
        let bottom = top + PANEL;
        let mut figures = Vec::new();
        for (_, path, unit) in curves {
            let curve: Result<Vec<f64>, String> =
                samples.iter().map(|sample| number(sample, path).map(|figure| figure / unit)).collect();
            figures.push(curve?);
        }
        let highest = figures.iter().flatten().copied().fold(1.0, f64::max);
        let y = |figure: f64| bottom - PANEL * figure / highest;
        add(format!("<text x=\"{LEFT}\" y=\"{}\">{title}</text>", top - 12.0));
        for part in 0..=2 {
            let figure = highest * f64::from(part) / 2.0;
            let y = y(figure);
            add(format!("<path d=\"M{LEFT} {y:.1} H{}\" stroke=\"#ddd\"/>", LEFT + WIDTH));
            add(format!("<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{figure:.0}</text>", LEFT - 8.0, y + 4.0));
        }
        for part in 0..=4 {
            let second = last * f64::from(part) / 4.0;
            let (x, below) = (x(second), bottom + 18.0);
            add(format!("<text x=\"{x:.1}\" y=\"{below}\" text-anchor=\"middle\">{second:.0} s</text>"));
        }
        for (place, ((name, ..), (curve, colour))) in curves.iter().zip(figures.iter().zip(COLOURS)).enumerate() {
            let points: Vec<String> = seconds
                .iter()
                .zip(curve)
                .map(|(second, figure)| format!("{:.1} {:.1}", x(*second), y(*figure)))
                .collect();
            add(format!("<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>", points.join(" L")));
            let key = LEFT + 200.0 + 110.0 * place as f64;
            add(format!("<text x=\"{key}\" y=\"{}\" fill=\"{colour}\">{name}</text>", top - 12.0));
        }
    }
    Ok(svg + "</svg>\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_lagging_run_has_three_curves() {
        let sample = |seconds: f64| {
            json!({"seconds": seconds, "publishes_per_second": 2e6, "deliveries_per_second": 1e6,
                "server_anonymous_bytes": 1 << 25})
        };
        let report = json!({"load": "100 B", "samples": [sample(1.0), sample(2.0)]});
        let servers = [json!({"server": "FerryMQ", "reports": [report]})];
        let reports = json!({"loads": [{"load": "lag-100", "kind": "lag", "servers": servers}]});
        let all = pictures(&reports).unwrap();
        assert_eq!((all.len(), all[0].0.as_str()), (1, "lag-100-ferrymq.svg"));
        assert_eq!(all[0].1.matches("fill=\"none\"").count(), 3);
        assert!(picture("", &[json!({"seconds": 1.0})]).is_err());
    }
}
