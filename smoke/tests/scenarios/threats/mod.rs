//! One test per row of the threat table (docs/privileges.md), named by its row. Each has a patch in
//! `smoke/negative/` that takes the defence away: then the test must fail.

mod callers;
mod identity;
mod inside;
mod links;
mod names;
mod network;
mod paths;
mod root;
mod scans;
mod shim;
mod starving;
mod words;

use anyhow::ensure;
use holdfast_smoke::{Result, User};

/// Runs a Python program as a user; it prints `name errno` per attempt. Returns those pairs.
fn attempts(user: User<'_>, program: &str, arguments: &str) -> Result<Vec<(String, String)>> {
    let said = user.feed(&format!("python3 - {arguments}"), program.as_bytes())?.ok()?;
    let text = said.text();
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    let pairs: Vec<_> = pairs.map(|(attempt, errno)| (attempt.to_owned(), errno.to_owned())).collect();
    ensure!(!pairs.is_empty(), "the probe tried nothing");
    Ok(pairs)
}

/// One unary gRPC call with an empty message, by curl: the headers and trailers that matter. Again where nothing came:
/// at times curl shows nothing of an answer that is there before its own message is out.
fn grpc(socket: &str, method: &str) -> String {
    format!(
        "for i in 1 2 3 4 5 6 7 8; do printf '\\0\\0\\0\\0\\0' | curl -s --max-time 3 --http2-prior-knowledge --unix-socket {socket} -D - -o /dev/null \
         -H 'content-type: application/grpc' -H 'te: trailers' --data-binary @- http://holdfast/{method} | tr -d '\\r' | grep -v '^date' && break; done; echo end"
    )
}
