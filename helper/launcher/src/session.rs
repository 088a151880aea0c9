//! Between daemon and shim: one program beside a worker's own (`exec`), or the worker's own input, over a connection of
//! its own to the shim's control socket.
//!
//! ```text
//! daemon -> shim   Call::Open + [program memfd]   first: starts a program | Call::Resume: goes on with one
//! shim -> daemon   Opened{input}                  how much input has arrived | Refused
//! daemon -> shim   Input, InputEnd, Resize, Signal, Taken, Hangup
//! shim -> daemon   Output, InputTaken, Ended      Ended is the last word
//! ```
//!
//! Output and input are counted in bytes from the session's first, so that a daemon that comes after another goes on
//! where that one broke off: the shim keeps output until it is `Taken`, the sender keeps input until `InputTaken`. At
//! most [`WINDOW_BYTES`] are under way in each direction; a program that writes more waits, as for any reader.

use crate::codec::{Reader, WireError, Writer};
use crate::launch::Failure;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Version of these forms.
pub const VERSION: u8 = 1;

/// Most bytes of input or output in one packet.
pub const DATA_BYTES_MAX: usize = 16 * 1024;

/// Most bytes of one packet in either direction.
pub const PACKET_BYTES_MAX: usize = DATA_BYTES_MAX + 64;

/// Most bytes of output that are not taken, and of input that the program has not read.
pub const WINDOW_BYTES: usize = 64 * 1024;

/// Most bytes of an encoded [`Program`].
pub const PROGRAM_BYTES_MAX: usize = 1024 * 1024;

/// Most sessions of one worker at a time.
pub const SESSIONS_MAX: usize = 16;

/// The session that is the worker's own input.
pub const OWN: u64 = 0;

/// First words; other numbers than those of [`crate::control`], which share the socket.
const OPEN: u8 = 16;
const RESUME: u8 = 17;

/// Characters of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
}

/// The first packet of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Start a program; its [`Program`] comes in a memfd with this packet.
    Open {
        /// From the worker's orders.
        nonce: [u8; 16],
        /// Chosen by whoever asks, at random; not [`OWN`].
        session: u64,
        /// A terminal of this size; else three pipes.
        terminal: Option<Size>,
        /// Input will come; else it reads `/dev/null`.
        input: bool,
    },
    /// Go on with a session; a connection that it had is cut.
    Resume {
        /// From the worker's orders.
        nonce: [u8; 16],
        /// Which one.
        session: u64,
        /// Bytes of output that arrived and need not be sent again.
        taken: u64,
    },
}

/// What a session executes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Program and arguments; at least one. A first word without '/' is looked up on the `PATH` of `env`.
    pub argv: Vec<OsString>,
    /// The complete environment, KEY=VALUE each.
    pub env: Vec<OsString>,
    /// Absolute, inside the worker.
    pub workdir: PathBuf,
}

/// daemon -> shim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToSession {
    /// Bytes for the program. What arrived before is skipped.
    Input {
        /// Of the first of them.
        offset: u64,
        /// At most [`DATA_BYTES_MAX`].
        bytes: Vec<u8>,
    },
    /// There is no more input after so many bytes.
    InputEnd {
        /// Bytes in all.
        offset: u64,
    },
    /// The terminal's size changed.
    Resize(Size),
    /// A signal for the program's process group (1 to 31).
    Signal(u8),
    /// So many bytes of output arrived at their reader.
    Taken {
        /// Bytes in all.
        offset: u64,
    },
    /// Nobody wants it any more: the program is told so by SIGHUP; one that ended is forgotten.
    Hangup,
}

/// shim -> daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromSession {
    /// The first word of a session that is there.
    Opened {
        /// Bytes of input that arrived; the next ones go on from here.
        input: u64,
    },
    /// The only word of one that is not.
    Refused(Refusal),
    /// Bytes from the program.
    Output {
        /// From its standard error.
        is_stderr: bool,
        /// Of the first of them, counted over both streams.
        offset: u64,
        /// At most [`DATA_BYTES_MAX`].
        bytes: Vec<u8>,
    },
    /// So many bytes of input went to the program (or found nobody who reads them).
    InputTaken {
        /// Bytes in all.
        offset: u64,
    },
    /// It ended, and all of its output was sent.
    Ended(End),
}

/// Why there is no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// [`SESSIONS_MAX`] are open.
    Full,
    /// None of this number is known (any more).
    Unknown,
    /// The number is in use.
    Taken,
    /// The worker's program is not executed yet, or has ended.
    NotRunning,
    /// The call itself cannot be right.
    Invalid,
}

/// How a session's program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// By itself, with this code.
    Code(u8),
    /// By this signal.
    Signal(u8),
    /// Never executed.
    NotStarted {
        /// 125, 126 or 127.
        code: u8,
        /// The step and the kernel's answer.
        failure: Failure,
    },
}

impl Call {
    /// Whether these bytes begin as a call does; other first words are of [`crate::control`].
    pub fn is_one(packet: &[u8]) -> bool {
        matches!(packet, [_, OPEN | RESUME, ..])
    }

    /// From the worker's orders.
    pub fn nonce(&self) -> &[u8; 16] {
        match self {
            Self::Open { nonce, .. } | Self::Resume { nonce, .. } => nonce,
        }
    }

