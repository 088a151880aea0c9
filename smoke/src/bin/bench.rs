//! The figures of `docs/performance.md`: what a launch costs beside the floor and `bwrap`, and what an idle worker holds.
//!
//! Run by `smoke/bench`, by hand, with a release build. Everything that is compared runs in the same container, in
//! turn, in the same minutes: trust the ratios. Prints Markdown.

use anyhow::{Context, Result};
use holdfast_smoke::{DAEMON, HELPER, Host, LAUNCHER, scaled, until};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(serde::Deserialize)]
struct Times {
    min_us: u32,
    median_us: u32,
    p90_us: u32,
    #[serde(default)]
    failed: usize,
}

fn main() -> Result<()> {
    let host = Host::installed()?;
    for tool in ["floor", "timer"] {
        std::fs::copy(beside(tool)?, host.path(&format!("/usr/local/bin/{tool}")))?;
    }
    let result = latency(&host).and_then(|()| memory(&host));
    host.explain(result)
}

/// Another binary of this crate, built with the same profile.
fn beside(name: &str) -> Result<PathBuf> {
    Ok(std::env::current_exe()?.parent().context("a directory")?.join(name))
}

fn latency(host: &Host) -> Result<()> {
    let rounds = scaled(300);
    let floor = host.root().run_within(Duration::from_secs(600), &format!("unshare --net floor {rounds}"))?.ok()?;
    let floor: Times = floor.json()?;
    // One worker stays, as on a host in use: the bridge and its network are there.
    host.alice().run_worker("--name resident -- sleep infinity")?;
    let line = format!(
        "timer {rounds} fork+exec /bin/true \
         --- bwrap bwrap --unshare-all --ro-bind / / --dev /dev --proc /proc /bin/true \
         --- none holdfast run --rm --net none -- /bin/true \
         --- bridge holdfast run --rm --net bridge -- /bin/true \
         --- version holdfast version \
         --- ps holdfast ps"
    );
    let times: BTreeMap<String, Times> = host.alice().run_within(Duration::from_secs(900), &line)?.ok()?.json()?;
    host.alice().remove_all()?;
    println!("### Launch to exit of `/bin/true`, {rounds} rounds in turn (ms)\n");
    println!("| what | min | median | p90 | ratio to the floor | failed |\n|---|---|---|---|---|---|");
    let rows = [
        ("fork + exec, nothing else", times.get("fork+exec")),
        ("floor: the same kernel objects by raw system calls, in process", Some(&floor)),
        ("bwrap --unshare-all (no network)", times.get("bwrap")),
        ("`holdfast run --rm --net none`", times.get("none")),
        ("`holdfast run --rm --net bridge`", times.get("bridge")),
        ("`holdfast version` (starting the CLI)", times.get("version")),
        ("`holdfast ps` (starting the CLI, one call)", times.get("ps")),
    ];
    for (name, row) in rows {
        let row = row.context("a row is missing")?;
        let ms = |us: u32| f64::from(us) / 1000.0;
        let ratio = f64::from(row.median_us) / f64::from(floor.median_us);
        let (min, median, p90) = (ms(row.min_us), ms(row.median_us), ms(row.p90_us));
        println!("| {name} | {min:.2} | {median:.2} | {p90:.2} | {ratio:.2} | {} |", row.failed);
    }
    Ok(())
}

fn memory(host: &Host) -> Result<()> {
    println!("\n### Memory (PSS, KiB)\n\n| what | 1 worker | 20 workers | 200 workers |\n|---|---|---|---|");
    let (mut shims, mut programs) = (Vec::new(), Vec::new());
    let mut made = 0;
    for count in [1_u32, 20, 200] {
        while made < count {
            host.alice().run_worker(&format!("--name idle-{made} -- sleep infinity"))?;
            made += 1;
        }
        // Idle is what is measured: a shim gives back what its start took after about a second.
        std::thread::sleep(Duration::from_secs(3));
        let found = shim_pss(host)?;
        anyhow::ensure!(found.len() == count as usize, "{} shims for {count} workers", found.len());
        shims.push(format!("{}", found.iter().sum::<u64>() / u64::from(count)));
        let mut sum = 0;
        let mut parts = Vec::new();
        for unit in [HELPER, DAEMON, LAUNCHER] {
            let pss = pss(&host.path(&format!("/proc/{}", host.main_pid(unit)?)))?;
            sum += pss;
            parts.push(pss.to_string());
        }
        programs.push(format!("{sum} ({})", parts.join(" + ")));
    }
    println!("| each shim | {} |", shims.join(" | "));
    println!("| helper + daemon + launcher | {} |", programs.join(" | "));
    ps_of_many(host, made)
}

fn ps_of_many(host: &Host, made: u32) -> Result<()> {
    let line = "timer 50 ps holdfast ps";
    let times: BTreeMap<String, Times> = host.alice().run(line)?.ok()?.json()?;
    let ps = times.get("ps").context("ps")?;
    host.systemctl(&format!("restart {DAEMON}"))?;
    let back = until("ps after a restart", Duration::from_secs(30), || Ok(host.alice().ps()?.len() == made as usize))?;
    println!(
        "\n`ps` of {made} live workers: median {:.1} ms, p90 {:.1} ms. ",
        f64::from(ps.median_us) / 1e3,
        f64::from(ps.p90_us) / 1e3
    );
    println!(
        "Restarted daemon with {made} live workers: `ps` complete {} ms after `systemctl restart` returned.",
        back.as_millis()
    );
    Ok(())
}

fn shim_pss(host: &Host) -> Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(host.path("/proc"))?.flatten() {
        let comm = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if comm.trim() == "holdfast-shim" {
            found.push(pss(&entry.path())?);
        }
    }
    Ok(found)
}

/// `Pss:` of smaps_rollup (proc_pid_smaps(5)), in KiB.
fn pss(process: &Path) -> Result<u64> {
    let rollup = std::fs::read_to_string(process.join("smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss line")?;
    line.trim().trim_end_matches(" kB").trim().parse().context("Pss")
}
