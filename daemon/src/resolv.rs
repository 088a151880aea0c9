//! `/etc/resolv.conf` for workers: the host's nameservers that can be reached from another network namespace.

use std::net::IpAddr;
use std::path::Path;

/// The host's file.
const HOST: &str = "/etc/resolv.conf";
/// Where systemd-resolved lists the servers behind its stub on 127.0.0.53.
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";
/// More than any sane file has.
const BYTES_MAX: usize = 64 * 1024;

/// The host's file as it is, for workers that are in the host's own network.
pub fn of_the_host() -> Vec<u8> {
    let mut bytes = std::fs::read(HOST).unwrap_or_default();
    bytes.truncate(BYTES_MAX);
    bytes
}

/// Reads the host's files as they are now. Where no server can be reached from a worker, there is none in it.
pub fn resolv_conf() -> Vec<u8> {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
    choose(&read(HOST), || read(BEHIND_STUB)).into_bytes()
}

fn choose(host: &str, behind_stub: impl FnOnce() -> String) -> String {
    let kept = reachable(host);
    if has_server(&kept) {
        return kept;
    }
    let other = reachable(&behind_stub());
    if has_server(&other) { other } else { kept }
}

/// The file without nameservers on a loopback address, which is the worker's own inside.
fn reachable(text: &str) -> String {
    let cut = text.get(..BYTES_MAX).unwrap_or(text);
    cut.lines().filter(|line| !is_loopback_server(line)).map(|line| format!("{line}\n")).collect()
}

fn is_loopback_server(line: &str) -> bool {
    server(line).is_some_and(|ip| match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_unspecified(),
        IpAddr::V6(ip) => {
            ip.is_loopback() || ip.is_unspecified() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback())
        }
    })
}

fn has_server(text: &str) -> bool {
    text.lines().any(|line| server(line).is_some())
}

fn server(line: &str) -> Option<IpAddr> {
    let mut words = line.split_whitespace();
    if words.next()? != "nameserver" {
        return None;
    }
    // A link-local address may carry its link's name, which means nothing inside.
    words.next()?.split('%').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_servers_go_and_the_rest_stays() {
        let host = "# by hand\nsearch example.org\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 192.0.2.1\noptions edns0\n";
        let text = choose(host, || panic!("not needed"));
        assert_eq!(text, "# by hand\nsearch example.org\nnameserver 192.0.2.1\noptions edns0\n");
    }

    #[test]
    fn behind_a_stub_its_own_servers_are_taken() {
        let text = choose("nameserver 127.0.0.53\n", || "nameserver 198.51.100.7\nsearch lan\n".into());
        assert_eq!(text, "nameserver 198.51.100.7\nsearch lan\n");
    }

    #[test]
    fn no_server_at_all_leaves_the_rest() {
        assert_eq!(choose("nameserver 127.0.0.1\nsearch lan\n", String::new), "search lan\n");
        assert_eq!(choose("", String::new), "");
        assert_eq!(choose("nameserver\nnameserver junk\n", String::new), "nameserver\nnameserver junk\n");
    }
}
