//! The worker verbs, typed at the real program, against a daemon that serves the real contract.

mod fake;

use fake::{Done, Running, ended, holdfast, soon, worker};
use holdfast_proto::daemon::exit::How;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Read;
use std::process::Stdio;

fn daemon() -> Running {
    Running::with(vec![worker("web"), ended("job", How::Code(42)), ended("crash", How::Signal(11))])
}

#[test]
fn ps_json_has_the_contracts_fields_to_the_letter() {
    let done = daemon().run(&["ps", "-a", "--json"]);
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
    let all: Vec<serde_json::Value> = serde_json::from_str(&done.out).unwrap();
    let mut names: Vec<&str> = all[0].as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected: Vec<&str> = "id name phase pid started_at finished_at restarts exit addresses ports command \
        network labels owner generation next_start_at"
        .split_whitespace()
        .collect();
    names.sort_unstable();
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert_eq!(all[0]["started_at"], "2023-11-14T22:13:21.5Z");
    assert_eq!(all[0]["exit"], serde_json::Value::Null);
    assert_eq!(all[0]["ports"], serde_json::json!([{"host": 8080, "worker": 80, "proto": "tcp", "address": ""}]));
    assert_eq!(all[1]["exit"], serde_json::json!({"code": 42}));
    assert_eq!(all[2]["exit"], serde_json::json!({"signal": 11}));
}

#[test]
fn ps_shows_live_workers_and_all_of_them_when_asked() {
    let daemon = daemon();
    let done = daemon.run(&["ps"]);
    assert!(done.out.contains("web") && !done.out.contains("job"), "{}", done.out);
    let done = daemon.run(&["ps", "-a"]);
    assert!(done.out.contains("stopped (42)") && done.out.contains("stopped (SIGSEGV)"), "{}", done.out);
    assert!(done.out.contains("*:8080->80/tcp") && done.out.contains("10.88.0.2 "), "{}", done.out);
    assert_eq!(daemon.run(&["ps", "-q"]).out, "00112233445566aa\n");
}

#[test]
fn run_in_the_foreground_ends_as_its_worker_did() {
    let daemon = daemon();
    for (program, code) in
        [("0", 0), ("42", 42), ("segv", 139), ("not-found", 127), ("cannot-execute", 126), ("refused", 125)]
    {
        let done = daemon.run(&["run", "--net", "none", "--", program]);
        assert_eq!(done.code, Some(code), "{program}: {}", done.err);
    }
    let done = daemon.run(&["run", "--", "0"]);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("to stdout\n", "to stderr\n"));
}

#[test]
fn run_detached_prints_the_id_alone() {
    let daemon = daemon();
    let done = daemon.run(&["run", "-d", "--name", "web", "-p", "8080:80", "server", "-x", "--name"]);
    assert_eq!((done.code, done.out.as_str()), (Some(0), "00112233445566aa\n"));
    let specs = daemon.fake.specs.lock().unwrap();
    assert_eq!(specs[0].command, ["server", "-x", "--name"].map(|word| word.as_bytes().to_vec()));
    assert_eq!((specs[0].name.as_str(), specs[0].network.as_str()), ("web", "bridge"));
}

#[test]
fn a_firewall_that_drops_is_named_where_a_bridge_was_asked_for() {
    let mut daemon = daemon();
    daemon.fake.firewall = "chain perimeter of corporate drops; nft add rule ... accept".to_owned();
    daemon.serve();
    for (words, told) in [
        (&["run", "-d", "0"][..], true),
        (&["run", "42"], true),
        (&["run", "0"], false),
        (&["run", "-d", "--net", "none", "0"], false),
    ] {
        let done = daemon.run(words);
        assert_eq!(done.err.contains("perimeter"), told, "{words:?}: {}", done.err);
    }
}

#[test]
fn a_refusal_says_why_and_what_would_work() {
    let done = daemon().run(&["run", "-d", "refused"]);
    assert_eq!((done.code, done.out.as_str()), (Some(125), ""));
    assert_eq!(done.err, "holdfast: port 80 is outside 1024-65535 (use --ports)\n");
}

#[test]
fn signals_go_to_the_worker_and_its_end_is_ours() {
    for (signal, number) in [(Signal::SIGINT, 2), (Signal::SIGTERM, 15), (Signal::SIGHUP, 1)] {
        let daemon = daemon();
        let child =
            daemon.command(&["run", "until-signal"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        soon("the launch", || daemon.asked().iter().any(|call| call.starts_with("run")));
        std::thread::sleep(std::time::Duration::from_millis(100));
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        let done = Done::of(child.wait_with_output().unwrap());
        assert_eq!(done.code, Some(128 + number), "{}", done.err);
        assert!(daemon.asked().contains(&format!("kill 00112233445566aa {number}")));
    }
}

#[test]
fn a_daemon_that_breaks_off_loses_no_output_and_no_exit_code() {
    let mut over = ended("web", How::Code(7));
    over.id = worker("web").id;
    let daemon = Running::with(vec![over]);
    let done = daemon.run(&["run", "--rm", "breaks-off"]);
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (Some(7), "to stdout\n", "to stderr\n"));
    assert!(daemon.asked().contains(&"remove 00112233445566aa force=false".to_owned()));
}

#[test]
fn wait_prints_codes_alone_in_the_order_that_was_typed() {
    let done = daemon().run(&["wait", "crash", "job"]);
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (Some(0), "139\n42\n", ""));
}

