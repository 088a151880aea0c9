//! Everything that `doctor` looks at, read once. What cannot be read is a fact too.

use super::limits::{self, Cgroups};
use super::release::{self, Releases};
use crate::caller::Caller;
use crate::client::{self, ANSWER_MAX, CallError, answer};
use crate::install::ipv6::{self, Forwards6};
use holdfast_proto::daemon::{ListRequest, Publish, StatusReply, StatusRequest};
use holdfast_proto::layout::Layout;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// TCP state LISTEN in /proc/net/tcp (include/net/tcp_states.h).
const TCP_LISTEN: &str = "0A";
/// UDP sockets that are bound and not connected show this state.
const UDP_BOUND: &str = "07";
/// Where programs of the host are looked for, whatever $PATH says.
const SYSTEMCTL: [&str; 2] = ["/usr/bin/systemctl", "/bin/systemctl"];
/// Most bytes of a rules file.
const RULES_BYTES_MAX: u64 = 1024 * 1024;

/// The host, and what runs of Holdfast.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// `uname -r`.
    pub kernel: String,
    /// Sysctls that decide on user namespaces; none where the kernel has no such switch.
    pub namespaces: Namespaces,
    /// Outcome of really making a worker's namespaces: nothing, or the step and the reason.
    pub probe: Option<Result<(), String>>,
    /// cgroup v2; none where it is not mounted.
    pub cgroups: Option<Cgroups>,
    /// Whether the kernel has nf_tables, loaded or to be loaded; none where neither can be told.
    pub nftables: Option<bool>,
    /// Who has IPv6 forwarded; none where nobody looked.
    pub forwards6: Option<Forwards6>,
    /// Version of the systemd that runs as PID 1.
    pub systemd: Option<u32>,
    /// Whether `system install` was done.
    pub installed: bool,
    /// The installed releases; none where nothing is installed.
    pub releases: Option<Releases>,
    /// Whose workers; none where root did not say.
    pub owner: Option<String>,
    /// The owner's uid.
    pub uid: u32,
    /// The rules file, where one is.
    pub rules: Option<RulesFile>,
    /// Ports that programs of the host listen at.
    pub listening: BTreeSet<(String, u16)>,
    /// What the daemon says; none where nobody was asked.
    pub daemon: Option<Result<Answers, Silence>>,
}

/// Sysctls about user namespaces.
#[derive(Debug, Clone, Default)]
pub struct Namespaces {
    /// user.max_user_namespaces
    pub max: Option<u64>,
    /// kernel.unprivileged_userns_clone (Debian, Arch)
    pub unprivileged_clone: Option<u64>,
    /// kernel.apparmor_restrict_unprivileged_userns (Ubuntu)
    pub apparmor_restrict: Option<u64>,
}

/// The rules file as it lies there.
#[derive(Debug, Clone, Default)]
pub struct RulesFile {
    /// Where.
    pub path: String,
    /// Whose.
    pub uid: u32,
    /// Its mode.
    pub mode: u32,
    /// Its text, where it could be read.
    pub text: Option<String>,
    /// It is an ordinary user's session's, so it may be that user's.
    pub own_session: bool,
}

/// What the daemon says.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// Programs and counts.
    pub status: StatusReply,
    /// Ports that live workers publish.
    pub published: Vec<Publish>,
}

/// Why the daemon says nothing.
#[derive(Debug, Clone)]
pub struct Silence {
    /// For a person, with what to do.
    pub text: String,
    /// Nothing is there that could answer: neither installed nor a session.
    pub nothing_there: bool,
}

/// Reads everything. Last it asks the daemon, for which root becomes the owner.
pub fn gather(owner: Option<&str>) -> Facts {
    let caller = Caller::of_process(owner).ok();
    let installed = Layout::system().install_toml().exists();
    let mut facts = Facts {
        kernel: read("/proc/sys/kernel/osrelease").unwrap_or_default(),
        namespaces: Namespaces {
            max: number("/proc/sys/user/max_user_namespaces"),
            unprivileged_clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor_restrict: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        },
        cgroups: limits::gather(caller.as_ref().filter(|_| installed).map(|caller| &caller.owner)),
        nftables: nftables(),
        forwards6: Some(ipv6::now()),
        systemd: systemd(),
        installed,
        releases: installed.then(|| release::look(&Layout::system())),
        listening: listening(),
        ..Facts::default()
    };
    let Some(caller) = caller else { return facts };
    facts.owner = Some(caller.owner.to_string());
    facts.uid = caller.uid;
    facts.probe = probe(&caller);
    facts.rules = rules(&caller, installed);
    let roots = [client::session_root(caller.is_root), client::session_root(true)];
    let session = roots.into_iter().flatten().any(|root| Layout::below(root).owner_run(&caller.owner).exists());
    facts.daemon = Some(ask(&caller, installed || session));
    facts
}

