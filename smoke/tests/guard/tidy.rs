//! The house style that a program can see (docs/contributing.md).

use crate::sources::{Source, root, shipped};
use std::fs;

/// Production lines of a file; beyond that it holds two subjects.
const FILE_LINES_MAX: usize = 400;

/// Lines of a function, as clippy has it too; here also for code behind a feature.
const FUNCTION_LINES_MAX: usize = 70;

/// Deciding modules: no clock, file, socket, environment or runtime. As (path part, why it is pure).
const PURE: &[&str] =
    &["daemon/src/worker/", "helper/src/policy", "helper/src/ledger", "cli/src/view", "cli/src/top/model"];

const IMPURE_WORDS: &[&str] = &[
    "tokio::",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::env",
    "SystemTime::now",
    "Instant::now",
    "Timestamp::now",
    "Zoned::now",
    "rustix::fs",
    "std::process::Command",
    "std::os::unix::net",
];

fn complain(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

fn lines_with(sources: &[Source], word: &str, allowed: impl Fn(&Source) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| !allowed(source)) {
        let hits = source.code().filter(|(_, line)| line.contains(word));
        found.extend(hits.map(|(n, line)| format!("{}:{n}: {}", source.path, line.trim())));
    }
    found
}

#[test]
fn files_hold_one_subject() {
    let long = |source: &Source| {
        let lines = source.production.lines().count();
        (lines > FILE_LINES_MAX)
            .then(|| format!("{}: {lines} production lines (at most {FILE_LINES_MAX})", source.path))
    };
    complain(shipped().iter().filter_map(long).collect());
}

#[test]
fn functions_fit_a_screen() {
    let mut long = Vec::new();
    for source in shipped() {
        let mut begin: Option<(usize, usize, String)> = None;
        for (n, line) in source.production.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let code = line.trim_start();
            let is_fn = [
                "fn ",
                "pub fn ",
                "async fn ",
                "pub async fn ",
                "pub(crate) fn ",
                "pub(super) fn ",
                "unsafe fn ",
                "const fn ",
                "pub const fn ",
            ]
            .iter()
            .any(|head| code.starts_with(head));
            if is_fn && begin.is_none() && !code.ends_with(';') {
                begin = Some((n, indent, code.to_owned()));
            }
            if let Some((first, depth, head)) = &begin
                && code.starts_with('}')
                && indent == *depth
            {
                let lines = n - first + 1;
                if lines > FUNCTION_LINES_MAX + 2 {
                    long.push(format!("{}:{}: {lines} lines: {head}", source.path, first + 1));
                }
                begin = None;
            }
            if let Some((first, depth, _)) = &begin
                && n > *first
                && indent < *depth
            {
                begin = None;
            }
            if begin.as_ref().is_some_and(|(first, _, _)| *first == n) && code.ends_with('}') {
                begin = None;
            }
        }
    }
    complain(long);
}

#[test]
fn unsafe_lives_in_one_file_per_crate() {
    let sources = shipped();
    let is_sys = |source: &Source| source.module() == "sys" || source.path.contains("/sys/");
    let mut found = lines_with(&sources, "unsafe ", |source| is_sys(source));
    found.retain(|line| !line.contains("unsafe_code") && !line.contains('"'));
    complain(found);
    for lib in ["proto/src/lib.rs", "daemon/src/main.rs"] {
        let text = fs::read_to_string(root().join(lib)).expect("a crate's root");
        assert!(text.contains("#![forbid(unsafe_code)]"), "{lib} does not forbid unsafe code");
    }
}

#[test]
fn deciding_modules_touch_nothing() {
    let sources: Vec<_> =
        shipped().into_iter().filter(|source| PURE.iter().any(|part| source.path.contains(part))).collect();
    assert!(!sources.is_empty(), "no deciding module found: the tree moved");
    complain(IMPURE_WORDS.iter().flat_map(|word| lines_with(&sources, word, |_| false)).collect());
}

#[test]
fn no_build_is_weaker_than_another() {
    let sources = shipped();
    let words = [
        "cfg(debug_assertions)",
        "cfg!(debug_assertions)",
        "cfg(feature = \"test",
        "cfg(feature = \"insecure",
        "danger_accept",
    ];
    complain(words.iter().flat_map(|word| lines_with(&sources, word, |_| false)).collect());
}

#[test]
fn the_environment_is_read_where_programs_begin() {
    let sources = shipped();
    let begins = |source: &Source| {
        [
            "main",
            "notify",
            "listen",
            "sys",
            "args",
            "caller",
            "candidates",
            "client",
            "env",
            "spec",
            "run",
            "exec",
            "supervise",
            "start",
            "activation",
            "sockets",
        ]
        .contains(&source.module())
            || source.path.starts_with("cli/src/")
            || source.path.starts_with("packaging/")
    };
    complain(["env::var", "env::vars", "var_os("].iter().flat_map(|word| lines_with(&sources, word, begins)).collect());
}

#[test]
fn no_program_runs_another() {
    let sources = shipped();
    // The CLI runs systemctl and useradd as an installer must; the launcher executes the shim by its own system call.
    // What a unit's reload starts (docs/decisions/0014) ends once the daemon's successor serves; it never serves itself.
    let may = |source: &Source| {
        source.path.starts_with("cli/src/")
            || source.path.starts_with("packaging/")
            || source.path == "daemon/src/handover/start.rs"
    };
    complain(["process::Command", "Command::new"].iter().flat_map(|word| lines_with(&sources, word, may)).collect());
}

#[test]
fn vague_names_stay_away() {
    let sources = shipped();
    let mut found = Vec::new();
    for word in ["Manager", "Handler", "Util", "fn do_"] {
        let definitions = lines_with(&sources, word, |_| false);
        let defines =
            |line: &String| ["struct ", "enum ", "trait ", "fn ", "mod "].iter().any(|head| line.contains(head));
        found.extend(definitions.into_iter().filter(defines));
    }
    found.extend(lines_with(&sources, "fn get_", |_| false));
    complain(found);
}

/// T16: what the helper cannot be asked about, it cannot betray.
#[test]
fn t16_no_call_of_the_helper_names_a_path_a_link_or_a_process() {
    let text = fs::read_to_string(root().join("proto/schema/helper.proto")).expect("helper.proto");
    let calls = text.split("message ").filter(|message| {
        message.split_whitespace().next().is_some_and(|name| name.ends_with("Request") || name == "Port")
    });
    let mut requests = 0;
    for message in calls {
        requests += 1;
        let body = message.split('}').next().unwrap_or_default();
        for line in body.lines().filter(|line| line.contains('=') && !line.trim_start().starts_with("//")) {
            for word in ["path", "file", "dir", "ifname", "interface", "pid", "netns", "device", "link"] {
                assert!(!line.contains(word), "a request field that names a {word}: {}", line.trim());
            }
        }
    }
    assert!(requests >= 5, "only {requests} requests found: the file's form changed");
}
