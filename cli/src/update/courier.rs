//! Has bytes brought by a child without rights, and takes no more of them than was agreed, for no longer.

use super::error::UpdateError;
use super::fetch;
use crate::install::command;
use crate::sys;
use crate::view::plain;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// uid and gid that own nothing (Debian: nobody, nogroup).
const NOBODY: u32 = 65534;
/// How long one of the small files may take.
pub const SMALL_MAX: Duration = Duration::from_secs(60);
/// How long all files of a release may take together; the child ends one that crawls much earlier.
pub const RELEASE_MAX: Duration = Duration::from_secs(60 * 60);
/// How long a child may take to end once it has said everything.
const END_MAX: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);
/// How often a line that broke is taken up again, if something had come.
const ATTEMPTS_MAX: u32 = 4;
/// Most of what a child says that is repeated.
const WORDS_BYTES_MAX: usize = 2048;

/// Sends for files.
#[derive(Debug, Clone)]
pub struct Courier {
    program: PathBuf,
    as_nobody: bool,
    proxy: Option<String>,
}

impl Courier {
    /// One that is this very program, as nobody if we are root.
    ///
    /// # Errors
    /// Where the kernel does not say which program we are.
    pub fn new(proxy: Option<String>) -> io::Result<Self> {
        // A child without rights gets no descriptor that whoever called root had open.
        sys::close_on_exec_from(3)?;
        let as_nobody = nix::unistd::Uid::effective().is_root();
        Ok(Self { program: std::env::current_exe()?, as_nobody, proxy })
    }

    /// All of a small file.
    ///
    /// # Errors
    /// Where it does not come whole, within `most` bytes and a minute.
    pub fn small(&self, url: &str, most: u64) -> Result<Vec<u8>, UpdateError> {
        let mut bytes = Vec::new();
        self.bring(url, most, Instant::now() + SMALL_MAX, &mut |piece| {
            bytes.extend(piece);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Passes a file on piece by piece. A line that breaks is taken up where it broke.
    ///
    /// # Errors
    /// Where it does not come whole, within `most` bytes and before `deadline`, or `take` fails.
    pub fn bring(
        &self,
        url: &str,
        most: u64,
        deadline: Instant,
        take: &mut dyn FnMut(&[u8]) -> Result<(), UpdateError>,
    ) -> Result<(), UpdateError> {
        let mut have = 0;
        for attempt in 1.. {
            let before = have;
            match self.once(url, most, deadline, &mut have, take) {
                Err(UpdateError::Unreachable(why)) if attempt < ATTEMPTS_MAX && have > before => {
                    // For whoever looks on; a terminal that went away changes nothing.
                    let _ = writeln!(io::stderr(), "- {why}; going on at byte {have}");
                }
                outcome => return outcome,
            }
        }
        Ok(())
    }

    fn once(
        &self,
        url: &str,
        most: u64,
        deadline: Instant,
        have: &mut u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), UpdateError>,
    ) -> Result<(), UpdateError> {
        let failed = |error: io::Error| UpdateError::Unreachable(format!("{url}: {error}"));
        let late = || UpdateError::TooSlow(format!("{url} did not come in time"));
        let mut child = Ended(self.spawn(url, most, *have).map_err(failed)?);
        let mut out = child.0.stdout.take().ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = read_before(&mut out, &mut buffer, deadline).map_err(failed)?.ok_or_else(late)?;
            if count == 0 {
                break;
            }
            *have += count as u64;
            if *have > most {
                return Err(UpdateError::TooLarge(format!("{url} has more than {most} bytes")));
            }
            take(&buffer[..count])?;
        }
        let deadline = deadline.min(Instant::now() + END_MAX);
        let words = child.words(deadline);
        match child.code(deadline).map_err(failed)? {
            Some(0) => Ok(()),
            Some(fetch::NOT_THERE) => Err(UpdateError::NotThere(url.to_owned())),
            Some(fetch::TOO_SLOW) => Err(UpdateError::TooSlow(words)),
            Some(fetch::TOO_LARGE) => Err(UpdateError::TooLarge(words)),
            _ => Err(UpdateError::Unreachable(if words.is_empty() { format!("{url}: it broke off") } else { words })),
        }
    }

    fn spawn(&self, url: &str, most: u64, skip: u64) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        let (most, skip) = (most.to_string(), skip.to_string());
        command.args(["fetch", "--url", url, "--most", &most, "--skip", &skip]);
        if let Some(proxy) = &self.proxy {
            command.args(["--proxy", proxy]);
        }
        command.env_clear().env("PATH", command::PATH).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if self.as_nobody {
            // The standard library empties the supplementary groups where root sets a uid.
            command.uid(NOBODY).gid(NOBODY);
        }
        command.spawn()
    }
}

/// Reads what is there, or waits for it until `deadline`; none where that has passed.
fn read_before<R: Read + AsFd>(from: &mut R, buffer: &mut [u8], deadline: Instant) -> io::Result<Option<usize>> {
    loop {
        let Some(left) = deadline.checked_duration_since(Instant::now()) else { return Ok(None) };
        let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        match rustix::event::poll(&mut [PollFd::new(from, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Ok(None),
            Ok(_) => return from.read(buffer).map(Some),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// A child that does not outlive the call.
struct Ended(Child);

impl Ended {
    /// What it says of itself, as far as it says it in time. Words only: without them its code still tells.
    fn words(&mut self, deadline: Instant) -> String {
        let Some(mut from) = self.0.stderr.take() else { return String::new() };
        let mut words = vec![0; WORDS_BYTES_MAX];
        let mut length = 0;
        while let Ok(Some(count @ 1..)) = read_before(&mut from, &mut words[length..], deadline) {
            length += count;
        }
        plain(String::from_utf8_lossy(&words[..length]).trim())
    }

    /// Its exit code, if it ends in time and by itself.
    fn code(&mut self, deadline: Instant) -> io::Result<Option<u8>> {
        while Instant::now() < deadline {
            match self.0.try_wait()? {
                Some(status) => return Ok(status.code().and_then(|code| u8::try_from(code).ok())),
                None => std::thread::sleep(POLL),
            }
        }
        Ok(None)
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        // Our own child that is not reaped yet, or one that has ended: then there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
#[path = "courier_tests.rs"]
mod tests;
