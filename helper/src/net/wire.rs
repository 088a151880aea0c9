//! Netlink messages and sockets: framing, acknowledgements, dumps, all-or-nothing batches (netlink(7)).
//!
//! `netlink-bindings` encodes the attributes; sending is ours, since its own socket reports success for
//! refused batches of certain lengths.

use netlink_bindings::utils::align;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, sockopt};
use std::io;
use std::time::Duration;

/// Longest wait for one answer of the kernel, which answers within the call; more means a lost answer.
const ANSWER_SECS_MAX: u64 = 5;
/// One received datagram; the kernel never sends larger ones to a reader of this size.
const DATAGRAM_BYTES_MAX: usize = 64 * 1024;
/// Room for one transaction: a restored table with thousands of elements.
const SEND_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Room for notifications and dumps.
const RECEIVE_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes that one dump may bring; a host with more than this is not ours to serve.
const DUMP_BYTES_MAX: usize = 256 * 1024 * 1024;
const HEADER_BYTES: usize = 16;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;

/// `NLM_F_REQUEST`.
pub const REQUEST: u16 = 1;
/// `NLM_F_ACK`.
pub const ACK: u16 = 4;
/// `NLM_F_ROOT | NLM_F_MATCH`.
pub const DUMP: u16 = 0x300;
/// `NLM_F_EXCL`.
pub const EXCL: u16 = 0x200;
/// `NLM_F_CREATE`.
pub const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`.
pub const APPEND: u16 = 0x800;
const DUMP_INTERRUPTED: u16 = 0x10;

/// Why netlink did not do it.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The socket itself.
    #[error("netlink socket: {0}")]
    Socket(#[from] io::Error),
    /// The kernel's answer to one message; `index` counts from 0 within what was sent together.
    #[error("netlink message {index}: {errno}")]
    Refused {
        /// Which message.
        index: usize,
        /// The kernel's reason.
        errno: Errno,
    },
    /// The kernel said something that cannot be read.
    #[error("netlink answer cannot be read: {0}")]
    Garbled(&'static str),
    /// No answer in time.
    #[error("netlink gave no answer within {ANSWER_SECS_MAX} s")]
    Deadline,
}

impl From<Errno> for WireError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::AGAIN => Self::Deadline,
            errno => Self::Socket(errno.into()),
        }
    }
}

impl WireError {
    /// The kernel's refusal, if it is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Socket(_) | Self::Garbled(_) | Self::Deadline => None,
        }
    }
}

/// Messages that go out together, in order.
#[derive(Debug, Default)]
pub struct Messages {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl Messages {
    /// Adds one message; `body` writes its fixed header and attributes.
    pub fn push(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.starts.push(start);
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | REQUEST).to_ne_bytes());
        self.bytes.extend([0; 8]);
        body(&mut self.bytes);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        align(&mut self.bytes);
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    fn number(&mut self, first: u32) {
        for (index, start) in self.starts.iter().enumerate() {
            let seq = first.wrapping_add(index as u32);
            self.bytes[start + 8..start + 12].copy_from_slice(&seq.to_ne_bytes());
        }
    }
}

/// One message as received.
#[derive(Debug)]
pub struct Received<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`.
    pub seq: u32,
    /// After the netlink header.
    pub body: &'a [u8],
}

/// Cuts a datagram into its messages; a lying length ends it.
pub fn received(datagram: &[u8]) -> impl Iterator<Item = Received<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
        if length < HEADER_BYTES || length > rest.len() {
            return None;
        }
        let (message, after) = rest.split_at(length);
        rest = after.get((length.next_multiple_of(4) - length).min(after.len())..).unwrap_or_default();
        let field = |at: usize| [message[at], message[at + 1]];
        Some(Received {
            kind: u16::from_ne_bytes(field(4)),
            flags: u16::from_ne_bytes(field(6)),
            seq: u32::from_ne_bytes([message[8], message[9], message[10], message[11]]),
            body: &message[HEADER_BYTES..],
        })
    })
}

impl Received<'_> {
    /// For `NLMSG_ERROR`: `Ok` is an acknowledgement.
    fn outcome(&self) -> Result<(), Errno> {
        let code = self.body.first_chunk().map_or(-Errno::PROTO.raw_os_error(), |b| i32::from_ne_bytes(*b));
        if code == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(code.wrapping_neg())) }
    }
}

/// A netlink socket for requests. Blocking, with a deadline on each answer.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
    next_seq: u32,
    buffer: Vec<u8>,
}

/// Opens a netlink socket of one protocol, bound, listening to `groups` (a bit mask, `1 << (group - 1)`).
pub fn open(protocol: i32, groups: u32, flags: SocketFlags) -> Result<OwnedFd, WireError> {
    let protocol = u32::try_from(protocol).ok().and_then(rustix::net::RawProtocol::new);
    let flags = flags | SocketFlags::CLOEXEC;
    let kind = SocketType::RAW;
    let protocol = protocol.map(rustix::net::Protocol::from_raw);
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, kind, flags, protocol)?;
    rustix::net::bind(&socket, &netlink::SocketAddrNetlink::new(0, groups))?;
    // Without the capability (a test, an ordinary user's session) the usual limits have to do.
    let _ = sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BYTES_MAX);
    let _ = sockopt::set_socket_send_buffer_size_force(&socket, SEND_BYTES_MAX);
    let wait = Some(Duration::from_secs(ANSWER_SECS_MAX));
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, wait)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, wait)?;
    Ok(socket)
}

