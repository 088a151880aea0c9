//! One booted Debian 12 with systemd as its PID 1: the fresh host of a scenario.

use crate::{Result, User, base, cgroup, sweep};
use anyhow::{Context, bail, ensure};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a boot may take; two of them run at once on two cores.
const BOOT_WITHIN: Duration = Duration::from_secs(120);

/// Where the release folder is seen inside.
pub const RELEASE: &str = "/mnt/holdfast-release";

/// A booted container. Dropped: killed, unmounted, its cgroups and files removed.
pub struct Host {
    name: String,
    nspawn: Child,
    /// PID 1 of the container, as this process sees it.
    leader: u32,
}

impl Host {
    /// A fresh host: no Holdfast, the users of [`crate::USERS`], the release folder at hand (not installed).
    pub fn boot() -> Result<Self> {
        Self::boot_with(&[])
    }

    /// As [`Host::boot`], with these Debian packages on top: what a bench compares with.
    pub fn boot_with(packages: &[&str]) -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        static SWEPT: Mutex<bool> = Mutex::new(false);
        ensure!(rustix::process::geteuid().is_root(), "scenarios boot containers: run them as root (smoke/test)");
        {
            let mut swept = SWEPT.lock().unwrap_or_else(PoisonError::into_inner);
            if !*swept {
                sweep::sweep()?;
                *swept = true;
            }
        }
        let name = sweep::name(MADE.fetch_add(1, Ordering::Relaxed));
        let began = Instant::now();
        let groups = cgroup::create(&name)?;
        let root = layers(&name, &base::tree(packages)?)?;
        let mut host = Self { nspawn: spawn(&name, &root, &groups)?, name, leader: 0 };
        host.leader = host.find_leader(began)?;
        host.await_boot(began)?;
        eprintln!("host {}: booted in {:.1} s", host.name, began.elapsed().as_secs_f32());
        Ok(host)
    }

    /// A host with Holdfast installed for alice, as the README says it.
    pub fn installed() -> Result<Self> {
        let host = Self::boot()?;
        host.install("--owner alice")?;
        Ok(host)
    }

    /// `system install` with these arguments, from the release folder; it must succeed.
    pub fn install(&self, arguments: &str) -> Result {
        self.root()
            .run_within(Duration::from_secs(120), &format!("{RELEASE}/holdfast system install {arguments}"))?
            .ok()?;
        Ok(())
    }

    /// Acts as this user.
    pub fn as_user<'h>(&'h self, name: &'h str) -> User<'h> {
        User { host: self, name }
    }

    /// Acts as root.
    pub fn root(&self) -> User<'_> {
        self.as_user("root")
    }

    /// Acts as alice, the owner in nearly every scenario.
    pub fn alice(&self) -> User<'_> {
        self.as_user("alice")
    }

    /// A path of the container as this process can open it, /proc, /run and /sys included.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.leader))
    }

    /// Offers the container every v2 controller of this machine; says which it has now.
    pub fn offer_controllers(&self) -> Result<Vec<String>> {
        cgroup::offer(&self.name);
        let there = self.root().run("cat /sys/fs/cgroup/cgroup.controllers")?.ok()?.text();
        Ok(there.split_whitespace().map(str::to_owned).collect())
    }

    /// The container's network namespace, as a path.
    pub fn netns(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.leader))
    }

    /// `nsenter` into every namespace of the container.
    pub(crate) fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LANG", "C.UTF-8");
        command.args(["-t", &self.leader.to_string(), "-m", "-u", "-i", "-n", "-p", "-C", "--"]);
        command
    }

    fn console(&self) -> String {
        fs::read_to_string(sweep::directory(&self.name).join("console")).unwrap_or_default()
    }

    /// nspawn's child in a pid namespace of its own is the container's PID 1.
    fn find_leader(&mut self, began: Instant) -> Result<u32> {
        let children = format!("/proc/{0}/task/{0}/children", self.nspawn.id());
        while began.elapsed() < BOOT_WITHIN {
            if let Some(status) = self.nspawn.try_wait()? {
                bail!("systemd-nspawn ended with {status}:\n{}", self.console());
            }
            let listed = fs::read_to_string(&children).unwrap_or_default();
            let leader = listed.split_whitespace().filter_map(|pid| pid.parse().ok()).find(|pid| is_systemd(*pid));
            if let Some(leader) = leader {
                return Ok(leader);
            }
            sleep(Duration::from_millis(20));
        }
        bail!("no PID 1 within {} s:\n{}", BOOT_WITHIN.as_secs(), self.console())
    }

    fn await_boot(&self, began: Instant) -> Result {
        while began.elapsed() < BOOT_WITHIN {
            let output = self.enter().args(["systemctl", "is-system-running", "--wait"]).output()?;
            let state = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            match state.as_str() {
                "running" => return Ok(()),
                "degraded" => {
                    let failed = self.enter().args(["systemctl", "--failed", "--no-legend"]).output()?;
                    bail!("a unit of the fresh host failed:\n{}", String::from_utf8_lossy(&failed.stdout));
                }
                _ => sleep(Duration::from_millis(50)),
            }
        }
        bail!("not booted within {} s:\n{}", BOOT_WITHIN.as_secs(), self.console())
    }
}

