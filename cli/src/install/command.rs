//! Runs programs of the host: by absolute path, in a cleared environment, with a deadline.

use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// `systemctl` waits for units, whose own start timeouts are at most a minute.
pub const SYSTEMCTL_MAX: Duration = Duration::from_secs(100);
/// Everything else answers at once.
pub const QUICK_MAX: Duration = Duration::from_secs(15);
/// Bytes of each output that are kept.
const OUTPUT_BYTES_MAX: u64 = 4 * 1024 * 1024;
const POLL: Duration = Duration::from_millis(5);

/// Where programs of the host are found; nobody's environment has a say in it.
pub const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// `systemctl`, where every distribution with systemd has it.
pub const SYSTEMCTL: &str = "/usr/bin/systemctl";

/// One call of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Absolute path.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// When it is killed.
    pub limit: Duration,
    /// Who runs it; nobody: the caller.
    pub as_owner: Option<(u32, u32)>,
}

/// What a program said, and how it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// Exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// Its stdout.
    pub out: String,
    /// Its stderr.
    pub err: String,
}

/// A program did not do what it was called for.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It could not be executed.
    #[error("{call} could not be executed")]
    Spawn {
        /// The call as typed.
        call: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended with another code than 0.
    #[error("{call} failed ({how}): {said}")]
    Failed {
        /// The call as typed.
        call: String,
        /// Its exit code or that a signal ended it.
        how: String,
        /// What it said.
        said: String,
    },
    /// It was killed at its deadline.
    #[error("{call} did not end within {} s", .limit.as_secs())]
    Late {
        /// The call as typed.
        call: String,
        /// The deadline.
        limit: Duration,
    },
}

/// Who runs programs: the host, or a test's recorder.
pub trait Commands {
    /// Runs one and returns what it said, however it ended.
    ///
    /// # Errors
    /// Where it could not be executed or was late.
    fn ask(&self, call: &Call) -> Result<Said, CallError>;

    /// Runs one that has to succeed.
    ///
    /// # Errors
    /// Also where it ended with another code than 0.
    fn run(&self, call: &Call) -> Result<String, CallError> {
        let said = self.ask(call)?;
        if said.code == Some(0) {
            return Ok(said.out);
        }
        let how = said.code.map_or_else(|| "by a signal".to_owned(), |code| format!("exit code {code}"));
        let text = if said.err.trim().is_empty() { said.out } else { said.err };
        Err(CallError::Failed { call: call.shown(), how, said: text.trim().to_owned() })
    }
}

impl Call {
    /// A call of `program` as whoever we are.
    pub fn new<A: Into<String>>(program: &str, args: impl IntoIterator<Item = A>) -> Self {
        let args = args.into_iter().map(Into::into).collect();
        Self { program: program.to_owned(), args, limit: QUICK_MAX, as_owner: None }
    }

    /// A call of `systemctl`.
    pub fn systemctl<A: Into<String>>(args: impl IntoIterator<Item = A>) -> Self {
        Self { limit: SYSTEMCTL_MAX, ..Self::new(SYSTEMCTL, args) }
    }

    /// The same, run with this uid and gid and no other group.
    #[must_use]
    pub fn run_as(self, uid: u32, gid: u32) -> Self {
        Self { as_owner: Some((uid, gid)), ..self }
    }

    /// The same with another deadline.
    #[must_use]
    pub fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    fn shown(&self) -> String {
        let name = self.program.rsplit('/').next().unwrap_or_default();
        std::iter::once(name).chain(self.args.iter().map(String::as_str)).collect::<Vec<_>>().join(" ")
    }
}

/// The host's programs.
pub struct HostCommands;

impl Commands for HostCommands {
    fn ask(&self, call: &Call) -> Result<Said, CallError> {
        let failed = |source| CallError::Spawn { call: call.shown(), source };
        let mut child = spawn(call).map_err(failed)?;
        let out = collect(child.stdout.take());
        let err = collect(child.stderr.take());
        let deadline = Instant::now() + call.limit;
        let status = loop {
            match child.try_wait().map_err(failed)? {
                Some(status) => break status,
                None if Instant::now() >= deadline => {
                    // Our own child that is not reaped yet: the number cannot mean another process.
                    child.kill().map_err(failed)?;
                    child.wait().map_err(failed)?;
                    return Err(CallError::Late { call: call.shown(), limit: call.limit });
                }
                None => std::thread::sleep(POLL),
            }
        };
        Ok(Said { code: status.code(), out: text_of(out), err: text_of(err) })
    }
}

fn spawn(call: &Call) -> io::Result<Child> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(&call.program);
    command.args(&call.args).env_clear().envs([("PATH", PATH), ("LC_ALL", "C")]);
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own: Ctrl-C at the terminal is ours to answer, and must not end a step in its middle.
    command.process_group(0);
    if let Some((uid, gid)) = call.as_owner {
        // The standard library empties the supplementary groups where root sets a uid.
        command.uid(uid).gid(gid);
    }
    command.spawn()
}

/// Reads an output beside the wait, so that a program that says much does not block.
fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // What was read until an error is all there is to tell.
            let _ = pipe.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes);
        }
        bytes
    })
}

fn text_of(reader: JoinHandle<Vec<u8>>) -> String {
    String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_ours_alone() {
        let out = HostCommands.run(&Call::new("/usr/bin/env", [] as [&str; 0])).unwrap();
        let mut lines: Vec<_> = out.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
    }

    #[test]
    fn a_late_program_is_ended() {
        let call = Call::new("/bin/sleep", ["60"]).within(Duration::from_millis(50));
        assert!(matches!(HostCommands.ask(&call), Err(CallError::Late { .. })));
    }

    #[test]
    fn a_failure_says_the_call_the_code_and_the_words() {
        let call = Call::new("/bin/sh", ["-c", "echo no >&2; exit 3"]);
        assert_eq!(
            HostCommands.run(&call).unwrap_err().to_string(),
            "sh -c echo no >&2; exit 3 failed (exit code 3): no"
        );
    }

    #[test]
    fn much_output_does_not_block() {
        let call = Call::new("/bin/sh", ["-c", "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2"]);
        let said = HostCommands.ask(&call).unwrap();
        assert_eq!((said.out.len(), said.err.len()), (1_000_000, 1_000_000));
    }
}