#[test]
fn one_of_several_that_is_not_there_is_said_and_the_others_are_done() {
    let daemon = daemon();
    let done = daemon.run(&["stop", "-t", "3", "web", "ghost", "job"]);
    assert_eq!((done.code, done.out.as_str()), (Some(4), "web\njob\n"));
    assert_eq!(done.err, "holdfast: no worker \"ghost\" (holdfast ps -a)\n");
    assert!(daemon.asked().contains(&"stop job Some(3)".to_owned()));
}

#[test]
fn verbs_ask_for_what_was_typed() {
    let daemon = daemon();
    for (words, asked) in [
        (&["start", "job"][..], "start job"),
        (&["restart", "-t", "0", "web"], "restart web Some(0)"),
        (&["stop", "web"], "stop web None"),
        (&["suspend", "web"], "suspend web"),
        (&["resume", "web"], "resume web"),
        (&["kill", "-s", "hup", "web"], "kill web 1"),
        (&["kill", "web"], "kill web 9"),
        (&["rm", "-f", "web"], "remove web force=true"),
        (&["logs", "-f", "--tail", "5", "web"], "logs web follow=true tail=Some(5)"),
    ] {
        let done = daemon.run(words);
        assert_eq!(done.code, Some(0), "{words:?}: {}", done.err);
        assert!(daemon.asked().contains(&asked.to_owned()), "{words:?}: {:?}", daemon.asked());
    }
    assert_eq!(daemon.run(&["rm", "web"]).code, Some(5), "a live worker is not removed");
}

#[test]
fn logs_keep_the_streams_apart() {
    let done = daemon().run(&["logs", "web"]);
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (Some(0), "to stdout\n", "to stderr\n"));
}

#[test]
fn inspect_port_and_status_speak_to_people_and_to_scripts() {
    let daemon = daemon();
    let done = daemon.run(&["inspect", "job", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(shown["shim"], serde_json::json!({"pid": 4710, "version": "0.1.0"}));
    assert_eq!(shown["log"], serde_json::json!({"bytes": 10, "dropped": 3}));
    assert_eq!(shown["history"][0]["phase"], "starting");
    assert!(shown["limits"].get("enforced_by").is_some() && shown["spec"]["stop_timeout_secs"] == 10);
    assert!(daemon.run(&["inspect", "job"]).out.contains("stopped (42)"));
    assert_eq!(daemon.run(&["port", "web"]).out, "80/tcp -> 0.0.0.0:8080\n");
    let done = daemon.run(&["status", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(shown["update"], serde_json::json!({"available": false, "expired": false, "version": null}));
    assert_eq!(shown["workers"], serde_json::json!({"live": 1, "failed": 2}));
    assert_eq!(shown["programs"][0]["generation"], 3);
    assert!(daemon.run(&["status"]).out.contains("NOT HEALTHY: it does not answer"));
}

#[test]
fn a_reader_that_leaves_ends_the_list_quietly() {
    let daemon = Running::with((0..2000).map(|_| worker("web")).collect());
    let mut child = daemon.command(&["ps"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let done = Done::of(child.wait_with_output().unwrap());
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
}

#[test]
fn no_daemon_is_three_and_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let done = Done::of(holdfast(&["ps"]).env("HOLDFAST_SOCKET", directory.path().join("no.sock")).output().unwrap());
    assert_eq!(done.code, Some(3), "{}", done.err);
    assert!(done.err.contains("HOLDFAST_SOCKET"), "{}", done.err);
}

#[test]
fn usage_is_two_and_typos_are_recognised() {
    let daemon = daemon();
    for words in [
        &["run", "--nmae", "web", "--", "true"][..],
        &["run", "--name", "Web", "true"],
        &["run", "-p", "80", "true"],
        &["run", "-e", "=x", "true"],
        &["run", "--env-file", "/nonexistent/file", "true"],
        &["run"],
        &["stop"],
        &["pss"],
        &["kill", "-s", "NOPE", "web"],
    ] {
        let done = daemon.run(words);
        assert_eq!(done.code, Some(2), "{words:?}: {} {}", done.out, done.err);
    }
    assert!(daemon.run(&["pss"]).err.contains("'ps'"));
    assert!(daemon.run(&["run", "--nmae", "web", "true"]).err.contains("--name"));
    assert_eq!(daemon.asked(), Vec::<String>::new(), "nothing was asked for");
}
