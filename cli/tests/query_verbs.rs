//! The verbs that look for workers, typed at the real program.

#![allow(missing_docs, clippy::unwrap_used)]

mod fake;

use fake::{Running, ended, worker};
use holdfast_proto::daemon::exit::How;

fn daemon() -> Running {
    Running::with(vec![worker("web"), ended("job", How::Code(42))])
}

#[test]
fn filters_go_to_the_daemon_as_they_were_typed() {
    let daemon = daemon();
    assert_eq!(daemon.run(&["ps", "--filter", "label=a=b", "-f", "phase=failed", "-q"]).code, Some(0));
    assert_eq!(daemon.asked(), [r#"list all=false filters=["label=a=b", "phase=failed"]"#]);
}

#[test]
fn a_format_shows_what_it_names() {
    let daemon = daemon();
    let done = daemon.run(&["ps", "-a", "--format", "{{.Name}} {{.Phase}} {{.ExitCode}}"]);
    assert_eq!((done.code, done.out.as_str()), (Some(0), "web running \njob stopped 42\n"), "{}", done.err);
    let done = daemon.run(&["ps", "--format", r"table {{.Name}}\t{{.Ports}}"]);
    assert_eq!(done.out, "NAME   PORTS\nweb    *:8080->80/tcp\n");
    let done = daemon.run(&["ps", "--format", "{{.Nosuch}}"]);
    assert_eq!(done.code, Some(2));
    assert!(done.err.contains(".Nosuch") && done.err.contains(".Name .Phase"), "{}", done.err);
    assert_eq!(daemon.run(&["ps", "--json", "--format", "x"]).code, Some(2));
}

#[test]
fn prune_without_a_terminal_needs_yes() {
    let daemon = daemon();
    let done = daemon.run(&["prune"]);
    assert_eq!((done.code, done.out.as_str()), (Some(2), ""));
    assert!(done.err.contains("--yes") && daemon.asked().is_empty(), "{}", done.err);
    let done = daemon.run(&["prune", "--filter", "label=x", "--yes"]);
    assert_eq!((done.code, done.out.as_str()), (Some(0), "job\n"));
    assert!(done.err.contains("1 workers forgotten, 2.0 KiB freed"), "{}", done.err);
    assert_eq!(daemon.asked(), [r#"prune ["label=x"] dry_run=false"#]);
    let done = daemon.run(&["prune", "-f", "--json"]);
    let went: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((went["bytes"].clone(), went["removed"][0]["name"].clone()), (2048.into(), "job".into()));
}

#[test]
fn events_go_on_after_the_last_cursor_when_the_daemon_goes_away() {
    let daemon = daemon();
    let done = daemon.run(&["events", "-f", "--filter", "kind=started"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let names: Vec<&str> = done.out.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(names, ["w8", "w9", "w10"]);
    let filters = r#"["kind=started"] false"#;
    let asked: Vec<String> =
        ["None", "Some(8)", "Some(9)"].map(|cursor| format!("events cursor={cursor} follow=true {filters}")).into();
    // Between them it is asked whether it is there again.
    let events = daemon.asked().into_iter().filter(|asked| asked.starts_with("events"));
    assert_eq!(events.collect::<Vec<_>>(), asked);
    let done = daemon.run(&["events", "--cursor", "9", "--since", "10m", "--json"]);
    let event: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((event["cursor"].clone(), event["name"].clone()), (10.into(), "w10".into()));
    assert_eq!(daemon.asked().last().unwrap(), "events cursor=Some(9) follow=false [] true");
    assert_eq!(daemon.run(&["events", "--since", "yesterday"]).code, Some(2));
}