    /// The wire form.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(VERSION);
        match self {
            Self::Open { nonce, session, terminal, input } => {
                w.u8(OPEN).raw(nonce).u64(*session).u8((*input).into()).u8(terminal.is_some().into());
                if let Some(size) = terminal {
                    size.write(&mut w);
                }
            }
            Self::Resume { nonce, session, taken } => {
                w.u8(RESUME).raw(nonce).u64(*session).u64(*taken);
            }
        }
        w.finish()
    }

    /// Reads the wire form.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes, VERSION)?;
        let call = match r.u8()? {
            OPEN => {
                let (nonce, session, input) = (r.array()?, r.u64()?, r.bool("input")?);
                let terminal = if r.bool("terminal")? { Some(Size::read(&mut r)?) } else { None };
                Self::Open { nonce, session, terminal, input }
            }
            RESUME => Self::Resume { nonce: r.array()?, session: r.u64()?, taken: r.u64()? },
            _ => return Err(WireError::Value("kind")),
        };
        r.end()?;
        Ok(call)
    }
}

impl Program {
    /// The wire form.
    pub fn encode(&self) -> Vec<u8> {
        let word = |w: &mut Writer, s: &OsString| {
            w.bytes(s.as_bytes());
        };
        let mut w = Writer::new(VERSION);
        w.list(&self.argv, word).list(&self.env, word).bytes(self.workdir.as_os_str().as_bytes());
        w.finish()
    }

    /// Reads the wire form. Words that hold a NUL, a relative directory and an empty command are refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let word = |r: &mut Reader<'_>, field| match r.bytes()? {
            bytes if bytes.contains(&0) => Err(WireError::Value(field)),
            bytes => Ok(OsString::from_vec(bytes.to_vec())),
        };
        let mut r = Reader::new(bytes, VERSION)?;
        let program = Self {
            argv: r.list(|r| word(r, "argument"))?,
            env: r.list(|r| word(r, "variable"))?,
            workdir: PathBuf::from(word(&mut r, "workdir")?),
        };
        r.end()?;
        match (program.argv.is_empty(), program.workdir.is_absolute()) {
            (true, _) => Err(WireError::Value("command")),
            (false, false) => Err(WireError::Value("workdir")),
            (false, true) => Ok(program),
        }
    }
}

impl ToSession {
    /// The wire form.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(VERSION);
        match self {
            Self::Input { offset, bytes } => w.u8(1).u64(*offset).bytes(bytes),
            Self::InputEnd { offset } => w.u8(2).u64(*offset),
            Self::Resize(size) => size.write(w.u8(3)),
            Self::Signal(signal) => w.u8(4).u8(*signal),
            Self::Taken { offset } => w.u8(5).u64(*offset),
            Self::Hangup => w.u8(6),
        };
        w.finish()
    }

    /// Reads the wire form.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes, VERSION)?;
        let word = match r.u8()? {
            1 => Self::Input { offset: r.u64()?, bytes: data(&mut r)? },
            2 => Self::InputEnd { offset: r.u64()? },
            3 => Self::Resize(Size::read(&mut r)?),
            4 => match r.u8()? {
                signal @ 1..=31 => Self::Signal(signal),
                _ => return Err(WireError::Value("signal")),
            },
            5 => Self::Taken { offset: r.u64()? },
            6 => Self::Hangup,
            _ => return Err(WireError::Value("kind")),
        };
        r.end()?;
        Ok(word)
    }
}

impl FromSession {
    /// The wire form.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(VERSION);
        match self {
            Self::Opened { input } => w.u8(1).u64(*input),
            Self::Refused(refusal) => w.u8(2).u8(refusal.number()),
            Self::Output { is_stderr, offset, bytes } => w.u8(3).u8((*is_stderr).into()).u64(*offset).bytes(bytes),
            Self::InputTaken { offset } => w.u8(4).u64(*offset),
            Self::Ended(End::Code(code)) => w.u8(5).u8(*code),
            Self::Ended(End::Signal(signal)) => w.u8(6).u8(*signal),
            Self::Ended(End::NotStarted { code, failure }) => failure.write(w.u8(7).u8(*code)),
        };
        w.finish()
    }

    /// Reads the wire form.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes, VERSION)?;
        let word = match r.u8()? {
            1 => Self::Opened { input: r.u64()? },
            2 => Self::Refused(Refusal::of(r.u8()?)?),
            3 => Self::Output { is_stderr: r.bool("stream")?, offset: r.u64()?, bytes: data(&mut r)? },
            4 => Self::InputTaken { offset: r.u64()? },
            5 => Self::Ended(End::Code(r.u8()?)),
            6 => Self::Ended(End::Signal(r.u8()?)),
            7 => Self::Ended(End::NotStarted { code: r.u8()?, failure: Failure::read(&mut r)? }),
            _ => return Err(WireError::Value("kind")),
        };
        r.end()?;
        Ok(word)
    }
}

impl Refusal {
    const ALL: [Self; 5] = [Self::Full, Self::Unknown, Self::Taken, Self::NotRunning, Self::Invalid];

    fn number(self) -> u8 {
        self as u8 + 1
    }

    fn of(number: u8) -> Result<Self, WireError> {
        Self::ALL.into_iter().find(|refusal| refusal.number() == number).ok_or(WireError::Value("refusal"))
    }
}

impl Size {
    pub(crate) fn write<'w>(&self, w: &'w mut Writer) -> &'w mut Writer {
        w.raw(&self.rows.to_le_bytes()).raw(&self.columns.to_le_bytes())
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self { rows: u16::from_le_bytes(r.array()?), columns: u16::from_le_bytes(r.array()?) })
    }
}

fn data(r: &mut Reader<'_>) -> Result<Vec<u8>, WireError> {
    match r.bytes()? {
        bytes if bytes.len() > DATA_BYTES_MAX => Err(WireError::Value("length")),
        bytes => Ok(bytes.to_vec()),
    }
}
