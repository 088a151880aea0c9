//! Where a file really is: in which file system, at which path of that. The same directory shows under many paths, by
//! bind mounts of the host's or of ours, and has one such place.

use crate::halt::{Halt, Step};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One line of mountinfo (proc(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Of this mount namespace.
    pub id: u64,
    /// Its root: file system and path in it.
    pub root: Place,
    /// Where it is mounted.
    pub point: PathBuf,
}

/// A place in a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `major:minor`, as mountinfo has it.
    pub device: String,
    /// From the file system's own root.
    pub path: PathBuf,
}

impl Place {
    /// The way from here down to `other`, if it lies at or below.
    pub fn way_to(&self, other: &Self) -> Option<PathBuf> {
        if self.device != other.device {
            return None;
        }
        other.path.strip_prefix(&self.path).ok().map(Path::to_owned)
    }
}

/// The mounts of this process's namespace, as the proc file system at `proc` tells them.
pub fn read<Fd: std::os::fd::AsFd>(proc: Fd) -> Result<Vec<Mount>, Halt> {
    let file = rustix::fs::openat(proc, "self/mountinfo", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .step("open mountinfo")?;
    let mut text = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        match rustix::io::read(&file, &mut buffer).step("read mountinfo")? {
            0 => return parse(&text).ok_or_else(|| Halt::new(crate::halt::CAGE, "mountinfo", Errno::PROTO)),
            len => text.extend_from_slice(&buffer[..len]),
        }
    }
}

/// Where an open file is, and its path now.
pub fn place(mounts: &[Mount], fd: &OwnedFd) -> rustix::io::Result<(Place, PathBuf)> {
    let id = id(fd)?;
    let path = real_path(fd)?;
    let mount = mounts.iter().find(|mount| mount.id == id).ok_or(Errno::NOENT)?;
    let below = path.strip_prefix(&mount.point).map_err(|_| Errno::NOENT)?;
    Ok((Place { device: mount.root.device.clone(), path: join(&mount.root.path, below) }, path))
}

/// Of the mount that an open file is in.
pub fn id(fd: &OwnedFd) -> rustix::io::Result<u64> {
    Ok(rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id)
}

/// `below` may be empty, and then nothing is added, no slash either.
pub fn join(path: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { path.to_owned() } else { path.join(below) }
}

/// Where an open file is now (proc(5), /proc/pid/fd).
fn real_path(fd: &OwnedFd) -> rustix::io::Result<PathBuf> {
    let link = rustix::fs::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new())?;
    Ok(PathBuf::from(OsString::from_vec(link.into_bytes())))
}

/// `None`: not mountinfo.
fn parse(text: &[u8]) -> Option<Vec<Mount>> {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(line).collect()
}

fn line(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
    let device = String::from_utf8(words.nth(1)?.to_vec()).ok()?;
    let path = |word: &[u8]| PathBuf::from(OsString::from_vec(unescaped(word)));
    Some(Mount { id, root: Place { device, path: path(words.next()?) }, point: path(words.next()?) })
}

/// Space, tab, newline and backslash are three octal digits there.
fn unescaped(word: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => plain.push(*byte),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_read_with_its_escapes() {
        let text = b"24 27 0:6 /a\\040b /dev\\134x rw - devtmpfs devtmpfs rw\n25 24 0:23 / /dev/shm rw shared:1 - tmpfs tmpfs rw\n";
        let mounts = parse(text).unwrap();
        assert_eq!(mounts[0].root, Place { device: "0:6".into(), path: "/a b".into() });
        assert_eq!((mounts[0].id, mounts[0].point.as_path()), (24, Path::new("/dev\\x")));
        assert_eq!(mounts[1].point, Path::new("/dev/shm"));
        assert_eq!(parse(b"nonsense\n"), None);
    }

    #[test]
    fn a_place_leads_only_downwards_and_in_its_own_file_system() {
        let place = |device: &str, path: &str| Place { device: device.into(), path: path.into() };
        let state = place("8:1", "/var/lib/holdfast");
        assert_eq!(place("8:1", "/var").way_to(&state), Some("lib/holdfast".into()));
        assert_eq!(state.way_to(&state), Some("".into()));
        assert_eq!(state.way_to(&place("8:1", "/var")), None);
        assert_eq!(place("8:2", "/var").way_to(&state), None);
        assert_eq!(place("8:1", "/var/lib/hold").way_to(&state), None);
        assert_eq!(join(Path::new("/x"), Path::new("")).as_os_str(), "/x");
    }
}
