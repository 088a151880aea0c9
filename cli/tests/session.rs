//! What the programs of a session are given: programs that only write down what they got stand in for them.
//! The real ones are tried by the smoke scenarios.

#![allow(clippy::unwrap_used, reason = "a stage that breaks fails its test")]

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PROGRAMS: [&str; 3] = ["holdfast-helper", "holdfast-launcher", "holdfastd"];

/// A session that is being started, in directories of its own.
struct Stage {
    directory: tempfile::TempDir,
    start: Child,
    is_root: bool,
    owner: nix::unistd::User,
}

impl Stage {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let is_root = nix::unistd::geteuid().is_root();
        let owner = match is_root {
            true => nix::unistd::User::from_name("nobody").unwrap().unwrap(),
            false => nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap(),
        };
        open(directory.path(), 0o755);
        for (name, mode) in [("folder", 0o755), ("notes", 0o777)] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
            open(&directory.path().join(name), mode);
        }
        let folder = directory.path().join("folder");
        std::fs::copy(env!("CARGO_BIN_EXE_holdfast"), folder.join("holdfast")).unwrap();
        let notes = directory.path().join("notes");
        for name in PROGRAMS.into_iter().chain(["holdfast-shim"]) {
            let file = folder.join(name);
            let text = format!(
                "#!/bin/sh\n{{ cat /proc/self/status; env; ls -l /proc/$$/fd; echo \"args $*\"; echo \"pid $$\"; }} \
                 > {0}/{name}.new\nmv {0}/{name}.new {0}/{name}\nexec sleep 60\n",
                notes.display()
            );
            std::fs::write(&file, text).unwrap();
            open(&file, 0o755);
        }
        let mut stage = Self { start: Command::new("true").spawn().unwrap(), directory, is_root, owner };
        stage.start.wait().unwrap();
        stage.start = stage.holdfast(&["session", "start"]).spawn().unwrap();
        stage
    }

    fn holdfast(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.directory.path().join("folder/holdfast"));
        command.args(["--owner", &self.owner.name]).args(words);
        command.env("HOLDFAST_SESSION", self.root()).env("LD_PRELOAD", "").env("EVIL", "from outside");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("session")
    }

    /// What a program wrote down.
    fn note(&self, program: &str) -> String {
        soon(|| std::fs::read_to_string(self.directory.path().join("notes").join(program)).ok())
    }

    /// The daemon's pid, as the supervisor has it on record.
    fn daemon(&self) -> Option<i32> {
        let text = std::fs::read_to_string(self.root().join("run/holdfast/session/programs.json")).ok()?;
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        let programs = record["programs"].as_array().unwrap();
        let daemon = programs.iter().find(|program| program["name"] == "daemon").unwrap();
        daemon["pid"].as_i64().map(|pid| i32::try_from(pid).unwrap())
    }

    fn supervisor(&self) -> i32 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", soon(|| self.daemon()))).unwrap();
        line(&status, "PPid:")[0].parse().unwrap()
    }
}

/// What a test expects to come before long.
fn soon<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..500 {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it never came");
}

impl Drop for Stage {
    /// Ends the supervisor, which ends its programs; the start that waits for an answer then gives up.
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.supervisor());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.start.wait();
    }
}

fn open(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// The value of a line of /proc/PID/status.
fn line<'a>(note: &'a str, name: &str) -> Vec<&'a str> {
    let line = note.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().skip(1).collect()
}

#[test]
fn each_program_gets_the_identity_of_its_unit_and_nothing_else() {
    let stage = Stage::new();
    let owner = stage.owner.uid.to_string();
    for program in PROGRAMS {
        let note = stage.note(program);
        let is_helper = program == "holdfast-helper";
        let capabilities = if is_helper && stage.is_root { "0000000000003000" } else { "0000000000000000" };
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(line(&note, set), [capabilities], "{program} {set}");
        }
        if stage.is_root {
            assert_eq!(line(&note, "CapBnd:"), [capabilities], "{program}");
            let uids = line(&note, "Uid:");
            assert!(uids.iter().all(|uid| *uid == uids[0] && *uid != "0"), "{program} {uids:?}");
            assert_eq!(uids[0] == owner, !is_helper, "{program} {uids:?}");
            let helper_gid = line(&stage.note("holdfast-helper"), "Gid:")[0].to_owned();
            assert!(line(&note, "Groups:").contains(&helper_gid.as_str()), "{program}");
        }
        assert_eq!(line(&note, "NoNewPrivs:"), ["1"], "{program}");
        assert_eq!(line(&note, "SigBlk:"), ["0000000000000000"], "{program}");
        assert!(!note.contains("EVIL") && !note.contains("LD_PRELOAD"), "{program}: {note}");
    }
}

