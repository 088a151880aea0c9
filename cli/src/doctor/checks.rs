//! What each fact means, and what to do about it. Pure.

use super::facts::{Answers, Facts, RulesFile};
use super::{Check, Level, limits, release};
use crate::install::ipv6::Forwards6;
use std::collections::BTreeSet;

/// Oldest kernel that works.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// Oldest systemd that was tried.
const SYSTEMD_MIN: u32 = 252;
/// Ports in use that are named in one line.
const PORTS_SHOWN: usize = 12;

/// All checks, in the order in which they matter.
pub fn examine(facts: &Facts) -> Vec<Check> {
    let mut all = vec![kernel(facts), user_namespaces(facts), nftables(facts), systemd(facts)];
    all.push(limits::examine(facts.cgroups.as_ref()));
    all.push(rules(facts));
    all.extend(facts.releases.as_ref().map(release::judge));
    all.extend(programs(facts));
    all.push(forwarding(facts));
    all.push(ipv6(facts));
    all.push(ports(facts));
    all
}

/// The worst of them.
pub fn worst(checks: &[Check]) -> Level {
    checks.iter().map(|check| check.level).max().unwrap_or(Level::Ok)
}

fn kernel(facts: &Facts) -> Check {
    let mut numbers = facts.kernel.split(|letter: char| !letter.is_ascii_digit()).map(|digits| digits.parse::<u32>());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= KERNEL_MIN => Check::ok("kernel", facts.kernel.clone()),
        _ => Check::fail("kernel", format!("{:?}", facts.kernel), "Linux 6.1 or newer is needed: update the kernel"),
    }
}

/// The cause is named where a sysctl is it, since the kernel's own word is only "not permitted".
fn user_namespaces(facts: &Facts) -> Check {
    const NAME: &str = "user namespaces";
    let switches = &facts.namespaces;
    let cause = match () {
        () if switches.max == Some(0) => Some("sysctl user.max_user_namespaces is 0: set it to 15000 or more"),
        () if switches.unprivileged_clone == Some(0) => {
            Some("sysctl kernel.unprivileged_userns_clone is 0: set it to 1")
        }
        () if switches.apparmor_restrict == Some(1) => Some(
            "sysctl kernel.apparmor_restrict_unprivileged_userns is 1: set it to 0, or give holdfast-launcher a \
             profile with `userns,`",
        ),
        () => None,
    };
    match (&facts.probe, cause) {
        (Some(Ok(())), _) => Check::ok(NAME, "an ordinary user can make them"),
        (Some(Err(why)), Some(cause)) => Check::fail(NAME, why.clone(), format!("{cause} (/etc/sysctl.d)")),
        (Some(Err(why)), None) => Check::fail(
            NAME,
            why.clone(),
            "a seccomp filter or security module forbids it; in a container, allow user namespaces (docker: \
             --security-opt seccomp=unconfined --security-opt systempaths=unconfined)",
        ),
        (None, Some(cause)) => Check::warn(NAME, "not tried", format!("{cause} (/etc/sysctl.d)")),
        (None, None) => Check::warn(NAME, "not tried", "say whose workers with --owner USER to have it tried"),
    }
}

fn nftables(facts: &Facts) -> Check {
    match facts.nftables {
        Some(true) => Check::ok("nftables", "in the kernel"),
        Some(false) => Check::fail(
            "nftables",
            "this kernel has no nf_tables",
            "network bridge needs it: use a kernel with CONFIG_NF_TABLES (every distribution's has it)",
        ),
        None => Check::warn("nftables", "not loaded, and no list of modules to look in", "as root: modprobe nf_tables"),
    }
}

fn systemd(facts: &Facts) -> Check {
    match facts.systemd {
        Some(version) if version >= SYSTEMD_MIN => Check::ok("systemd", version.to_string()),
        Some(version) => Check::warn(
            "systemd",
            version.to_string(),
            format!("{SYSTEMD_MIN} or newer is what was tried; `holdfast session start` needs none"),
        ),
        None => Check::warn(
            "systemd",
            "does not run here",
            "`system install` needs it; `holdfast session start` does without",
        ),
    }
}

fn rules(facts: &Facts) -> Check {
    const NAME: &str = "rules";
    let Some(file) = &facts.rules else {
        return match facts.installed {
            true => {
                Check::fail(NAME, "/etc/holdfast/rules.toml is missing", "run `sudo holdfast system install` again")
            }
            false => Check::ok(NAME, "none yet: install or a session brings them"),
        };
    };
    let RulesFile { path, uid, mode, .. } = file;
    if *uid != 0 && !file.own_session {
        return Check::fail(NAME, format!("{path} belongs to uid {uid}"), format!("as root: chown root:root {path}"));
    }
    if mode & 0o022 != 0 {
        let found = format!("others may write to {path} (mode {mode:04o})");
        return Check::fail(NAME, found, format!("as root: chmod go-w {path}"));
    }
    let (Some(owner), Some(text)) = (&facts.owner, &file.text) else {
        return Check::warn(NAME, format!("{path} was not examined"), "say whose workers with --owner USER");
    };
    match listed(text, facts.uid) {
        Ok(true) => Check::ok(NAME, format!("{path} lists {owner}")),
        Ok(false) => Check::fail(
            NAME,
            format!("{path} does not list {owner} (uid {})", facts.uid),
            format!("`sudo holdfast system install --owner {owner}` adds a section"),
        ),
        Err(why) => Check::fail(NAME, format!("{path} is not understood: {why}"), "mend it; launches wait until then"),
    }
}

