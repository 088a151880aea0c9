//! `stats` and `top`, typed at the real program.

mod fake;

use fake::{Running, ended, worker};
use holdfast_proto::daemon::exit::How;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

fn daemon() -> Running {
    Running::with(vec![worker("web"), ended("job", How::Code(42))])
}

#[test]
fn stats_tell_rates_and_levels_once() {
    let done = daemon().run(&["stats", "--no-stream", "--json"]);
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
    let all: Vec<serde_json::Value> = serde_json::from_str(&done.out).unwrap();
    let web = &all[0];
    assert_eq!((&web["cpu_percent"], &web["received_bytes_per_sec"]), (&50.0.into(), &2048.0.into()));
    assert_eq!((&web["memory_bytes"], &web["memory_source"]), (&(5 << 20).into(), &"processes".into()));
    assert_eq!((&all[1]["phase"], &all[1]["tasks"]), (&"stopped".into(), &serde_json::Value::Null));
    let done = daemon().run(&["stats", "--no-stream", "web"]);
    assert!(done.out.contains("50.0") && done.out.contains("~5.0M") && !done.out.contains("job"), "{}", done.out);
    assert!(done.out.starts_with("NAME"), "{}", done.out);
}

#[test]
fn stats_stream_a_document_a_line_until_nobody_reads() {
    let daemon = daemon();
    let mut command = daemon.command(&["stats", "--json"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        let look: Vec<serde_json::Value> = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(look[0]["cpu_percent"], 50.0);
    }
    drop(lines);
    assert!(child.wait().unwrap().success(), "a reader that left is no failure");
}

#[test]
fn stats_of_a_worker_that_is_not_there_say_so() {
    let done = daemon().run(&["stats", "--no-stream", "nobody"]);
    assert_eq!(done.code, Some(4), "{}", done.err);
    assert_eq!(daemon().run(&["stats", "--all", "web"]).code, Some(2));
}