#[test]
fn listening_sockets_arrive_at_three_and_on_and_nothing_else_is_open() {
    let stage = Stage::new();
    for (program, names) in
        [("holdfast-helper", "helper.sock:launch.sock"), ("holdfastd", "daemon.sock"), ("holdfast-launcher", "")]
    {
        let note = stage.note(program);
        let count = names.split(':').filter(|name| !name.is_empty()).count();
        let sockets: Vec<&str> = note
            .lines()
            .filter(|line| line.contains("-> socket:"))
            .map(|line| line.split_whitespace().rev().nth(2).unwrap())
            .collect();
        assert_eq!(sockets, ["3", "4"][..count], "{program}: {note}");
        assert_eq!(note.contains(&format!("LISTEN_FDS={count}\n")), count > 0, "{program}");
        if count > 0 {
            assert!(note.contains(&format!("LISTEN_FDNAMES={names}\n")), "{program}: {note}");
            let pid = note.lines().find_map(|line| line.strip_prefix("pid ")).unwrap();
            assert!(note.contains(&format!("LISTEN_PID={pid}\n")), "{program}: {note}");
        }
    }
}

#[test]
fn sockets_and_directories_have_the_contracts_owners_and_modes() {
    let stage = Stage::new();
    for program in PROGRAMS {
        stage.note(program);
    }
    let (run, owner) = (stage.root().join("run/holdfast"), stage.owner.uid.as_raw());
    let keeper = if stage.is_root { 0 } else { owner };
    let own = format!("owners/{}", stage.owner.name);
    let of_helper = if stage.is_root { 0o660 } else { 0o600 };
    for (path, uid, mode) in [
        ("helper.sock".to_owned(), keeper, of_helper),
        ("launch.sock".to_owned(), keeper, of_helper),
        (format!("{own}/daemon.sock"), owner, 0o600),
        (format!("{own}/workers"), owner, 0o700),
        (own, keeper, 0o755),
        (format!("../../var/lib/holdfast/owners/{}", stage.owner.name), owner, 0o700),
        ("../../etc/holdfast/rules.toml".to_owned(), keeper, 0o644),
    ] {
        let found = run.join(&path).metadata().unwrap();
        assert_eq!((found.uid(), found.mode() & 0o7777), (uid, mode), "{path}");
    }
}

#[test]
fn a_program_that_dies_is_started_again_behind_the_same_socket() {
    let stage = Stage::new();
    stage.note("holdfastd");
    let path = stage.root().join(format!("run/holdfast/owners/{}/daemon.sock", stage.owner.name));
    let inode = path.metadata().unwrap().ino();
    let first = soon(|| stage.daemon());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL).unwrap();
    soon(|| stage.daemon().filter(|pid| *pid != first));
    assert_eq!(path.metadata().unwrap().ino(), inode);
}

#[test]
fn a_folder_that_lacks_a_program_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path(), 0o755);
    let root = directory.path().join("session");
    let owner = if nix::unistd::geteuid().is_root() { vec!["--owner", "nobody"] } else { Vec::new() };
    std::fs::copy(env!("CARGO_BIN_EXE_holdfast"), directory.path().join("holdfast")).unwrap();
    let mut command = Command::new(directory.path().join("holdfast"));
    let output = command.args(owner).args(["session", "start"]).env("HOLDFAST_SESSION", &root).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("holdfast-shim") && said.contains("packaging/build"), "{said}");
    assert!(!root.exists());
}
