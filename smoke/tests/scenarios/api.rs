//! The daemon's contract as another language's client meets it.

use crate::on_installed;
use anyhow::{Context, ensure};
use holdfast_smoke::{Host, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const CLIENT: &[u8] = include_bytes!("probes/client.py");
/// What a client of alice's dials.
pub const SOCKET: &str = "/run/holdfast/owners/alice/daemon.sock";
/// For Debian 12's Python, whatever this machine has.
const PACKAGES: &[&str] = &[
    "grpcio==1.76.0",
    "grpcio-reflection==1.76.0",
    "grpcio-status==1.76.0",
    "protobuf==6.33.1",
    "googleapis-common-protos==1.72.0",
    "typing-extensions==4.15.0",
];
const CACHE: &str = "/var/cache/holdfast-smoke";

/// The packages, fetched once a machine.
fn packages() -> Result<PathBuf> {
    let directory = Path::new(CACHE).join(format!("python-{}", PACKAGES[0]));
    fs::create_dir_all(CACHE)?;
    let lock = File::create(Path::new(CACHE).join("python.lock"))?;
    lock.lock()?;
    if directory.is_dir() {
        return Ok(directory);
    }
    let making = Path::new(CACHE).join("python-making");
    let _ = fs::remove_dir_all(&making);
    let output = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--no-input", "--disable-pip-version-check"])
        .args([
            "--only-binary=:all:",
            "--implementation=cp",
            "--python-version=3.11",
            "--platform=manylinux2014_x86_64",
        ])
        .arg("--target")
        .arg(&making)
        .args(PACKAGES)
        .stdin(Stdio::null())
        .output()
        .context("run pip (apt-get install python3-pip)")?;
    ensure!(output.status.success(), "pip failed:\n{}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&making, &directory)?;
    Ok(directory)
}

/// Puts the client and its packages into the host's /opt.
pub fn bring_client(host: &Host) -> Result {
    let into = host.path("/opt/client");
    let status = Command::new("cp").arg("-r").arg(packages()?).arg(&into).status()?;
    ensure!(status.success(), "cp of the client's packages ended with {status}");
    fs::write(into.join("client.py"), CLIENT)?;
    Ok(())
}

#[test]
fn a_client_in_python_runs_follows_waits_and_stops() -> Result {
    on_installed(|host| {
        bring_client(host)?;
        let client = format!("PYTHONPATH=/opt/client python3 /opt/client/client.py {SOCKET}");
        let said: serde_json::Value = host.alice().run(&client)?.ok()?.json()?;
        let services = said["services"].to_string();
        for service in
            ["holdfast.daemon.v1.Daemon", "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"]
        {
            ensure!(services.contains(service), "{service} is not told: {said}");
        }
        ensure!(said["health"] == serde_json::json!([1, 1]), "not serving: {said}");
        ensure!(said["run"] == serde_json::json!(["created", "started"]), "{said}");
        ensure!(said["stdout"] == "out\n" && said["stderr"] == "err\n" && said["code"] == 7, "{said}");
        ensure!(said["live"] == serde_json::json!(["long"]) && said["stopped"] == 15, "{said}");
        // created started exited failed, created started exited stopped
        ensure!(said["events"] == serde_json::json!([1, 2, 3, 8, 1, 2, 3, 7]), "{said}");
        let refusal = &said["refusal"];
        ensure!(refusal["code"] == "NOT_FOUND" && refusal["reason"] == "NO_SUCH_WORKER", "{refusal}");
        ensure!(refusal["domain"] == "holdfast" && refusal["message"].to_string().contains("nosuch"), "{refusal}");
        ensure!(refusal["hint"].to_string().contains("ps -a"), "{refusal}");
        ensure!(host.alice().ps()?.is_empty() && host.alice().ps_all()?.len() == 2);
        // Neither another user nor a worker, which has its owner's uid, learns what is served here.
        ensure!(host.as_user("bob").run(&client)?.code != 0, "bob was answered");
        let mounts = format!("--volume {SOCKET}:/tmp/daemon.sock --volume /opt/client:/opt/client");
        let line = "PYTHONPATH=/opt/client python3 /opt/client/client.py /tmp/daemon.sock";
        let inside = host.alice().holdfast(&format!("run --rm --net none {mounts} -- sh -c '{line}'"))?;
        ensure!(inside.code != 0, "a worker was answered\n{inside}");
        Ok(())
    })
}
