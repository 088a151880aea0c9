//! Forwarding of IPv6, which Linux has for the whole host alone: on for workers, and told apart from a router's by
//! `default`, which stays off (the helper's rules then let nobody else's packets pass).

use anyhow::Context;
use std::fs;
use std::path::{Path, PathBuf};

const CONF: &str = "/proc/sys/net/ipv6/conf";

/// How the host forwards IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwards6 {
    /// The kernel has no IPv6.
    Absent,
    /// Not at all.
    Off,
    /// Workers' packets alone, as [`for_workers`] leaves it.
    Workers,
    /// As a router: somebody else's choice.
    Router,
}

/// How it is now.
pub fn now() -> Forwards6 {
    of(read("all", "forwarding"), read("default", "forwarding"))
}

fn of(all: Option<u32>, default: Option<u32>) -> Forwards6 {
    match (all, default) {
        (None, _) => Forwards6::Absent,
        (Some(0), _) => Forwards6::Off,
        (Some(_), Some(0)) => Forwards6::Workers,
        (Some(_), _) => Forwards6::Router,
    }
}

/// Switches it on for workers.
///
/// # Errors
/// Where the kernel refuses.
pub fn for_workers() -> anyhow::Result<()> {
    let links = links()?;
    // The switch has the kernel forget default routes that a router told of, but those of links with 2 here.
    let listening: Vec<&String> = links.iter().filter(|link| read(link, "accept_ra") == Some(1)).collect();
    listening.iter().try_for_each(|link| write(link, "accept_ra", 2))?;
    write("all", "forwarding", 1)?;
    write("default", "forwarding", 0)?;
    links.iter().try_for_each(|link| write(link, "forwarding", 0))?;
    listening.iter().try_for_each(|link| write(link, "accept_ra", 1))
}

/// Switches it off, as it was before [`for_workers`], which may have failed half-way.
///
/// # Errors
/// Where the kernel refuses.
pub fn off() -> anyhow::Result<()> {
    write("all", "forwarding", 0)
}

/// Switches it off, where [`for_workers`] had switched it on.
///
/// # Errors
/// Where the kernel refuses.
pub fn for_nobody() -> anyhow::Result<()> {
    if now() == Forwards6::Workers { off() } else { Ok(()) }
}

/// Links that are there, by name.
fn links() -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir(CONF).context(CONF)?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let all: Vec<String> = names.collect::<std::io::Result<_>>()?;
    Ok(all.into_iter().filter(|name| name != "all" && name != "default").collect())
}

fn path(link: &str, setting: &str) -> PathBuf {
    Path::new(CONF).join(link).join(setting)
}

fn read(link: &str, setting: &str) -> Option<u32> {
    fs::read_to_string(path(link, setting)).ok()?.trim().parse().ok()
}

fn write(link: &str, setting: &str, value: u32) -> anyhow::Result<()> {
    let path = path(link, setting);
    match fs::write(&path, value.to_string()) {
        // A link that went meanwhile needs none.
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context(path.display().to_string()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_install_did_is_told_from_a_router() {
        assert_eq!(of(None, None), Forwards6::Absent);
        assert_eq!(of(Some(0), Some(1)), Forwards6::Off);
        assert_eq!(of(Some(1), Some(0)), Forwards6::Workers);
        assert_eq!(of(Some(1), Some(1)), Forwards6::Router);
    }
}
