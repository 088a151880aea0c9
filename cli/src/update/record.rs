//! The record of an update: its form.

use anyhow::Context;
use holdfast_release::Digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// An update that has begun to change what runs, and has not been committed. While its file is there,
/// [`Txn::from`] is the release to go back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Txn {
    /// Always 1.
    pub format: u32,
    /// The release that was committed last.
    pub from: String,
    /// The release before that, if any.
    pub previous: Option<String>,
    /// The release that is tried.
    pub to: String,
    /// When it began.
    pub began: Timestamp,
}

impl Txn {
    /// Always the `format`.
    pub const FORMAT: u32 = 1;
    /// What was tried, where a damaged record does not say it.
    pub const UNKNOWN: &str = "unknown";

    /// Reads the file's bytes.
    ///
    /// # Errors
    /// Where it is not whole.
    pub fn parse(text: &[u8]) -> anyhow::Result<Self> {
        let text = std::str::from_utf8(text)?;
        let (digest, json) = text.strip_suffix('\n').and_then(|line| line.split_once("  ")).context("it is cut off")?;
        anyhow::ensure!(digest.parse() == Ok(Digest::of(json.as_bytes())), "its digest does not fit");
        let txn: Self = serde_json::from_str(json)?;
        anyhow::ensure!(txn.format == Self::FORMAT, "it has the form {}", txn.format);
        Ok(txn)
    }

    /// What the file holds.
    ///
    /// # Errors
    /// None that is known: all fields have a form in JSON.
    pub fn text(&self) -> anyhow::Result<String> {
        let json = serde_json::to_string(self)?;
        Ok(format!("{}  {json}\n", Digest::of(json.as_bytes())))
    }
}
