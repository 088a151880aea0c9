use super::*;
use crate::args::{Args, Command};
use clap::Parser;
use holdfast_proto::daemon::Limits;

fn typed(words: &[&str]) -> RunArgs {
    let all = ["holdfast", "run"].iter().chain(words);
    match Args::try_parse_from(all).unwrap().command {
        Command::Run(args) => *args,
        other => panic!("{other:?}"),
    }
}

fn spec(words: &[&str], env_file: &str) -> Result<WorkerSpec, SpecError> {
    let variable = |name: &OsStr| (name == "FROM_HERE").then(|| OsString::from("a value"));
    let around =
        Surroundings { directory: Path::new("/home/alice"), variable: &variable, env_files: vec![env_file.into()] };
    worker_spec(&typed(words), &around)
}

fn env(words: &[&str], env_file: &str) -> Vec<String> {
    let spec = spec(words, env_file).unwrap();
    spec.env.into_iter().map(|pair| String::from_utf8(pair).unwrap()).collect()
}

#[test]
fn what_is_not_typed_is_the_daemons_to_choose() {
    let spec = spec(&["true"], "").unwrap();
    let expected = WorkerSpec { command: vec![b"true".to_vec()], network: "bridge".into(), ..WorkerSpec::default() };
    assert_eq!(spec, expected);
}

#[test]
fn everything_that_is_typed_arrives() {
    let words = "--rm --name web --net none -p 8080:80 -p 127.0.0.1:53:5353/udp -e A=1 -w site -v data:/data:ro \
        -v /a:b:/c --stop-signal int --stop-timeout 0 --restart on-failure:3 --log-size 2M --log-files 3 -l app=shop --label k=a=b \
        --external-id job:17 --memory 512m --cpus 1.5 --pids 9 -- prog -d --rm";
    let spec = spec(&words.split_whitespace().collect::<Vec<_>>(), "").unwrap();
    let volume =
        |source: &str, target: &str, read_only| Volume { source: source.into(), target: target.into(), read_only };
    let expected = WorkerSpec {
        name: "web".into(),
        command: ["prog", "-d", "--rm"].map(|word| word.as_bytes().to_vec()).into(),
        network: "none".into(),
        address: String::new(),
        gateway: String::new(),
        publish: vec![publish("8080:80").unwrap(), publish("127.0.0.1:53:5353/udp").unwrap()],
        env: vec![b"A=1".to_vec()],
        workdir: b"/home/alice/site".to_vec(),
        volumes: vec![volume("/home/alice/data", "/data", true), volume("/a:b", "/c", false)],
        stop_signal: 2,
        stop_timeout_secs: Some(0),
        log_bytes_max: 2 << 20,
        log_files_max: 3,
        remove_on_exit: true,
        stdin: false,
        terminal: false,
        labels: [("app", "shop"), ("k", "a=b")].map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        external_id: "job:17".into(),
        cage: None,
        restart: "on-failure:3".into(),
        limits: Some(Limits {
            memory_bytes: Some(512 << 20),
            cpu_millis: Some(1500),
            pids: Some(9),
            best_effort: false,
        }),
    };
    assert_eq!(spec, expected);
}

#[test]
fn a_terminal_goes_along_with_its_kind() {
    let typed = spec(&["-it", "bash"], "").unwrap();
    assert!(typed.stdin && typed.terminal);
    let around = |term: Option<&str>| {
        let term = term.map(OsString::from);
        let variable = move |name: &OsStr| term.clone().filter(|_| name == "TERM");
        let around = Surroundings { directory: Path::new("/"), variable: &variable, env_files: Vec::new() };
        terminal_kind(&[], &around)
    };
    assert_eq!(around(Some("xterm")), Some(b"TERM=xterm".to_vec()));
    assert_eq!(around(None), None);
    let given = Surroundings { directory: Path::new("/"), variable: &|_| Some("xterm".into()), env_files: Vec::new() };
    assert_eq!(terminal_kind(&[b"TERM=dumb".to_vec()], &given), None);
}

#[test]
fn options_after_the_program_are_the_programs() {
    assert_eq!(typed(&["ls", "-l", "--name", "x"]).command, ["ls", "-l", "--name", "x"]);
    assert!(!typed(&["ls", "-d"]).detach);
}

