//! `session-exec`: in a process of its own, takes on the identity that a unit would give one of the programs, and
//! executes it. What cannot be had ends it; nothing runs with more than it should.

use super::{Identity, Role, Session};
use anyhow::Context;
use caps::{CapSet, Capability, CapsHashSet};
use clap::Args;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;
use nix::unistd::{Gid, Uid};
use rustix::fs::Mode;
use rustix::io::FdFlags;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// First descriptor of listening sockets (sd_listen_fds(3)).
const LISTEN_FIRST: i32 = 3;
/// Open files, as the units have it (LimitNOFILE).
const FILES_MAX: u64 = 65_536;
/// As the units have it.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// What the supervisor asks for. Descriptor 0, and 1 where there are two, are the listening sockets.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Which program
    #[arg(value_enum)]
    pub role: Role,
    /// The session's directory
    #[arg(long)]
    pub root: PathBuf,
    /// The folder of the programs
    #[arg(long)]
    pub folder: PathBuf,
    /// The cgroup to enter first
    #[arg(long)]
    pub cgroup: Option<PathBuf>,
}

/// Becomes the program.
///
/// # Errors
/// Always: it returns only where the program could not be executed.
pub fn run(args: &ExecArgs, owner: Option<&str>) -> anyhow::Result<ExitCode> {
    let session = Session::of_process(args.root.clone(), owner)?;
    let listening = take_listening(args.role)?;
    if let Some(cgroup) = &args.cgroup {
        let procs = cgroup.join("cgroup.procs");
        std::fs::write(&procs, "0").with_context(|| format!("cannot enter {}", cgroup.display()))?;
    }
    std::env::set_current_dir("/")?;
    rustix::process::umask(Mode::from_bits_truncate(0o077));
    raise_files_max();
    // The supervisor hears its signals by signalfd; its mask would go on into the program.
    SigSet::all().thread_unblock()?;
    let program = args.folder.join(args.role.file_name());
    // Opened before root's rights are gone: see `execute`.
    let opened = File::open(&program).with_context(|| format!("cannot open {}", program.display()))?;
    take_identity(&session, args.role)?;
    let error = execute(&program, args, &session, listening.len());
    if error.kind() != std::io::ErrorKind::PermissionDenied {
        return Err(error).with_context(|| format!("cannot execute {}", program.display()));
    }
    // The helper's account need not be let into the owner's home, where the folder may be.
    let by_descriptor = format!("/proc/self/fd/{}", opened.as_raw_fd());
    let error = execute(Path::new(&by_descriptor), args, &session, listening.len());
    Err(error).with_context(|| format!("cannot execute {}", program.display()))
}

/// Executes it with an environment made from nothing; returns only with an error.
fn execute(program: &Path, args: &ExecArgs, session: &Session, sockets: usize) -> std::io::Error {
    let mut command = Command::new(program);
    command.arg0(args.folder.join(args.role.file_name()));
    command.env_clear().env("PATH", PATH).arg("--root").arg(&args.root);
    if args.role != Role::Helper {
        command.arg("--owner").arg(session.owner.owner.as_str());
    }
    if sockets > 0 {
        command.env("LISTEN_PID", std::process::id().to_string());
        command.env("LISTEN_FDS", sockets.to_string());
        command.env("LISTEN_FDNAMES", args.role.socket_names().join(":"));
    }
    command.exec()
}

/// Moves the listening sockets from the standard descriptors, where they came, to 3 and on, where they belong;
/// standard input becomes /dev/null, standard output the log.
fn take_listening(role: Role) -> anyhow::Result<Vec<OwnedFd>> {
    let mut all: Vec<OwnedFd> = Vec::new();
    for place in 0..role.socket_names().len() {
        let from = match place {
            0 => rustix::io::fcntl_dupfd_cloexec(std::io::stdin().as_fd(), LISTEN_FIRST)?,
            _ => rustix::io::fcntl_dupfd_cloexec(std::io::stdout().as_fd(), LISTEN_FIRST)?,
        };
        rustix::io::fcntl_setfd(&from, FdFlags::empty())?;
        let expected = LISTEN_FIRST + i32::try_from(place)?;
        anyhow::ensure!(from.as_raw_fd() == expected, "descriptor {expected} is taken: start it without open files");
        all.push(from);
    }
    let null: OwnedFd = std::fs::File::open("/dev/null")?.into();
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(std::io::stderr().as_fd())?;
    Ok(all)
}

/// As many as the units allow, where the host does.
fn raise_files_max() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let hard = if Uid::effective().is_root() { hard.max(FILES_MAX) } else { hard };
        // A lower limit serves fewer workers; it is no reason to serve none.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, FILES_MAX.min(hard), hard);
    }
}

fn take_identity(session: &Session, role: Role) -> anyhow::Result<()> {
    let own = Identity { uid: session.owner.uid, gid: session.owner.gid };
    let (identity, groups) = match role {
        Role::Helper => (session.helper, vec![session.helper.gid]),
        Role::Launcher | Role::Daemon => (own, groups_of_owner(session)?),
    };
    let keep: CapsHashSet = match role {
        Role::Helper if session.owner.is_root => [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW].into(),
        _ => CapsHashSet::new(),
    };
    if session.owner.is_root {
        let bounding = caps::read(None, CapSet::Bounding).context("cannot read the bounding set")?;
        if let Some(missing) = keep.difference(&bounding).next() {
            anyhow::bail!("root lacks {missing} here (a container without it?): start the session as an ordinary user");
        }
        for capability in bounding.difference(&keep) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
        nix::sys::prctl::set_keepcaps(!keep.is_empty())?;
        let groups: Vec<Gid> = groups.into_iter().map(Gid::from_raw).collect();
        nix::unistd::setgroups(&groups)?;
        let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
        nix::unistd::setresgid(gid, gid, gid)?;
        nix::unistd::setresuid(uid, uid, uid)?;
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Effective)?;
    caps::set(None, CapSet::Inheritable, &keep)?;
    caps::set(None, CapSet::Permitted, &keep)?;
    caps::set(None, CapSet::Ambient, &keep)?;
    nix::sys::prctl::set_keepcaps(false)?;
    nix::sys::prctl::set_no_new_privs()?;
    Ok(())
}

/// The owner's own groups, and the helper's, which opens the helper's sockets.
fn groups_of_owner(session: &Session) -> anyhow::Result<Vec<u32>> {
    let name = std::ffi::CString::new(OsString::from(session.owner.owner.as_str()).into_encoded_bytes())?;
    let own = nix::unistd::getgrouplist(&name, Gid::from_raw(session.owner.gid))?;
    let mut all: Vec<u32> = own.into_iter().map(Gid::as_raw).collect();
    all.push(session.helper.gid);
    all.sort_unstable();
    all.dedup();
    Ok(all)
}
