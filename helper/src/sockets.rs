//! The two listening sockets, which come with the start of the process and are told apart by their kind.

use crate::sys;
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketType, sockopt};

/// Why the listeners are not there.
#[derive(Debug, thiserror::Error)]
pub enum SocketsError {
    /// Not started with sockets.
    #[error("no listening sockets were passed (LISTEN_FDS): start it by systemd or by holdfast session start")]
    Absent,
    /// Not these two.
    #[error("the sockets passed must be one stream and one seqpacket listener of AF_UNIX, and nothing else")]
    Kinds,
    /// The kernel would not say.
    #[error("a passed socket cannot be looked at: {0}")]
    Look(#[from] std::io::Error),
}

/// The helper's listeners.
#[derive(Debug)]
pub struct Listeners {
    /// gRPC.
    pub calls: OwnedFd,
    /// Launchers.
    pub launchers: OwnedFd,
}

/// Takes over what was passed, exactly one listener of each kind.
pub fn inherited() -> Result<Listeners, SocketsError> {
    // It compares LISTEN_PID with this process and sets close-on-exec.
    let passed = sys::adopt(sd_notify::listen_fds()?);
    if passed.is_empty() {
        return Err(SocketsError::Absent);
    }
    let (mut calls, mut launchers) = (None, None);
    for socket in passed {
        let unix = sockopt::socket_domain(&socket).map_err(std::io::Error::from)? == AddressFamily::UNIX;
        let listens = sockopt::socket_acceptconn(&socket).map_err(std::io::Error::from)?;
        let place = match sockopt::socket_type(&socket).map_err(std::io::Error::from)? {
            SocketType::STREAM => &mut calls,
            SocketType::SEQPACKET => &mut launchers,
            _ => return Err(SocketsError::Kinds),
        };
        if !unix || !listens || place.is_some() {
            return Err(SocketsError::Kinds);
        }
        rustix::io::ioctl_fionbio(&socket, true).map_err(std::io::Error::from)?;
        *place = Some(socket);
    }
    match (calls, launchers) {
        (Some(calls), Some(launchers)) => Ok(Listeners { calls, launchers }),
        _ => Err(SocketsError::Kinds),
    }
}
