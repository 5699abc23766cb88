//! The result of a measurement, for people and as JSON.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::Failure;
use super::process::Process;
use super::verify::Verdict;

/// What is reported, and how.
#[derive(Debug, clap::Args)]
pub struct ReportArgs {
    /// Also report the CPU time and, where it is measured, the memory of this process: the server, if it is on this
    /// machine
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

impl ReportArgs {
    /// The server's process, if it is watched.
    pub fn server(&self) -> Result<Option<Process>, Failure> {
        self.server_pid.map(Process::other).transpose()
    }

    /// Prints the report, and says whether its figures count.
    pub fn print(&self, report: &impl Report) -> Result<(), Failure> {
        if self.json {
            println!("{}", serde_json::to_string(report).expect("a report is numbers and text under fixed names"));
        } else {
            report.print_text();
        }
        report.judge()
    }
}

/// The figures of one measurement.
pub trait Report: Serialize {
    /// Prints them for people.
    fn print_text(&self);

    /// Whether they count.
    fn judge(&self) -> Result<(), Failure>;
}

/// What was carried. Rates and CPU are those of the measured seconds; the checks cover the whole run.
#[derive(Debug, Clone, Serialize)]
pub struct Throughput {
    pub load: String,
    pub seconds: f64,
    pub deliveries_per_second: f64,
    pub publishes_per_second: f64,
    pub left_over_messages: u64,
    pub left_over_seconds: f64,
    pub client_cpu_cores: f64,
    pub server_cpu_cores: Option<f64>,
    pub deliveries_per_server_cpu_second: Option<f64>,
    pub server_anonymous_bytes_max: Option<u64>,
    pub checked_messages: u64,
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// How long messages took, in microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    pub load: String,
    pub rate: u64,
    pub seconds: f64,
    pub delivery_us: Percentiles,
    pub confirm_us: Option<Percentiles>,
    /// The part of that time before the message left the client.
    pub sent_late_us: Percentiles,
    /// The longest time between two heartbeats on an idle connection, if this was measured.
    pub heartbeat_gap_ms_max: Option<f64>,
    pub client_cpu_cores: f64,
    pub server_cpu_cores: Option<f64>,
    pub checked_messages: u64,
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// The figures while the consumer lagged, and for the rest that was consumed after that.
#[derive(Debug, Clone, Serialize)]
pub struct Lag {
    pub load: String,
    pub seconds: f64,
    pub publishes_per_second: f64,
    pub deliveries_per_second: f64,
    /// The longest time that the consumer waited for a message that it was ready to take, while producers ran.
    pub consumer_gap_ms_max: f64,
    /// The number of waiting messages when the producers stopped.
    pub backlog_messages: u64,
    pub drain_seconds: f64,
    pub drained_per_second: f64,
    pub server_cpu_cores: Option<f64>,
    pub server_anonymous_bytes_max: Option<u64>,
    /// Samples from the start until the last message was consumed.
    pub samples: Vec<LagSample>,
    pub checked_messages: u64,
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// One sample of a run with a lagging consumer.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LagSample {
    pub seconds: f64,
    /// Since the sample before.
    pub publishes_per_second: f64,
    pub deliveries_per_second: f64,
    pub server_anonymous_bytes: Option<u64>,
}

/// How often clients bound, declared or subscribed.
#[derive(Debug, Clone, Serialize)]
pub struct Churn {
    pub load: String,
    pub seconds: f64,
    /// Requests and the requests that undo them, together.
    pub operations_per_second: f64,
    pub server_cpu_cores: Option<f64>,
}

/// Of a histogram of nanoseconds, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Percentiles {
    pub p50: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
}

impl Percentiles {
    pub fn of(nanoseconds: &Histogram<u64>) -> Percentiles {
        let at = |quantile| nanoseconds.value_at_quantile(quantile) as f64 / 1000.0;
        Percentiles { p50: at(0.5), p99: at(0.99), p99_9: at(0.999), max: nanoseconds.max() as f64 / 1000.0 }
    }
}

impl Report for Throughput {
    fn print_text(&self) {
        println!("load         {}", self.load);
        println!("delivered    {} /s over {:.1} s", grouped(self.deliveries_per_second), self.seconds);
        println!("published    {} /s", grouped(self.publishes_per_second));
        print_checked(self.checked_messages, &self.verdict);
        println!(
            "left over    {} messages, {:.3} s of traffic, drained and checked too",
            grouped(self.left_over_messages as f64),
            self.left_over_seconds
        );
        println!("client CPU   {:.2} cores", self.client_cpu_cores);
        if let Some(cores) = self.server_cpu_cores {
            println!("server CPU   {cores:.2} cores");
        }
        if let Some(per_second) = self.deliveries_per_server_cpu_second {
            println!("             {} messages per CPU second", grouped(per_second));
        }
        if let Some(memory) = self.server_anonymous_bytes_max {
            println!("server RAM   {:.1} MiB anonymous at most", memory as f64 / f64::from(1 << 20));
        }
    }

