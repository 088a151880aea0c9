//! Many launches at once.

use crate::peers;
use anyhow::{Context, Result};
use holdfast_smoke::{Host, User, scaled};
use std::time::Duration;

const AT_ONCE: u32 = 8;

#[derive(serde::Deserialize)]
struct Crowd {
    per_second: f64,
    p50_us: u32,
    p99_us: u32,
    failed: usize,
}

/// `/bin/true` many times, eight at any time, beside the peers.
pub fn measure(host: &Host) -> Result<()> {
    let count = scaled(500);
    host.alice().run_worker("--name resident -- sleep infinity")?;
    let mut lines = vec![
        ("bwrap --unshare-all (no network)", host.alice(), peers::BWRAP.to_owned(), count),
        ("`holdfast run --rm --net none`", host.alice(), "holdfast run --rm --net none -- /bin/true".to_owned(), count),
        ("`holdfast run --rm --net bridge`", host.alice(), "holdfast run --rm -- /bin/true".to_owned(), count),
    ];
    if peers::works(host, peers::CRUN)? {
        lines.insert(1, ("crun, netns without veth (root)", host.root(), peers::CRUN.to_owned(), count));
    }
    let podman = peers::podman("bridge");
    if peers::works(host, &podman)? {
        lines.push(("podman, bridge (root), a tenth as many", host.root(), podman, count.div_ceil(10)));
    }
    println!("\n### {count} launches of `/bin/true`, {AT_ONCE} at any time\n");
    println!("| what | launches/s | p50 (ms) | p99 (ms) | failed |\n|---|---|---|---|---|");
    for (name, user, line, count) in lines {
        let crowd = crowd(&user, count, &line)?;
        let ms = |us: u32| f64::from(us) / 1000.0;
        let (p50, p99) = (ms(crowd.p50_us), ms(crowd.p99_us));
        println!("| {name} | {:.0} | {p50:.1} | {p99:.1} | {} |", crowd.per_second, crowd.failed);
    }
    host.alice().remove_all()
}

fn crowd(user: &User<'_>, count: u32, line: &str) -> Result<Crowd> {
    let output = user.run_within(Duration::from_secs(900), &format!("crowd {count} {AT_ONCE} {line}"))?;
    output.ok()?.json().with_context(|| line.to_owned())
}
