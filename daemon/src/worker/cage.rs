//! How an owner wants a worker's cage to differ from the default one. Pure.

use super::spec::{SpecError, Volume, path, shown};
use holdfast_proto::daemon as wire;
use std::path::{Path, PathBuf};

/// The default is the default cage.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cage {
    /// Namespaces of its own within the worker's.
    pub nested: bool,
    /// The owner's ids show as 0.
    pub root_user: bool,
    /// Instead of the host's tree.
    pub rootfs: Option<Rootfs>,
}

/// A tree of the owner's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// Absolute, on the host.
    pub path: PathBuf,
    /// The worker may change it.
    pub writable: bool,
}

/// As the owner gave it.
pub fn cage(cage: &wire::Cage) -> Result<Cage, SpecError> {
    let root_user = match cage.user.as_str() {
        "" | "owner" => false,
        "root" => true,
        other => return Err(SpecError::User(shown(other.as_bytes()))),
    };
    let rootfs = match &cage.rootfs {
        Some(rootfs) => Some(Rootfs { path: path("root file system", &rootfs.path)?, writable: rootfs.writable }),
        None => None,
    };
    Ok(Cage { nested: cage.nested_namespaces, root_user, rootfs })
}

/// One bind mount.
pub fn volume(volume: &wire::Volume) -> Result<Volume, SpecError> {
    let source = path("volume source", &volume.source)?;
    let target = path("volume target", &volume.target)?;
    if target == Path::new("/") {
        return Err(SpecError::VolumeOverRoot);
    }
    Ok(Volume { source, target, read_only: volume.read_only })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_the_owner_and_root() {
        let of = |user: &str| cage(&wire::Cage { user: user.into(), ..Default::default() });
        assert_eq!(of(""), Ok(Cage::default()));
        assert_eq!(of("owner"), Ok(Cage::default()));
        assert_eq!(of("root").map(|cage| cage.root_user), Ok(true));
        for user in ["0", "1000", "nobody", "Root", "root "] {
            assert_eq!(of(user), Err(SpecError::User(user.into())));
        }
    }

    #[test]
    fn a_root_file_system_is_an_absolute_path() {
        let of = |path: &[u8]| {
            let rootfs = wire::Rootfs { path: path.to_vec(), writable: true };
            cage(&wire::Cage { rootfs: Some(rootfs), ..Default::default() }).map(|cage| cage.rootfs)
        };
        assert_eq!(of(b"/srv/tree/"), Ok(Some(Rootfs { path: "/srv/tree".into(), writable: true })));
        for path in [&b""[..], b"tree", b"/srv/../etc", b"/a\0b"] {
            assert!(of(path).is_err());
        }
    }
}
