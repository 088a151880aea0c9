//! Changes to files of root's, each whole or not at all, and on disk when it returns.
//!
//! Everything here is for directories that root alone can write: nobody else can put a name in their way.

use holdfast_release::{Folder, Refusal, ReleaseId};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Mode of every directory of root's that others may look into.
pub const DIRECTORY_MODE: u32 = 0o755;
/// Begins the name of a release that is not whole yet.
const STAGE_PREFIX: &str = ".stage-";

/// What a change met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was made.
    Made,
    /// All was so already.
    AlreadyThere,
}

/// Makes one directory, 0755.
///
/// # Errors
/// Where the kernel refuses, or something else has the name.
pub fn make_directory(path: &Path) -> io::Result<Change> {
    match fs::DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        Ok(()) => {
            // The umask has its say in `create`.
            let made =
                fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE)).and_then(|()| sync_parent(path));
            // What is not surely on disk was not made.
            made.inspect_err(|_| drop(fs::remove_dir(path)))?;
            Ok(Change::Made)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match fs::symlink_metadata(path)?.is_dir() {
            true => Ok(Change::AlreadyThere),
            false => Err(io::Error::new(io::ErrorKind::NotADirectory, "it is there, and no directory")),
        },
        Err(error) => Err(error),
    }
}

/// Replaces a file in one rename; `mode` is exactly what it gets.
///
/// # Errors
/// Where the kernel refuses; the old file then stands.
pub fn write_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let fresh = fresh_name(path);
    remove_file_if_there(&fresh)?;
    create_file(&fresh, mode, |file| file.write_all(bytes))?;
    rename(&fresh, path)
}

/// Points a link to `target` in one rename: the name is never absent.
///
/// # Errors
/// Where the kernel refuses; the old link then stands.
pub fn write_link(path: &Path, target: &str) -> io::Result<()> {
    let fresh = fresh_name(path);
    remove_file_if_there(&fresh)?;
    std::os::unix::fs::symlink(target, &fresh)?;
    rename(&fresh, path)
}

/// Where it is refused, no name of ours is left.
fn rename(fresh: &Path, path: &Path) -> io::Result<()> {
    fs::rename(fresh, path).inspect_err(|_| drop(fs::remove_file(fresh)))?;
    sync_parent(path)
}

/// Removes a file or link; its absence is as good.
///
/// # Errors
/// Where the kernel refuses.
pub fn remove_file(path: &Path) -> io::Result<Change> {
    let change = remove_file_if_there(path)?;
    if change == Change::Made {
        sync_parent(path)?;
    }
    Ok(change)
}