impl Wire {
    /// Opens one for `protocol` (`NETLINK_ROUTE`, `NETLINK_NETFILTER`, …).
    pub fn open(protocol: i32) -> Result<Self, WireError> {
        let socket = open(protocol, 0, SocketFlags::empty())?;
        Ok(Self { socket, next_seq: 1, buffer: vec![0; DATAGRAM_BYTES_MAX] })
    }

    /// Sends messages that each carry [`ACK`]; done when all are acknowledged. The kernel goes on after
    /// one that it refuses, so the caller undoes; the first refusal is what is returned.
    pub fn acknowledged(&mut self, messages: Messages) -> Result<(), WireError> {
        self.acknowledged_with(messages, |_| {})
    }

    /// The same; bodies of what was asked for among them go to `each`.
    pub fn acknowledged_with(&mut self, mut messages: Messages, mut each: impl FnMut(&[u8])) -> Result<(), WireError> {
        let (first, count) = self.send(&mut messages)?;
        let mut refused = None;
        let mut left = count;
        while left > 0 {
            let length = self.receive()?;
            for message in received(&self.buffer[..length]) {
                let index = message.seq.wrapping_sub(first) as usize;
                if index >= count {
                    continue;
                }
                if message.kind != NLMSG_ERROR {
                    each(message.body);
                    continue;
                }
                left -= 1;
                if let Err(errno) = message.outcome() {
                    refused.get_or_insert(WireError::Refused { index, errno });
                }
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Sends one request and hands each message of its answer to `each`. With [`DUMP`] until the end of it.
    pub fn ask(&mut self, mut request: Messages, mut each: impl FnMut(u16, &[u8])) -> Result<(), WireError> {
        let (seq, _) = self.send(&mut request)?;
        let mut total = 0;
        let mut interrupted = false;
        loop {
            let length = self.receive()?;
            total += length;
            if total > DUMP_BYTES_MAX {
                return Err(WireError::Garbled("a dump without end"));
            }
            for message in received(&self.buffer[..length]).filter(|m| m.seq == seq) {
                interrupted |= message.flags & DUMP_INTERRUPTED != 0;
                match message.kind {
                    NLMSG_DONE if interrupted => return Err(WireError::Refused { index: 0, errno: Errno::INTR }),
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        return message.outcome().map_err(|errno| WireError::Refused { index: 0, errno });
                    }
                    NLMSG_OVERRUN => return Err(WireError::Garbled("overrun")),
                    kind => each(kind, message.body),
                }
            }
        }
    }

    /// Sends messages as they are, then `barrier`, whose answer shows that all of them have been looked at:
    /// kernels differ in what they acknowledge of a transaction, but none answers the barrier early.
    pub fn transact(&mut self, mut batch: Messages, barrier: Messages) -> Result<(), WireError> {
        let (first, count) = self.send(&mut batch)?;
        let mut barrier = barrier;
        let (last, _) = self.send(&mut barrier)?;
        let mut refused = None;
        loop {
            let length = self.receive()?;
            for message in received(&self.buffer[..length]) {
                if message.seq == last {
                    return refused.map_or(Ok(()), Err);
                }
                let index = message.seq.wrapping_sub(first) as usize;
                if message.kind == NLMSG_ERROR
                    && index < count
                    && let Err(errno) = message.outcome()
                {
                    refused.get_or_insert(WireError::Refused { index, errno });
                }
            }
        }
    }

    fn send(&mut self, messages: &mut Messages) -> Result<(u32, usize), WireError> {
        let first = self.next_seq;
        self.next_seq = first.wrapping_add(messages.len() as u32).max(1);
        messages.number(first);
        rustix::net::send(&self.socket, &messages.bytes, SendFlags::empty())?;
        Ok((first, messages.len()))
    }

    fn receive(&mut self) -> Result<usize, WireError> {
        loop {
            match rustix::net::recv(&self.socket, &mut self.buffer[..], RecvFlags::TRUNC) {
                Ok((_, length)) if length > self.buffer.len() => return Err(WireError::Garbled("truncated")),
                Ok((length, _)) => return Ok(length),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_where_they_say_and_no_further() {
        let mut messages = Messages::default();
        messages.push(20, ACK, |b| b.extend([1, 2, 3]));
        messages.push(21, 0, |b| b.extend([9; 4]));
        messages.number(7);
        let cut: Vec<_> = received(&messages.bytes).map(|m| (m.kind, m.seq, m.body.to_vec())).collect();
        assert_eq!(cut, [(20, 7, vec![1, 2, 3]), (21, 8, vec![9; 4])]);
        for length in 0..messages.bytes.len() {
            let _ = received(&messages.bytes[..length]).count();
        }
        assert_eq!(received(&[255; 40]).count(), 0);
        assert_eq!(received(&[0; 40]).count(), 0);
    }
}
