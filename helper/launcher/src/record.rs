//! The exit record: what a shim leaves when its worker ends, one file a generation,
//! `<state_dir>/exit.<generation>`, written under another name and renamed with RENAME_NOREPLACE
//! (renameat2(2)): it is there whole or not at all, and once.

use crate::codec::{Reader, WireError, Writer};
use crate::launch::Failure;

/// Version of this form.
pub const VERSION: u8 = 1;

/// How one generation of a worker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitRecord {
    /// From the orders.
    pub worker: String,
    /// From the orders.
    pub generation: u64,
    /// From the orders: a record with another nonce is not of this launch.
    pub nonce: [u8; 16],
    /// When the first process was forked, ns since the Unix epoch; 0: never.
    pub started_at_ns: i64,
    /// When it was reaped, ns since the Unix epoch.
    pub finished_at_ns: i64,
    /// Code, signal, or why it never ran.
    pub outcome: Outcome,
    /// User and system CPU time of all its processes that were waited for, in microseconds (getrusage(2)).
    pub user_us: u64,
    /// See `user_us`.
    pub system_us: u64,
    /// Largest resident set of one of them, KiB.
    pub max_rss_kib: u64,
    /// A process of its cgroup was killed for lack of memory (memory.events; false where there is no controller).
    pub oom: bool,
    /// Bytes of output that were written or dropped, over all generations that share the log.
    pub log_bytes: u64,
    /// Bytes of these that are not kept: over the cap, or while the disk was full.
    pub log_dropped_bytes: u64,
}

/// See [`ExitRecord::outcome`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It ended by itself with this code.
    Code(u8),
    /// This signal ended it.
    Signal(u8),
    /// It was never executed.
    NotStarted {
        /// 125 the cage, 126 found but not executable, 127 not found: program or working directory.
        code: u8,
        /// The step, and the kernel's errno for it.
        failure: Failure,
    },
}

impl ExitRecord {
    /// The file's name in the worker's state directory.
    pub fn file_name(generation: u64) -> String {
        format!("exit.{generation}")
    }

    /// The wire form, also the file's content.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(VERSION);
        w.bytes(self.worker.as_bytes()).u64(self.generation).raw(&self.nonce);
        w.i64(self.started_at_ns).i64(self.finished_at_ns);
        match &self.outcome {
            Outcome::Code(code) => w.u8(1).u8(*code),
            Outcome::Signal(signal) => w.u8(2).u8(*signal),
            Outcome::NotStarted { code, failure } => failure.write(w.u8(3).u8(*code)),
        };
        w.u64(self.user_us).u64(self.system_us).u64(self.max_rss_kib).u8(self.oom.into());
        w.u64(self.log_bytes).u64(self.log_dropped_bytes);
        w.finish()
    }

    /// Reads the wire form.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes, VERSION)?;
        let record = Self {
            worker: r.text("worker")?.to_owned(),
            generation: r.u64()?,
            nonce: r.array()?,
            started_at_ns: r.i64()?,
            finished_at_ns: r.i64()?,
            outcome: match r.u8()? {
                1 => Outcome::Code(r.u8()?),
                2 => Outcome::Signal(r.u8()?),
                3 => Outcome::NotStarted { code: r.u8()?, failure: Failure::read(&mut r)? },
                _ => return Err(WireError::Value("outcome")),
            },
            user_us: r.u64()?,
            system_us: r.u64()?,
            max_rss_kib: r.u64()?,
            oom: r.bool("oom")?,
            log_bytes: r.u64()?,
            log_dropped_bytes: r.u64()?,
        };
        r.end()?;
        Ok(record)
    }
}