/// How a host goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Down {
    /// As its administrator would.
    Orderly,
    /// As by a power cut: nothing of it is asked.
    Cut,
}

impl Host {
    /// Takes the host down and boots it again over the same tree; says how long the way down took.
    pub fn reboot(&mut self, how: Down, deadline: Duration) -> Result<Duration> {
        let began = Instant::now();
        match how {
            Down::Orderly => drop(self.root().run("systemctl poweroff")?),
            Down::Cut => cgroup::destroy(&self.name)?,
        }
        while self.nspawn.try_wait()?.is_none() {
            ensure!(began.elapsed() < deadline, "not off within {} s:\n{}", deadline.as_secs(), self.console());
            sleep(Duration::from_millis(50));
        }
        let took = began.elapsed();
        cgroup::destroy(&self.name)?;
        let groups = cgroup::create(&self.name)?;
        let began = Instant::now();
        self.nspawn = spawn(&self.name, &sweep::directory(&self.name).join("root"), &groups)?;
        self.leader = self.find_leader(began)?;
        self.await_boot(began)?;
        Ok(took)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("HOLDFAST_SMOKE_JOURNAL").is_some() {
            self.show_journal();
        }
        if let Err(error) = sweep::remove(&self.name) {
            eprintln!("cleaning up {}: {error:#}", self.name);
        }
        let _ = self.nspawn.kill();
        let _ = self.nspawn.wait();
    }
}

impl Host {
    /// What the product said in the journal: printed when a scenario fails.
    fn show_journal(&self) {
        let script =
            "journalctl --no-pager -o short-monotonic -u 'holdfast*' | tail -n 80; systemctl --failed --no-legend";
        if let Ok(output) = self.enter().args(["sh", "-c", script]).output() {
            eprintln!("--- journal of {} ---\n{}", self.name, String::from_utf8_lossy(&output.stdout));
        }
    }

    /// Shows the journal where the scenario failed. For results that end a test by `?`, which unwinds nothing.
    pub fn explain<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.show_journal();
        }
        result
    }
}

/// Overlayfs over the shared tree: a copy costs nothing, and everything written goes with the directory.
fn layers(name: &str, tree: &Path) -> Result<PathBuf> {
    let directory = sweep::directory(name);
    fs::create_dir(&directory).with_context(|| format!("create {}", directory.display()))?;
    if on_overlayfs(&directory)? {
        // An upper layer cannot lie on overlayfs (a CI job inside a container).
        run(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&directory))?;
    }
    for layer in ["upper", "work", "root"] {
        fs::create_dir(directory.join(layer))?;
    }
    let root = directory.join("root");
    let at = |layer: &str| directory.join(layer).display().to_string();
    let options = format!("lowerdir={},upperdir={},workdir={}", tree.display(), at("upper"), at("work"));
    run(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&root))?;
    Ok(root)
}

fn spawn(name: &str, root: &Path, groups: &[PathBuf]) -> Result<Child> {
    let console = File::create(sweep::directory(name).join("console"))?;
    let mut command = Command::new("sh");
    // A child must be in its cgroup before it is nspawn.
    let join = "while [ \"$1\" != -- ]; do echo $$ > \"$1/cgroup.procs\" || exit 1; shift; done; shift; exec \"$@\"";
    command.args(["-c", join, "sh"]).args(groups).arg("--");
    command.args(["systemd-nspawn", "--quiet", "--boot", "--keep-unit", "--register=no", "--private-network"]);
    command.args(["--console=pipe", "--link-journal=no"]);
    // Landlock, as a host has it: nspawn's own filter leaves it out.
    command
        .args(["--system-call-filter=landlock_create_ruleset landlock_add_rule landlock_restrict_self", "-D"])
        .arg(root);
    command.arg(format!("--bind-ro={}:{RELEASE}", release_folder()?.display()));
    // Runtimes that are too large for the tree, where this machine has them.
    for place in ["/usr/bin/node", "/usr/lib/jvm", "/etc/java-17-openjdk"] {
        if Path::new(place).exists() {
            command.arg(format!("--bind-ro={place}"));
        }
    }
    command.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
    command.stdin(Stdio::null()).stdout(console.try_clone()?).stderr(console);
    command.spawn().context("start systemd-nspawn (apt-get install systemd-container)")
}

/// What is installed: `packaging/build --quick` makes it, `smoke/test` names it.
fn release_folder() -> Result<PathBuf> {
    let folder = std::env::var_os("HOLDFAST_RELEASE_FOLDER")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/release"));
    ensure!(
        folder.join("SHA256SUMS").is_file(),
        "{} is no release folder: make one with packaging/build --quick FOLDER, and name it in HOLDFAST_RELEASE_FOLDER",
        folder.display()
    );
    fs::canonicalize(&folder).context("resolve the release folder")
}

fn is_systemd(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let inner = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    inner.is_some_and(|pids| pids.split_whitespace().count() > 1) && status.starts_with("Name:\tsystemd\n")
}

fn on_overlayfs(path: &Path) -> Result<bool> {
    const OVERLAYFS_SUPER_MAGIC: i64 = 0x794c_7630;
    Ok(rustix::fs::statfs(path)?.f_type == OVERLAYFS_SUPER_MAGIC)
}

fn run(command: &mut Command) -> Result {
    let status = command.status().with_context(|| format!("run {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
