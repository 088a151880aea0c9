//! The Debian 12 tree that every container starts from: made once, then only ever a lower layer.

use crate::Result;
use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What is installed on top of debootstrap's minbase.
const PACKAGES: &[&str] = &[
    "systemd",
    "systemd-sysv",
    "dbus",
    "nftables",
    "iproute2",
    "curl",
    "python3",
    "procps",
    "util-linux",
    "strace",
    "netcat-openbsd",
    "conntrack",
    "sudo",
    "bubblewrap",
    // A root file system in one file, and a program of Go's runtime.
    "busybox-static",
    "restic",
];

/// Rises when [`prepare`] changes, so that an old cache is not taken for a new one.
const PREPARATION: &str = "3";

const SUITE: &str = "bookworm";
const MIRROR: &str = "http://deb.debian.org/debian";
const CACHE: &str = "/var/cache/holdfast-smoke";

/// Users of every container, with uid 1000 upwards. The first may use sudo without a password.
pub const USERS: [&str; 3] = ["alice", "bob", "carol"];

/// Units that take time at boot and that no scenario needs.
const MASKED: &[&str] = &[
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "container-getty@.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "getty@.service",
    "ldconfig.service",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-journal-flush.service",
    "systemd-networkd.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "systemd-update-done.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service",
    "remote-fs.target",
];

/// The tree, with `more` packages than every scenario's; the first caller makes it, others wait for it.
pub fn tree(more: &[&str]) -> Result<PathBuf> {
    let packages = [PACKAGES, more].concat().join(",");
    let name = format!("{:016x}", fnv1a(&format!("{SUITE} {PREPARATION} {packages}")));
    let tree = Path::new(CACHE).join(name);
    if tree.is_dir() {
        return Ok(tree);
    }
    fs::create_dir_all(CACHE).with_context(|| format!("create {CACHE}"))?;
    let lock = File::create(Path::new(CACHE).join("lock")).context("create the cache's lock")?;
    flock(&lock, FlockOperation::LockExclusive).context("lock the cache")?;
    if tree.is_dir() {
        return Ok(tree);
    }
    let work = Path::new(CACHE).join("making");
    if work.exists() {
        fs::remove_dir_all(&work).context("remove what an interrupted debootstrap left")?;
    }
    debootstrap(&packages, &work)?;
    prepare(&work)?;
    fs::rename(&work, &tree).context("put the finished tree in place")?;
    Ok(tree)
}

fn debootstrap(packages: &str, into: &Path) -> Result {
    let log_path = Path::new(CACHE).join("debootstrap.log");
    let log = File::create(&log_path).context("create debootstrap's log")?;
    let status = Command::new("debootstrap")
        .args(["--variant=minbase", &format!("--include={packages}"), SUITE])
        .arg(into)
        .arg(MIRROR)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()
        .context("run debootstrap (apt-get install debootstrap)")?;
    if !status.success() {
        bail!("debootstrap failed, see {}", log_path.display());
    }
    Ok(())
}

/// What every container shares, so that a boot is quick and two containers are alike.
fn prepare(tree: &Path) -> Result {
    for unit in MASKED {
        let link = tree.join("etc/systemd/system").join(unit);
        // An enablement may already stand there as a link.
        let _ = fs::remove_file(&link);
        symlink("/dev/null", &link).with_context(|| format!("mask {unit}"))?;
    }
    fs::write(tree.join("etc/machine-id"), "5a0c0ffee0000000000000000000beef\n")?;
    fs::write(tree.join("etc/hostname"), "smoke\n")?;
    fs::write(tree.join("etc/hosts"), "127.0.0.1 localhost\n127.0.1.1 smoke\n")?;
    fs::write(tree.join("etc/resolv.conf"), "nameserver 203.0.113.2\n")?;
    fs::write(tree.join("etc/systemd/journald.conf"), "[Journal]\nStorage=volatile\n")?;
    for (user, uid) in USERS.iter().zip(1000..) {
        let status = Command::new("chroot")
            .arg(tree)
            .args(["useradd", "--create-home", "--shell", "/bin/bash", "--uid", &format!("{uid}"), user])
            .status()
            .context("run chroot useradd")?;
        if !status.success() {
            bail!("useradd {user} failed in {}", tree.display());
        }
    }
    fs::write(tree.join("etc/sudoers.d/smoke"), format!("{} ALL=(ALL:ALL) NOPASSWD: ALL\n", USERS[0]))?;
    fs::remove_dir_all(tree.join("var/cache/apt/archives")).context("drop the fetched packages")?;
    Ok(())
}

/// A name for a list of packages (FNV-1a, 64 bits): stable over compilers, and nobody attacks it.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
