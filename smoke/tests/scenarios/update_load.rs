//! An update beside many workers and a steady load through a published port: no request fails.

use crate::on_installed;
use crate::update::{UPDATE_MAX, runs};
use anyhow::{Context, anyhow, ensure};
use holdfast_smoke::{Census, Flow, Host, Publisher, Result, connect, scaled};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

/// CI's number, and the long tier's.
const WORKERS: [usize; 2] = [8, 50];
/// Requests under way at once.
const CALLERS: usize = 4;
const ECHO: u16 = 7000;

/// Requests one after the other, each over a connection of its own.
struct Load {
    ends: Arc<AtomicBool>,
    callers: Vec<JoinHandle<Counts>>,
}

/// What became of them.
#[derive(Default)]
struct Counts {
    answered: u64,
    slowest: Duration,
    failed: Vec<String>,
}

impl Load {
    fn start(netns: &Path) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let caller = |_| {
            let (ends, netns) = (Arc::clone(&ends), PathBuf::from(netns));
            spawn(move || call_until(&ends, &netns))
        };
        let callers = (0..CALLERS).map(caller).collect();
        Self { ends, callers }
    }

    fn stop(self) -> Result<Counts> {
        self.ends.store(true, Ordering::Relaxed);
        let mut all = Counts::default();
        for caller in self.callers {
            let counts = caller.join().map_err(|_| anyhow!("a caller panicked"))?;
            all.answered += counts.answered;
            all.slowest = all.slowest.max(counts.slowest);
            all.failed.extend(counts.failed);
        }
        Ok(all)
    }
}

fn call_until(ends: &AtomicBool, netns: &Path) -> Counts {
    let mut counts = Counts::default();
    while !ends.load(Ordering::Relaxed) {
        let began = Instant::now();
        match call(netns, counts.answered) {
            Ok(()) => counts.answered += 1,
            Err(error) => counts.failed.push(format!("{error:#}")),
        }
        counts.slowest = counts.slowest.max(began.elapsed());
        sleep(Duration::from_millis(10));
    }
    counts
}

fn call(netns: &Path, number: u64) -> Result {
    let mut stream = connect(netns, SocketAddr::from(([127, 0, 0, 1], ECHO)))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(&number.to_be_bytes()).context("write")?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).context("read")?;
    ensure!(u64::from_be_bytes(answer) == number, "number {number} came back as {answer:?}");
    Ok(())
}

#[test]
fn update_beside_many_workers_and_a_steady_load_fails_no_request() -> Result {
    on_installed(|host| {
        let publisher = Publisher::new(host)?;
        publisher.trust()?;
        publisher.take_next("next")?;
        publisher.publish("next", "0.1.1", 1, "")?;
        let count = if scaled(1) > 1 { WORKERS[1] } else { WORKERS[0] };
        host.alice().run_echo("echo", ECHO)?;
        for number in 2..=count {
            host.alice().run_worker(&format!("--name w{number} -- sleep infinity"))?;
        }
        let census = Census::take(host)?;
        let flow = Flow::open(&host.netns(), SocketAddr::from(([127, 0, 0, 1], ECHO)))?;
        let load = Load::start(&host.netns());
        for arguments in ["--yes --soak 5", "--rollback --yes --soak 5"] {
            let said = host.root().run_within(UPDATE_MAX, &format!("holdfast update {arguments}"))?.ok()?;
            let same = said.text().lines().filter(|line| line.ends_with("same process")).count();
            ensure!(same == count, "the receipt has {same} workers of {count}: {said}");
            ensure!(said.text().contains(&format!("workers: {count} before, {count} after")), "{said}");
            println!("{arguments}: {}", said.text().lines().last().unwrap_or_default());
            census.must_hold(host, arguments)?;
        }
        let counts = load.stop()?;
        println!(
            "{count} workers, {} requests, {} failed, the slowest took {} ms; flow: {} echoes",
            counts.answered,
            counts.failed.len(),
            counts.slowest.as_millis(),
            flow.close()?
        );
        ensure!(counts.failed.is_empty() && counts.answered > 100, "failed: {:?}", counts.failed);
        kept(host, count)?;
        runs(host, "0.1.0")
    })
}

/// Each update left a receipt that names each worker with its process before and after.
fn kept(host: &Host, count: usize) -> Result {
    let history: Value = host.alice().run("holdfast update --history --json")?.ok()?.json()?;
    let receipts = history.as_array().context("a list")?;
    ensure!(receipts.len() == 2, "{} receipts", receipts.len());
    for receipt in receipts {
        let census = receipt["census"].as_object().context("census")?;
        let same = census.values().filter(|pair| pair["before"] == pair["after"]).count();
        ensure!(same == count, "kept: {same} of {count}: {receipt}");
    }
    Ok(())
}
