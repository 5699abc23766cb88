//! Reads from a data directory how many journal files were retired, and which runs there are.
//!
//! Journal files are used again and again; each use is a *generation*. All files have the same length, and the first
//! group of a file contains its position in the journal. A file is used again only after its last generation was
//! retired. So the lowest generation that is left shows how many files were retired, at least.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The position of the first group in a journal file.
const FIRST_GROUP: u64 = 4096;
const GROUP_MAGIC: &[u8; 4] = b"FQgr";

/// The progress of a data directory. The numbers never become smaller.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// How many journal files were retired and used again.
    pub retired: u64,
    /// The number of the newest run, or 0 if there is none.
    pub newest_run: u64,
}

impl Progress {
    pub fn of(data: &Path) -> Result<Self, String> {
        let mut generations = Vec::new();
        // While a file is being created, its name has another ending.
        for name in names(&data.join("journal"))?.iter().filter(|name| name.ends_with(".journal")) {
            let path = data.join("journal").join(name);
            match generation(&path) {
                Ok(found) => generations.extend(found),
                // A file that was added for a while may have been removed after its name was read.
                Err(why) if why.kind() == io::ErrorKind::NotFound => {}
                Err(why) => return Err(format!("{}: {why}", path.display())),
            }
        }
        let runs = names(&data.join("runs"))?;
        let numbers = runs.iter().filter_map(|name| u64::from_str_radix(name.strip_suffix(".run")?, 16).ok());
        let lowest = generations.into_iter().min().unwrap_or(1);
        Ok(Self { retired: lowest - 1, newest_run: numbers.max().unwrap_or(0) })
    }
}

fn names(folder: &Path) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(folder).map_err(|why| format!("{}: {why}", folder.display()))?;
    Ok(entries.filter_map(Result::ok).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

/// The generation of a journal file. `None` if the file was never used.
fn generation(path: &Path) -> io::Result<Option<u64>> {
    let (mut head, file) = ([0; 24], File::open(path)?);
    file.read_exact_at(&mut head, FIRST_GROUP)?;
    let (magic, rest) = head.split_at(4);
    let position = rest.last_chunk().map(|position| u64::from_le_bytes(*position));
    let bytes = file.metadata()?.len().max(1);
    Ok(position.filter(|_| magic == GROUP_MAGIC).map(|position| position / bytes + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE_BYTES: u64 = 16_384;

    #[test]
    fn a_journal_file_that_was_written_over_counts() {
        let folder = std::env::temp_dir().join(format!("ferrymq-proof-data-{}", std::process::id()));
        for sub in ["journal", "runs"] {
            fs::create_dir_all(folder.join(sub)).unwrap();
        }
        let write = |file: &str, generation: u64| {
            let mut bytes = vec![0; FIRST_GROUP as usize];
            bytes.extend_from_slice(GROUP_MAGIC);
            bytes.extend_from_slice(&[0; 12]);
            bytes.extend_from_slice(&((generation - 1) * FILE_BYTES + FIRST_GROUP).to_le_bytes());
            bytes.resize(FILE_BYTES as usize, 0);
            fs::write(folder.join("journal").join(file), bytes).unwrap();
        };
        fs::write(folder.join("journal/02.journal"), vec![0; 8192]).unwrap();
        fs::write(folder.join("journal/03.draft"), "").unwrap();
        write("00.journal", 1);
        write("01.journal", 2);
        assert_eq!(Progress::of(&folder).unwrap(), Progress { retired: 0, newest_run: 0 });
        write("00.journal", 12);
        write("01.journal", 11);
        fs::write(folder.join("runs/0000001f.run"), "").unwrap();
        assert_eq!(Progress::of(&folder).unwrap(), Progress { retired: 10, newest_run: 31 });
        fs::remove_dir_all(folder).unwrap();
    }
}
