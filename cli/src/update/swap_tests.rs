//! The swap cut off, refused and unplugged at every system call that changes the disk: found by tracing it once, not by a
//! list made by hand. It runs as a process of its own (`act`) over a root in a directory, under strace; only systemd and
//! what it starts are played.

use super::*;
use crate::install::command::{CallError, Said};
use crate::install::plan::Request;
use crate::install::tests::{make_folder, root, tree};
use crate::update::collect;
use crate::update::receipt::Receipt;
use crate::update::state;
use holdfast_release::Floor;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Calls that change what is on a disk (syscalls(2)), as far as a program of ours could make them.
const CHANGES: &str = "open,openat,openat2,creat,write,pwrite64,writev,pwritev,pwritev2,truncate,ftruncate,fallocate,\
    copy_file_range,sendfile,chmod,fchmod,fchmodat,chown,fchown,lchown,fchownat,utimensat,fsync,fdatasync,sync,syncfs,\
    link,linkat,symlink,symlinkat,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,mknod,mknodat,\
    setxattr,fsetxattr";
/// More than the test runner makes of one kind.
const RUNNERS_CALLS_MAX: usize = 100;
const OLD: &str = "1.0.0";
const NEW: &str = "1.1.0";

/// systemd and a daemon that answers with the version that `current` had when it was started last.
struct Host {
    layout: Layout,
    version: RefCell<String>,
}

impl Host {
    fn at(root: &Path) -> Self {
        let layout = Layout::below(root);
        let version = RefCell::new(version_of(&layout));
        Self { layout, version }
    }
}

/// What a program that is started now is.
fn version_of(layout: &Layout) -> String {
    let target = fs::read_link(layout.current()).unwrap_or_default();
    let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.split('-').next().unwrap_or_default().to_owned()
}

/// Units and their number in the played `/proc`.
const UNITS: [(&str, &str, u32); 3] = [
    ("holdfast-helper.service", "holdfast-helper", 10),
    ("holdfast-launcher@alice.service", "holdfast-launcher", 20),
    ("holdfastd@alice.service", "holdfastd", 30),
];

fn number(unit: &str, version: &str) -> u32 {
    let base = UNITS.iter().find(|(name, ..)| *name == unit).map_or(0, |(.., number)| *number);
    base + u32::from(version == NEW)
}

impl Commands for Host {
    fn ask(&self, call: &Call) -> Result<Said, CallError> {
        let words: Vec<&str> = call.args.iter().map(String::as_str).collect();
        let out = match (call.program.rsplit('/').next().unwrap_or_default(), words.as_slice()) {
            ("systemctl", ["--version"]) => "systemd 252 (252.39)".to_owned(),
            ("systemctl", ["list-units", ..]) => {
                UNITS.map(|(unit, ..)| unit).join("\n") + "\nholdfast-helper.socket\nholdfastd@alice.socket\n"
            }
            ("systemctl", ["restart", _]) => {
                self.version.replace(version_of(&self.layout));
                String::new()
            }
            ("systemctl", ["show", .., unit]) => number(unit, &self.version.borrow()).to_string(),
            ("systemctl", ["is-enabled", _]) => "enabled".to_owned(),
            ("holdfast", [.., "ps", "-a", "--json"]) => "[]".to_owned(),
            ("holdfast", _) => {
                format!(r#"{{"version":"{}","owner":"alice","programs":[]}}"#, self.version.borrow())
            }
            _ => String::new(),
        };
        Ok(Said { code: Some(0), out, err: String::new() })
    }
}

/// Places the newer release and swaps to it as `holdfast update` does, or recovers as its unit does.
fn act_at(root: &Path, newer: &Path, what: &str) -> anyhow::Result<()> {
    let (layout, host) = (Layout::below(root), Host::at(root));
    if what == "install" {
        return Ok(install(&layout, &host, &Folder::open(newer)?)?);
    }
    let installed = crate::install::facts::installed(&layout)?.context("installed")?;
    let swap = Swap { layout: &layout, commands: &host, installed: &installed, soak: Duration::ZERO };
    if what == "recover" {
        let Some(txn) = Txn::read(&layout)? else { return Ok(()) };
        return swap.recover(&txn, &mut |_| {});
    }
    let state = HostState::read(&layout)?.context("state")?;
    disk::place_release(&Folder::open(newer)?, &layout.releases())?;
    let folder = Folder::open(&layout.releases().join(Folder::open(newer)?.id().as_str()))?;
    match swap.apply(&folder, &state, &mut |_| {})? {
        Outcome::Done { .. } => {}
        Outcome::Back { forward, rollback, .. } => anyhow::bail!("forward: {forward}; rollback: {rollback:?}"),
    }
    state::raise_floor(&layout, Floor::of(folder.release()))?;
    collect::collect(&layout)?;
    Receipt::new("updated", None, None).keep(&layout)
}

/// As `holdfast system install` does it.
fn install(layout: &Layout, host: &Host, folder: &Folder) -> Result<(), apply::Failed> {
    let account = Account { name: "alice".parse().unwrap(), uid: 1000, gid: 1000, home: "/home/alice".into() };
    let facts = facts::gather(layout, host, folder, account).unwrap();
    let request = Request { ports: Vec::new(), pool6: "fd12:3456:789a::/48".into(), now: jiff::Timestamp::UNIX_EPOCH };
    let plan = plan::plan(&facts, &request, layout).unwrap();
    let ready_max = Duration::from_secs(1);
    apply::apply(&plan.steps, &crate::install::step::Host { layout, commands: host, folder, ready_max }, &mut |_| {})
}

/// Not a test: the process that the tests below cut off.
#[test]
fn act() {
    let Some(root) = std::env::var_os("HOLDFAST_TEST_ROOT").map(PathBuf::from) else { return };
    let newer = std::env::var_os("HOLDFAST_TEST_NEWER").map(PathBuf::from).unwrap();
    let what = std::env::var("HOLDFAST_TEST_ACT").unwrap();
    // strace counts by thread: the test runner's own calls, in another one, must not be the ones that are counted to.
    for _ in 0..RUNNERS_CALLS_MAX {
        let mut nowhere = File::create("/dev/null").unwrap();
        nowhere.write_all(b"x").unwrap();
    }
    let code = match act_at(&root, &newer, &what) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error:#}");
            7
        }
    };
    std::process::exit(code);
}

