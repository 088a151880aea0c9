//! Has an offered release brought, and puts it in place: each byte is checked while it is written to the file that stays.

use super::courier::{Courier, RELEASE_MAX};
use super::error::UpdateError;
use super::offer::Offer;
use crate::install::disk::{self, Change};
use holdfast_proto::layout::Layout;
use holdfast_release::{Digest, Hasher, Refusal, ReleaseFile};
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

/// How far the bringing has come.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The file that comes now.
    pub file: &'a ReleaseFile,
    /// Bytes of all files that have come.
    pub done: u64,
    /// Bytes of all files.
    pub whole: u64,
}

/// Puts the release below `releases`; `tell` hears of each file before it is fetched, and of each piece of it.
///
/// # Errors
/// Where a file does not come, or is not what was signed; nothing is left of it then.
pub fn place(
    layout: &Layout,
    courier: &Courier,
    offer: &Offer,
    tell: &mut dyn FnMut(Progress<'_>),
) -> Result<Change, UpdateError> {
    let releases = layout.releases();
    let disk_failed = |source| UpdateError::Disk { what: releases.display().to_string(), source };
    disk::remove_stages(&releases).map_err(disk_failed)?;
    need_room(&releases, offer)?;
    let deadline = Instant::now() + RELEASE_MAX;
    disk::place(&offer.signed.id, &releases, |stage| {
        let (mut done, whole) = (0, size(offer));
        for file in offer.signed.release.files() {
            tell(Progress { file, done, whole });
            fetch(courier, offer, file, stage, deadline, &mut |piece| {
                done += piece;
                tell(Progress { file, done, whole });
            })?;
        }
        for (name, bytes) in &offer.small {
            let path = stage.join(name);
            let write = disk::create_file(&path, 0o444, |to| to.write_all(bytes));
            write.map_err(|source| UpdateError::Disk { what: path.display().to_string(), source })?;
        }
        Ok(())
    })
}

fn size(offer: &Offer) -> u64 {
    offer.signed.release.files().iter().map(|file| file.size).sum()
}

/// The new release once more, so that a full disk is met here and not in the middle.
fn need_room(releases: &Path, offer: &Offer) -> Result<(), UpdateError> {
    let wanted = 2 * size(offer);
    let about = rustix::fs::statvfs(releases);
    let about =
        about.map_err(|errno| UpdateError::Disk { what: releases.display().to_string(), source: errno.into() })?;
    let free = about.f_bavail.saturating_mul(about.f_frsize);
    let at = releases.display().to_string();
    if free < wanted { Err(UpdateError::NoSpace { at, wanted, free }) } else { Ok(()) }
}

fn fetch(
    courier: &Courier,
    offer: &Offer,
    file: &ReleaseFile,
    stage: &Path,
    deadline: Instant,
    passed: &mut dyn FnMut(u64),
) -> Result<(), UpdateError> {
    let name = file.name.as_str();
    let wanted = offer.signed.sums.digest(name);
    let path = stage.join(name);
    // Read-only by mode: nothing writes to an installed release again.
    let mode = if file.role.is_program() { 0o555 } else { 0o444 };
    let mut failed = None;
    let url = format!("{}/{name}", offer.base);
    let written = disk::create_file(&path, mode, |to| {
        let mut check = Check { hasher: Hasher::default(), found: 0 };
        let brought = courier.bring(&url, file.size, deadline, &mut |piece| {
            check.add(piece);
            passed(piece.len() as u64);
            to.write_all(piece).map_err(|source| UpdateError::Disk { what: file.name.clone(), source })
        });
        brought.and_then(|()| check.is(file, wanted)).map_err(|error| {
            failed = Some(error);
            io::ErrorKind::Other.into()
        })
    });
    match (failed, written) {
        (Some(error), _) => Err(error),
        (None, Err(source)) => Err(UpdateError::Disk { what: path.display().to_string(), source }),
        (None, Ok(())) => Ok(()),
    }
}

/// What has come of one file.
struct Check {
    hasher: Hasher,
    found: u64,
}

impl Check {
    fn add(&mut self, piece: &[u8]) {
        self.hasher.update(piece);
        self.found += piece.len() as u64;
    }

    fn is(self, file: &ReleaseFile, wanted: Option<Digest>) -> Result<(), UpdateError> {
        let (name, found) = (file.name.clone(), self.found);
        if found != file.size {
            return Err(Refusal::WrongSize { name, wanted: file.size, found }.into());
        }
        let digest = self.hasher.finish();
        match wanted {
            Some(wanted) if wanted == digest => Ok(()),
            Some(wanted) => Err(Refusal::WrongDigest { name, wanted, found: digest }.into()),
            None => Err(Refusal::MissingFile { name, why: "SHA256SUMS does not name it" }.into()),
        }
    }
}
