//! Between helper and launcher, over the seqpacket socket that the launcher dials (`launch.sock`):
//! one message a packet. The helper asks, the launcher answers; several launches may be under way,
//! told apart by `seq`. Also the one word between launcher and shim ([`ShimWord`]).
//!
//! ```text
//! launcher -> helper   Dial                          once, first
//! helper -> launcher   Prepare{seq,…} + [orders memfd]
//! launcher -> helper   Prepared{seq} + [netns, pidfd]   the shim is there, paused  | Failed{seq}
//! helper -> launcher   Release{seq, wiring}          wired: let it go
//! launcher -> helper   Released{seq}                 the shim has it               | Failed{seq}
//! helper -> launcher   Abort{seq}                    at any time before Released: kill it
//! launcher -> helper   Failed{seq}                   it is gone
//! ```

use crate::codec::{Reader, WireError, Writer};
use std::net::IpAddr;

/// Version of these forms.
pub const VERSION: u8 = 1;

/// Most bytes of one packet in either direction (orders travel in a memfd, not in the packet).
pub const PACKET_BYTES_MAX: usize = 4096;

/// The step ([`Failure::step`]) by which a worker of the host's network loses sight of the host's abstract sockets.
pub const CLOSE_ABSTRACT: &str = "landlock: abstract sockets";

/// The step by which the shim opens what makes tap devices.
pub const TUN: &str = "/dev/net/tun";

/// From the launcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromLauncher {
    /// First word after dialling.
    Dial {
        /// The launcher's version.
        version: String,
    },
    /// The shim is made and paused; with the descriptors of its network namespace and a pidfd, in this order.
    Prepared {
        /// Of the request.
        seq: u64,
        /// The shim's pid, for people; nothing is ever signalled by it.
        shim_pid: u32,
    },
    /// The shim has its wiring and goes on by itself.
    Released {
        /// Of the request.
        seq: u64,
    },
    /// The launch is over and nothing of it is left in the launcher.
    Failed {
        /// Of the request.
        seq: u64,
        /// What could not be done.
        failure: Failure,
    },
}

/// From the helper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromHelper {
    /// Make a paused shim; the orders come as a sealed memfd with it.
    Prepare {
        /// The helper's number for this launch; never used twice on one connection.
        seq: u64,
        /// Of the daemon that asked; lower ones than the highest seen are refused.
        epoch: u64,
        /// Worker id, 16 hex digits: names its cgroup `w-<id>`.
        worker: String,
        /// Which start.
        generation: u64,
        /// No network namespace of its own: it shares the launcher's, which is the host's.
        host_network: bool,
    },
    /// Let it go.
    Release {
        /// Of the request.
        seq: u64,
        /// What the shim sets up inside.
        wiring: Wiring,
    },
    /// Kill it.
    Abort {
        /// Of the request.
        seq: u64,
    },
}

/// What the shim configures in its own network namespace. Empty for network `none`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wiring {
    /// The link's name inside (`eth0`); empty: loopback alone.
    pub link: String,
    /// Address and prefix length.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Default routes.
    pub gateways: Vec<IpAddr>,
    /// IPv6 is switched off on the link: nothing of it is the helper's to watch, and an address that a router of the
    /// network gives would be nobody's decision.
    pub no_ipv6: bool,
}

/// A step that failed and the kernel's errno for it (0: none).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Short and stable, as `clone3`, `uid_map`, `mount /proc`: for messages and tests.
    pub step: String,
    /// As errno(3).
    pub errno: i32,
}

/// Launcher to shim and back, over a seqpacket pair that ends with the launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShimWord {
    /// shim -> launcher: its cage stands, its socket listens; it waits.
    Ready,
    /// shim -> launcher: its cage cannot be had; it ends.
    Failed(Failure),
    /// launcher -> shim: wire and run.
    Go(Wiring),
}

