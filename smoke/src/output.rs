//! What a command said, and assertions on it that show everything when they fail.

use crate::Result;
use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use std::fmt;
use std::time::Duration;

/// Most characters of each stream that a failure shows.
const SHOWN_CHARS: usize = 6_000;

/// The end of one command.
#[derive(Debug, Clone)]
pub struct Output {
    /// What was run, and as whom.
    pub command: String,
    /// The exit code; 128+N for signal N, as a shell has it.
    pub code: i32,
    /// Standard output, as it came.
    pub stdout: Vec<u8>,
    /// Standard error; bytes that are no UTF-8 are replaced.
    pub stderr: String,
    /// From start to exit.
    pub took: Duration,
}

impl Output {
    /// The command must have ended with 0.
    pub fn ok(self) -> Result<Self> {
        self.exits(0)
    }

    /// The command must have ended with `code`.
    pub fn exits(self, code: i32) -> Result<Self> {
        if self.code != code {
            bail!("exit code {} where {code} was promised\n{self}", self.code);
        }
        Ok(self)
    }

    /// The command must have refused with `code`, and said each of `words` (case-blind) on stderr.
    pub fn refuses(self, code: i32, words: &[&str]) -> Result<Self> {
        let output = self.exits(code)?;
        let said = output.stderr.to_lowercase();
        for word in words {
            if !said.contains(&word.to_lowercase()) {
                bail!("the refusal does not say {word:?}\n{output}");
            }
        }
        if said.contains("panicked") {
            bail!("a refusal is no panic\n{output}");
        }
        Ok(output)
    }

    /// Standard output without the last line's end.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    /// Standard output as one JSON document.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.stdout).with_context(|| format!("not the JSON that was promised\n{self}"))
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  command: {}", self.command)?;
        writeln!(f, "  ended with {} after {} ms", self.code, self.took.as_millis())?;
        writeln!(f, "  stdout:\n{}", indented(&String::from_utf8_lossy(&self.stdout)))?;
        write!(f, "  stderr:\n{}", indented(&self.stderr))
    }
}

fn indented(text: &str) -> String {
    let tail = match text.char_indices().rev().nth(SHOWN_CHARS) {
        Some((start, _)) => &text[start..],
        None => text,
    };
    tail.lines().map(|line| format!("    | {line}\n")).collect()
}
