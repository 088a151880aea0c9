//! A folder on disk that was found to be a whole release.

use crate::{
    Digest, FILE_BYTES_MAX, Hasher, RELEASE_BYTES_MAX, RELEASE_NAME, Refusal, Release, ReleaseFile, SIGNATURE_NAME,
    SUMS_BYTES_MAX, SUMS_NAME, Sums, elf,
};
use rustix::fs::{Mode, OFlags};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// What names an installed release: `<version>-<first 12 hex digits of SHA-256 of SHA256SUMS>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReleaseId(String);

/// A release folder: its sums hold, its description agrees with them, its programs are for this machine.
///
/// The folder may belong to somebody who changes it meanwhile, so nothing is read from it by name alone afterwards:
/// [`Folder::copy`] checks each byte that it passes on.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    directory: OwnedFd,
    sums_text: Vec<u8>,
    sums: Sums,
    release_text: Vec<u8>,
    release: Release,
}

impl Folder {
    /// Opens and checks everything: grammar, description, sizes, digests, machine.
    pub fn open(path: &Path) -> Result<Self, Refusal> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| Refusal::Io { what: path.display().to_string(), source: errno.into() })?;
        let sums_text = read_small(&directory, SUMS_NAME, SUMS_BYTES_MAX)?;
        let sums = Sums::parse(&sums_text)?;
        let release_text = read_small(&directory, RELEASE_NAME, RELEASE_BYTES_MAX)?;
        let found = Digest::of(&release_text);
        match sums.digest(RELEASE_NAME) {
            Some(wanted) if wanted == found => {}
            Some(wanted) => return Err(Refusal::WrongDigest { name: RELEASE_NAME.to_owned(), wanted, found }),
            None => return Err(unnamed(RELEASE_NAME)),
        }
        let release = Release::parse(&release_text, &sums, std::env::consts::ARCH)?;
        let folder = Self { path: path.to_owned(), directory, sums_text, sums, release_text, release };
        for file in folder.release.files() {
            folder.copy(file, &mut io::sink())?;
        }
        Ok(folder)
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What names it once installed.
    pub fn id(&self) -> ReleaseId {
        ReleaseId::of(&self.release.version, &self.sums_text)
    }

    /// Its description.
    pub fn release(&self) -> &Release {
        &self.release
    }

    /// `SHA256SUMS` and `release.json` as they were checked.
    pub fn texts(&self) -> [(&'static str, &[u8]); 2] {
        [(SUMS_NAME, &self.sums_text), (RELEASE_NAME, &self.release_text)]
    }

    /// Whether a signature lies beside the sums. Nothing more is known of it here.
    pub fn has_signature(&self) -> bool {
        let there = |name| rustix::fs::statat(&self.directory, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok();
        there(SIGNATURE_NAME) || there("SHA256SUMS.bundle")
    }

    /// Writes one file's bytes to `to` and checks them on the way: after an error, what was written is void.
    pub fn copy(&self, file: &ReleaseFile, to: &mut impl Write) -> Result<(), Refusal> {
        let name = file.name.as_str();
        let wanted = self.sums.digest(name).ok_or_else(|| unnamed(name))?;
        let (mut from, found) = open_regular(&self.directory, name)?;
        if found != file.size {
            return Err(Refusal::WrongSize { name: name.to_owned(), wanted: file.size, found });
        }
        let checked = pass_on(&mut from, to, file.size, name)?;
        if checked.bytes != file.size {
            return Err(Refusal::WrongSize { name: name.to_owned(), wanted: file.size, found: checked.bytes });
        }
        if checked.digest != wanted {
            return Err(Refusal::WrongDigest { name: name.to_owned(), wanted, found: checked.digest });
        }
        if file.role.is_program() {
            elf::check_machine(name, &checked.head, std::env::consts::ARCH)?;
        }
        Ok(())
    }

    /// The bytes of one small file, by name.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, Refusal> {
        let file = self.release.files().iter().find(|file| file.name == name).ok_or_else(|| unnamed(name))?;
        let mut bytes = Vec::new();
        self.copy(file, &mut bytes)?;
        Ok(bytes)
    }
}

/// What passed through [`pass_on`].
struct Passed {
    bytes: u64,
    digest: Digest,
    head: Vec<u8>,
}

/// Copies at most one byte more than `size`, which is enough to see that it is more.
fn pass_on(from: &mut File, to: &mut impl Write, size: u64, name: &str) -> Result<Passed, Refusal> {
    let io = |source| Refusal::Io { what: name.to_owned(), source };
    let mut from = from.take(size.min(FILE_BYTES_MAX) + 1);
    let (mut hasher, mut bytes, mut head) = (Hasher::default(), 0, Vec::new());
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(io(error)),
        };
        let chunk = &buffer[..count];
        head.extend(chunk.iter().take(elf::HEADER_BYTES.saturating_sub(head.len())));
        hasher.update(chunk);
        to.write_all(chunk).map_err(io)?;
        bytes += count as u64;
    }
    Ok(Passed { bytes, digest: hasher.finish(), head })
}

fn read_small(directory: &OwnedFd, name: &str, most: u64) -> Result<Vec<u8>, Refusal> {
    let (file, found) = open_regular(directory, name)?;
    let too_large = |found| Refusal::TooLarge { name: name.to_owned(), found, most };
    if found > most {
        return Err(too_large(found));
    }
    let mut bytes = Vec::new();
    let io = |source| Refusal::Io { what: name.to_owned(), source };
    file.take(most + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > most { Err(too_large(bytes.len() as u64)) } else { Ok(bytes) }
}

/// Opens a regular file and nothing else: no link is followed, and a FIFO cannot hold us up.
fn open_regular(directory: &OwnedFd, name: &str) -> Result<(File, u64), Refusal> {
    let missing = |why| Refusal::MissingFile { name: name.to_owned(), why };
    let io = |source| Refusal::Io { what: name.to_owned(), source };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Err(missing("it is not in the folder")),
        Err(rustix::io::Errno::LOOP) => return Err(missing("it is a link, not a file")),
        Err(errno) => return Err(io(errno.into())),
    };
    let about = file.metadata().map_err(io)?;
    if about.is_file() { Ok((file, about.len())) } else { Err(missing("it is not a regular file")) }
}

fn unnamed(name: &str) -> Refusal {
    Refusal::MissingFile { name: name.to_owned(), why: "release.json does not name it" }
}

impl std::str::FromStr for ReleaseId {
    type Err = &'static str;

    /// The name of an installed release's folder.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<crate::FileName>().map(|name| Self(name.to_string()))
    }
}

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ReleaseId {
    /// Of a version and the bytes of its `SHA256SUMS`.
    pub fn of(version: &semver::Version, sums: &[u8]) -> Self {
        Self(format!("{version}-{}", Digest::of(sums).short()))
    }

    /// The id as text: a file name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
