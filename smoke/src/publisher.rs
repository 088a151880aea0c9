//! A publisher of releases, as docs/operations.md tells a maintainer to be one: keys, keyring and signed sets, made by
//! the maintainer's tool inside the host that will update from them.

use crate::{Host, Result};
use anyhow::{Context, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the publisher works, and where it publishes, inside.
const DESK: &str = "/root/desk";
/// The published tree, inside.
pub const MIRROR: &str = "/srv/holdfast";

/// The publisher of one host.
pub struct Publisher<'h> {
    host: &'h Host,
}

impl<'h> Publisher<'h> {
    /// With keys and a keyring of epoch 1 that two of three root keys signed, published but not trusted yet.
    pub fn new(host: &'h Host) -> Result<Self> {
        let publisher = Self { host };
        host.root().run(&format!("mkdir -p {DESK} {MIRROR}/stable"))?.ok()?;
        let tool = build_output().join("holdfast-release");
        fs::copy(&tool, host.path(&format!("{DESK}/holdfast-release")))
            .with_context(|| format!("{}: packaging/build makes it", tool.display()))?;
        publisher.run("for n in root-1 root-2 root-3 release; do holdfast-release keygen $n; done")?;
        publisher.run("holdfast-release keyring --add release.pem keyring.json")?;
        publisher.sign_keyring(&["root-1", "root-2"])?;
        Ok(publisher)
    }

    /// Runs a line at the desk.
    pub fn run(&self, line: &str) -> Result<String> {
        let line = format!("cd {DESK} && export PATH={DESK}:$PATH && {{ {line}; }}");
        Ok(self.host.root().run_within(Duration::from_secs(120), &line)?.ok()?.text())
    }

    /// Signs the keyring anew with these root keys, and publishes it.
    pub fn sign_keyring(&self, roots: &[&str]) -> Result {
        self.run(&format!("rm -f keyring.json.*.sig {MIRROR}/keyring.json*"))?;
        for root in roots {
            self.run(&format!("holdfast-release sign --key {root}.key keyring.json"))?;
        }
        self.run(&format!("cp keyring.json* {MIRROR}/"))?;
        Ok(())
    }

    /// Has the host trust this publisher, and nobody else.
    pub fn trust(&self) -> Result {
        self.run("mkdir -p /etc/holdfast/trust && cp root-*.pem /etc/holdfast/trust/")?;
        self.configure(&format!("sources = [\"file://{MIRROR}\"]\nchannel = \"stable\"\n"))
    }

    /// Writes update.toml.
    pub fn configure(&self, text: &str) -> Result {
        self.host.root().feed("cat > /etc/holdfast/update.toml", text.as_bytes())?.ok()?;
        Ok(())
    }

    /// Copies the release that follows to the desk, as `name`.
    pub fn take_next(&self, name: &str) -> Result {
        let from = next_folder()?;
        let to = self.host.path(&format!("{DESK}/{name}"));
        fs::create_dir(&to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
        Ok(())
    }

    /// Makes the folder `name` of the desk the release `version` with `seq`, signs it, and publishes it as the newest.
    pub fn publish(&self, name: &str, version: &str, seq: u64, more: &str) -> Result {
        let build = format!("holdfast-release build --version {version} --seq {seq} --key-epoch 1 {more} {name}");
        self.run(&format!("{build} && holdfast-release sign --key release.key {name}"))?;
        self.publish_as_it_is(name, version)
    }

    /// Publishes a folder of the desk unchanged.
    pub fn publish_as_it_is(&self, name: &str, version: &str) -> Result {
        let set = format!("{MIRROR}/stable/v{version}");
        self.run(&format!("rm -rf {set} && cp -r {name} {set} && ln -sfn v{version} {MIRROR}/stable/latest"))?;
        Ok(())
    }

    /// Replaces a program of a desk's folder by one that this C source makes.
    pub fn replace(&self, name: &str, program: &str, source: &str) -> Result {
        let file = self.host.path(&format!("{DESK}/{name}/{program}"));
        let text = self.host.path(&format!("{DESK}/{program}.c"));
        fs::write(&text, source)?;
        let made = std::process::Command::new("cc").arg("-static").arg("-o").args([&file, &text]).output();
        let made = made.context("cc (apt-get install build-essential)")?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Ok(())
    }
}

/// The release that follows: the same sources with the version 0.1.1. `smoke/test` builds it and names it.
fn next_folder() -> Result<PathBuf> {
    let folder = std::env::var_os("HOLDFAST_NEXT_FOLDER")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/next"));
    ensure!(
        folder.join("SHA256SUMS").is_file(),
        "{} is no release folder: HOLDFAST_BUILD_VERSION=0.1.1 packaging/build --quick makes it",
        folder.display()
    );
    Ok(folder)
}

/// Where `packaging/build` leaves the maintainer's tool.
fn build_output() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target")).join("quick")
}