/// A root with the older release installed, and the newer one beside it.
struct Stand {
    _made: (tempfile::TempDir, tempfile::TempDir),
    template: PathBuf,
    bare: PathBuf,
    newer: PathBuf,
    ids: [String; 2],
}

impl Stand {
    /// `work` is where the root will be used.
    fn new(work: &Path) -> Self {
        let (made, layout) = root();
        let source = tempfile::tempdir().unwrap();
        let releases = [OLD, NEW].map(|version| make_folder(&source.path().join(version), version));
        let ids = releases.each_ref().map(|folder| folder.id().to_string());
        for path in ["run/systemd/system", "proc/1"] {
            fs::create_dir_all(layout.root().join(path)).unwrap();
        }
        fs::write(layout.root().join("proc/1/comm"), "systemd\n").unwrap();
        for (unit, file, _) in UNITS {
            for (version, id) in [OLD, NEW].iter().zip(&ids) {
                let process = layout.root().join(format!("proc/{}", number(unit, version)));
                fs::create_dir(&process).unwrap();
                let place = Layout::below(work).releases().join(id).join(file);
                std::os::unix::fs::symlink(place, process.join("exe")).unwrap();
            }
        }
        let bare = source.path().join("bare");
        run("cp", &["-a", "--", &text(layout.root()), &text(&bare)]);
        install(&layout, &Host::at(layout.root()), &releases[0]).unwrap();
        let newer = releases[1].path().to_owned();
        Self { template: layout.root().to_owned(), bare, newer, ids, _made: (made, source) }
    }

    /// With the older release installed.
    fn fresh(&self, work: &Path) {
        drop(fs::remove_dir_all(work));
        run("cp", &["-a", "--", &text(&self.template), &text(work)]);
    }

    /// With nothing installed.
    fn empty(&self, work: &Path) {
        drop(fs::remove_dir_all(work));
        run("cp", &["-a", "--", &text(&self.bare), &text(work)]);
    }

    /// `act` over `work`, under strace with these arguments where there are some.
    fn act(&self, work: &Path, what: &str, trace: &[String]) -> Output {
        let test = std::env::current_exe().unwrap();
        let name = format!("{}::act", module_path!().split_once("::").unwrap().1);
        let mut command = if trace.is_empty() { Command::new(&test) } else { Command::new("strace") };
        if !trace.is_empty() {
            command.args(["-f", "-qq"]).args(trace).arg("--").arg(&test);
        }
        command.args(["--exact", &name, "--nocapture", "--test-threads", "1"]);
        command.env("HOLDFAST_TEST_ROOT", work).env("HOLDFAST_TEST_NEWER", &self.newer).env("HOLDFAST_TEST_ACT", what);
        command.output().expect("strace (apt-get install strace)")
    }

