//! The worker itself: one child without any privilege, and the program that it executes.

use crate::Cage;
use crate::confine::{Confinement, give_up_capabilities, raise_kept};
use crate::halt::{CAGE, Halt, Step};
use crate::streams::{self, Standard, Streams};
use crate::sys;
use holdfast_launcher::launch::Failure;
use holdfast_launcher::orders::{Input, Orders};
use holdfast_launcher::session::Program;
use nix::sched::CloneFlags;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use std::convert::Infallible;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Where programs are looked for when the worker's environment has no `PATH`.
const PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A worker's first process, as its parent holds it.
pub struct Born {
    /// Of the first process, in the worker's own pid namespace.
    pub pid: i32,
    /// For watchers.
    pub pidfd: OwnedFd,
    /// What it reads and writes.
    pub streams: Streams,
    /// Ends when the program has been executed; says why not otherwise ([`exec_failure`]).
    pub executed: OwnedFd,
}

/// Forks the worker's first process, which goes on to execute the program by itself.
pub fn fork(orders: &Orders, cage: &Cage, cgroup: Option<BorrowedFd<'_>>) -> Result<Born, Halt> {
    let (streams, standard) = match orders.input {
        Input::Terminal(size) => streams::terminal(size)?,
        Input::Pipe => streams::pipes(true, &cage.null)?,
        Input::None => streams::pipes(false, &cage.null)?,
    };
    let (executed, executed_in) = executed()?;
    match sys::clone3(0, cgroup).step("fork the worker")? {
        sys::Forked::Child => say_and_end(run(orders, cage, &standard), &executed_in),
        sys::Forked::Parent { pid, pidfd } => Ok(Born { pid: pid as i32, pidfd, streams, executed }),
    }
}

/// Our end does not wait; the other one goes with exec.
fn executed() -> Result<(OwnedFd, OwnedFd), Halt> {
    let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).step("pipe")?;
    rustix::fs::fcntl_setfl(&ours, OFlags::NONBLOCK).step("pipe")?;
    Ok((ours, theirs))
}

/// A program beside the worker's own, as its parent holds it.
pub struct Beside {
    /// In the worker's own pid namespace; leads a session and a process group.
    pub pid: i32,
    /// As [`Born::executed`].
    pub executed: OwnedFd,
}

/// Forks one more process of the worker: same cgroup, same cage, nothing more. With `terminal` its three
/// descriptors are one, which becomes its controlling one.
pub fn fork_beside(
    confinement: &Confinement,
    program: &Program,
    standard: Standard,
    terminal: bool,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Beside, Halt> {
    let (executed, executed_in) = executed()?;
    match sys::clone3(0, cgroup).step("fork")? {
        sys::Forked::Child => say_and_end(run_beside(confinement, program, &standard, terminal), &executed_in),
        sys::Forked::Parent { pid, .. } => Ok(Beside { pid: pid as i32, executed }),
    }
}

/// In a child that could not become its program.
fn say_and_end(failed: Result<Infallible, Halt>, executed: &OwnedFd) -> ! {
    let halt = match failed {
        Ok(never) => match never {},
        Err(halt) => halt,
    };
    let mut said = halt.failure.errno.to_le_bytes().to_vec();
    said.push(halt.code);
    said.extend_from_slice(halt.failure.step.as_bytes());
    let _ = rustix::io::write(executed, &said);
    sys::exit(i32::from(halt.code))
}

/// What the `executed` pipe said.
pub fn exec_failure(said: &[u8]) -> Option<Halt> {
    let (errno, rest) = said.split_first_chunk::<4>()?;
    let (code, step) = rest.split_first()?;
    let failure = Failure { step: String::from_utf8_lossy(step).into_owned(), errno: i32::from_le_bytes(*errno) };
    Some(Halt { code: *code, failure })
}

/// In the child: gives up everything, then becomes the program. It sits between 0-2 and nothing else.
fn run(orders: &Orders, cage: &Cage, standard: &Standard) -> Result<Infallible, Halt> {
    enter(standard, matches!(orders.input, Input::Terminal(_)))?;
    rustix::process::fchdir(&cage.workdir).named(format!("working directory {}", orders.workdir.display()))?;
    check_directory(&orders.workdir)?;
    become_program(&orders.argv, &orders.env, &cage.confinement)
}

/// The same beside the worker's first process, from what `keep_for_sessions` left.
fn run_beside(
    confinement: &Confinement,
    program: &Program,
    standard: &Standard,
    terminal: bool,
) -> Result<Infallible, Halt> {
    raise_kept()?;
    enter(standard, terminal)?;
    // Before anything that the caller named is looked at.
    give_up_capabilities()?;
    rustix::process::chdir(&program.workdir).named(format!("working directory {}", program.workdir.display()))?;
    check_directory(&program.workdir)?;
    become_program(&program.argv, &program.env, confinement)
}

/// A session and a cgroup namespace of its own, and 0-2.
fn enter(standard: &Standard, terminal: bool) -> Result<(), Halt> {
    rustix::process::setsid().step("setsid")?;
    nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP).step("cgroup namespace")?;
    for (number, fd) in standard.iter().enumerate() {
        sys::place(fd.as_fd(), number as i32).step("standard descriptors")?;
    }
    sys::close_on_exec_from(3).step("close_range")?;
    if terminal {
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()).step("controlling terminal")?;
    }
    Ok(())
}

