//! What this process must be before it serves: checked, given up, limited, and read back.

use caps::{CapSet, Capability, CapsHashSet};
use holdfast_proto::layout::Layout;
use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    Scope,
};
use rustix::process::DumpableBehavior;

mod calls;

/// Why the process is not what it must be.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// Started as root.
    #[error("the helper must not run as uid 0: start it by its unit, or by sudo holdfast session start")]
    Root,
    /// Other capabilities than these two.
    #[error("{set} capabilities are {found}: they must be exactly {wanted}")]
    Capabilities {
        /// Which set.
        set: &'static str,
        /// What it holds.
        found: String,
        /// What it must hold.
        wanted: &'static str,
    },
    /// A step of giving up or limiting.
    #[error("{step}: {why}")]
    Step {
        /// Which.
        step: &'static str,
        /// The kernel's answer.
        why: String,
    },
    /// What was set is not what is.
    #[error("/proc/self/status says {line:?} where {wanted:?} was set: not serving")]
    ReadBack {
        /// The line found.
        line: String,
        /// The line wanted.
        wanted: String,
    },
}

/// What this process may do, as it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// CAP_NET_ADMIN and CAP_NET_RAW: every network.
    Capable,
    /// None: an ordinary user's session, network `none` alone.
    Ordinary,
}

fn step(step: &'static str) -> impl Fn(&dyn std::fmt::Display) -> ConfineError {
    move |why| ConfineError::Step { step, why: why.to_string() }
}

fn the_two() -> CapsHashSet {
    CapsHashSet::from([Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW])
}

/// Checks uid and capabilities: not root, and exactly the two (also as the bound, in what root starts);
/// below another root also exactly none.
pub fn check_identity(layout: &Layout) -> Result<Standing, ConfineError> {
    if rustix::process::getuid().is_root() || rustix::process::geteuid().is_root() {
        return Err(ConfineError::Root);
    }
    let read = |set| caps::read(None, set).map_err(|error| step("read capabilities")(&error));
    let (effective, permitted) = (read(CapSet::Effective)?, read(CapSet::Permitted)?);
    if !layout.is_system() && effective.is_empty() && permitted.is_empty() {
        return Ok(Standing::Ordinary);
    }
    for (set, held) in [("effective", effective), ("permitted", permitted), ("bounding", read(CapSet::Bounding)?)] {
        if held != the_two() {
            let mut names: Vec<String> = held.iter().map(ToString::to_string).collect();
            names.sort_unstable();
            let found = if names.is_empty() { "none".to_owned() } else { names.join(" ") };
            return Err(ConfineError::Capabilities { set, found, wanted: "CAP_NET_ADMIN CAP_NET_RAW" });
        }
    }
    Ok(Standing::Capable)
}

/// Gives up what could pass these capabilities on, or let others of this uid look in.
pub fn give_up_the_rest() -> Result<(), ConfineError> {
    nix::sys::prctl::set_no_new_privs().map_err(|error| step("set no_new_privs")(&error))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| step("set dumpable")(&error))?;
    caps::clear(None, CapSet::Ambient).map_err(|error| step("clear ambient capabilities")(&error))?;
    caps::clear(None, CapSet::Inheritable).map_err(|error| step("clear inheritable capabilities")(&error))
}

/// Limits files to the rules, the lock and /proc of this process, where the kernel has Landlock.
/// Before any thread starts: it holds for the calling thread and those it makes.
pub fn limit_files(layout: &Layout) -> Result<(), ConfineError> {
    let failed = step("limit files by Landlock");
    let all = AccessFs::from_all(ABI::V5);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)
        .and_then(|ruleset| ruleset.scope(Scope::AbstractUnixSocket))
        .and_then(Ruleset::create)
        .map_err(|error| failed(&error))?;
    let places = [(layout.config(), read), ("/proc/self".into(), read)];
    for (path, access) in places {
        let place = PathFd::new(&path).map_err(|error| failed(&error))?;
        ruleset = ruleset.add_rule(PathBeneath::new(place, access)).map_err(|error| failed(&error))?;
    }
    let status = ruleset.restrict_self().map_err(|error| failed(&error))?;
    tracing::info!(landlock = ?status.ruleset, "files limited");
    Ok(())
}

/// Limits system calls to those in use, for all threads. No thread can be made after it.
pub fn limit_calls() -> Result<(), ConfineError> {
    let failed = step("limit system calls");
    let filter = calls::filter().map_err(|error| failed(&error))?;
    seccompiler::apply_filter_all_threads(&filter).map_err(|error| failed(&error))
}

/// Refuses to serve unless the kernel says that all of it holds.
pub fn read_back(standing: Standing) -> Result<(), ConfineError> {
    let text = std::fs::read_to_string("/proc/self/status").map_err(|error| step("read /proc/self/status")(&error))?;
    let two = the_two().iter().map(Capability::bitmask).sum::<u64>();
    let held = if standing == Standing::Capable { two } else { 0 };
    let zero = format!("{:016x}", 0);
    let wanted = [
        ("NoNewPrivs", "1".to_owned()),
        ("Seccomp", "2".to_owned()),
        ("CapInh", zero.clone()),
        ("CapAmb", zero),
        ("CapPrm", format!("{held:016x}")),
        ("CapEff", format!("{held:016x}")),
    ];
    for (name, value) in wanted {
        let line = text.lines().find(|line| line.split(':').next() == Some(name)).unwrap_or_default();
        if line.split_whitespace().nth(1) != Some(&value) {
            return Err(ConfineError::ReadBack { line: line.to_owned(), wanted: format!("{name}: {value}") });
        }
    }
    if rustix::process::dumpable_behavior().ok() != Some(DumpableBehavior::NotDumpable) {
        return Err(ConfineError::ReadBack { line: "dumpable".to_owned(), wanted: "not dumpable".to_owned() });
    }
    Ok(())
}
