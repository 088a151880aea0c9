//! Acting in a container as one of its users.

use crate::{Host, Output, Result};
use anyhow::{Context, bail};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long a command may take where the scenario says nothing else.
const DEADLINE: Duration = Duration::from_secs(60);

/// What a stream brings, as it comes.
type Pieces = mpsc::Receiver<Vec<u8>>;

/// One user of a container; commands run in its login environment and home.
#[derive(Clone, Copy)]
pub struct User<'h> {
    pub(crate) host: &'h Host,
    /// Login name.
    pub name: &'h str,
}

/// A command that was started and not waited for. Dropped: killed.
pub struct Running {
    command: String,
    child: Child,
    began: Instant,
    streams: Option<(Pieces, Pieces)>,
}

impl<'h> User<'h> {
    /// Runs a shell command line to its end.
    pub fn run(&self, line: &str) -> Result<Output> {
        self.run_within(DEADLINE, line)
    }

    /// As [`User::run`], with a deadline of its own.
    pub fn run_within(&self, deadline: Duration, line: &str) -> Result<Output> {
        self.start(line)?.wait_within(deadline)
    }

    /// Runs it with `input` as standard input.
    pub fn feed(&self, line: &str, input: &[u8]) -> Result<Output> {
        let mut child = self.command(line).stdin(Stdio::piped()).spawn().context("start nsenter")?;
        let mut stdin = child.stdin.take().context("stdin was asked for")?;
        let input = input.to_vec();
        // A reader that ends early is the scenario's to notice, by its exit code.
        thread::spawn(move || stdin.write_all(&input));
        Running::new(self.shown(line), child).wait_within(DEADLINE)
    }

    /// Starts a shell command line, with nothing on standard input.
    pub fn start(&self, line: &str) -> Result<Running> {
        let child = self.command(line).stdin(Stdio::null()).spawn().context("start nsenter")?;
        Ok(Running::new(self.shown(line), child))
    }

    fn shown(&self, line: &str) -> String {
        format!("[{}] {line}", self.name)
    }

    /// `setpriv` makes the same process that a login would: own groups, own HOME, a plain PATH. The line dies with its nsenter.
    fn command(&self, line: &str) -> Command {
        let mut command = self.host.enter();
        let group = if self.name == "nobody" { "nogroup" } else { self.name };
        command.args(["setpriv", "--reuid", self.name, "--regid", group, "--init-groups", "--reset-env"]);
        command.args(["--pdeathsig", "KILL", "--", "sh", "-c"]);
        command.arg(format!("cd; export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; {line}"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

impl Running {
    fn new(command: String, mut child: Child) -> Self {
        let streams = match (child.stdout.take(), child.stderr.take()) {
            (Some(out), Some(err)) => Some((collect(out), collect(err))),
            _ => None,
        };
        Self { command, child, began: Instant::now(), streams }
    }

    /// Whether it has not ended.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for the end; past the deadline it is killed and that is a failure.
    pub fn wait_within(mut self, deadline: Duration) -> Result<Output> {
        let mut pause = Duration::from_millis(1);
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if self.began.elapsed() > deadline {
                let _ = self.child.kill();
                let status = self.child.wait()?;
                let output = self.output(status);
                bail!("no end within {} s\n{output}", deadline.as_secs());
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        };
        Ok(self.output(status))
    }

    /// Kills it and returns what it said until then.
    pub fn kill(mut self) -> Result<Output> {
        let _ = self.child.kill();
        let status = self.child.wait()?;
        Ok(self.output(status))
    }

    /// A grandchild may hold a stream open: what came within a second of the end is what was said.
    fn output(&mut self, status: ExitStatus) -> Output {
        let took = self.began.elapsed();
        let (stdout, stderr) = match self.streams.take() {
            Some((out, err)) => (gather(&out), gather(&err)),
            None => (Vec::new(), Vec::new()),
        };
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        Output { command: self.command.clone(), code, stdout, stderr, took }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a stream in pieces, so that nothing is lost when it never ends.
fn collect(mut stream: impl Read + Send + 'static) -> Pieces {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

fn gather(pieces: &Pieces) -> Vec<u8> {
    let mut all = Vec::new();
    while let Ok(piece) = pieces.recv_timeout(Duration::from_secs(1)) {
        all.extend(piece);
    }
    all
}
