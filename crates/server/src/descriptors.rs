//! File descriptors: how many of them client connections may use, so that some are left for storage, health checks
//! and operators.

use std::fs;

/// What storage and everything else needs, if there are enough.
const RESERVED: usize = 128;

/// The maximum for HTTP.
const HTTP_MAX: usize = 256;

/// How the descriptors of this process are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// The limit of open files.
    pub limit: usize,
    /// For client connections, from the accept until the socket is closed.
    pub sessions: usize,
    /// For HTTP.
    pub http: usize,
}

/// The shares below the soft limit of this process. `None` if there is no limit, or if it cannot be read.
#[must_use]
pub fn shares() -> Option<Shares> {
    Some(Shares::of(soft_limit(&fs::read_to_string("/proc/self/limits").ok()?)?))
}

impl Shares {
    fn of(limit: usize) -> Self {
        let http = (limit / 8).min(HTTP_MAX);
        Self { limit, sessions: limit - http - (limit / 4).min(RESERVED), http }
    }
}

/// The first number after the name; `unlimited` is not a number.
fn soft_limit(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_counts() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max processes             94946                94946                processes \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!(soft_limit(limits), Some(1024));
        assert_eq!(soft_limit("Max open files            unlimited            unlimited            files\n"), None);
        assert!(shares().is_some());
    }

    #[test]
    fn something_is_left_whatever_the_limit() {
        assert_eq!(Shares::of(1024), Shares { limit: 1024, sessions: 768, http: 128 });
        assert_eq!(Shares::of(1 << 20), Shares { limit: 1 << 20, sessions: (1 << 20) - 384, http: 256 });
        for limit in [16, 64, 256] {
            let Shares { sessions, http, .. } = Shares::of(limit);
            assert!(http > 0 && sessions > 0 && limit - http - sessions >= limit / 4, "{limit}");
        }
    }
}
