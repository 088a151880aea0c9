//! Where everything is: one struct with a root prefix, so that a session, a test or a package can move it.
//!
//! The installed system has the root `/`; a session has its own directory (contract, "Session mode"),
//! with the same tree below it.

use crate::words::{OwnerName, WorkerId};
use std::path::{Path, PathBuf};

/// All paths of one installation or session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

macro_rules! paths {
    ($($(#[$doc:meta])* $name:ident => $path:literal;)*) => {
        $($(#[$doc])* pub fn $name(&self) -> PathBuf { self.root.join($path) })*
    };
}

impl Layout {
    /// The installed system.
    pub fn system() -> Self {
        Self::below("/")
    }

    /// A session or a test: the same tree below `root`.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Whether this is the installed system.
    pub fn is_system(&self) -> bool {
        self.root == Path::new("/")
    }

    /// The prefix itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    paths! {
        /// Holds `releases/`, `current` and `current.previous`.
        library => "usr/local/lib/holdfast";
        /// One folder a release, never written again.
        releases => "usr/local/lib/holdfast/releases";
        /// Link to the release that runs.
        current => "usr/local/lib/holdfast/current";
        /// Link to the release before it: the rollback target.
        previous => "usr/local/lib/holdfast/current.previous";
        /// The command on everybody's PATH, a link.
        command => "usr/local/bin/holdfast";
        /// Where unit files are copied to.
        units => "etc/systemd/system";
        /// Root's configuration.
        config => "etc/holdfast";
        /// Who owns what was installed, and when.
        install_toml => "etc/holdfast/install.toml";
        /// The helper's limits per owner.
        rules_toml => "etc/holdfast/rules.toml";
        /// State of root and of the owners.
        state => "var/lib/holdfast";
        /// Parent of all sockets.
        run => "run/holdfast";
        /// gRPC, daemon to helper.
        helper_socket => "run/holdfast/helper.sock";
        /// seqpacket, launcher to helper; descriptors ride here.
        launch_socket => "run/holdfast/launch.sock";
        /// The helper's own directory (its lock).
        helper_run => "run/holdfast/helper";
        /// Lock of a session's supervisor, and its log.
        session_run => "run/holdfast/session";
    }

    /// State of one owner: database, and a directory per worker. Owner, 0700.
    pub fn owner_state(&self, owner: &OwnerName) -> PathBuf {
        self.root.join("var/lib/holdfast/owners").join(owner.as_str())
    }

    /// Records and output of one worker.
    pub fn worker_state(&self, owner: &OwnerName, worker: WorkerId) -> PathBuf {
        self.owner_state(owner).join("workers").join(worker.to_string())
    }

    /// Directory of the owner's sockets. Root's; only `workers` in it is the owner's.
    pub fn owner_run(&self, owner: &OwnerName) -> PathBuf {
        self.root.join("run/holdfast/owners").join(owner.as_str())
    }

    /// gRPC, CLI to daemon.
    pub fn daemon_socket(&self, owner: &OwnerName) -> PathBuf {
        self.owner_run(owner).join("daemon.sock")
    }

    /// Sockets of the owner's shims (`<id>.sock`), hosts files (`hosts.<network>`), launcher's lock. Owner, 0700.
    pub fn workers_run(&self, owner: &OwnerName) -> PathBuf {
        self.owner_run(owner).join("workers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_contract() {
        let owner: OwnerName = "alice".parse().unwrap();
        let system = Layout::system();
        assert_eq!(system.daemon_socket(&owner), Path::new("/run/holdfast/owners/alice/daemon.sock"));
        assert_eq!(system.helper_socket(), Path::new("/run/holdfast/helper.sock"));
        assert_eq!(system.releases(), Path::new("/usr/local/lib/holdfast/releases"));
        let session = Layout::below("/run/user/1000/holdfast");
        assert_eq!(session.workers_run(&owner), Path::new("/run/user/1000/holdfast/run/holdfast/owners/alice/workers"));
        assert!(system.is_system() && !session.is_system());
    }
}
