//! The product's units on a live host: who their mains are, and what can be done to them.

use crate::{Host, Result};
use anyhow::{Context, bail, ensure};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The helper's unit.
pub const HELPER: &str = "holdfast-helper.service";
/// The unit of alice's daemon.
pub const DAEMON: &str = "holdfastd@alice.service";
/// The unit of alice's launcher.
pub const LAUNCHER: &str = "holdfast-launcher@alice.service";
/// The unit that holds the cgroups of alice's workers.
pub const WORKERS: &str = "holdfast-workers@alice.service";
/// The three with a program that acts.
pub const UNITS: [&str; 3] = [HELPER, DAEMON, LAUNCHER];

/// While this file is there, units that [`Host::keep_down`] was told stay down.
const DOWN: &str = "/run/smoke-down";

fn socket_of(unit: &str) -> Option<&'static str> {
    match unit {
        HELPER => Some("holdfast-helper.socket"),
        DAEMON => Some("holdfastd@alice.socket"),
        _ => None,
    }
}

/// Asks until it is so; past the deadline the last answer is the failure.
pub fn until(what: &str, deadline: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let began = Instant::now();
    loop {
        let answer = holds();
        if matches!(answer, Ok(true)) {
            return Ok(began.elapsed());
        }
        if began.elapsed() > deadline {
            answer.with_context(|| format!("not within {} ms: {what}", deadline.as_millis()))?;
            bail!("not within {} ms: {what}", deadline.as_millis());
        }
        sleep(Duration::from_millis(20));
    }
}

impl Host {
    /// `systemctl …` as root; it must succeed.
    pub fn systemctl(&self, arguments: &str) -> Result<String> {
        let output = self.root().run_within(Duration::from_secs(120), &format!("systemctl {arguments}"))?;
        Ok(output.ok()?.text())
    }

    /// One property of a unit, as `systemctl show` prints its value.
    pub fn property(&self, unit: &str, property: &str) -> Result<String> {
        self.systemctl(&format!("show --value --property {property} {unit}"))
    }

    /// The main process of a unit, in the container's numbers.
    pub fn main_pid(&self, unit: &str) -> Result<u32> {
        let pid: u32 = self.property(unit, "MainPID")?.parse().context("MainPID")?;
        ensure!(pid != 0, "{unit} has no main process");
        Ok(pid)
    }

    /// SIGKILL to the mains of these units, all in one system call each, as close together as it gets.
    pub fn kill_mains(&self, units: &[&str]) -> Result {
        let pids = units.iter().map(|unit| self.main_pid(unit)).collect::<Result<Vec<_>>>()?;
        let words: Vec<String> = pids.iter().map(u32::to_string).collect();
        self.root().run(&format!("kill -9 {}", words.join(" ")))?.ok()?;
        Ok(())
    }

    /// Crashes the mains of these units and keeps them down, with their sockets, until [`Host::bring_up`].
    /// (A condition in a drop-in: a runtime mask has no force over a unit file in /etc.)
    pub fn keep_down(&self, units: &[&str]) -> Result {
        for unit in units {
            let drop_in = format!("/run/systemd/system/{unit}.d");
            self.root().run(&format!("touch {DOWN} && mkdir -p {drop_in}"))?.ok()?;
            let condition = format!("[Unit]\nConditionPathExists=!{DOWN}\n");
            self.root().feed(&format!("cat > {drop_in}/down.conf"), condition.as_bytes())?.ok()?;
        }
        self.systemctl("daemon-reload")?;
        self.kill_mains(units)?;
        let all = units.join(" ");
        until("the units are down", Duration::from_secs(10), || {
            let states = self.root().run(&format!("systemctl is-active {all}"))?.text();
            Ok(states.lines().all(|state| ["inactive", "failed"].contains(&state)))
        })?;
        for socket in units.iter().filter_map(|unit| socket_of(unit)) {
            self.systemctl(&format!("stop {socket}"))?;
        }
        Ok(())
    }

    /// Undoes [`Host::keep_down`].
    pub fn bring_up(&self, units: &[&str]) -> Result {
        self.root().run(&format!("rm {DOWN}"))?.ok()?;
        // What is not loaded any more has no failure to forget.
        let _ = self.root().run("systemctl reset-failed 'holdfast*'")?;
        for socket in units.iter().filter_map(|unit| socket_of(unit)) {
            self.systemctl(&format!("start {socket}"))?;
        }
        self.systemctl(&format!("start {}", units.join(" ")))?;
        Ok(())
    }

    /// How many processes run the shim's program.
    pub fn shims(&self) -> Result<usize> {
        let programs = self.root().run("readlink /proc/[0-9]*/exe")?.text();
        Ok(programs.lines().filter(|program| program.contains("holdfast-shim")).count())
    }

    /// A line of `/proc/PID/status`, without its name.
    pub fn status_line(&self, pid: u32, name: &str) -> Result<String> {
        let status = std::fs::read_to_string(self.path(&format!("/proc/{pid}/status")))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name).and_then(|rest| rest.strip_prefix(':')));
        Ok(line.with_context(|| format!("/proc/{pid}/status has no {name}"))?.trim().to_owned())
    }

    /// When a process started, in clock ticks since boot: with the pid, who it is.
    pub fn start_ticks(&self, pid: u32) -> Result<u64> {
        let stat = std::fs::read_to_string(self.path(&format!("/proc/{pid}/stat")))
            .with_context(|| format!("process {pid} is gone"))?;
        let after_name = stat.rsplit_once(')').context("/proc/PID/stat without a name")?.1;
        // proc_pid_stat(5): starttime is field 22, the 20th after the name.
        after_name.split_whitespace().nth(19).context("/proc/PID/stat is short")?.parse().context("starttime")
    }

    /// Writes a drop-in for a unit and restarts it with that; `lines` are of its `[Service]`.
    pub fn drop_in(&self, unit: &str, lines: &str) -> Result {
        let directory = format!("/run/systemd/system/{unit}.d");
        self.root().run(&format!("mkdir -p {directory}"))?.ok()?;
        self.root().feed(&format!("cat > {directory}/smoke.conf"), format!("[Service]\n{lines}\n").as_bytes())?.ok()?;
        self.systemctl("daemon-reload")?;
        self.systemctl(&format!("restart {unit}"))?;
        Ok(())
    }

    /// Takes the drop-in away and restarts the unit.
    pub fn no_drop_in(&self, unit: &str) -> Result {
        self.root().run(&format!("rm -r /run/systemd/system/{unit}.d"))?.ok()?;
        self.systemctl("daemon-reload")?;
        self.systemctl(&format!("restart {unit}"))?;
        Ok(())
    }
}
