//! A connection to one session of a shim.

use crate::shim;
use holdfast_launcher::WireError;
use holdfast_launcher::session::{Call, FromSession, PACKET_BYTES_MAX, Program, ToSession};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::path::Path;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// How long a shim may leave what was sent unread: it always reads, unless somebody stopped it.
const SENT_WITHIN: Duration = Duration::from_secs(10);

/// Why a session cannot be spoken with.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No socket, or nobody behind it.
    #[error("nobody listens on the shim's socket")]
    Nobody,
    /// It hung up without a word.
    #[error("the shim hung up")]
    Closed,
    /// It neither answers nor reads.
    #[error("the shim does not answer")]
    Silent,
    /// It sent what this build does not read.
    #[error("the shim's words cannot be read")]
    Form,
    /// The kernel refused.
    #[error("the shim's socket failed")]
    Io(#[from] io::Error),
}

impl From<WireError> for LinkError {
    fn from(_: WireError) -> Self {
        Self::Form
    }
}

/// A seqpacket socket; tokio has the same readiness for it as for a stream.
#[derive(Debug)]
pub struct Link(UnixStream);

impl Link {
    /// Connects and calls. Does not wait for the shim: the kernel queues both.
    pub fn dial(path: &Path, call: &Call, program: Option<&Program>) -> Result<Self, LinkError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(io::Error::from)?;
        match shim::dial(&socket, path) {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::CONNREFUSED | Errno::NOTDIR) => return Err(LinkError::Nobody),
            Err(errno) => return Err(io::Error::from(errno).into()),
        }
        let program = program.map(sealed).transpose()?;
        match send(&socket, &call.encode(), program.as_ref()) {
            Ok(()) => Ok(Self(UnixStream::from_std(socket.into())?)),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(LinkError::Nobody),
            Err(errno) => Err(io::Error::from(errno).into()),
        }
    }

    /// The next word; `None`: it hung up. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<FromSession>, LinkError> {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        loop {
            self.0.readable().await?;
            let receive = || Ok(rustix::net::recv(self.0.as_fd(), &mut buffer, RecvFlags::empty())?);
            match self.0.try_io(Interest::READABLE, receive) {
                Ok((0, _)) => return Ok(None),
                Ok((len, _)) => return Ok(Some(FromSession::decode(&buffer[..len])?)),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
                    io::ErrorKind::ConnectionReset => return Ok(None),
                    _ => return Err(error.into()),
                },
            }
        }
    }

    /// Says one word, as soon as the socket takes it.
    pub async fn say(&mut self, word: &ToSession) -> Result<(), LinkError> {
        let packet = word.encode();
        let sent = async {
            loop {
                self.0.writable().await?;
                match self.0.try_io(Interest::WRITABLE, || Ok(send(&self.0, &packet, None)?)) {
                    Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                    Err(error)
                        if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
                    {
                        return Err(LinkError::Closed);
                    }
                    outcome => return Ok(outcome?),
                }
            }
        };
        tokio::time::timeout(SENT_WITHIN, sent).await.unwrap_or(Err(LinkError::Silent))
    }
}

fn send(socket: impl AsFd, packet: &[u8], memfd: Option<&OwnedFd>) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<_> = memfd.iter().map(|fd| fd.as_fd()).collect();
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::TOOBIG);
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::sendmsg(socket, &[IoSlice::new(packet)], &mut ancillary, flags).map(drop)
}

/// In a memfd: a packet is too small for a long command.
fn sealed(program: &Program) -> Result<OwnedFd, LinkError> {
    let make = || -> Result<OwnedFd, Errno> {
        let memfd = rustix::fs::memfd_create("program", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let bytes = program.encode();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            rest = &rest[rustix::io::write(&memfd, rest)?..];
        }
        let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&memfd, seals)?;
        Ok(memfd)
    };
    make().map_err(|errno| LinkError::Io(errno.into()))
}
