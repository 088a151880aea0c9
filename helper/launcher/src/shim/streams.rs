//! The standard descriptors of a program, and the ends of them that are kept here.

use crate::halt::{Halt, Step};
use crate::session_flow::Incoming;
use crate::terminal;
use holdfast_launcher::session::Size;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use std::os::fd::OwnedFd;

/// Our ends, non-blocking.
pub struct Streams {
    /// Its input's writing end, or the terminal; `None`: it reads `/dev/null`.
    pub input: Option<OwnedFd>,
    /// Standard output (or the terminal), standard error.
    pub outputs: [Option<OwnedFd>; 2],
}

/// The program's: 0, 1, 2.
pub type Standard = [OwnedFd; 3];

/// A terminal of its own.
pub fn terminal(size: Size) -> Result<(Streams, Standard), Halt> {
    let (ours, theirs) = terminal::open(size)?;
    let again = |fd: &OwnedFd| fd.try_clone().step("dup the terminal");
    let streams = Streams { input: Some(again(&ours)?), outputs: [Some(ours), None] };
    let standard = [again(&theirs)?, again(&theirs)?, theirs];
    Ok((streams, standard))
}

/// Pipes; without `input` it reads `null`.
pub fn pipes(input: bool, null: &OwnedFd) -> Result<(Streams, Standard), Halt> {
    let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).step("pipe");
    let ((stdout, stdout_in), (stderr, stderr_in)) = (pipe()?, pipe()?);
    let (stdin, input) = match input {
        true => pipe().map(|(out, into)| (out, Some(into)))?,
        false => (null.try_clone().step("dup /dev/null")?, None),
    };
    for fd in [Some(&stdout), Some(&stderr), input.as_ref()].into_iter().flatten() {
        rustix::fs::fcntl_setfl(fd, OFlags::NONBLOCK).step("pipe")?;
    }
    Ok((Streams { input, outputs: [Some(stdout), Some(stderr)] }, [stdin, stdout_in, stderr_in]))
}

/// Writes what came for a program's input as far as it takes it, and closes it at its end; a terminal has none.
pub fn feed(incoming: &mut Incoming, input: &mut Option<OwnedFd>, is_terminal: bool) {
    while let Some(open) = input.as_ref().filter(|_| !incoming.pending().is_empty()) {
        match rustix::io::write(open, incoming.pending()) {
            Ok(written) => incoming.wrote(written),
            Err(Errno::AGAIN | Errno::INTR) => break,
            Err(_) => *input = None,
        }
    }
    if input.is_none() {
        incoming.discard();
    } else if incoming.is_over() && !is_terminal {
        *input = None;
    }
}
