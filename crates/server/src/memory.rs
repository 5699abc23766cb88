//! The memory of this machine and of this process, from Linux.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The default memory budget, in percent of the machine's memory.
const PERCENT: u64 = 40;

/// The memory budget: 40 % of the machine's memory, or of the cgroup's limit if that is lower. `None` if neither
/// can be read.
#[must_use]
pub fn budget_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| kib_bytes(&text, "MemTotal:"));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = limit_bytes(Path::new("/sys/fs/cgroup"), &groups);
    machine.into_iter().chain(limit).min().map(|bytes| bytes / 100 * PERCENT)
}

/// Memory that this process does not share with others, in bytes.
#[must_use]
pub fn own_bytes() -> Option<u64> {
    kib_bytes(&fs::read_to_string("/proc/self/status").ok()?, "RssAnon:")
}

/// A line such as `RssAnon:    2048 kB`, in bytes.
fn kib_bytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The lowest limit of the cgroups in `groups` (the text of `/proc/self/cgroup`) and of the cgroups above them.
fn limit_bytes(root: &Path, groups: &str) -> Option<u64> {
    let mut limit: Option<u64> = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            "memory" => (root.join("memory"), "memory.limit_in_bytes"),
            _ => continue,
        };
        let own: PathBuf = root.join(path.trim_start_matches('/'));
        // In a container, the path may belong to the host and not exist here.
        for folder in own.ancestors().take_while(|folder| folder.starts_with(&root)) {
            // "max" is no limit.
            let found = fs::read_to_string(folder.join(file)).ok().and_then(|text| text.trim().parse().ok());
            limit = limit.into_iter().chain(found).min();
        }
    }
    limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lines_of_kibibytes() {
        let text = "VmRSS:\t  999 kB\nRssAnon:\t    2048 kB\nRssFile:\t 1 kB\n";
        assert_eq!(kib_bytes(text, "RssAnon:"), Some(2048 * 1024));
        assert_eq!(kib_bytes("Name:\tx\n", "RssAnon:"), None);
        assert!(own_bytes().is_some_and(|bytes| bytes > 0));
        assert!(budget_bytes().is_some_and(|bytes| bytes > 0));
    }

    /// The lowest limit on the path counts, with both versions of cgroups.
    #[test]
    fn the_lowest_limit_of_the_cgroups_counts() {
        let root = std::env::temp_dir().join(format!("ferrymq-cgroups-{}", std::process::id()));
        let write = |file: &str, text: &str| {
            let file = root.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        write("app/memory.max", "3000\n");
        write("app/inner/memory.max", "max\n");
        write("memory/old/memory.limit_in_bytes", "2000\n");
        assert_eq!(limit_bytes(&root, "0::/app/inner\n"), Some(3000));
        assert_eq!(limit_bytes(&root, "5:cpu:/x\n4:memory:/old\n0::/app\n"), Some(2000));
        assert_eq!(limit_bytes(&root, "0::/elsewhere\n"), None);
        write("memory.max", "9000\n");
        assert_eq!(limit_bytes(&root, "0::/elsewhere\n"), Some(9000));
        fs::remove_dir_all(&root).unwrap();
    }
}