/// The bytes of a file, or none where there is no such file.
///
/// # Errors
/// Where it is there and cannot be read.
pub fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The target of a link, or none where there is no such link.
///
/// # Errors
/// Where something else has the name, or the target is not UTF-8.
pub fn link_if_there(path: &Path) -> io::Result<Option<String>> {
    match fs::read_link(path) {
        Ok(target) => target.into_os_string().into_string().map(Some).map_err(|_| io::ErrorKind::InvalidData.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts a release folder to `releases/<id>`: each byte is hashed while it is written to the file that stays.
/// A folder of this id that is not whole any more is replaced.
///
/// # Errors
/// Where the source changed meanwhile or the kernel refuses; `releases` is then as before.
pub fn place_release(folder: &Folder, releases: &Path) -> Result<Change, PlaceError> {
    place(&folder.id(), releases, |stage| fill_stage(folder, stage))
}

/// The same for a release that `fill` writes, file by file, into a directory that nobody else can enter.
///
/// # Errors
/// Where `fill` fails, what it wrote is not that release, or the kernel refuses; `releases` is then as before.
pub fn place<E: From<PlaceError>>(
    id: &ReleaseId,
    releases: &Path,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<Change, E> {
    let place = releases.join(id.as_str());
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| PlaceError::Io { path, source }
    };
    if releases.is_dir() {
        // One that was cut off left these.
        remove_stages(releases).map_err(at(releases))?;
    }
    if Folder::open(&place).is_ok_and(|there| there.id() == *id) {
        return Ok(Change::AlreadyThere);
    }
    let damaged = place.symlink_metadata().is_ok();
    let stage = releases.join(format!("{STAGE_PREFIX}{:016x}", random()));
    fs::DirBuilder::new().mode(0o700).create(&stage).map_err(at(&stage))?;
    let placed = fill(&stage).and_then(|()| Ok(settle(id, &stage, &place)?));
    // After an exchange the damaged folder is here, after a failure what was written so far.
    if stage.symlink_metadata().is_ok() {
        fs::remove_dir_all(&stage).map_err(at(&stage))?;
    }
    placed?;
    if let Err(source) = sync_directory(releases) {
        if !damaged {
            // What is not surely on disk was not placed; the error that counts is the first.
            drop(fs::remove_dir_all(&place));
        }
        return Err(at(releases)(source).into());
    }
    Ok(Change::Made)
}

/// Checks what was written once more, by what the disk gives back, and gives it its name.
fn settle(id: &ReleaseId, stage: &Path, place: &Path) -> Result<(), PlaceError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| PlaceError::Io { path, source }
    };
    let written = Folder::open(stage)?;
    if written.id() != *id {
        return Err(at(stage)(io::Error::other(format!("it became {}, not {id}", written.id()))));
    }
    fs::set_permissions(stage, Permissions::from_mode(DIRECTORY_MODE)).map_err(at(stage))?;
    sync_directory(stage).map_err(at(stage))?;
    let damaged = place.symlink_metadata().is_ok();
    let flags = if damaged { rustix::fs::RenameFlags::EXCHANGE } else { rustix::fs::RenameFlags::NOREPLACE };
    rustix::fs::renameat_with(CWD, stage, CWD, place, flags).map_err(|errno| at(place)(errno.into()))
}

/// Removes what a placement that was killed has left, and says how many there were.
///
/// # Errors
/// Where something stays.
pub fn remove_stages(releases: &Path) -> io::Result<usize> {
    let mut removed = 0;
    for entry in fs::read_dir(releases)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(STAGE_PREFIX) {
            fs::remove_dir_all(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Why a release was not placed.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The source is not what it was when it was checked.
    #[error(transparent)]
    Source(#[from] Refusal),
    /// The kernel refused.
    #[error("{}", .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn fill_stage(folder: &Folder, stage: &Path) -> Result<(), PlaceError> {
    for file in folder.release().files() {
        // Read-only by mode: nothing writes to an installed release again.
        let mode = if file.role.is_program() { 0o555 } else { 0o444 };
        let path = stage.join(&file.name);
        let mut refused = None;
        let written = create_file(&path, mode, |to| {
            folder.copy(file, to).map_err(|refusal| {
                let text = refusal.to_string();
                refused = Some(refusal);
                io::Error::other(text)
            })
        });
        match (refused, written) {
            (Some(refusal), _) => return Err(PlaceError::Source(refusal)),
            (None, Err(source)) => return Err(PlaceError::Io { path, source }),
            (None, Ok(())) => {}
        }
    }
    for (name, bytes) in folder.texts() {
        let path = stage.join(name);
        create_file(&path, 0o444, |to| to.write_all(bytes)).map_err(|source| PlaceError::Io { path, source })?;
    }
    Ok(())
}

/// Makes a file that has no name until all of it is on disk.
///
/// # Errors
/// Where `fill` fails or the kernel refuses; there is no such file then.
pub fn create_file(path: &Path, mode: u32, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let unnamed = rustix::fs::open(directory, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR);
    let (mut file, named) = match unnamed {
        Ok(file) => (File::from(file), false),
        // A file system without O_TMPFILE: in a directory of root's a new name is as safe.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => (File::create_new(path)?, true),
        Err(errno) => return Err(errno.into()),
    };
    fill(&mut file)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()?;
    if named {
        return Ok(());
    }
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::linkat(CWD, own, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

/// A name beside `path`; a leftover of a crash is removed before it is used again.
fn fresh_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

fn remove_file_if_there(path: &Path) -> io::Result<Change> {
    match fs::remove_file(path) {
        Ok(()) => Ok(Change::Made),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Change::AlreadyThere),
        Err(error) => Err(error),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), sync_directory)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The standard library seeds this from the kernel; the name only has to be new in a directory of root's.
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
