//! Whole plans against a root in a temporary directory; only the host's programs are recorded instead of run.

use super::apply;
use super::command::{Call, CallError, Commands, Said};
use super::disk;
use super::facts::{Facts, Machine, ReleaseFacts};
use super::ipv6::Forwards6;
use super::plan::{self, Request};
use super::record::Account;
use super::step::Host;
use holdfast_proto::layout::Layout;
use holdfast_release::{Digest, FileName, Folder, PROGRAMS, Role, Sums};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Records calls; the call with the number `fails_at` fails.
#[derive(Default)]
struct Recorder {
    calls: RefCell<Vec<String>>,
    fails_at: Cell<Option<usize>>,
}

impl Commands for Recorder {
    fn ask(&self, call: &Call) -> Result<Said, CallError> {
        let number = self.calls.borrow().len();
        let name = call.program.rsplit('/').next().unwrap_or_default();
        self.calls.borrow_mut().push(format!("{name} {}", call.args.join(" ")));
        if self.fails_at.get() == Some(number) {
            return Err(CallError::Late { call: name.to_owned(), limit: call.limit });
        }
        let status = r#"{"version":"1.2.3","owner":"alice","programs":[]}"#;
        let (code, out) = match (name, call.args.first().map(String::as_str)) {
            ("getent", _) => (2, ""),
            ("systemctl", Some("is-enabled")) => (1, "disabled"),
            ("holdfast", _) => (0, status),
            _ => (0, ""),
        };
        Ok(Said { code: Some(code), out: out.to_owned(), err: String::new() })
    }
}

/// A release folder whose programs are an ELF header each.
pub fn make_folder(at: &Path, version: &str) -> Folder {
    fs::create_dir(at).unwrap();
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (name, _) in PROGRAMS {
        let mut elf = b"\x7fELF\x02\x01".to_vec();
        elf.resize(18, 0);
        elf.extend(if cfg!(target_arch = "x86_64") { 62u16 } else { 183 }.to_le_bytes());
        elf.extend(name.as_bytes());
        files.insert(name.to_owned(), elf);
    }
    for unit in ["holdfast-helper.service", "holdfastd.template.service", "holdfastd.template.socket"] {
        files.insert(unit.to_owned(), version.as_bytes().to_vec());
    }
    files.insert("rules.toml".into(), b"version = 1\n".to_vec());
    files.insert("holdfast.sysusers.conf".into(), b"u holdfast\n".to_vec());
    files.insert("holdfast.tmpfiles.conf".into(), b"d /run/holdfast\n".to_vec());
    files.insert("holdfast.sysctl.conf".into(), b"net.ipv6.conf.all.forwarding = 1\n".to_vec());
    let listed: Vec<_> = files
        .iter()
        .map(|(name, bytes)| {
            let role = Role::of_name(name).unwrap();
            serde_json::json!({"name": name, "size": bytes.len(), "mode": role.mode_text(), "role": role})
        })
        .collect();
    let release = serde_json::json!({
        "type": "holdfast-release", "format": 1, "product": "holdfast", "channel": "stable", "version": version,
        "seq": 0, "min_seq": 0, "key_epoch": 0, "created": "2026-11-21T00:00:00Z", "expires": "2027-02-19T00:00:00Z",
        "commit": "unknown", "state_schema": {"writes": 1, "reads_from": 1},
        "protocols": {"daemon": 1, "helper": 1, "shim": {"speaks": 1, "understands_from": 1}},
        "targets": [{"arch": std::env::consts::ARCH, "libc": "gnu", "files": listed}], "notes": ""
    });
    files.insert("release.json".into(), release.to_string().into_bytes());
    let digests = files.iter().map(|(name, bytes)| (name.parse::<FileName>().unwrap(), Digest::of(bytes)));
    fs::write(at.join("SHA256SUMS"), Sums::of(digests).to_string()).unwrap();
    for (name, bytes) in files {
        fs::write(at.join(name), bytes).unwrap();
    }
    Folder::open(at).unwrap()
}

fn facts(layout: &Layout, folder: &Folder) -> Facts {
    let release = ReleaseFacts::of(folder).unwrap();
    let read = |name: &String| disk::read_if_there(&layout.units().join(name)).unwrap();
    let units: BTreeMap<_, _> = release.units.keys().filter_map(|name| Some((name.clone(), read(name)?))).collect();
    let installed = super::facts::installed(layout).unwrap();
    let active = installed.as_ref().map(plan::start_order).unwrap_or_default();
    Facts {
        machine: Machine { systemd: Some(252), user_namespaces: Ok(()), forwards6: Forwards6::Off },
        account: Account { name: "alice".parse().unwrap(), uid: 1000, gid: 1000, home: "/home/alice".into() },
        release,
        installed,
        rules: disk::read_if_there(&layout.rules_toml()).unwrap().map(|bytes| String::from_utf8(bytes).unwrap()),
        current: disk::link_if_there(&layout.current()).unwrap(),
        units,
        active,
    }
}

fn install(layout: &Layout, folder: &Folder, commands: &Recorder) -> Result<(), apply::Failed> {
    let request =
        Request { ports: vec!["80".into()], pool6: "fd12:3456:789a::/48".into(), now: jiff::Timestamp::UNIX_EPOCH };
    let plan = plan::plan(&facts(layout, folder), &request, layout).unwrap();
    apply::apply(&plan.steps, &Host { layout, commands, folder, ready_max: Duration::from_millis(100) }, &mut |_| {})
}

/// Everything below a directory: names, modes, targets, contents.
pub fn tree(root: &Path) -> BTreeMap<PathBuf, (u32, String)> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let about = path.symlink_metadata().unwrap();
            let what = if about.is_dir() {
                waiting.push(path.clone());
                String::new()
            } else if about.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else {
                Digest::of(&fs::read(&path).unwrap()).to_string()
            };
            found.insert(path, (about.permissions().mode(), what));
        }
    }
    found
}