    /// Every call of a whole update that changes something below `work`: its name, and which of that name it is.
    fn points(&self, work: &Path) -> Vec<(String, usize)> {
        self.fresh(work);
        self.points_of(work, "update")
    }

    fn points_of(&self, work: &Path, what: &str) -> Vec<(String, usize)> {
        let log = self.newer.with_file_name("trace");
        let trace = ["-y".to_owned(), format!("-etrace={CHANGES}"), "-o".to_owned(), text(&log)];
        let said = self.act(work, what, &trace);
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        let (mut counts, mut points) = (BTreeMap::<(String, String), usize>::new(), Vec::new());
        for line in fs::read_to_string(&log).unwrap().lines() {
            let Some((pid, call)) = line.split_once(' ') else { continue };
            let Some((name, arguments)) = call.trim_start().split_once('(') else { continue };
            let count = counts.entry((pid.to_owned(), name.to_owned())).or_default();
            *count += 1;
            let opens = name.starts_with("open");
            let changes = !opens || ["O_CREAT", "O_TMPFILE", "O_TRUNC"].iter().any(|flag| arguments.contains(flag));
            if changes && arguments.contains(&text(work)) {
                points.push((name.to_owned(), *count));
            }
        }
        points
    }

    /// One whole release runs, and all that belongs to one release is of it. Says which.
    fn is_whole(&self, work: &Path, at: &str) -> &'static str {
        let layout = Layout::below(work);
        let state = HostState::read(&layout).unwrap_or_else(|error| panic!("{at}: {error:#}")).expect("a release");
        let folder = Folder::open(&layout.current()).unwrap_or_else(|refusal| panic!("{at}: {refusal}"));
        assert_eq!(folder.id(), state.current, "{at}");
        assert_eq!(Txn::read(&layout).unwrap_or_else(|error| panic!("{at}: {error:#}")), None, "{at}");
        for file in folder.release().files() {
            if let Some(unit) = file.unit_name() {
                let there = fs::read(layout.units().join(&unit)).unwrap_or_default();
                assert!(there == folder.read(&file.name).unwrap(), "{at}: {unit} is of another release");
            }
        }
        let installed = crate::install::facts::installed(&layout).unwrap().unwrap();
        assert_eq!(installed.release, state.current.to_string(), "{at}");
        if let Some(previous) = &state.previous {
            let kept = Folder::open(&layout.releases().join(previous.as_str()));
            assert!(kept.is_ok(), "{at}: the way back {previous} is not whole: {:?}", kept.err());
        }
        assert!(Folder::open(&plan::committed(&layout)).is_ok(), "{at}: nothing could recover");
        let position = self.ids.iter().position(|id| *id == state.current.to_string());
        [OLD, NEW][position.unwrap_or_else(|| panic!("{at}: {} runs", state.current))]
    }

    /// The next update has to find nothing in its way, and to leave nothing behind.
    fn goes_on(&self, work: &Path, at: &str) {
        let said = self.act(work, "update", &[]);
        assert!(said.status.success(), "{at}: the next one: {}", String::from_utf8_lossy(&said.stderr));
        assert_eq!(self.is_whole(work, at), NEW, "{at}");
        let layout = Layout::below(work);
        let names =
            |path: &Path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        let releases: BTreeSet<_> = names(&layout.releases()).into_iter().map(|name| text(Path::new(&name))).collect();
        assert_eq!(releases, self.ids.iter().cloned().collect(), "{at}");
        for path in [layout.library(), layout.state(), layout.units(), layout.config()] {
            let hidden = names(&path).into_iter().find(|name| name.to_string_lossy().starts_with('.'));
            assert_eq!(hidden, None, "{at}: below {}", path.display());
        }
    }

    fn recover(&self, work: &Path, at: &str) {
        let said = self.act(work, "recover", &[]);
        assert!(said.status.success(), "{at}: recovery: {}", String::from_utf8_lossy(&said.stderr));
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn run(program: &str, args: &[&str]) -> Output {
    let said = Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(said.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&said.stderr));
    said
}

fn inject(name: &str, what: &str, number: usize) -> Vec<String> {
    let log = ["-o", "/dev/null"].map(str::to_owned);
    log.into_iter().chain([format!("-etrace={name}"), format!("-einject={name}:{what}:when={number}")]).collect()
}