impl FromLauncher {
    /// The wire form.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(VERSION);
        match self {
            Self::Dial { version } => w.u8(1).bytes(version.as_bytes()),
            Self::Prepared { seq, shim_pid } => w.u8(2).u64(*seq).u32(*shim_pid),
            Self::Released { seq } => w.u8(3).u64(*seq),
            Self::Failed { seq, failure } => failure.write(w.u8(4).u64(*seq)),
        };
        w.finish()
    }

    /// Reads the wire form.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes, VERSION)?;
        let word = match r.u8()? {
            1 => Self::Dial { version: r.text("version")?.to_owned() },
            2 => Self::Prepared { seq: r.u64()?, shim_pid: r.u32()? },
            3 => Self::Released { seq: r.u64()? },
            4 => Self::Failed { seq: r.u64()?, failure: Failure::read(&mut r)? },
            _ => return Err(WireError::Value("kind")),
        };
        r.end()?;
        Ok(word)
    }
}

impl FromHelper {
    /// The wire form.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(VERSION);
        match self {
            Self::Prepare { seq, epoch, worker, generation, host_network } => {
                w.u8(1).u64(*seq).u64(*epoch).bytes(worker.as_bytes()).u64(*generation).u8((*host_network).into())
            }
            Self::Release { seq, wiring } => wiring.write(w.u8(2).u64(*seq)),
            Self::Abort { seq } => w.u8(3).u64(*seq),
        };
        w.finish()
    }

    /// Reads the wire form. The worker id is checked by the launcher, which makes a path of it.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes, VERSION)?;
        let word = match r.u8()? {
            1 => Self::Prepare {
                seq: r.u64()?,
                epoch: r.u64()?,
                worker: r.text("worker")?.to_owned(),
                generation: r.u64()?,
                host_network: r.bool("host network")?,
            },
            2 => Self::Release { seq: r.u64()?, wiring: Wiring::read(&mut r)? },
            3 => Self::Abort { seq: r.u64()? },
            _ => return Err(WireError::Value("kind")),
        };
        r.end()?;
        Ok(word)
    }
}

impl ShimWord {
    /// The wire form.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(VERSION);
        match self {
            Self::Ready => w.u8(1),
            Self::Failed(failure) => failure.write(w.u8(2)),
            Self::Go(wiring) => wiring.write(w.u8(3)),
        };
        w.finish()
    }

    /// Reads the wire form.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes, VERSION)?;
        let word = match r.u8()? {
            1 => Self::Ready,
            2 => Self::Failed(Failure::read(&mut r)?),
            3 => Self::Go(Wiring::read(&mut r)?),
            _ => return Err(WireError::Value("kind")),
        };
        r.end()?;
        Ok(word)
    }
}

impl Failure {
    pub(crate) fn write<'w>(&self, w: &'w mut Writer) -> &'w mut Writer {
        w.bytes(self.step.as_bytes()).u32(self.errno as u32)
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self { step: r.text("step")?.to_owned(), errno: r.u32()? as i32 })
    }
}

impl Wiring {
    fn write<'w>(&self, w: &'w mut Writer) -> &'w mut Writer {
        w.bytes(self.link.as_bytes());
        w.list(&self.addresses, |w, (ip, prefix)| {
            write_ip(w, ip);
            w.u8(*prefix);
        });
        w.list(&self.gateways, write_ip).u8(self.no_ipv6.into())
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            link: r.text("link")?.to_owned(),
            addresses: r.list(|r| Ok((read_ip(r)?, r.u8()?)))?,
            gateways: r.list(read_ip)?,
            no_ipv6: r.bool("IPv6 of the link")?,
        })
    }
}

fn write_ip(w: &mut Writer, ip: &IpAddr) {
    match ip {
        IpAddr::V4(ip) => w.u8(4).raw(&ip.octets()),
        IpAddr::V6(ip) => w.u8(6).raw(&ip.octets()),
    };
}

fn read_ip(r: &mut Reader<'_>) -> Result<IpAddr, WireError> {
    match r.u8()? {
        4 => Ok(IpAddr::from(r.array::<4>()?)),
        6 => Ok(IpAddr::from(r.array::<16>()?)),
        _ => Err(WireError::Value("address family")),
    }
}
