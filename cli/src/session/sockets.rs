//! The listening sockets of a session: bound by the supervisor in directories that are its keeper's, each open to
//! one caller, and held by it, so that a program that dies or restarts refuses no connection.

use super::{Role, Session};
use anyhow::Context;
use rustix::fs::{Gid, Mode, Uid};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Connections that wait while a program restarts.
const BACKLOG: i32 = 1024;

/// One socket as it has to be.
struct Socket {
    path: PathBuf,
    kind: SocketType,
    uid: u32,
    gid: u32,
    mode: u32,
}

/// The sockets of one program, in the order of [`Role::socket_names`].
pub struct Listening {
    /// Whose they are.
    pub role: Role,
    /// The descriptors.
    pub sockets: Vec<OwnedFd>,
}

fn wanted(session: &Session, role: Role) -> Vec<Socket> {
    let layout = &session.layout;
    let keeper = session.keeper();
    let of_helper = |path, kind| {
        // The helper's group is what the owner's programs get beside their own (contract, "Installed").
        let mode = if session.owner.is_root { 0o660 } else { 0o600 };
        Socket { path, kind, uid: keeper.uid, gid: session.helper.gid, mode }
    };
    match role {
        Role::Helper => vec![
            of_helper(layout.helper_socket(), SocketType::STREAM),
            of_helper(layout.launch_socket(), SocketType::SEQPACKET),
        ],
        Role::Launcher => Vec::new(),
        Role::Daemon => vec![Socket {
            path: layout.daemon_socket(&session.owner.owner),
            kind: SocketType::STREAM,
            uid: session.owner.uid,
            gid: keeper.gid,
            mode: 0o600,
        }],
    }
}

/// Binds all sockets of the session; what an earlier supervisor left in their places goes.
///
/// # Errors
/// Where one cannot be bound.
pub fn bind_all(session: &Session) -> anyhow::Result<Vec<Listening>> {
    let bind_of = |role| -> anyhow::Result<Listening> {
        let sockets = wanted(session, role).iter().map(bind).collect::<anyhow::Result<_>>()?;
        Ok(Listening { role, sockets })
    };
    Role::ALL.into_iter().map(bind_of).collect()
}

/// Removes the sockets' names.
pub fn unlink_all(session: &Session) {
    for socket in Role::ALL.into_iter().flat_map(|role| wanted(session, role)) {
        // What is not there any more need not be removed.
        let _ = std::fs::remove_file(socket.path);
    }
}

fn bind(wanted: &Socket) -> anyhow::Result<OwnedFd> {
    let path: &Path = &wanted.path;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace {}", path.display()));
        }
        _ => {}
    }
    let failed = || format!("cannot listen at {}", path.display());
    let address = SocketAddrUnix::new(path).with_context(|| format!("{}: its path is too long", failed()))?;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, wanted.kind, SocketFlags::CLOEXEC, None).with_context(failed)?;
    // Closed to all until it is whose it is to be.
    let before = rustix::process::umask(Mode::from_bits_truncate(0o777));
    let bound = rustix::net::bind(&socket, &address);
    rustix::process::umask(before);
    bound.with_context(failed)?;
    rustix::fs::chown(path, Some(Uid::from_raw(wanted.uid)), Some(Gid::from_raw(wanted.gid))).with_context(failed)?;
    rustix::fs::chmod(path, Mode::from_bits_truncate(wanted.mode)).with_context(failed)?;
    rustix::net::listen(&socket, BACKLOG).with_context(failed)?;
    Ok(socket)
}