/// The long tier takes all, CI one of each kind of call and every so many of the others.
fn chosen(points: Vec<(String, usize)>, every: usize) -> Vec<(String, usize)> {
    let scale: f64 = std::env::var("HOLDFAST_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1.0);
    if scale > 1.0 {
        return points;
    }
    let mut kinds = BTreeSet::new();
    let keep = |(index, (name, _)): &(usize, (String, usize))| kinds.insert(name.clone()) || index % every == 0;
    points.into_iter().enumerate().filter(keep).map(|(_, point)| point).collect()
}

/// strace takes calls away from the process, so nobody else may trace it: an ordinary user's own child always may be.
fn can_trace() -> bool {
    let works =
        Command::new("strace").args(["-o", "/dev/null", "true"]).output().is_ok_and(|said| said.status.success());
    if !works {
        eprintln!("SKIPPED: strace does not work here (apt-get install strace): the swap was not cut off anywhere");
    }
    works
}

#[test]
fn a_swap_that_is_killed_at_any_change_leaves_one_whole_release() {
    if !can_trace() {
        return;
    }
    let base = tempfile::tempdir().unwrap();
    let work = base.path().canonicalize().unwrap().join("root");
    let stand = Stand::new(&work);
    let all = stand.points(&work);
    assert!(all.len() > 100, "only {} changes were seen", all.len());
    let (total, points) = (all.len(), chosen(all, 10));
    let mut reached = BTreeMap::<_, usize>::new();
    for (name, number) in &points {
        let at = format!("killed at {name} {number}");
        stand.fresh(&work);
        let said = stand.act(&work, "update", &inject(name, "signal=SIGKILL", *number));
        assert!(!said.status.success(), "{at}: it ended by itself");
        stand.recover(&work, &at);
        *reached.entry(stand.is_whole(&work, &at)).or_default() += 1;
        stand.goes_on(&work, &at);
    }
    println!("killed at {} of {total} changes: {reached:?}", points.len());
    assert_eq!(reached.len(), 2, "{reached:?}");
}

#[test]
fn an_install_over_any_partial_one_ends_as_a_fresh_one() {
    if !can_trace() {
        return;
    }
    let base = tempfile::tempdir().unwrap();
    let work = base.path().canonicalize().unwrap().join("root");
    let stand = Stand::new(&work);
    stand.empty(&work);
    let all = stand.points_of(&work, "install");
    let whole = tree(&work);
    let (total, points) = (all.len(), chosen(all, 20));
    let again = |at: &str| {
        let said = stand.act(&work, "install", &[]);
        assert!(said.status.success(), "{at}: {}", String::from_utf8_lossy(&said.stderr));
        let (now, differs) = (tree(&work), |path: &PathBuf, now: &BTreeMap<_, _>| now.get(path) != whole.get(path));
        let other: Vec<_> = now.keys().chain(whole.keys()).filter(|path| differs(path, &now)).collect();
        assert!(other.is_empty(), "{at}: {other:?}");
    };
    for (name, number) in &points {
        let at = format!("killed at {name} {number}");
        stand.empty(&work);
        let said = stand.act(&work, "install", &inject(name, "signal=SIGKILL", *number));
        assert!(!said.status.success(), "{at}: it ended by itself");
        again(&at);
        // One whose change is refused takes back what it did, so far that the next one is as the first.
        stand.empty(&work);
        let before = tree(&work);
        let said = stand.act(&work, "install", &inject(name, "error=ENOSPC", *number));
        if !said.status.success() {
            let left: Vec<_> = tree(&work).into_keys().filter(|path| !before.contains_key(path)).collect();
            assert!(left.is_empty(), "refused at {name} {number}: left {left:?}");
        }
        again(&at);
    }
    println!("killed and refused at {} of {total} changes", points.len());
}

#[test]
fn a_swap_whose_changes_are_refused_ends_with_one_whole_release() {
    if !can_trace() {
        return;
    }
    let base = tempfile::tempdir().unwrap();
    let work = base.path().canonicalize().unwrap().join("root");
    let stand = Stand::new(&work);
    let all = stand.points(&work);
    let (total, points) = (all.len(), chosen(all, 11));
    let (mut tried, mut reached) = (0, BTreeMap::<_, usize>::new());
    for (index, (name, number)) in points.iter().enumerate() {
        for (turn, error) in ["ENOSPC", "EIO", "EDQUOT"].into_iter().enumerate() {
            // CI tries one errno at each, in turn.
            if points.len() < total && index % 3 != turn {
                continue;
            }
            let at = format!("{error} at {name} {number}");
            stand.fresh(&work);
            let said = stand.act(&work, "update", &inject(name, &format!("error={error}"), *number));
            let code = said.status.code();
            assert!([Some(0), Some(7)].contains(&code), "{at}: {code:?}: {}", String::from_utf8_lossy(&said.stderr));
            // The timer's turn: what could not be taken back at once is taken back now.
            stand.recover(&work, &at);
            *reached.entry(stand.is_whole(&work, &at)).or_default() += 1;
            stand.goes_on(&work, &at);
            tried += 1;
        }
    }
    println!("refused {tried} times at {} of {total} changes: {reached:?}", points.len());
}

/// A small ext4 of its own whose power can be cut.
struct Disk {
    _made: tempfile::TempDir,
    full: PathBuf,
    used: PathBuf,
    at: PathBuf,
}

impl Disk {
    /// None where there are no loop devices to be had.
    fn new() -> Option<Self> {
        // In mounts of this thread's own: a container that starts meanwhile would else hold the disk on.
        let alone = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS);
        if alone.is_err() || !Command::new("mount").args(["--make-rprivate", "/"]).status().is_ok_and(|s| s.success()) {
            eprintln!("SKIPPED: no power was cut: no mounts of its own (root?): {alone:?}");
            return None;
        }
        let made = tempfile::tempdir().unwrap();
        let base = made.path().canonicalize().unwrap();
        let disk = Self { full: base.join("full"), used: base.join("used"), at: base.join("at"), _made: made };
        fs::create_dir(&disk.at).unwrap();
        let file = File::create(&disk.full).unwrap();
        file.set_len(24 << 20).unwrap();
        let tries = [("mkfs.ext4", vec!["-q", "-F", "-m", "0"]), ("mount", vec!["-o", "loop"])];
        for (program, args) in tries {
            let mut command = Command::new(program);
            command.args(args).arg(&disk.full);
            if program == "mount" {
                command.arg(&disk.at);
            }
            let said = command.output().ok();
            if !said.as_ref().is_some_and(|said| said.status.success()) {
                eprintln!(
                    "SKIPPED: no power was cut: {program} does not work here (root, loop devices, e2fsprogs): {said:?}"
                );
                return None;
            }
        }
        Some(disk)
    }

    fn work(&self) -> PathBuf {
        self.at.join("root")
    }

    /// What is on it now is what [`Disk::fresh`] begins with.
    fn keep(&self) {
        run("umount", &[&text(&self.at)]);
    }

    fn fresh(&self) {
        run("cp", &["--sparse=always", &text(&self.full), &text(&self.used)]);
        self.plug();
    }

    fn plug(&self) {
        run("mount", &["-o", "loop", &text(&self.used), &text(&self.at)]);
    }

    /// EXT4_IOC_SHUTDOWN (linux/fs/ext4/ext4.h): 0 writes all out first, 1 the journal alone, 2 nothing.
    fn cut(&self, flag: u32) {
        let program = "import fcntl, os, struct, sys; \
            fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', int(sys.argv[2])))";
        run("python3", &["-c", program, &text(&self.at), &flag.to_string()]);
        run("umount", &[&text(&self.at)]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-q").arg(&self.at).output());
    }
}

#[test]
fn a_swap_that_is_unplugged_at_any_change_leaves_one_whole_release() {
    let Some(disk) = Disk::new().filter(|_| can_trace()) else { return };
    let work = disk.work();
    let stand = Stand::new(&work);
    let all = stand.points(&work);
    stand.fresh(&work);
    disk.keep();
    let (total, points) = (all.len(), chosen(all, 60));
    let (mut tried, mut reached) = (0, BTreeMap::<_, usize>::new());
    for (index, (name, number)) in points.iter().enumerate() {
        // CI cuts once at each, in each way in turn.
        for flag in (0..3).filter(|flag| points.len() == total || index % 3 == *flag) {
            let at = format!("unplugged ({flag}) at {name} {number}");
            disk.fresh();
            let said = stand.act(&work, "update", &inject(name, "signal=SIGKILL", *number));
            assert!(!said.status.success(), "{at}: it ended by itself");
            disk.cut(flag as u32);
            disk.plug();
            stand.recover(&work, &at);
            *reached.entry(stand.is_whole(&work, &at)).or_default() += 1;
            stand.goes_on(&work, &at);
            disk.keep();
            tried += 1;
        }
    }
    println!("unplugged {tried} times at {} of {total} changes: {reached:?}", points.len());
}
