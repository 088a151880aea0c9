//! Between daemon and shim, over the shim's own seqpacket socket (`<workers_run>/<id>.sock`).
//!
//! The daemon connects, says [`Hello`] with the nonce, and is told the worker's state now and at each
//! change, last the end. A wrong nonce, a peer of another uid or from inside a worker: closed without a word.
//! A connection may come at any time after the shim is [`crate::launch::ShimWord::Ready`], and again and again.

use crate::codec::{Reader, WireError, Writer};
use crate::launch::Failure;
use crate::record::ExitRecord;

/// Version of these forms.
pub const VERSION: u8 = 1;

/// Most bytes of one packet.
pub const PACKET_BYTES_MAX: usize = 4096;

/// daemon -> shim, first word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// From the orders.
    pub nonce: [u8; 16],
}

/// daemon -> shim, at any time after [`Hello`], on the same connection. What comes of it is reported to all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Freeze the worker's cgroup; the shim goes on. Already frozen is as good.
    Freeze {
        /// Which start.
        generation: u64,
    },
    /// Thaw it. Already thawed is as good.
    Thaw {
        /// Which start.
        generation: u64,
    },
}

/// shim -> daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The cage stands; the program is not executed yet.
    Preparing {
        /// Which start.
        generation: u64,
        /// The shim's version.
        version: String,
    },
    /// The program has been executed. Comes with a pidfd of the worker's first process; its host pid is
    /// the `Pid:` line of that descriptor's fdinfo (pidfd_open(2)), -1 once it was reaped.
    Running {
        /// Which start.
        generation: u64,
        /// The shim's version.
        version: String,
        /// When the first process was forked, ns since the Unix epoch.
        started_at_ns: i64,
        /// Its cgroup is frozen.
        frozen: bool,
    },
    /// Every process of the worker is frozen.
    Frozen {
        /// Which start.
        generation: u64,
    },
    /// None is.
    Thawed {
        /// Which start.
        generation: u64,
    },
    /// It could not be frozen, and runs on.
    NotFrozen {
        /// Which start.
        generation: u64,
        /// What could not be done.
        failure: Failure,
    },
    /// It could not be thawed.
    NotThawed {
        /// Which start.
        generation: u64,
        /// What could not be done.
        failure: Failure,
    },
    /// The worker ended (or could not be executed) and the record is on disk. The last word.
    Ended(ExitRecord),
}

impl Hello {
    /// The wire form.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(VERSION);
        w.u8(1).raw(&self.nonce);
        w.finish()
    }

    /// Reads the wire form.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes, VERSION)?;
        if r.u8()? != 1 {
            return Err(WireError::Value("kind"));
        }
        let hello = Self { nonce: r.array()? };
        r.end()?;
        Ok(hello)
    }
}

impl Order {
    /// The wire form.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(VERSION);
        match self {
            Self::Freeze { generation } => w.u8(2).u64(*generation),
            Self::Thaw { generation } => w.u8(3).u64(*generation),
        };
        w.finish()
    }

    /// Reads the wire form.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes, VERSION)?;
        let order = match r.u8()? {
            2 => Self::Freeze { generation: r.u64()? },
            3 => Self::Thaw { generation: r.u64()? },
            _ => return Err(WireError::Value("kind")),
        };
        r.end()?;
        Ok(order)
    }
}

impl Report {
    /// The wire form.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(VERSION);
        match self {
            Self::Preparing { generation, version } => w.u8(1).u64(*generation).bytes(version.as_bytes()),
            Self::Running { generation, version, started_at_ns, frozen } => {
                w.u8(2).u64(*generation).bytes(version.as_bytes()).i64(*started_at_ns).u8((*frozen).into())
            }
            Self::Frozen { generation } => w.u8(4).u64(*generation),
            Self::Thawed { generation } => w.u8(5).u64(*generation),
            Self::NotFrozen { generation, failure } => failure.write(w.u8(6).u64(*generation)),
            Self::NotThawed { generation, failure } => failure.write(w.u8(7).u64(*generation)),
            Self::Ended(record) => w.u8(3).bytes(&record.encode()),
        };
        w.finish()
    }

    /// Reads the wire form.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes, VERSION)?;
        let report = match r.u8()? {
            1 => Self::Preparing { generation: r.u64()?, version: r.text("version")?.to_owned() },
            2 => Self::Running {
                generation: r.u64()?,
                version: r.text("version")?.to_owned(),
                started_at_ns: r.i64()?,
                frozen: r.bool("frozen")?,
            },
            4 => Self::Frozen { generation: r.u64()? },
            5 => Self::Thawed { generation: r.u64()? },
            6 => Self::NotFrozen { generation: r.u64()?, failure: Failure::read(&mut r)? },
            7 => Self::NotThawed { generation: r.u64()?, failure: Failure::read(&mut r)? },
            3 => Self::Ended(ExitRecord::decode(r.bytes()?)?),
            _ => return Err(WireError::Value("kind")),
        };
        r.end()?;
        Ok(report)
    }
}
