//! Starts one command COUNT times, AT_ONCE of them at any time: `crowd COUNT AT_ONCE PROGRAM ARGS…`
//!
//! Prints one JSON object: launches a second over the whole, and what one launch took from its start to its exit.
//! The word `{}` among the arguments becomes the number of the launch, for programs that want a name each.

use std::io;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [count, at_once, program, args @ ..] = args.as_slice() else {
        return Err(io::Error::other("crowd COUNT AT_ONCE PROGRAM ARGS…"));
    };
    let number = |word: &String| word.parse::<usize>().map_err(io::Error::other);
    let (count, at_once) = (number(count)?, number(at_once)?);
    let next = AtomicUsize::new(0);
    let begin = Instant::now();
    let launches: Vec<(u128, bool)> = std::thread::scope(|scope| {
        let hands: Vec<_> = (0..at_once).map(|_| scope.spawn(|| launch_until(&next, count, program, args))).collect();
        hands.into_iter().flat_map(|hand| hand.join().unwrap_or_default()).collect()
    });
    let seconds = begin.elapsed().as_secs_f64();
    let mut micros: Vec<u128> = launches.iter().map(|(took, _)| *took).collect();
    micros.sort_unstable();
    let at = |share: usize| micros.get(micros.len() * share / 100).copied().unwrap_or_default();
    let well = launches.iter().filter(|(_, well)| *well).count();
    println!(
        "{{\"per_second\":{:.1},\"p50_us\":{},\"p99_us\":{},\"failed\":{}}}",
        launches.len() as f64 / seconds,
        at(50),
        at(99),
        count - well
    );
    Ok(())
}

/// One hand of the crowd: takes the next number until there is none.
fn launch_until(next: &AtomicUsize, count: usize, program: &str, args: &[String]) -> Vec<(u128, bool)> {
    let mut launches = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= count {
            return launches;
        }
        let args = args.iter().map(|word| word.replace("{}", &number.to_string()));
        let begin = Instant::now();
        let status = Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).status();
        launches.push((begin.elapsed().as_micros(), status.is_ok_and(|status| status.success())));
    }
}
