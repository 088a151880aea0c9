//! What workers cost that do nothing: memory, `ps`, a daemon's start.

use crate::Times;
use anyhow::{Context, Result};
use holdfast_smoke::{DAEMON, HELPER, Host, LAUNCHER, scaled, until};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Each shim and the three programs, at 1, 20, 200 and 1,000 workers.
pub fn measure(host: &Host) -> Result<()> {
    let most = scaled(1000).max(201);
    let slab_before = slab(host)?;
    println!(
        "\n### Memory (PSS, KiB)\n\n| what | 1 worker | 20 workers | 200 workers | {most} workers |\n|---|---|---|---|---|"
    );
    let (mut shims, mut programs) = (Vec::new(), Vec::new());
    let mut made = 0;
    for count in [1_u32, 20, 200, most] {
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
    let each = slab(host)?.saturating_sub(slab_before) / u64::from(made);
    println!("\nKernel slab (`Slab:` of /proc/meminfo, {made} workers less none): {each} KiB each.");
    ps_of_many(host, made)?;
    host.alice().remove_all()
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

/// Kernel memory of the whole machine, in KiB: only a difference means something.
fn slab(host: &Host) -> Result<u64> {
    let meminfo = std::fs::read_to_string(host.path("/proc/meminfo"))?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("Slab:")).context("no Slab line")?;
    line.trim().trim_end_matches(" kB").trim().parse().context("Slab")
}
