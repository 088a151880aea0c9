//! Published ports: throughput of one stream, and a new connection for each request.

use crate::peers::{self, PODMAN};
use anyhow::{Context, Result};
use holdfast_smoke::{Host, Outside, scaled, until};
use std::time::Duration;

#[derive(serde::Deserialize)]
struct Stream {
    gbit: f64,
}

#[derive(serde::Deserialize)]
struct Asked {
    p50_us: u32,
    p99_us: u32,
}

/// Loopback, a published port from outside and from the host itself, and podman's.
pub fn measure(host: &Host) -> Result<()> {
    let outside = Outside::attach(host)?;
    println!("\n### The wire: one TCP stream, and a new connection for each request\n");
    println!("| path | Gbit/s in | Gbit/s out | connect + request p50 (us) | p99 (us) |\n|---|---|---|---|---|");
    let _server = host.root().start("wire serve 7800")?;
    row(host, None, "loopback, no worker", "127.0.0.1", 7800)?;
    row(host, Some(&outside), "outside -> host, no worker", Outside::HOST, 7800)?;
    host.alice().run_worker("--name wire --publish 7801:7800 -- /usr/local/bin/wire serve 7800")?;
    row(host, Some(&outside), "outside -> published port", Outside::HOST, 7801)?;
    row(host, None, "host -> its own published port, by 127.0.0.1", "127.0.0.1", 7801)?;
    host.alice().remove_all()?;
    let probe = peers::podman("bridge");
    if peers::works(host, &probe)? {
        let line = format!("{PODMAN} run -d --name wire -p 7802:7800 --rootfs /opt/peer/rootfs /bin/wire serve 7800");
        host.root().run_within(Duration::from_secs(60), &line)?.ok()?;
        row(host, Some(&outside), "outside -> podman's published port (root, bridge)", Outside::HOST, 7802)?;
        host.root().run_within(Duration::from_secs(60), &format!("{PODMAN} rm -f -t 0 wire"))?.ok()?;
    }
    Ok(())
}

fn row(host: &Host, from: Option<&Outside<'_>>, name: &str, address: &str, port: u16) -> Result<()> {
    let ask = |words: &str| match from {
        Some(outside) => outside.run(&format!("wire {words}")),
        None => host.root().run(&format!("wire {words}")),
    };
    let target = format!("{address} {port}");
    until("the server answers", Duration::from_secs(10), || Ok(ask(&format!("ask {target} 1"))?.code == 0))?;
    let stream = |way: &str| -> Result<f64> {
        let stream: Stream = ask(&format!("{way} {target} 3"))?.ok()?.json().context("a stream's figures")?;
        Ok(stream.gbit)
    };
    let (inward, outward) = (stream("push")?, stream("pull")?);
    let asked: Asked = ask(&format!("ask {target} {}", scaled(2000)))?.ok()?.json()?;
    println!("| {name} | {inward:.1} | {outward:.1} | {} | {} |", asked.p50_us, asked.p99_us);
    Ok(())
}
