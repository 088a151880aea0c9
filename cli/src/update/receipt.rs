//! What became of an update: kept, shown, and told to programs.

use super::census::{Census, Seen};
use crate::install::disk;
use crate::out;
use crate::view::{cell, plain};
use anyhow::Context;
use holdfast_proto::layout::Layout;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// Receipts that are kept; the oldest go.
const RECEIPTS_MAX: usize = 200;

/// The contract's document, and each worker.
#[derive(Debug, Clone, Serialize)]
pub struct Receipt {
    /// `current`, `available`, `dry-run`, `updated`, `rolled-back`, `rollback-incomplete`, `recovered`, `refused`, `failed`.
    pub result: &'static str,
    /// When.
    pub at: Timestamp,
    /// The release before.
    pub from: Option<String>,
    /// The release that was to be.
    pub to: Option<String>,
    /// Why nothing was done, by its name.
    pub refusal: Option<&'static str>,
    /// Both probes.
    pub probes: Probes,
    /// How many lived before and after.
    pub workers: Counts,
    /// How long calls had to wait, in milliseconds.
    pub api_gap_ms: Option<u64>,
    /// What an operator should know.
    pub warnings: Vec<String>,
    /// Each worker that lived before, with its process before and after.
    pub census: BTreeMap<String, Pair>,
}

/// What was found after the flip, and after the way back.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Probes {
    /// `ok`, or what failed.
    pub forward: Option<String>,
    /// The same of the old release, where it was put back.
    pub rollback: Option<String>,
}

/// Live workers.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Counts {
    /// Before.
    pub before: Option<usize>,
    /// After.
    pub after: Option<usize>,
}

/// One worker before and after.
#[derive(Debug, Clone, Serialize)]
pub struct Pair {
    before: Seen,
    after: Option<Seen>,
}

#[derive(Debug, Deserialize)]
struct Shown {
    result: String,
    at: Timestamp,
    from: Option<String>,
    to: Option<String>,
    probes: Value,
}

impl Receipt {
    /// One that says only what it is about.
    pub fn new(result: &'static str, from: Option<String>, to: Option<String>) -> Self {
        Self {
            result,
            at: Timestamp::now(),
            from,
            to,
            refusal: None,
            probes: Probes::default(),
            workers: Counts::default(),
            api_gap_ms: None,
            warnings: Vec::new(),
            census: BTreeMap::new(),
        }
    }

    /// Adds who lived before and after.
    pub fn count(&mut self, before: &Census, after: Option<&Census>) {
        self.workers = Counts { before: Some(before.live()), after: after.map(Census::live) };
        let mut now = after.map(Census::listed).unwrap_or_default();
        self.census = before
            .listed()
            .into_iter()
            .map(|(name, before)| {
                let after = now.remove(&name);
                (name, Pair { before, after })
            })
            .collect();
    }

    /// For a person.
    ///
    /// # Errors
    /// Where stdout cannot be written.
    pub fn print(&self) -> anyhow::Result<()> {
        if !self.census.is_empty() {
            let pid = |seen: &Seen| seen.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
            let rows = self.census.iter().map(|(name, Pair { before, after })| {
                let same = match after {
                    Some(now) if (now.pid, now.start_ticks) == (before.pid, before.start_ticks) => "same process",
                    Some(now) if now.generation != before.generation => "started again",
                    _ => "ended",
                };
                let now = after.as_ref().map_or_else(|| "-".to_owned(), pid);
                [cell(name, 60), pid(before), now, same.to_owned()]
            });
            out::table(["WORKER", "PID BEFORE", "PID AFTER", ""], rows.collect())?;
        }
        let unknown = || "-".to_owned();
        out::line(&format!(
            "\n{}: {} -> {}",
            self.result,
            self.from.clone().unwrap_or_else(unknown),
            self.to.clone().unwrap_or_else(unknown)
        ))?;
        for (what, probe) in [("forward probe", &self.probes.forward), ("rollback probe", &self.probes.rollback)] {
            if let Some(probe) = probe {
                out::text(&format!("{what}: {}\n", probe.lines().map(plain).collect::<Vec<_>>().join("\n  ")))?;
            }
        }
        if let (Some(before), Some(after)) = (self.workers.before, self.workers.after) {
            out::line(&format!("workers: {before} before, {after} after"))?;
        }
        if let Some(gap) = self.api_gap_ms {
            out::line(&format!("the API was away for at most {gap} ms"))?;
        }
        Ok(())
    }

    /// Keeps it. Newest names sort last.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn keep(&self, layout: &Layout) -> anyhow::Result<()> {
        let folder = folder(layout);
        disk::make_directory(&folder)?;
        let stamp = self.at.strftime("%Y%m%dT%H%M%S%.6fZ");
        let text = serde_json::to_string_pretty(self)? + "\n";
        disk::write_file(&folder.join(format!("{stamp}.json")), text.as_bytes(), 0o644)?;
        let names = names(layout)?;
        for name in names.iter().take(names.len().saturating_sub(RECEIPTS_MAX)) {
            fs::remove_file(folder.join(name))?;
        }
        Ok(())
    }
}

fn folder(layout: &Layout) -> PathBuf {
    layout.state().join("receipts")
}

fn names(layout: &Layout) -> anyhow::Result<Vec<String>> {
    let entries = match fs::read_dir(folder(layout)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| name.ends_with(".json") && !name.starts_with('.'));
    names.sort();
    Ok(names)
}

/// Lists the kept receipts, the newest last. Anybody may ask.
///
/// # Errors
/// Where they cannot be read, or stdout cannot be written.
pub fn history(layout: &Layout, json: bool) -> anyhow::Result<()> {
    let mut receipts = Vec::new();
    for name in names(layout)? {
        let text = fs::read(folder(layout).join(&name)).with_context(|| name.clone())?;
        let receipt: Value = serde_json::from_slice(&text).with_context(|| name.clone())?;
        receipts.push(receipt);
    }
    if json {
        return Ok(out::json(&receipts)?);
    }
    let mut rows = Vec::new();
    for receipt in receipts {
        let shown: Shown = serde_json::from_value(receipt)?;
        let why = ["forward", "rollback"].map(|key| shown.probes[key].as_str().unwrap_or_default().to_owned());
        let why = why.into_iter().filter(|why| !why.is_empty() && why != "ok").collect::<Vec<_>>().join("; ");
        let unknown = || "-".to_owned();
        let (from, to) = (shown.from.unwrap_or_else(unknown), shown.to.unwrap_or_else(unknown));
        let at = shown.at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        rows.push([at, cell(&shown.result, 30), cell(&from, 60), cell(&to, 60), cell(&why, 200)]);
    }
    Ok(out::table(["WHEN", "RESULT", "FROM", "TO", "WHY"], rows)?)
}