    /// A figure counts only if everything arrived as it was sent, and not much later than it was counted.
    fn judge(&self) -> Result<(), Failure> {
        self.verdict.judge()?;
        if self.left_over_seconds > 1.0 {
            return Err(Failure::LeftBehind { seconds: self.left_over_seconds });
        }
        Ok(())
    }
}

impl Report for Latency {
    fn print_text(&self) {
        println!("load         {}", self.load);
        println!("rate         {} /s over {:.1} s, open loop", grouped(self.rate as f64), self.seconds);
        print_checked(self.checked_messages, &self.verdict);
        println!("             {:>10} {:>10} {:>10} {:>10}  us", "p50", "p99", "p99.9", "max");
        print_percentiles("delivery", &self.delivery_us);
        if let Some(confirm) = &self.confirm_us {
            print_percentiles("confirm", confirm);
        }
        print_percentiles("sent late", &self.sent_late_us);
        if let Some(gap) = self.heartbeat_gap_ms_max {
            println!("heartbeats   {gap:.0} ms apart at most");
        }
        println!("client CPU   {:.2} cores", self.client_cpu_cores);
        if let Some(cores) = self.server_cpu_cores {
            println!("server CPU   {cores:.2} cores");
        }
    }

    /// Latencies count only if everything arrived as it was sent.
    fn judge(&self) -> Result<(), Failure> {
        self.verdict.judge()
    }
}

impl Report for Lag {
    fn print_text(&self) {
        println!("load         {}", self.load);
        println!("published    {} /s over {:.1} s", grouped(self.publishes_per_second), self.seconds);
        println!("delivered    {} /s", grouped(self.deliveries_per_second));
        println!("gap          {:.1} ms at most before a delivery", self.consumer_gap_ms_max);
        println!(
            "drained      {} /s: {} messages in {:.1} s",
            grouped(self.drained_per_second),
            grouped(self.backlog_messages as f64),
            self.drain_seconds
        );
        print_checked(self.checked_messages, &self.verdict);
        if let Some(cores) = self.server_cpu_cores {
            println!("server CPU   {cores:.2} cores");
        }
        if let Some(memory) = self.server_anonymous_bytes_max {
            println!("server RAM   {:.1} MiB anonymous at most", memory as f64 / f64::from(1 << 20));
        }
    }

    /// The figures count only if all messages arrived as they were sent.
    fn judge(&self) -> Result<(), Failure> {
        self.verdict.judge()
    }
}

impl Report for Churn {
    fn print_text(&self) {
        println!("load         {}", self.load);
        println!("operations   {} /s over {:.1} s", grouped(self.operations_per_second), self.seconds);
        if let Some(cores) = self.server_cpu_cores {
            println!("server CPU   {cores:.2} cores");
        }
    }

    fn judge(&self) -> Result<(), Failure> {
        Ok(())
    }
}

fn print_checked(messages: u64, verdict: &Verdict) {
    let messages = grouped(messages as f64);
    if verdict.is_clean() {
        println!("checked      {messages} messages, each once, in order, intact");
    } else {
        println!("checked      {messages} messages: {verdict}");
    }
}

fn print_percentiles(name: &str, of: &Percentiles) {
    println!("{name:<12} {:>10.1} {:>10.1} {:>10.1} {:>10.1}", of.p50, of.p99, of.p99_9, of.max);
}

/// A whole number with a comma between thousands.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Throughput {
        Throughput {
            load: String::new(),
            seconds: 1.0,
            deliveries_per_second: 1.0,
            publishes_per_second: 1.0,
            left_over_messages: 1,
            left_over_seconds: 0.5,
            client_cpu_cores: 0.0,
            server_cpu_cores: None,
            deliveries_per_server_cpu_second: None,
            server_anonymous_bytes_max: None,
            checked_messages: 1,
            verdict: Verdict::default(),
        }
    }

    #[test]
    fn only_a_clean_run_with_little_left_over_counts() {
        assert!(report().judge().is_ok());
        let lost = Throughput { verdict: Verdict { lost: 1, ..Verdict::default() }, ..report() };
        assert!(matches!(lost.judge(), Err(Failure::Unverified(_))));
        let behind = Throughput { left_over_seconds: 1.1, ..report() };
        assert!(matches!(behind.judge(), Err(Failure::LeftBehind { .. })));
    }

    #[test]
    fn thousands_are_grouped() {
        let texts = [0.0, 999.4, 1000.0, 1234567.0].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
    }
}
