//! The record of an update that has begun to change what runs. It is on disk for as long as somebody has to go back if
//! whoever is at it is cut off, and for as long as it is there a timer has the recovery unit look.

pub use super::record::Txn;

use super::state::linked;
use crate::install::command::{Call, Commands};
use crate::install::disk;
use crate::install::plan::{self, RECOVER_TIMER};
use crate::install::step::FILE_MODE;
use anyhow::Context;
use holdfast_proto::layout::Layout;
use holdfast_release::ReleaseId;
use jiff::Timestamp;
use std::path::PathBuf;

/// Writes the record and has systemd look after it, whatever becomes of us. Before it, `committed` names the release to
/// go back to.
///
/// # Errors
/// Where that fails; nothing is in force then.
pub fn begin(
    layout: &Layout,
    commands: &dyn Commands,
    from: &str,
    previous: Option<&ReleaseId>,
    to: &str,
) -> anyhow::Result<Txn> {
    let previous = previous.map(ReleaseId::to_string);
    let (from, to) = (from.to_owned(), to.to_owned());
    let txn = Txn { format: Txn::FORMAT, from, previous, to, began: Timestamp::now() };
    disk::write_link(&plan::committed(layout), &format!("releases/{}", txn.from)).context("committed")?;
    if let Err(error) = txn.write(layout).and_then(|()| arm(commands)) {
        // It may be there, and only not be on disk.
        remove(layout)?;
        return Err(error);
    }
    Ok(txn)
}

/// Takes the record away: what runs now is what runs.
///
/// # Errors
/// Where it cannot be removed.
pub fn end(layout: &Layout, commands: &dyn Commands) -> anyhow::Result<()> {
    remove(layout)?;
    // One that goes on looks for a record that is not there.
    commands.ask(&Call::systemctl(["stop", "--no-block", RECOVER_TIMER])).map(drop).map_err(Into::into)
}

/// Has the timer look.
///
/// # Errors
/// Where systemd refuses.
pub fn arm(commands: &dyn Commands) -> anyhow::Result<()> {
    Ok(commands.run(&Call::systemctl(["start", "--no-block", RECOVER_TIMER])).map(drop)?)
}

fn path(layout: &Layout) -> PathBuf {
    layout.state().join("txn")
}

fn remove(layout: &Layout) -> anyhow::Result<()> {
    disk::remove_file(&path(layout)).map(drop).context("txn")
}

impl Txn {
    /// The record of an update under way, or of one that was cut off. One that a disk has spoiled still says that there
    /// was one, and `committed` says where to go back to.
    ///
    /// # Errors
    /// Where it is there and neither can be read.
    pub fn read(layout: &Layout) -> anyhow::Result<Option<Self>> {
        let Some(text) = disk::read_if_there(&path(layout)).context("txn")? else { return Ok(None) };
        let damaged = match Self::parse(&text) {
            Ok(txn) => return Ok(Some(txn)),
            Err(error) => error.context("txn"),
        };
        let Ok(Some(from)) = linked(&plan::committed(layout)) else { return Err(damaged) };
        let previous = linked(&layout.previous()).ok().flatten().filter(|previous| *previous != from);
        let (from, previous) = (from.to_string(), previous.map(|previous| previous.to_string()));
        let began = Timestamp::UNIX_EPOCH;
        Ok(Some(Self { format: Self::FORMAT, from, previous, to: Self::UNKNOWN.to_owned(), began }))
    }

    /// From now on, whoever finds it goes back.
    fn write(&self, layout: &Layout) -> anyhow::Result<()> {
        disk::write_file(&path(layout), self.text()?.as_bytes(), FILE_MODE).context("txn")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_whole_or_what_the_links_say() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::below(root.path());
        std::fs::create_dir_all(layout.state()).unwrap();
        std::fs::create_dir_all(layout.library()).unwrap();
        assert_eq!(Txn::read(&layout).unwrap(), None);
        let [before, from, to] = ["0.9.0", "1.0.0", "1.1.0"].map(|version| format!("{version}-0123456789ab"));
        let txn = Txn { format: 1, from: from.clone(), previous: None, to, began: Timestamp::UNIX_EPOCH };
        txn.write(&layout).unwrap();
        assert_eq!(Txn::read(&layout).unwrap(), Some(txn));
        let whole = std::fs::read(path(&layout)).unwrap();
        let cut = |length: usize| std::fs::write(path(&layout), &whole[..length]).unwrap();
        for length in 0..whole.len() {
            cut(length);
            assert!(Txn::read(&layout).is_err(), "the first {length} bytes were taken");
        }
        disk::write_link(&plan::committed(&layout), &format!("releases/{from}")).unwrap();
        disk::write_link(&layout.previous(), &format!("releases/{before}")).unwrap();
        for length in 0..whole.len() {
            cut(length);
            let read = Txn::read(&layout).unwrap().unwrap();
            assert_eq!((read.from, read.previous), (from.clone(), Some(before.clone())), "after {length} bytes");
            assert_eq!(read.to, Txn::UNKNOWN);
        }
        remove(&layout).unwrap();
        assert_eq!(Txn::read(&layout).unwrap(), None);
    }
}
