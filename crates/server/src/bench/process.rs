//! What a process has used, from Linux's `/proc`: CPU seconds and anonymous resident memory.

use std::fs;
use std::io;

use super::Failure;

/// `/proc/PID/stat` counts in ticks of `USER_HZ`, which is 100 on every Linux that has been shipped.
const TICKS_PER_SECOND: f64 = 100.0;

/// One process, by id.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    pid: u32,
}

impl Process {
    /// The calling process.
    pub fn own() -> Process {
        Process { pid: std::process::id() }
    }

    /// Another process on this machine, which must be readable now.
    pub fn other(pid: u32) -> Result<Process, Failure> {
        let process = Process { pid };
        process.cpu_seconds()?;
        Ok(process)
    }

    /// CPU seconds in user and kernel mode since the process started, of all its threads, also of those that have
    /// ended.
    pub fn cpu_seconds(self) -> Result<f64, Failure> {
        let stat = self.read("stat")?;
        let ticks = cpu_ticks(&stat).ok_or_else(|| self.unreadable())?;
        Ok(ticks as f64 / TICKS_PER_SECOND)
    }

    /// Bytes of anonymous memory in RAM now: heap and stacks, without the page cache behind mapped files.
    pub fn anonymous_bytes(self) -> Result<u64, Failure> {
        let status = self.read("status")?;
        anonymous_bytes(&status).ok_or_else(|| self.unreadable())
    }

    fn read(self, file: &str) -> Result<String, Failure> {
        fs::read_to_string(format!("/proc/{}/{file}", self.pid))
            .map_err(|source| Failure::Process { pid: self.pid, source })
    }

    fn unreadable(self) -> Failure {
        Failure::Process { pid: self.pid, source: io::ErrorKind::InvalidData.into() }
    }
}

/// Asks the kernel to wake this thread, and threads that it starts, within a microsecond after a sleep, instead of
/// 50. If the kernel refuses this, sleeps are less exact, and the report shows how late messages left.
pub fn sleep_exactly() {
    let _refused_is_fine = fs::write("/proc/self/timerslack_ns", "1000");
}

/// utime + stime, the 14th and 15th field. The command name, the second, may hold spaces and parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn anonymous_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ticks_behind_a_name_that_looks_like_fields() {
        let stat = "42 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 700 30 0 0 20 0 5 0";
        assert_eq!(cpu_ticks(stat), Some(730));
        assert_eq!(cpu_ticks("nonsense"), None);
    }

    #[test]
    fn reads_anonymous_memory() {
        let status = "Name:\tx\nVmRSS:\t  999 kB\nRssAnon:\t    2048 kB\nRssFile:\t 1 kB\n";
        assert_eq!(anonymous_bytes(status), Some(2048 * 1024));
        assert_eq!(anonymous_bytes("Name:\tx\n"), None);
    }

    #[test]
    fn reads_itself() {
        let own = Process::own();
        assert!(own.cpu_seconds().unwrap() >= 0.0);
        assert!(own.anonymous_bytes().unwrap() > 0);
    }
}
