//! What a host remembers of its updates, all of it root's and for all to read: what runs, what ran before, and the
//! floor. The record of an update that is under way is [`super::txn`]'s.

use crate::install::disk;
use anyhow::Context;
use holdfast_proto::layout::Layout;
use holdfast_release::{Floor, RELEASE_NAME, Release, ReleaseId};
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
}
