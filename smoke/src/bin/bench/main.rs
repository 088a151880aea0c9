//! The figures of `docs/performance.md`: launches one at a time and many at once, idle workers, and the wire, each
//! beside the floor and the peers (`bwrap`, `crun`, `podman`) that can do the same.
//!
//! Run by `smoke/bench`, by hand, with a release build. Everything that is compared runs in the same container, in
//! turn, in the same minutes: trust the ratios. Prints Markdown. `bench PART…` runs these parts alone.

mod at_once;
mod idle;
mod latency;
mod peers;
mod wire;

use anyhow::{Context, Result, bail};
use holdfast_smoke::Host;
use std::path::PathBuf;

/// What `timer` prints of one command.
#[derive(serde::Deserialize)]
struct Times {
    min_us: u32,
    median_us: u32,
    p90_us: u32,
    #[serde(default)]
    failed: usize,
}

type Part = (&'static str, fn(&Host) -> Result<()>);

/// In the order in which they run.
const PARTS: [Part; 4] =
    [("latency", latency::measure), ("at-once", at_once::measure), ("wire", wire::measure), ("idle", idle::measure)];

fn main() -> Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = wanted.iter().find(|word| !PARTS.iter().any(|(name, _)| name == word)) {
        bail!("no part is called {unknown}: {}", PARTS.map(|(name, _)| name).join(", "));
    }
    let host = Host::boot_with(peers::PACKAGES)?;
    host.install("--owner alice")?;
    for tool in ["floor", "timer", "crowd", "wire"] {
        std::fs::copy(beside(tool)?, host.path(&format!("/usr/local/bin/{tool}")))?;
    }
    peers::prepare(&host)?;
    for (name, measure) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|word| word == name) {
            let result = measure(&host).with_context(|| format!("part {name}"));
            host.explain(result)?;
        }
    }
    Ok(())
}

/// Another binary of this crate, built with the same profile.
fn beside(name: &str) -> Result<PathBuf> {
    Ok(std::env::current_exe()?.parent().context("a directory")?.join(name))
}
