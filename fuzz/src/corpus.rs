//! The inputs that are kept. Each is a file of raw bytes in `fuzz/corpus/TARGET`.

use std::fs;
use std::path::PathBuf;

use crate::Target;

/// The kept inputs of one target.
#[derive(Debug)]
pub struct Corpus {
    folder: PathBuf,
    /// The file names and bytes of the inputs, in the order of the names.
    pub inputs: Vec<(String, Vec<u8>)>,
}

impl Corpus {
    /// Reads the inputs of a target.
    pub fn of(target: &Target) -> Result<Self, String> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
        let failed = |why: std::io::Error| format!("{}: {why}", folder.display());
        let mut inputs = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            inputs.push((name, fs::read(&path).map_err(|why| format!("{}: {why}", path.display()))?));
        }
        inputs.sort();
        Ok(Self { folder, inputs })
    }

    /// Keeps an input in a file. The file's name contains `about`, which says what is special in the input.
    pub fn keep(&mut self, about: &str, input: &[u8]) -> Result<PathBuf, String> {
        let word = |text: &str| text.to_lowercase().replace(|letter: char| !letter.is_alphanumeric(), "-");
        let path = self.folder.join(word(about));
        fs::write(&path, input).map_err(|why| format!("{}: {why}", path.display()))?;
        self.inputs.push((word(about), input.to_vec()));
        Ok(path)
    }
}
