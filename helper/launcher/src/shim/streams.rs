//! The standard descriptors of a program, and the ends of them that are kept here.

use crate::halt::{Halt, Step};
use crate::terminal;
use holdfast_launcher::session::Size;
use rustix::fs::OFlags;
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
