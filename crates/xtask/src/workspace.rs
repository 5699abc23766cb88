//! What `cargo metadata` says about this workspace: its packages, their folders, dependencies and licences.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The checkout, with every package in its lock file.
#[derive(Debug)]
pub struct Workspace {
    pub root: PathBuf,
    /// Cargo's build folder; programs of other languages are installed below it too.
    pub target: PathBuf,
    pub members: Vec<Package>,
    pub foreign: Vec<Package>,
}

#[derive(Debug)]
pub struct Package {
    pub name: String,
    pub version: String,
    pub licence: Option<String>,
    pub folder: PathBuf,
    pub dependencies: Vec<Dependency>,
}

#[derive(Debug)]
pub struct Dependency {
    pub name: String,
    pub kind: DependencyKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DependencyKind {
    Normal,
    Build,
    Development,
}

impl Workspace {
    pub fn load() -> Result<Self, String> {
        let output = cargo()
            .args(["metadata", "--format-version", "1", "--locked"])
            .output()
            .map_err(|why| format!("cargo metadata: {why}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let metadata: Value = serde_json::from_slice(&output.stdout).map_err(|why| format!("cargo metadata: {why}"))?;
        let (members, foreign) = array(&metadata["packages"]).map(Package::read).partition(|package| package.is_ours());
        Ok(Self {
            root: text(&metadata["workspace_root"]).into(),
            target: text(&metadata["target_directory"]).into(),
            members,
            foreign,
        })
    }

    /// A path as people read it: relative to the root of the checkout.
    pub fn shown<'a>(&self, path: &'a Path) -> std::borrow::Cow<'a, str> {
        path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy()
    }

    /// The path of a binary in the profile that every test uses.
    pub fn binary(&self, name: &str) -> PathBuf {
        self.target.join("checked").join(name)
    }
}

impl Package {
    fn read(package: &Value) -> Self {
        let manifest = PathBuf::from(text(&package["manifest_path"]));
        Self {
            name: text(&package["name"]).to_owned(),
            version: text(&package["version"]).to_owned(),
            licence: package["license"].as_str().map(str::to_owned),
            folder: manifest.parent().expect("a manifest lies in a folder").to_owned(),
            dependencies: array(&package["dependencies"]).map(Dependency::read).collect(),
        }
    }

    fn is_ours(&self) -> bool {
        self.name.starts_with("ferrymq-")
    }

    /// The short name that the design uses: `ferrymq-amqp091` is `amqp091`.
    pub fn short(&self) -> &str {
        self.name.strip_prefix("ferrymq-").unwrap_or(&self.name)
    }
}

impl Dependency {
    fn read(dependency: &Value) -> Self {
        Self {
            name: text(&dependency["name"]).to_owned(),
            kind: match dependency["kind"].as_str() {
                Some("dev") => DependencyKind::Development,
                Some("build") => DependencyKind::Build,
                _ => DependencyKind::Normal,
            },
        }
    }
}

/// The cargo that runs this program, so that a toolchain override also applies to its children.
///
/// The variables that `cargo run` has set about this package are removed: build scripts read them, and would run
/// again, with everything that depends on them.
pub fn cargo() -> Command {
    let mut command = Command::new(cargo_path());
    forget_our_package(&mut command);
    command
}

/// The path of the cargo that runs us.
pub fn cargo_path() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

/// Removes the variables about this package from a command's environment.
pub fn forget_our_package(command: &mut Command) {
    let about_us = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(about_us)) {
        command.env_remove(name);
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
