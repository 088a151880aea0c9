//! Holdfast without systemd: the same programs, identities, capabilities, sockets and files that the units would
//! give, below one directory, kept running by a small supervisor.

pub mod ask;
pub mod cgroup;
pub mod clear;
pub mod exec;
pub mod record;
pub mod sockets;
pub mod supervise;
pub mod tree;

use crate::caller::Caller;
use crate::exit::Stop;
use holdfast_proto::layout::Layout;
use nix::unistd::User;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// Account of the helper where the system's Holdfast is installed.
const HELPER_ACCOUNT: &str = "holdfast";
/// The helper's uid and gid where there is no such account: above the ranges that systemd hands out for its dynamic
/// users (61184-65519) and homes (60001-60513), and so nobody's (systemd.io/UIDS-GIDS). No account has to be made
/// for a first try.
const HELPER_ID: u32 = 61_183;

/// A uid and a primary gid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
}

/// This very program, also where its file was replaced since it was started.
pub fn this_program() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("holdfast");
    command
}

/// One session: where it is and who is who in it.
#[derive(Debug, Clone)]
pub struct Session {
    /// Its tree.
    pub layout: Layout,
    /// Whose workers it runs; `is_root` where root started it.
    pub owner: Caller,
    /// Who its helper is; the owner where an ordinary user started it.
    pub helper: Identity,
}

impl Session {
    /// The session below `root`, as whoever runs this program starts and stops it.
    ///
    /// # Errors
    /// Where the owner is not one.
    pub fn of_process(root: PathBuf, owner: Option<&str>) -> anyhow::Result<Self> {
        if !root.is_absolute() {
            let text = format!("$HOLDFAST_SESSION is {:?}: it has to be an absolute path", root.display().to_string());
            return Err(Stop::usage(text).into());
        }
        let owner = Caller::of_process(owner)?;
        let own = Identity { uid: owner.uid, gid: owner.gid };
        let helper = match (owner.is_root, User::from_name(HELPER_ACCOUNT)?) {
            (false, _) => own,
            (true, Some(user)) => Identity { uid: user.uid.as_raw(), gid: user.gid.as_raw() },
            (true, None) => Identity { uid: HELPER_ID, gid: HELPER_ID },
        };
        Ok(Self { layout: Layout::below(root), owner, helper })
    }

    /// Who holds the tree itself: root, or the ordinary user who started the session.
    pub fn keeper(&self) -> Identity {
        match self.owner.is_root {
            true => Identity { uid: 0, gid: 0 },
            false => Identity { uid: self.owner.uid, gid: self.owner.gid },
        }
    }
}

/// A program that the supervisor keeps running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// The one with capabilities.
    Helper,
    /// Makes shims.
    Launcher,
    /// Knows the owner's workers.
    Daemon,
}

impl Role {
    /// All of them, in the order in which they are started.
    pub const ALL: [Self; 3] = [Self::Helper, Self::Launcher, Self::Daemon];

    /// As `session-exec` and `session status` call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Helper => "helper",
            Self::Launcher => "launcher",
            Self::Daemon => "daemon",
        }
    }

    /// Its file in the release folder.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Helper => "holdfast-helper",
            Self::Launcher => "holdfast-launcher",
            Self::Daemon => "holdfastd",
        }
    }

    /// Names of its listening sockets, in the order in which it gets them (sd_listen_fds(3)).
    pub fn socket_names(self) -> &'static [&'static str] {
        match self {
            Self::Helper => &["helper.sock", "launch.sock"],
            Self::Launcher => &[],
            Self::Daemon => &["daemon.sock"],
        }
    }
}
