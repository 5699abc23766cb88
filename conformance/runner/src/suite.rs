//! The scripts of a folder, and RabbitMQ's recorded answers to each.

use std::fs;
use std::path::{Path, PathBuf};

use crate::player::{Server, Whose, play};
use crate::recording::Recording;
use crate::script::Script;
use crate::target::Target;

/// A folder with scripts `NNN-title.txt`, and with their recordings in `recorded/`.
#[derive(Debug)]
pub struct Suite {
    folder: PathBuf,
    /// In the order of their numbers.
    pub scripts: Vec<Script>,
}

impl Suite {
    pub fn read(folder: &Path) -> Result<Self, String> {
        let entries = fs::read_dir(folder).map_err(|why| format!("{}: {why}", folder.display()))?;
        let numbered = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(|first: char| first.is_ascii_digit()) && name.ends_with(".txt")
        };
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(numbered).collect();
        paths.sort();
        let parse = |path: &PathBuf| {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            Script::parse(&name, &read(path)?)
        };
        Ok(Self { folder: folder.to_owned(), scripts: paths.iter().map(parse).collect::<Result<_, _>>()? })
    }

    /// The path of the definitions file with the users, vhosts and policies that the server must have, in RabbitMQ's
    /// form.
    pub fn definitions_path(&self) -> PathBuf {
        self.folder.join("definitions.json")
    }

    pub fn recording_path(&self, script: &Script) -> PathBuf {
        self.folder.join("recorded").join(&script.name).with_extension("txt")
    }

    /// Plays a script. The server must answer as the script says. FerryMQ must also answer as RabbitMQ did in the
    /// recording.
    pub fn check(&self, script: &Script, target: &mut dyn Target, whose: Whose) -> Result<(), String> {
        let transcript = play(script, target, whose)?;
        match whose {
            Whose::Ours => Recording::parse(&read(&self.recording_path(script))?)?.compare(&transcript),
            Whose::Theirs => Ok(()),
        }
    }

    /// Plays a script against RabbitMQ and records its answers.
    pub fn record(&self, script: &Script, target: &mut dyn Target, server: &Server) -> Result<(), String> {
        if server.whose == Whose::Ours {
            return Err("recordings must be RabbitMQ's answers, but this server is FerryMQ".to_owned());
        }
        let recording = Recording { server: server.title.clone(), transcript: play(script, target, server.whose)? };
        let path = self.recording_path(script);
        fs::write(&path, recording.to_string()).map_err(|why| format!("{}: {why}", path.display()))
    }
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|why| format!("{}: {why}", path.display()))
}
