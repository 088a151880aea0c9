//! The world beyond the host: another network namespace, joined to the host by one wire.
//!
//! It lives inside the container (`ip netns`), so that it is gone with it. The host has 203.0.113.1 and routes
//! everything by 203.0.113.2; behind that are a client's address and a server's (RFC 5737 test nets).

use crate::{Host, Output, Result};
use std::path::PathBuf;

/// The outside of one host.
pub struct Outside<'h> {
    host: &'h Host,
}

impl<'h> Outside<'h> {
    /// The host's own address on the wire.
    pub const HOST: &'static str = "203.0.113.1";
    /// The address that a client outside has.
    pub const CLIENT: &'static str = "203.0.113.2";
    /// A server far away.
    pub const SERVER: &'static str = "198.51.100.7";

    /// Makes the wire, and gives the host its default route. Call once a host, before workers are made.
    pub fn attach(host: &'h Host) -> Result<Self> {
        let script = "set -e
            ip netns add outside
            ip link add uplink type veth peer name wire netns outside
            ip address add 203.0.113.1/24 dev uplink
            ip link set uplink up
            ip -n outside address add 203.0.113.2/24 dev wire
            ip -n outside address add 198.51.100.7/32 dev lo
            ip -n outside link set wire up
            ip -n outside link set lo up
            ip route add default via 203.0.113.2";
        host.root().run(script)?.ok()?;
        Ok(Self { host })
    }

    /// The host's own IPv6 address on the wire, after [`Outside::speak_ipv6`].
    pub const HOST6: &'static str = "2001:db8:1::1";
    /// The client's.
    pub const CLIENT6: &'static str = "2001:db8:1::2";
    /// The server's, far away.
    pub const SERVER6: &'static str = "2001:db8:7::7";

    /// Gives both ends of the wire IPv6 as well (RFC 3849 prefixes). Whether the host forwards it, the scenario says.
    pub fn speak_ipv6(&self) -> Result {
        let script = "set -e
            ip -6 address add 2001:db8:1::1/64 dev uplink nodad
            ip -n outside -6 address add 2001:db8:1::2/64 dev wire nodad
            ip -n outside -6 address add 2001:db8:7::7/128 dev lo nodad
            ip -6 route add default via 2001:db8:1::2";
        self.host.root().run(script)?.ok().map(drop)
    }

    /// Runs a command line there, as root.
    pub fn run(&self, line: &str) -> Result<Output> {
        self.host.root().run(&self.line(line))
    }

    /// Starts one there.
    pub fn start(&self, line: &str) -> Result<crate::Running> {
        self.host.root().start(&self.line(line))
    }

    /// Its network namespace.
    pub fn netns(&self) -> PathBuf {
        self.host.path("/run/netns/outside")
    }

    fn line(&self, line: &str) -> String {
        format!("exec ip netns exec outside sh -c '{}'", line.replace('\'', r"'\''"))
    }
}
