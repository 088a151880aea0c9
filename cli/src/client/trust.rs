//! Whether others could have put a socket where it is (threat T09): every directory above it must be root's, or the
//! caller's own in a user's session, and nobody else may write there.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a directory showed.
#[derive(Debug, Clone, Copy)]
struct Seen {
    uid: u32,
    mode: u32,
    /// It is the socket's own, not one further up.
    holds_socket: bool,
}

/// Why a socket is not used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A directory above it could not be looked at.
    #[error("{} is not used: {} cannot be examined", .socket.display(), .directory.display())]
    Unseen {
        /// The socket.
        socket: PathBuf,
        /// The directory.
        directory: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A directory above it belongs to somebody else.
    #[error("{} is not used: {} belongs to uid {uid}, so that account could have put it there; it must be root's", .socket.display(), .directory.display())]
    Foreign {
        /// The socket.
        socket: PathBuf,
        /// The directory.
        directory: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// Others may write to a directory above it.
    #[error("{} is not used: others may write to {} (mode {mode:04o}), so they could have put it there", .socket.display(), .directory.display())]
    Writable {
        /// The socket.
        socket: PathBuf,
        /// The directory.
        directory: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

/// Examines every directory from the socket's own up to `/`, symbolic links resolved.
///
/// # Errors
/// For the first directory that root, or `own`, does not hold alone.
pub fn check_directories(socket: &Path, own: Option<u32>) -> Result<(), TrustError> {
    let unseen = |directory: &Path, source| TrustError::Unseen {
        socket: socket.to_owned(),
        directory: directory.to_owned(),
        source,
    };
    let parent = socket.parent().unwrap_or(Path::new("/"));
    let real = match parent.canonicalize() {
        Ok(real) => real,
        // Nothing is there to distrust; connecting will say so.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unseen(parent, error)),
    };
    for directory in real.ancestors() {
        let found = directory.symlink_metadata().map_err(|error| unseen(directory, error))?;
        let seen = Seen { uid: found.uid(), mode: found.mode() & 0o7777, holds_socket: directory == real };
        judge(socket, directory, seen, own)?;
    }
    Ok(())
}

/// A sticky directory (as /tmp) lets others add names, but not replace those of root or of `own` in it; the socket's
/// own directory may not even be that.
fn judge(socket: &Path, directory: &Path, seen: Seen, own: Option<u32>) -> Result<(), TrustError> {
    let (socket_path, directory_path) = (socket.to_owned(), directory.to_owned());
    if seen.uid != 0 && Some(seen.uid) != own {
        return Err(TrustError::Foreign { socket: socket_path, directory: directory_path, uid: seen.uid });
    }
    let shared = seen.mode & 0o022 != 0;
    let sticky = seen.mode & 0o1000 != 0;
    if shared && (seen.holds_socket || !sticky) {
        return Err(TrustError::Writable { socket: socket_path, directory: directory_path, mode: seen.mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(directory: &str, uid: u32, mode: u32, own: Option<u32>) -> bool {
        let seen = Seen { uid, mode, holds_socket: directory == "/a/b" };
        judge(Path::new("/a/b/daemon.sock"), Path::new(directory), seen, own).is_ok()
    }

    #[test]
    fn only_root_and_a_session_owner_may_hold_a_directory() {
        for (uid, own, good) in [
            (0, None, true),
            (0, Some(1000), true),
            (1000, Some(1000), true),
            (1000, None, false),
            (1001, Some(1000), false),
        ] {
            assert_eq!(verdict("/a/b", uid, 0o755, own), good, "uid {uid}, own {own:?}");
        }
    }

    #[test]
    fn a_directory_that_others_write_to_is_refused_unless_sticky_and_above() {
        for (directory, mode, good) in [
            ("/a/b", 0o755, true),
            ("/a/b", 0o700, true),
            ("/a/b", 0o775, false),
            ("/a/b", 0o757, false),
            ("/a/b", 0o1777, false),
            ("/a", 0o1777, true),
            ("/a", 0o777, false),
        ] {
            assert_eq!(verdict(directory, 0, mode, None), good, "{directory} {mode:o}");
        }
    }
}
