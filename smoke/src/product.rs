//! The command line as an owner types it, and its JSON as the contract has it.

use crate::{Output, Result, User, until};
use anyhow::{Context, ensure};
use serde::Deserialize;
use std::time::Duration;

/// One entry of `ps --json`. Unknown fields are allowed, missing ones are not.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[allow(missing_docs)]
pub struct WorkerShown {
    pub id: String,
    pub name: String,
    pub phase: String,
    pub pid: Option<u32>,
    pub started_at: Option<String>,
    pub finished_at: Option<String>,
    pub restarts: u32,
    pub exit: Option<ExitShown>,
    pub addresses: Vec<String>,
    pub ports: Vec<PortShown>,
    pub command: Vec<String>,
    pub network: String,
    pub labels: std::collections::BTreeMap<String, String>,
    pub owner: String,
    pub generation: u64,
    pub next_start_at: Option<String>,
}

/// `{code|signal}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[allow(missing_docs)]
pub struct ExitShown {
    pub code: Option<u32>,
    pub signal: Option<u32>,
}

/// One published port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[allow(missing_docs)]
pub struct PortShown {
    pub host: u16,
    pub worker: u16,
    pub proto: String,
    pub address: String,
}

impl ExitShown {
    /// Ended by itself with this code.
    pub fn code(code: u32) -> Self {
        Self { code: Some(code), signal: None }
    }

    /// Ended by this signal.
    pub fn signal(signal: u32) -> Self {
        Self { code: None, signal: Some(signal) }
    }
}

impl WorkerShown {
    /// The first address without its prefix length.
    pub fn address(&self) -> Result<&str> {
        let address = self.addresses.first().with_context(|| format!("{} has no address", self.name))?;
        Ok(address.split('/').next().unwrap_or(address))
    }

    /// The host's pid of its first process.
    pub fn live_pid(&self) -> Result<u32> {
        self.pid.filter(|pid| *pid != 0).with_context(|| format!("{} has no process: {self:?}", self.name))
    }
}

impl User<'_> {
    /// `holdfast …`.
    pub fn holdfast(&self, arguments: &str) -> Result<Output> {
        self.run(&format!("holdfast {arguments}"))
    }

    /// `holdfast run -d …`, which must succeed and print the id alone. Returns the id.
    pub fn run_worker(&self, arguments: &str) -> Result<String> {
        let output = self.holdfast(&format!("run -d {arguments}"))?.ok()?;
        let id = output.text();
        let is_id = id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit());
        ensure!(is_id, "run -d prints the id alone\n{output}");
        Ok(id)
    }

    /// `ps --json`: the live workers.
    pub fn ps(&self) -> Result<Vec<WorkerShown>> {
        self.holdfast("ps --json")?.ok()?.json()
    }

    /// `ps -a --json`: every worker that is not forgotten.
    pub fn ps_all(&self) -> Result<Vec<WorkerShown>> {
        self.holdfast("ps -a --json")?.ok()?.json()
    }

    /// One worker of [`User::ps_all`], by name or id.
    pub fn worker(&self, word: &str) -> Result<WorkerShown> {
        let all = self.ps_all()?;
        let found = all.into_iter().find(|worker| worker.name == word || worker.id == word);
        found.with_context(|| format!("ps -a does not list {word}"))
    }

    /// What `wait` prints.
    pub fn wait_code(&self, worker: &str) -> Result<String> {
        Ok(self.holdfast(&format!("wait {worker}"))?.ok()?.text())
    }

    /// `rm --force` on everything there is.
    pub fn remove_all(&self) -> Result {
        for worker in self.ps_all()? {
            self.holdfast(&format!("rm --force {}", worker.id))?.ok()?;
        }
        Ok(())
    }

    /// An echo server on port 7000 of the worker, published on `host_port`: what a [`crate::Flow`] talks to.
    pub fn run_echo(&self, name: &str, host_port: u16) -> Result {
        self.run_worker(&format!("--name {name} --publish {host_port}:7000 -- python3 -c '{ECHO}'"))?;
        until("the echo worker listens", Duration::from_secs(10), || {
            Ok(self.run(&format!("echo hi | nc -N -w 1 127.0.0.1 {host_port}"))?.text() == "hi")
        })?;
        Ok(())
    }

    /// A web server over `directory` on port 80 of the worker, published on `host_port`; waits until it answers.
    pub fn run_web(&self, name: &str, host_port: u16, directory: &str) -> Result {
        self.run_worker(&format!(
            "--name {name} --publish {host_port}:80 --workdir {directory} -- python3 -u -m http.server 80"
        ))?;
        until("the web worker answers", Duration::from_secs(10), || {
            Ok(self.run(&format!("curl -fsS --max-time 2 http://localhost:{host_port}/"))?.code == 0)
        })?;
        Ok(())
    }
}

/// Echoes every connection and prints the client's address. No quote that `sh -c '…'` would end at.
const ECHO: &str = r#"
import socketserver, sys
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        print("client", self.client_address[0], flush=True)
        while True:
            piece = self.request.recv(65536)
            if not piece: return
            self.request.sendall(piece)
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer.daemon_threads = True
socketserver.ThreadingTCPServer(("", 7000), Echo).serve_forever()
"#;