/// A root as a host has it.
pub fn root() -> (tempfile::TempDir, Layout) {
    let root = tempfile::tempdir().unwrap();
    for path in ["etc/systemd/system", "usr/local", "var/lib", "run"] {
        fs::create_dir_all(root.path().join(path)).unwrap();
    }
    let layout = Layout::below(root.path());
    (root, layout)
}

#[test]
fn an_install_is_whole_and_read_only() {
    let (root, layout) = root();
    let source = tempfile::tempdir().unwrap();
    let folder = make_folder(&source.path().join("r"), "1.2.3");
    install(&layout, &folder, &Recorder::default()).unwrap();
    let placed = Folder::open(&layout.current()).unwrap();
    assert_eq!(placed.id(), folder.id());
    let mode = |name: &str| layout.current().join(name).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("."), mode("holdfastd"), mode("release.json")), (0o755, 0o555, 0o444));
    assert_eq!(fs::read_link(layout.command()).unwrap(), Path::new("../lib/holdfast/current/holdfast"));
    assert!(layout.units().join("holdfastd@.service").exists());
    let hidden =
        tree(root.path()).into_keys().filter(|path| path.file_name().unwrap().to_string_lossy().starts_with('.'));
    assert_eq!(hidden.collect::<Vec<_>>(), [] as [PathBuf; 0]);
}

#[test]
fn the_same_again_leaves_the_same_tree() {
    let (root, layout) = root();
    let source = tempfile::tempdir().unwrap();
    let folder = make_folder(&source.path().join("r"), "1.2.3");
    install(&layout, &folder, &Recorder::default()).unwrap();
    let before = tree(root.path());
    let again = Recorder::default();
    install(&layout, &folder, &again).unwrap();
    assert_eq!(tree(root.path()), before);
    let acts = again.calls.into_inner();
    assert!(!acts.iter().any(|call| call.contains("restart") || call.contains("daemon-reload")), "{acts:?}");
}

#[test]
fn a_damaged_release_is_placed_anew() {
    let (root, layout) = root();
    let source = tempfile::tempdir().unwrap();
    let folder = make_folder(&source.path().join("r"), "1.2.3");
    install(&layout, &folder, &Recorder::default()).unwrap();
    let before = tree(root.path());
    let program = layout.current().join("holdfastd");
    fs::remove_file(&program).unwrap();
    fs::write(&program, "damaged").unwrap();
    install(&layout, &folder, &Recorder::default()).unwrap();
    assert_eq!(tree(root.path()), before);
}

#[test]
fn leftovers_of_a_crash_do_not_break_the_next_install() {
    let (_root, layout) = root();
    let source = tempfile::tempdir().unwrap();
    let folder = make_folder(&source.path().join("r"), "1.2.3");
    fs::create_dir_all(layout.releases()).unwrap();
    std::os::unix::fs::symlink("nowhere", layout.library().join(".current.new")).unwrap();
    fs::write(layout.units().join(".holdfastd@.service.new"), "half").unwrap();
    install(&layout, &folder, &Recorder::default()).unwrap();
    assert!(Folder::open(&layout.current()).is_ok());
    assert!(layout.library().join(".current.new").symlink_metadata().is_err());
}

/// Fails the call of a program with every number in turn: each time the tree has to be as before.
fn every_failure_reverts(root: &Path, layout: &Layout, folder: &Folder) {
    let before = tree(root);
    for number in 0.. {
        let commands = Recorder::default();
        commands.fails_at.set(Some(number));
        match install(layout, folder, &commands) {
            Ok(()) => {
                assert!(number > 10, "only {number} calls");
                return;
            }
            Err(failed) => {
                assert_eq!(failed.left, [] as [String; 0], "call {number}: {failed}");
                assert_eq!(tree(root), before, "call {number}: {failed}");
            }
        }
    }
}

#[test]
fn a_first_install_that_fails_anywhere_leaves_the_host_as_it_was() {
    let (root, layout) = root();
    let source = tempfile::tempdir().unwrap();
    let folder = make_folder(&source.path().join("r"), "1.2.3");
    every_failure_reverts(root.path(), &layout, &folder);
}

#[test]
fn a_newer_release_that_fails_anywhere_leaves_the_older_one() {
    let (root, layout) = root();
    let source = tempfile::tempdir().unwrap();
    let older = make_folder(&source.path().join("r1"), "1.2.3");
    install(&layout, &older, &Recorder::default()).unwrap();
    fs::write(layout.units().join("holdfastd@.service"), "edited by somebody").unwrap();
    let newer = make_folder(&source.path().join("r2"), "1.2.3-next");
    let before = tree(root.path());
    // The recorder's daemon answers with 1.2.3 for ever, so that the last step fails, too.
    let failed = install(&layout, &newer, &Recorder::default()).unwrap_err();
    assert!(failed.to_string().contains("1.2.3-next was installed"), "{failed}");
    assert!(failed.to_string().ends_with("nothing has changed."), "{failed}");
    assert_eq!(tree(root.path()), before);
}

#[test]
fn a_source_that_changes_after_its_check_is_refused() {
    let (root, layout) = root();
    let source = tempfile::tempdir().unwrap();
    let folder = make_folder(&source.path().join("r"), "1.2.3");
    let before = tree(root.path());
    let program = folder.path().join("holdfast-shim");
    let mut bytes = fs::read(&program).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&program, bytes).unwrap();
    let failed = install(&layout, &folder, &Recorder::default()).unwrap_err();
    assert!(failed.to_string().contains("wrong-digest: holdfast-shim"), "{failed}");
    assert_eq!(tree(root.path()), before);
}
