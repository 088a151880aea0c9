//! The listening socket that systemd or the session's supervisor passes (sd_listen_fds(3)); none is bound here.

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use rustix::fd::{AsRawFd, OwnedFd, RawFd};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg, socketpair,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

/// Why there is nothing to listen on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// LISTEN_FDS says another number.
    #[error("{0} listening sockets were passed, one is needed: start it by its unit or by `holdfast session start`")]
    Count(usize),
    /// Not a listening Unix stream socket.
    #[error("the descriptor passed is no listening Unix stream socket with a path")]
    Kind,
    /// It cannot be taken.
    #[error("the listening socket cannot be taken")]
    Io(#[from] io::Error),
}

/// The one socket that was passed, and its path.
pub fn inherited() -> Result<(UnixListener, PathBuf), ListenError> {
    let mut numbers = sd_notify::listen_fds()?;
    let (Some(number), 0) = (numbers.next(), numbers.len()) else {
        return Err(ListenError::Count(sd_notify::listen_fds()?.len()));
    };
    let descriptor = owned(number)?;
    let stream = rustix::net::sockopt::socket_type(&descriptor).map_err(io::Error::from)? == SocketType::STREAM;
    let listening = rustix::net::sockopt::socket_acceptconn(&descriptor).map_err(io::Error::from)?;
    let listener = UnixListener::from(descriptor);
    let address = listener.local_addr()?;
    match address.as_pathname() {
        Some(path) if stream && listening => Ok((listener, path.to_owned())),
        _ => Err(ListenError::Kind),
    }
}

/// Owning a descriptor that was inherited by number is beyond safe Rust; a copy of it that comes by a socket is not.
fn owned(number: RawFd) -> io::Result<OwnedFd> {
    let (here, there) = socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    sendmsg::<()>(
        there.as_raw_fd(),
        &[IoSlice::new(&[0])],
        &[ControlMessage::ScmRights(&[number])],
        MsgFlags::empty(),
        None,
    )?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(&here, &mut [IoSliceMut::new(&mut [0])], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    descriptors.flatten().next().ok_or_else(|| io::ErrorKind::NotFound.into())
}
