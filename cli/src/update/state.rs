//! What a host remembers of its updates, all of it root's and for all to read: what runs, what ran before, the floor,
//! and the record of an update that is under way.

use crate::install::disk;
use anyhow::Context;
use holdfast_proto::layout::Layout;
use holdfast_release::{Digest, Floor, RELEASE_NAME, Release, ReleaseId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const FILE_MODE: u32 = 0o644;

/// What is there.
#[derive(Debug, Clone)]
pub struct HostState {
    /// What `current` points to.
    pub current: ReleaseId,
    /// What `current.previous` points to.
    pub previous: Option<ReleaseId>,
    /// The description of what runs.
    pub running: Release,
    /// The floor: of the file, and never below what runs.
    pub floor: Floor,
}

/// An update that has begun to change what runs, and has not been committed. While its file is there,
/// [`Txn::from`] is the release to go back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Txn {
    /// Always 1.
    pub format: u32,
    /// The release that was committed last.
    pub from: String,
    /// The release before that, if any.
    pub previous: Option<String>,
    /// The release that is tried.
    pub to: String,
    /// When it began.
    pub began: Timestamp,
}

/// The release that one of the two links points to.
///
/// # Errors
/// Where the link is no link of ours.
pub fn linked(link: &Path) -> anyhow::Result<Option<ReleaseId>> {
    let Some(target) = disk::link_if_there(link).with_context(|| link.display().to_string())? else { return Ok(None) };
    let id = target.strip_prefix("releases/").and_then(|name| name.parse().ok());
    id.map(Some).with_context(|| format!("{} points to {target:?}, which is no release", link.display()))
}

impl HostState {
    /// Reads it; none where nothing is installed.
    ///
    /// # Errors
    /// Where what is there is not understood.
    pub fn read(layout: &Layout) -> anyhow::Result<Option<Self>> {
        let Some(current) = linked(&layout.current())? else { return Ok(None) };
        let path = layout.current().join(RELEASE_NAME);
        let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
        // It was checked when it was put in place, and nobody but root can have changed it.
        let running: Release = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        let floor = stored_floor(layout).raised_by(Floor::of(&running));
        Ok(Some(Self { current, previous: linked(&layout.previous())?, running, floor }))
    }

    /// The releases that no floor forbids.
    pub fn kept(&self) -> Vec<ReleaseId> {
        std::iter::once(&self.current).chain(&self.previous).cloned().collect()
    }
}

fn floor_path(layout: &Layout) -> PathBuf {
    layout.state().join("floor")
}

fn floor_copy(layout: &Layout) -> PathBuf {
    layout.state().join("floor.previous")
}

/// The floor on disk. A file that was damaged says nothing; its copy then counts, and what runs always does.
fn stored_floor(layout: &Layout) -> Floor {
    let read = |path: PathBuf| disk::read_if_there(&path).ok().flatten().and_then(|text| Floor::parse(&text).ok());
    let [file, copy] = [floor_path(layout), floor_copy(layout)].map(read).map(Option::unwrap_or_default);
    file.raised_by(copy)
}

/// Raises the floor on disk.
///
/// # Errors
/// Where it cannot be written.
pub fn raise_floor(layout: &Layout, to: Floor) -> anyhow::Result<()> {
    let (before, path) = (stored_floor(layout), floor_path(layout));
    let after = before.raised_by(to);
    if after != before {
        disk::write_file(&floor_copy(layout), before.to_text()?.as_bytes(), FILE_MODE)?;
        disk::write_file(&path, after.to_text()?.as_bytes(), FILE_MODE).context("floor")?;
    }
    Ok(())
}

fn txn_path(layout: &Layout) -> PathBuf {
    layout.state().join("txn")
}

impl Txn {
    /// Always the `format`.
    pub const FORMAT: u32 = 1;

    /// The record of an update under way, or of one that was cut off.
    ///
    /// # Errors
    /// Where it is there and cannot be read. One that is not whole was never in force: it is written by one rename.
    pub fn read(layout: &Layout) -> anyhow::Result<Option<Self>> {
        let Some(text) = disk::read_if_there(&txn_path(layout)).context("txn")? else { return Ok(None) };
        Self::parse(&text).map(Some).context("txn")
    }

    /// Reads the file's bytes.
    ///
    /// # Errors
    /// Where it is not whole.
    pub fn parse(text: &[u8]) -> anyhow::Result<Self> {
        let text = std::str::from_utf8(text)?;
        let (digest, json) = text.strip_suffix('\n').and_then(|line| line.split_once("  ")).context("it is cut off")?;
        anyhow::ensure!(digest.parse() == Ok(Digest::of(json.as_bytes())), "its digest does not fit");
        let txn: Self = serde_json::from_str(json)?;
        anyhow::ensure!(txn.format == Self::FORMAT, "it has the form {}", txn.format);
        Ok(txn)
    }

    fn text(&self) -> anyhow::Result<String> {
        let json = serde_json::to_string(self)?;
        Ok(format!("{}  {json}\n", Digest::of(json.as_bytes())))
    }

    /// Puts it on disk: from now on, whoever finds it goes back.
    ///
    /// # Errors
    /// Where it cannot be written; it is not in force then.
    pub fn begin(&self, layout: &Layout) -> anyhow::Result<()> {
        disk::write_file(&txn_path(layout), self.text()?.as_bytes(), FILE_MODE).context("txn")
    }

    /// Takes it away: what runs now is what runs.
    ///
    /// # Errors
    /// Where it cannot be removed.
    pub fn end(layout: &Layout) -> anyhow::Result<()> {
        disk::remove_file(&txn_path(layout)).map(drop).context("txn")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> (tempfile::TempDir, Layout) {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::below(root.path());
        std::fs::create_dir_all(layout.state()).unwrap();
        (root, layout)
    }

    #[test]
    fn a_damaged_floor_falls_back_to_its_copy() {
        let (_root, layout) = layout();
        let at = |seq| Floor { seq, key_epoch: 1, ..Floor::default() };
        for seq in [1, 5, 3, 9] {
            raise_floor(&layout, at(seq)).unwrap();
        }
        assert_eq!(stored_floor(&layout).seq, 9);
        let whole = std::fs::read(floor_path(&layout)).unwrap();
        for length in 0..whole.len() {
            std::fs::write(floor_path(&layout), &whole[..length]).unwrap();
            assert_eq!(stored_floor(&layout).seq, 5, "after {length} bytes");
        }
        std::fs::remove_file(floor_path(&layout)).unwrap();
        assert_eq!(stored_floor(&layout).seq, 5);
    }

    #[test]
    fn a_record_is_read_whole_or_not_at_all() {
        let (_root, layout) = layout();
        assert_eq!(Txn::read(&layout).unwrap(), None);
        let (from, to) = ("1.0.0-0123456789ab".to_owned(), "1.1.0-0123456789ab".to_owned());
        let txn = Txn { format: 1, from, previous: None, to, began: Timestamp::UNIX_EPOCH };
        txn.begin(&layout).unwrap();
        assert_eq!(Txn::read(&layout).unwrap(), Some(txn.clone()));
        let whole = std::fs::read(txn_path(&layout)).unwrap();
        for length in 0..whole.len() {
            assert!(Txn::parse(&whole[..length]).is_err(), "the first {length} bytes were taken");
        }
        Txn::end(&layout).unwrap();
        assert_eq!(Txn::read(&layout).unwrap(), None);
    }
}
