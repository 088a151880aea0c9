//! Why a worker is not executed: the step, the kernel's errno, the code that its record gets.

use holdfast_launcher::launch::Failure;
use rustix::io::Errno;
use std::fmt::Display;

/// The cage could not be had (contract, "Verbs": 125).
pub const CAGE: u8 = 125;
/// Found, but not to be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// Program, working directory or volume source not found.
pub const NOT_FOUND: u8 = 127;

/// Longest step text that goes into a record and a packet, in bytes.
const STEP_BYTES_MAX: usize = 256;

/// The worker is not executed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: errno {}", .failure.step, .failure.errno)]
pub struct Halt {
    /// 125, 126 or 127.
    pub code: u8,
    /// The step and the kernel's answer.
    pub failure: Failure,
}

impl Halt {
    /// At `step`, with the kernel's `errno`.
    pub fn new(code: u8, step: impl Display, errno: Errno) -> Self {
        let mut step = step.to_string();
        while step.len() > STEP_BYTES_MAX {
            step.pop();
        }
        Self { code, failure: Failure { step, errno: errno.raw_os_error() } }
    }
}

/// What the wrappers of system calls return as errors here.
pub trait ErrnoOf {
    /// As errno(3); 0 where it was not the kernel's.
    fn errno(&self) -> Errno;
}

impl ErrnoOf for Errno {
    fn errno(&self) -> Errno {
        *self
    }
}

impl ErrnoOf for std::io::Error {
    fn errno(&self) -> Errno {
        Errno::from_raw_os_error(self.raw_os_error().unwrap_or(Errno::IO.raw_os_error()))
    }
}

impl ErrnoOf for nix::Error {
    fn errno(&self) -> Errno {
        Errno::from_raw_os_error(*self as i32)
    }
}

/// Names the step that a result is of.
pub trait Step<T> {
    /// A step of the cage: code 125.
    fn step(self, step: impl Display) -> Result<T, Halt>;
    /// A step over something that the owner named: 127 where it is not there, else 126.
    fn named(self, step: impl Display) -> Result<T, Halt>;
}

impl<T, E: ErrnoOf> Step<T> for Result<T, E> {
    fn step(self, step: impl Display) -> Result<T, Halt> {
        self.map_err(|error| Halt::new(CAGE, step, error.errno()))
    }

    fn named(self, step: impl Display) -> Result<T, Halt> {
        self.map_err(|error| {
            let errno = error.errno();
            let missing = matches!(errno, Errno::NOENT | Errno::NOTDIR);
            Halt::new(if missing { NOT_FOUND } else { NOT_EXECUTABLE }, step, errno)
        })
    }
}
