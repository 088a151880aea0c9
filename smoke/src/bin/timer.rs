//! Times whole commands from process start to exit, side by side: `timer ROUNDS NAME PROGRAM ARGS… [--- NAME PROGRAM ARGS…]…`
//!
//! Every round runs each command once, in turn, so that a noisy minute meets all of them. Prints one JSON object:
//! `{"NAME":{"min_us":…,"median_us":…,"p90_us":…,"failed":…},…}`. The first round is not counted.

use std::io;
use std::process::{Command, Stdio};
use std::time::Instant;

struct Timed {
    name: String,
    words: Vec<String>,
    micros: Vec<u128>,
    failed: usize,
}

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let rounds: usize = args.next().and_then(|n| n.parse().ok()).unwrap_or(100);
    let args: Vec<String> = args.collect();
    let mut timed: Vec<Timed> = args
        .split(|word| word == "---")
        .filter_map(|words| words.split_first())
        .map(|(name, words)| Timed { name: name.clone(), words: words.to_vec(), micros: Vec::new(), failed: 0 })
        .collect();
    for round in 0..=rounds {
        for command in &mut timed {
            command.run(round > 0)?;
        }
    }
    let results: Vec<String> = timed.iter_mut().map(Timed::summary).collect();
    println!("{{{}}}", results.join(","));
    Ok(())
}

impl Timed {
    fn run(&mut self, counted: bool) -> io::Result<()> {
        let Some((program, args)) = self.words.split_first() else {
            return Err(io::Error::other(format!("{}: no program", self.name)));
        };
        let begin = Instant::now();
        let status = Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).status()?;
        let took = begin.elapsed().as_micros();
        if counted {
            self.micros.push(took);
            self.failed += usize::from(!status.success());
        }
        Ok(())
    }

    fn summary(&mut self) -> String {
        self.micros.sort_unstable();
        let at = |share: usize| self.micros.get(self.micros.len() * share / 100).copied().unwrap_or_default();
        let (min, median, p90) = (at(0), at(50), at(90));
        format!(
            "{:?}:{{\"min_us\":{min},\"median_us\":{median},\"p90_us\":{p90},\"failed\":{}}}",
            self.name, self.failed
        )
    }
}
