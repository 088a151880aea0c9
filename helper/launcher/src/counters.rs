//! What a worker has used: asked of its shim over the control socket in one packet, answered in one.
//!
//! A connection whose first word is [`AskCounters`] is answered once and closed; it is no watcher. Everything here only
//! grows (but for memory and processes, which are levels), so that whoever asks twice can tell a rate; the shim keeps
//! no state for it.

use crate::codec::{Reader, WireError, Writer};
use crate::limits::Enforced;

/// Version of these forms.
pub const VERSION: u8 = 1;

/// Tells this first word from [`crate::control::Hello`].
const KIND: u8 = 0x43;

/// daemon -> shim: the counters, please.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskCounters {
    /// From the orders.
    pub nonce: [u8; 16],
}

/// Who counted the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemorySource {
    /// `memory.current` of the worker's cgroup: everything charged to it, each page once.
    Cgroup,
    /// The resident sets of its processes added up: pages that they share count several times.
    Processes,
}

/// shim -> daemon. What this host does not count is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// When they were taken, CLOCK_MONOTONIC in microseconds.
    pub at_us: u64,
    /// CPU time of all its processes, in microseconds.
    pub cpu_us: Option<u64>,
    /// Memory in bytes.
    pub memory: Option<(u64, MemorySource)>,
    /// Processes and threads.
    pub tasks: Option<u64>,
    /// Bytes that its link has received and sent, as the worker sees them.
    pub network: Option<(u64, u64)>,
    /// Bytes read from and written to block devices.
    pub block: Option<(u64, u64)>,
    /// Who enforces its limits.
    pub enforced: Enforced,
}

impl AskCounters {
    /// The wire form.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(VERSION);
        w.u8(KIND).raw(&self.nonce);
        w.finish()
    }

    /// Reads the wire form.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes, VERSION)?;
        if r.u8()? != KIND {
            return Err(WireError::Value("kind"));
        }
        let ask = Self { nonce: r.array()? };
        r.end()?;
        Ok(ask)
    }
}

impl Counters {
    /// The wire form.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(VERSION);
        w.u8(KIND).u64(self.at_us);
        one(&mut w, self.cpu_us);
        one(&mut w, self.memory.map(|(bytes, _)| bytes));
        w.u8((self.memory.map(|(_, source)| source) == Some(MemorySource::Cgroup)).into());
        one(&mut w, self.tasks);
        two(&mut w, self.network);
        two(&mut w, self.block);
        self.enforced.write(&mut w);
        w.finish()
    }

    /// Reads the wire form.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes, VERSION)?;
        if r.u8()? != KIND {
            return Err(WireError::Value("kind"));
        }
        let (at_us, cpu_us, memory) = (r.u64()?, read_one(&mut r)?, read_one(&mut r)?);
        let source = if r.bool("memory source")? { MemorySource::Cgroup } else { MemorySource::Processes };
        if memory.is_none() && source == MemorySource::Cgroup {
            return Err(WireError::Value("memory source"));
        }
        let memory = memory.map(|bytes| (bytes, source));
        let counters = Self {
            at_us,
            cpu_us,
            memory,
            tasks: read_one(&mut r)?,
            network: read_two(&mut r)?,
            block: read_two(&mut r)?,
            enforced: Enforced::read(&mut r)?,
        };
        r.end()?;
        Ok(counters)
    }
}

fn one(w: &mut Writer, value: Option<u64>) {
    w.u8(value.is_some().into());
    if let Some(value) = value {
        w.u64(value);
    }
}

fn two(w: &mut Writer, value: Option<(u64, u64)>) {
    w.u8(value.is_some().into());
    if let Some((first, second)) = value {
        w.u64(first).u64(second);
    }
}

fn read_one(r: &mut Reader<'_>) -> Result<Option<u64>, WireError> {
    Ok(if r.bool("counter")? { Some(r.u64()?) } else { None })
}

fn read_two(r: &mut Reader<'_>) -> Result<Option<(u64, u64)>, WireError> {
    Ok(if r.bool("counter")? { Some((r.u64()?, r.u64()?)) } else { None })
}