#[test]
fn files_come_before_options_and_the_last_word_on_a_name_holds() {
    let file = "# a comment\n\nA=file\nB=file\r\nFROM_HERE\nNOT_SET\nC= spaces stay \n";
    assert_eq!(env(&["true"], file), ["A=file", "B=file", "FROM_HERE=a value", "C= spaces stay "]);
    assert_eq!(env(&["-e", "A=option", "-e", "AB=x", "true"], "A=file\n"), ["A=option", "AB=x"]);
    assert_eq!(env(&["-e", "FROM_HERE", "-e", "NOT_SET", "true"], ""), ["FROM_HERE=a value"]);
    assert_eq!(env(&["-e", "EMPTY=", "true"], ""), ["EMPTY="]);
}

#[test]
fn a_variable_without_a_name_is_refused() {
    for words in [&["-e", "=x", "true"][..], &["-e", "", "true"]] {
        assert!(matches!(spec(words, ""), Err(SpecError::Env(_))), "{words:?}");
    }
    assert!(matches!(spec(&["true"], "A=1\0\n"), Err(SpecError::Env(_))));
}

#[test]
fn more_than_orders_can_carry_is_refused_at_once() {
    let file: String =
        (0..60_000).map(|number| format!("V{number}=0123456789012345678901234567890123456789\n")).collect();
    assert!(matches!(spec(&["true"], &file), Err(SpecError::Large(bytes)) if bytes > 2_000_000));
    let repeated = "A=0123456789\n".repeat(100_000);
    assert_eq!(env(&["true"], &repeated), ["A=0123456789"]);
}

#[test]
fn ports_are_what_the_help_says() {
    let good = |text: &str| {
        let found = publish(text).unwrap();
        (found.address, found.host, found.worker, found.proto)
    };
    let expect = |address: &str, host, worker, proto: &str| (address.to_owned(), host, worker, proto.to_owned());
    assert_eq!(good("8080:80"), expect("", 8080, 80, "tcp"));
    assert_eq!(good("0:80/udp"), expect("", 0, 80, "udp"));
    assert_eq!(good("127.0.0.1:8080:80/tcp"), expect("127.0.0.1", 8080, 80, "tcp"));
    assert_eq!(good("[::1]:8080:80"), expect("::1", 8080, 80, "tcp"));
    for bad in [
        "",
        "80",
        ":",
        "80:",
        ":80",
        "8080:0",
        "65536:80",
        "80:65536",
        "-1:80",
        "80:80/sctp",
        "host:80:80",
        "::1:80:80",
        "80:80:80",
        "80:80/",
        "+80:80x",
    ] {
        let error = publish(bad).unwrap_err().to_string();
        assert!(error.contains("8080:80"), "{bad}: {error}");
    }
}

#[test]
fn volumes_name_two_paths() {
    for bad in ["", "/a", ":/b", "/a:", "/a:b", "/a:ro", "a:b:ro"] {
        assert!(volume(bad.as_bytes()).is_err(), "{bad}");
    }
    assert!(!volume(b"/a:/b:rw").unwrap().read_only);
    assert_eq!(volume(b"/\xff:/b").unwrap().source, b"/\xff");
}

#[test]
fn signals_go_by_name_or_number() {
    for (text, number) in [("TERM", 15), ("sigterm", 15), ("9", 9), ("64", 64), ("Usr1", 10)] {
        assert_eq!(signal(text), Ok(number));
    }
    for bad in ["", "0", "65", "-9", "SIGSIGTERM", "NOPE"] {
        assert!(signal(bad).is_err(), "{bad}");
    }
}

#[test]
fn sizes_have_units() {
    for (text, bytes) in [("1", 1), ("500K", 500 << 10), ("100m", 100 << 20), ("2GiB", 2 << 30), ("7B", 7)] {
        assert_eq!(size(text), Ok(bytes));
    }
    for bad in ["", "0", "K", "1.5G", "-1", "1T", "99999999999G"] {
        assert!(size(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_whole_grammar_is_sound() {
    use clap::CommandFactory;
    Args::command().debug_assert();
}