/// Whether a section of the rules has this uid.
fn listed(text: &str, uid: u32) -> Result<bool, String> {
    Ok(section(text, uid)?.is_some())
}

/// The section of the rules that has this uid.
fn section(text: &str, uid: u32) -> Result<Option<toml::Value>, String> {
    let rules: toml::Table = text.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
    let owners = rules.get("owners").and_then(toml::Value::as_table);
    let of_uid = |section: &&toml::Value| section.get("uid").and_then(toml::Value::as_integer) == Some(uid.into());
    Ok(owners.into_iter().flat_map(|owners| owners.values()).find(of_uid).cloned())
}

fn programs(facts: &Facts) -> Vec<Check> {
    const ADVICE: &str =
        "`holdfast system status` or `holdfast session status` says more, and so does the log they name";
    match &facts.daemon {
        None => vec![Check::warn("holdfastd", "not asked", "say whose workers with --owner USER")],
        Some(Err(silence)) if silence.nothing_there => {
            vec![Check::warn("holdfastd", "nothing is installed and no session runs", silence.text.clone())]
        }
        Some(Err(silence)) => vec![Check::fail("holdfastd", silence.text.clone(), ADVICE)],
        Some(Ok(answers)) => {
            let mut all =
                vec![Check::ok("holdfastd", format!("pid {}, {}", answers.status.pid, answers.status.version))];
            for (name, program) in [("holdfast-helper", "helper"), ("holdfast-launcher", "launcher")] {
                let found = answers.status.programs.iter().find(|found| found.name.contains(program));
                all.push(match found {
                    Some(found) if found.healthy => Check::ok(name, format!("pid {}, {}", found.pid, found.version)),
                    Some(found) => Check::fail(name, found.why.clone(), ADVICE),
                    None => Check::fail(name, "the daemon knows none", ADVICE),
                });
            }
            all
        }
    }
}

/// The helper says it beside its health, since it changes nothing about its own.
fn forwarding(facts: &Facts) -> Check {
    const NAME: &str = "forwarding";
    let Some(Ok(Answers { status, .. })) = &facts.daemon else {
        return Check::warn(
            NAME,
            "not known",
            "the helper looks for firewalls that drop forwarded packets; none answers",
        );
    };
    let helper = status.programs.iter().find(|program| program.name.contains("helper"));
    match helper {
        Some(helper) if helper.healthy && helper.why.is_empty() => Check::ok(NAME, "no firewall in the way was found"),
        Some(helper) if helper.healthy => Check::warn(
            NAME,
            helper.why.clone(),
            "workers on a bridge do not reach the outside, nor it them, until the rule that is named is added",
        ),
        _ => Check::warn(NAME, "not known", "the helper does not answer"),
    }
}

/// Without it workers run all the same, by IPv4.
fn ipv6(facts: &Facts) -> Check {
    const NAME: &str = "IPv6";
    let alone = |why: &str| format!("{why}: workers have IPv4 alone");
    let text = facts.rules.as_ref().and_then(|rules| rules.text.as_deref());
    let prefix = text.and_then(|text| Some(section(text, facts.uid).ok()??.get("pool6").is_some()));
    match facts.forwards6 {
        None => Check::warn(NAME, "not known", "run doctor on the host itself"),
        Some(Forwards6::Absent) => {
            Check::warn(NAME, alone("this kernel has it switched off"), "boot without ipv6.disable=1 to have it")
        }
        Some(Forwards6::Off) => Check::warn(
            NAME,
            alone("this host does not forward it (net.ipv6.conf.all.forwarding is 0)"),
            "`sudo holdfast system install` switches it on for workers; without an install root does it by sysctl",
        ),
        Some(_) if prefix == Some(false) => Check::warn(
            NAME,
            alone("the owner's section of the rules has no pool6"),
            "add a line as pool6 = \"fd12:3456:789a::/48\", with 40 random bits after fd",
        ),
        Some(Forwards6::Workers) => Check::ok(NAME, "forwarded for workers alone"),
        Some(Forwards6::Router) => Check::ok(NAME, "forwarded, as by a router: somebody else switched it on"),
    }
}

/// A port that a worker publishes answers for the worker alone: a program of the host at the same port is cut off.
fn ports(facts: &Facts) -> Check {
    let published: BTreeSet<(String, u16)> = match &facts.daemon {
        Some(Ok(answers)) => answers
            .published
            .iter()
            .filter_map(|publish| Some((publish.proto.clone(), u16::try_from(publish.host).ok()?)))
            .collect(),
        _ => BTreeSet::new(),
    };
    let name = |(proto, port): &(String, u16)| format!("{port}/{proto}");
    let both: Vec<String> = published.intersection(&facts.listening).map(name).collect();
    if !both.is_empty() {
        return Check::warn(
            "ports",
            format!("{} published by a worker and listened at by a program of the host", both.join(", ")),
            "the worker gets the connections: stop one of the two",
        );
    }
    let taken: Vec<String> = facts.listening.iter().filter(|(_, port)| *port >= 1024).map(name).collect();
    let more = if taken.len() > PORTS_SHOWN { ", …" } else { "" };
    let shown = taken.iter().take(PORTS_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    let taken = if taken.is_empty() { "none from 1024 on".to_owned() } else { shown + more };
    Check::ok("ports", format!("{} published; taken by programs of the host: {taken}", published.len()))
}

#[cfg(test)]
#[path = "checks_tests.rs"]
mod tests;
