//! The source files of the shipped crates, cut into production and test lines.

use std::fs;
use std::path::{Path, PathBuf};

/// Where shipped code is.
pub const SHIPPED: &[&str] =
    &["proto/src", "daemon/src", "helper/src", "helper/launcher/src", "cli/src", "packaging/release/src"];

/// One file.
pub struct Source {
    /// From the repository's root.
    pub path: String,
    /// Everything before the unit tests.
    pub production: String,
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All shipped files but those that hold tests alone.
pub fn shipped() -> Vec<Source> {
    let mut found = Vec::new();
    for folder in SHIPPED {
        collect(&root().join(folder), &mut found);
    }
    assert!(found.len() > 30, "only {} source files found: the tree moved", found.len());
    found
}

fn collect(folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("a directory entry").path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "tests") {
                collect(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") && !holds_tests(&path) {
            let text = fs::read_to_string(&path).expect("a source file");
            let production = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned();
            let path = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
            found.push(Source { path, production });
        }
    }
}

fn holds_tests(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    stem == "tests" || stem.ends_with("_tests") || stem.starts_with("test_")
}

impl Source {
    /// Lines of code, without comments: a word in a reason is no use of it.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.production
            .lines()
            .enumerate()
            .map(|(n, line)| (n + 1, line))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// The module's name: the file's, or the folder's of a `mod.rs`.
    pub fn module(&self) -> &str {
        let stem = self.path.trim_end_matches(".rs");
        stem.trim_end_matches("/mod").rsplit('/').next().unwrap_or(stem)
    }
}