fn ask(caller: &Caller, expected: bool) -> Result<Answers, Silence> {
    let asked = client::with_daemon(caller, async |mut daemon| {
        let status = answer(ANSWER_MAX, daemon.rpc.status(StatusRequest {})).await?;
        let list = answer(ANSWER_MAX, daemon.rpc.list(ListRequest::default())).await?;
        Ok(Answers { status, published: list.workers.into_iter().flat_map(|worker| worker.ports).collect() })
    });
    asked.map_err(|error| {
        let no_daemon = matches!(error.downcast_ref::<CallError>(), Some(CallError::NoDaemon(_)));
        Silence { text: format!("{error:#}"), nothing_there: no_daemon && !expected }
    })
}

/// This program again as the owner, since a try changes who tries.
fn probe(caller: &Caller) -> Option<Result<(), String>> {
    let exe = std::env::current_exe().ok()?;
    let tried =
        Command::new(exe).args(["--owner", caller.owner.as_str(), "probe"]).stdin(Stdio::null()).output().ok()?;
    let said = String::from_utf8_lossy(&tried.stderr).trim().trim_start_matches("holdfast: ").to_owned();
    Some(if tried.status.success() { Ok(()) } else { Err(said) })
}

fn rules(caller: &Caller, installed: bool) -> Option<RulesFile> {
    let session = client::session_root(caller.is_root).map(Layout::below);
    let of_root = client::session_root(true).map(Layout::below);
    let layouts = installed.then(Layout::system).into_iter().chain(session).chain(of_root);
    let path = layouts.map(|layout| layout.rules_toml()).find(|path| path.exists())?;
    let found = path.symlink_metadata().ok()?;
    let text = (found.len() <= RULES_BYTES_MAX).then(|| read(&path)).flatten();
    let own_session = !caller.is_root && found.uid() == caller.uid && !path.starts_with("/etc");
    Some(RulesFile {
        path: path.display().to_string(),
        uid: found.uid(),
        mode: found.mode() & 0o7777,
        text,
        own_session,
    })
}

/// Loaded, built in, or there to be loaded.
fn nftables() -> Option<bool> {
    if Path::new("/sys/module/nf_tables").exists() || Path::new("/proc/sys/net/netfilter/nf_log").exists() {
        return Some(true);
    }
    let release = read("/proc/sys/kernel/osrelease")?;
    let list = |name: &str| read(format!("/lib/modules/{release}/{name}"));
    let texts: Vec<String> = ["modules.builtin", "modules.dep"].into_iter().filter_map(list).collect();
    (!texts.is_empty()).then(|| texts.iter().any(|text| text.contains("/nf_tables.ko")))
}

fn systemd() -> Option<u32> {
    // sd_booted(3)
    if !Path::new("/run/systemd/system").is_dir() {
        return None;
    }
    let program = SYSTEMCTL.into_iter().find(|path| Path::new(path).exists())?;
    let said = Command::new(program).arg("--version").env_clear().stdin(Stdio::null()).output().ok()?;
    systemd_version(&String::from_utf8_lossy(&said.stdout))
}

/// `systemd 252 (252.39-1~deb12u1)` and more lines.
fn systemd_version(said: &str) -> Option<u32> {
    let digits = said.split_whitespace().nth(1)?;
    digits.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

fn listening() -> BTreeSet<(String, u16)> {
    let tables = [("tcp", TCP_LISTEN), ("tcp6", TCP_LISTEN), ("udp", UDP_BOUND), ("udp6", UDP_BOUND)];
    let ports = |(table, state): (&str, &str)| {
        let proto = table.trim_end_matches('6').to_owned();
        let text = read(format!("/proc/net/{table}")).unwrap_or_default();
        ports_in_state(&text, state).into_iter().map(move |port| (proto.clone(), port)).collect::<Vec<_>>()
    };
    tables.into_iter().flat_map(ports).collect()
}

/// Local ports of the lines in a state (proc_net_tcp.txt of the kernel's documentation).
fn ports_in_state(table: &str, state: &str) -> Vec<u16> {
    let port = |line: &str| -> Option<u16> {
        let mut fields = line.split_whitespace().skip(1);
        let (local, _remote, found) = (fields.next()?, fields.next()?, fields.next()?);
        (found == state).then(|| u16::from_str_radix(local.rsplit(':').next()?, 16).ok()).flatten()
    };
    table.lines().skip(1).filter_map(port).collect()
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn number(path: &str) -> Option<u64> {
    read(path)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_ports_are_read_as_the_kernel_writes_them() {
        let table = "  sl  local_address rem_address   st tx_queue\n\
            0: 00000000:1F90 00000000:0000 0A 00000000:00000000\n\
            1: 0100007F:0035 0100007F:D431 01 00000000:00000000\n\
            2: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 0\n\
            damaged\n";
        assert_eq!(ports_in_state(table, TCP_LISTEN), [8080, 22]);
    }

    #[test]
    fn systemd_says_its_version_in_several_ways() {
        assert_eq!(systemd_version("systemd 252 (252.39-1~deb12u1)\n+PAM"), Some(252));
        assert_eq!(systemd_version("systemd 258~rc1 (x)"), Some(258));
        assert_eq!(systemd_version(""), None);
    }
}