/// A directory that is not below the root reads as "(unreachable)" (getcwd(2); CVE-2024-21626).
fn check_directory(path: &Path) -> Result<(), Halt> {
    let here = rustix::process::getcwd(Vec::new()).named(format!("working directory {}", path.display()))?;
    if here.to_bytes().starts_with(b"/") {
        Ok(())
    } else {
        Err(Halt::new(CAGE, "working directory outside the root", Errno::XDEV))
    }
}

/// Takes every right away, then executes.
fn become_program(argv: &[OsString], env: &[OsString], confinement: &Confinement) -> Result<Infallible, Halt> {
    let (programs, words, variables) = words(argv, env)?;
    confinement.confine()?;
    execute(&argv[0], &programs, &words, &variables)
}

type Words = (Vec<CString>, Vec<CString>, Vec<CString>);

/// Programs to try in turn, arguments, environment.
fn words(argv: &[OsString], env: &[OsString]) -> Result<Words, Halt> {
    let word = |bytes: &[u8]| CString::new(bytes).map_err(|_| Halt::new(CAGE, "NUL in a word", Errno::INVAL));
    let all = |words: &[OsString]| words.iter().map(|w| word(w.as_bytes())).collect::<Result<Vec<_>, _>>();
    let path = env.iter().find_map(|variable| variable.as_bytes().strip_prefix(b"PATH=")).unwrap_or(PATH);
    let programs = candidates(&argv[0], path).iter().map(|p| word(p)).collect::<Result<_, _>>()?;
    Ok((programs, all(argv)?, all(env)?))
}

/// As execvp(3): a name with '/' is itself; others are looked for in each directory of `path`, an empty one being ".".
fn candidates(program: &OsStr, path: &[u8]) -> Vec<Vec<u8>> {
    let program = program.as_bytes();
    if program.contains(&b'/') || program.is_empty() {
        return vec![program.to_vec()];
    }
    let in_directory = |directory: &[u8]| {
        let directory: &[u8] = if directory.is_empty() { b"." } else { directory };
        [directory, b"/", program].concat()
    };
    path.split(|byte| *byte == b':').map(in_directory).collect()
}

fn execute(name: &OsStr, programs: &[CString], argv: &[CString], env: &[CString]) -> Result<Infallible, Halt> {
    let argv: Vec<&CStr> = argv.iter().map(CString::as_c_str).collect();
    let env: Vec<&CStr> = env.iter().map(CString::as_c_str).collect();
    let mut answer = Errno::NOENT;
    for program in programs {
        let Err(errno) = nix::unistd::execve(program, &argv, &env);
        match Errno::from_raw_os_error(errno as i32) {
            Errno::NOENT | Errno::NOTDIR => {}
            // Perhaps a later directory has one that may be executed.
            Errno::ACCESS => answer = Errno::ACCESS,
            other => {
                answer = other;
                break;
            }
        }
    }
    Err(answer).named(format!("program {}", name.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_as_execvp_does() {
        let found = |program: &str, path: &[u8]| candidates(OsStr::new(program), path);
        assert_eq!(found("./a", b"/bin"), [b"./a"]);
        assert_eq!(found("a", b"/bin::/sbin"), [b"/bin/a".to_vec(), b"./a".to_vec(), b"/sbin/a".to_vec()]);
        assert_eq!(found("", b"/bin"), [b""]);
    }

    #[test]
    fn a_failure_to_execute_is_read_back() {
        assert_eq!(exec_failure(b""), None);
        let halt = exec_failure(&[2, 0, 0, 0, 127, b'x']).unwrap();
        assert_eq!((halt.code, halt.failure.errno, halt.failure.step.as_str()), (127, 2, "x"));
    }
}
