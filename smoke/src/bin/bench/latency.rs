//! What one launch costs, from process start to exit, everything in turn.

use crate::{Times, peers};
use anyhow::Result;
use holdfast_smoke::{Host, scaled};
use std::collections::BTreeMap;
use std::time::Duration;

/// `/bin/true` by everything that can start it.
pub fn measure(host: &Host) -> Result<()> {
    let rounds = scaled(300);
    let floor = host.root().run_within(Duration::from_secs(600), &format!("unshare --net floor {rounds}"))?.ok()?;
    let floor: Times = floor.json()?;
    // One worker stays, as on a host in use: the bridge and its network are there.
    host.alice().run_worker("--name resident -- sleep infinity")?;
    let line = format!(
        "timer {rounds} fork+exec /bin/true \
         --- bwrap {} \
         --- none holdfast run --rm --net none -- /bin/true \
         --- bridge holdfast run --rm --net bridge -- /bin/true \
         --- version holdfast version \
         --- ps holdfast ps",
        peers::BWRAP
    );
    let times: BTreeMap<String, Times> = host.alice().run_within(Duration::from_secs(900), &line)?.ok()?.json()?;
    host.alice().remove_all()?;
    let peers = timed_peers(host, rounds)?;
    println!("### Launch to exit of `/bin/true`, {rounds} rounds in turn (ms)\n");
    println!("| what | min | median | p90 | ratio to the floor | failed |\n|---|---|---|---|---|---|");
    let rows = [
        ("fork + exec, nothing else", times.get("fork+exec")),
        ("floor: the same kernel objects by raw system calls, in process", Some(&floor)),
        ("bwrap --unshare-all (no network)", times.get("bwrap")),
        ("`holdfast run --rm --net none`", times.get("none")),
        ("`holdfast run --rm --net bridge`", times.get("bridge")),
        ("crun run, netns without veth (root)", peers.get("crun")),
        ("podman run, bridge (root)", peers.get("podman")),
        ("`holdfast version` (starting the CLI)", times.get("version")),
        ("`holdfast ps` (starting the CLI, one call)", times.get("ps")),
    ];
    for (name, row) in rows {
        let Some(row) = row else { continue };
        let ms = |us: u32| f64::from(us) / 1000.0;
        let ratio = f64::from(row.median_us) / f64::from(floor.median_us);
        let (min, median, p90) = (ms(row.min_us), ms(row.median_us), ms(row.p90_us));
        println!("| {name} | {min:.2} | {median:.2} | {p90:.2} | {ratio:.2} | {} |", row.failed);
    }
    Ok(())
}

/// The peers that need root, where they run at all; podman takes so long that a tenth of the rounds must do.
fn timed_peers(host: &Host, rounds: u32) -> Result<BTreeMap<String, Times>> {
    let mut times = BTreeMap::new();
    for (name, line, rounds) in
        [("crun", peers::CRUN.to_owned(), rounds), ("podman", peers::podman("bridge"), rounds.div_ceil(10))]
    {
        if peers::works(host, &line)? {
            let line = format!("timer {rounds} {name} {}", line.replace("{}", "timed"));
            let timed = host.root().run_within(Duration::from_secs(900), &line)?.ok()?;
            times.extend(timed.json::<BTreeMap<String, Times>>()?);
        }
    }
    Ok(times)
}
