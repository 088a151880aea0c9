//! The rules file on disk: who may write it, when it is read again, what holds while it is bad.

use crate::rules::{Rules, RulesError};
use crate::words::Uid;
use rustix::fs::{Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest file that is read.
const BYTES_MAX: u64 = 256 * 1024;
const WRITABLE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Why there are no rules.
#[derive(Debug, thiserror::Error)]
pub enum RulesFileError {
    /// Cannot be opened or read.
    #[error("{path}: {errno}")]
    Read {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// Others than root can change it.
    #[error("{path} could be changed by others (uid {uid}, mode {mode:o}): make it root's and writable by root alone")]
    Open {
        /// Which file or directory.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its mode.
        mode: u32,
    },
    /// Not a plain file of sensible size.
    #[error("{0} is no plain file of at most {BYTES_MAX} bytes")]
    Kind(PathBuf),
    /// Read, and no rules.
    #[error("{path}: {source}")]
    Rules {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: RulesError,
    },
}

/// Tells one content of the file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: i64,
    changed: (i64, i64),
}

/// The file and what it said last.
#[derive(Debug)]
pub struct RulesFile {
    path: PathBuf,
    own_uid: u32,
    read_at: Option<Stamp>,
    rules: Result<Rules, RulesFileError>,
    /// Who was an owner when the file was good last: they may still look, and detach.
    owners: BTreeSet<Uid>,
}

impl RulesFile {
    /// Reads the file for the first time. `own_uid` counts as root does where it is an ordinary user's session.
    pub fn open(path: PathBuf, own_uid: u32) -> Result<Self, RulesFileError> {
        let (rules, stamp) = read(&path, own_uid)?;
        let owners = rules.owners().map(|owner| owner.uid).collect();
        Ok(Self { path, own_uid, read_at: Some(stamp), rules: Ok(rules), owners })
    }

    /// Whether this uid is an owner: by the rules as they are now, or as they were when they were good last.
    pub fn is_owner(&mut self, uid: Uid) -> bool {
        let _ = self.current();
        self.owners.contains(&uid)
    }

    /// The rules, read again where the file changed. A file that became bad means no rules at all.
    pub fn current(&mut self) -> Result<&Rules, &RulesFileError> {
        let now = rustix::fs::stat(&self.path).map(|stat| Stamp::of(&stat)).ok();
        if now.is_none() || now != self.read_at {
            self.read_again();
        }
        self.rules.as_ref()
    }

    /// Reads the file again, whatever it looks like.
    pub fn read_again(&mut self) {
        match read(&self.path, self.own_uid) {
            Ok((rules, stamp)) => {
                tracing::info!(path = %self.path.display(), owners = rules.owners().count(), "rules read");
                self.owners = rules.owners().map(|owner| owner.uid).collect();
                (self.rules, self.read_at) = (Ok(rules), Some(stamp));
            }
            Err(error) => {
                tracing::error!(%error, "no rules: launches are refused");
                (self.rules, self.read_at) = (Err(error), None);
            }
        }
    }
}

impl Stamp {
    fn of(stat: &Stat) -> Self {
        // Types of these fields differ by architecture.
        #[allow(clippy::unnecessary_cast)]
        Self {
            inode: stat.st_ino,
            size: stat.st_size as i64,
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        }
    }
}

fn read(path: &Path, own_uid: u32) -> Result<(Rules, Stamp), RulesFileError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |errno| RulesFileError::Read { path, errno }
    };
    for directory in path.ancestors().skip(1).filter(|d| !d.as_os_str().is_empty()) {
        let stat = rustix::fs::stat(directory).map_err(failed(directory))?;
        // In a directory like /tmp nobody can replace what is ours.
        let writable = stat.st_mode & WRITABLE_BY_OTHERS != 0 && stat.st_mode & STICKY == 0;
        closed(directory, &stat, writable, own_uid)?;
    }
    // `openat`, not `open`: the filter of system calls has but the one.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = rustix::fs::openat(rustix::fs::CWD, path, flags, Mode::empty()).map_err(failed(path))?;
    let stat = rustix::fs::fstat(&file).map_err(failed(path))?;
    let plain = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
    if !plain || stat.st_size as u64 > BYTES_MAX {
        return Err(RulesFileError::Kind(path.to_owned()));
    }
    closed(path, &stat, stat.st_mode & WRITABLE_BY_OTHERS != 0, own_uid)?;
    let mut text = String::new();
    std::fs::File::from(file).take(BYTES_MAX).read_to_string(&mut text).map_err(|error| {
        let errno = error.raw_os_error().map_or(Errno::ILSEQ, Errno::from_raw_os_error);
        RulesFileError::Read { path: path.to_owned(), errno }
    })?;
    let rules = text.parse().map_err(|source| RulesFileError::Rules { path: path.to_owned(), source })?;
    Ok((rules, Stamp::of(&stat)))
}

fn closed(path: &Path, stat: &Stat, writable: bool, own_uid: u32) -> Result<(), RulesFileError> {
    if writable || (stat.st_uid != 0 && stat.st_uid != own_uid) {
        return Err(RulesFileError::Open { path: path.to_owned(), uid: stat.st_uid, mode: stat.st_mode & 0o7777 });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const RULES: &str = "version = 1\n[owners.alice]\nuid = 1000\n";

    fn file() -> (tempfile::TempDir, PathBuf, u32) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rules.toml");
        std::fs::write(&path, RULES).unwrap();
        let mode = |p: &Path, mode| std::fs::set_permissions(p, PermissionsExt::from_mode(mode)).unwrap();
        mode(&path, 0o644);
        mode(directory.path(), 0o755);
        (directory, path, rustix::process::getuid().as_raw())
    }

    #[test]
    fn a_file_or_directory_that_others_can_write_is_refused() {
        let (directory, path, uid) = file();
        assert!(RulesFile::open(path.clone(), uid).is_ok());
        for mode in [0o664, 0o646, 0o666] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            assert!(matches!(RulesFile::open(path.clone(), uid), Err(RulesFileError::Open { .. })), "{mode:o}");
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777)).unwrap();
        assert!(matches!(RulesFile::open(path, uid), Err(RulesFileError::Open { .. })));
    }

    #[test]
    fn links_and_directories_are_no_rules() {
        let (directory, path, uid) = file();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(RulesFile::open(link, uid).is_err());
        assert!(RulesFile::open(directory.path().to_owned(), uid).is_err());
        assert!(RulesFile::open(directory.path().join("none"), uid).is_err());
    }

    #[test]
    fn a_file_that_becomes_bad_means_no_rules_until_it_is_good_again() {
        let (_directory, path, uid) = file();
        let mut rules = RulesFile::open(path.clone(), uid).unwrap();
        std::fs::write(&path, format!("{RULES}[owners.bob]\nuid = 1001\n")).unwrap();
        assert_eq!(rules.current().unwrap().owners().count(), 2);
        std::fs::write(&path, "version = 1\n[owners.alice]\nuid = 0\n").unwrap();
        assert!(rules.current().is_err());
        assert!(rules.is_owner(Uid(1001)) && !rules.is_owner(Uid(0)), "who was an owner may still look");
        std::fs::remove_file(&path).unwrap();
        assert!(rules.current().is_err());
        std::fs::write(&path, RULES).unwrap();
        assert_eq!(rules.current().unwrap().owners().count(), 1);
        assert!(!rules.is_owner(Uid(1001)));
    }
}
