//! The rules file: what root allows each owner. `/etc/holdfast/rules.toml`, root's, not writable by others.
//!
//! ```toml
//! version = 1
//!
//! [owners.alice]                # the login name, for people and messages
//! uid = 1000                    # what counts: the uid that the kernel shows; required, not 0
//! networks = ["none", "bridge"] # also "tap" and "host", the host's own network; may be empty
//! pool = "10.88.0.0/16"         # each network of the owner gets a /22 of it; private, /8 to /22; may be shared
//! pool6 = "fd12:3456:789a::/48" # each /22 of those has a /64 of this; absent: no IPv6. No two owners share one
//! ports = ["1024-65535"]        # host ports that may be published: "N" or "N-M"
//! bind = ["0.0.0.0"]            # host addresses that may be published on; 0.0.0.0: all of them, of IPv4 and IPv6
//! macvlan_parents = []          # links of the host that workers of network macvlan:PARENT may share; none: no such worker
//! macvlan_max = 8               # such workers at once
//! networks_max = 32             # named networks that hold addresses at once
//! workers_max = 2000            # attached at once
//! ports_max = 4000              # published at once
//! egress = "open"               # the only one so far: everything but the host's own services, link-local addresses and
//!                               # metadata services
//! ```
//!
//! Everything but `uid` has the default shown. Unknown words are refused: a misspelt limit is no limit.

use crate::prefix6::Prefix6;
use crate::subnet::Subnet;
use crate::words::{LinkName, Network, Uid};
use holdfast_proto::words::{Macvlan, OwnerName};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

/// The form that is read.
const VERSION: u32 = 1;
/// Most owners of one host.
pub const OWNERS_MAX: usize = 256;
/// Prefix length of one network of an owner.
pub const NETWORK_PREFIX: u8 = 22;
const POOL_PREFIX_MIN: u8 = 8;
/// Where a pool may lie: private use (RFC 1918) and shared address space (RFC 6598).
const POOLS_WITHIN: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
];

/// What root allows, all owners.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    owners: BTreeMap<Uid, Owner>,
}

/// What root allows one owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// For messages.
    pub name: OwnerName,
    /// Who it is.
    pub uid: Uid,
    /// Networks that may be asked for.
    pub networks: Vec<Network>,
    /// Where the owner's networks lie.
    pub pool: Subnet,
    /// The same of IPv6; absent: workers have none.
    pub pool6: Option<Prefix6>,
    /// Host ports that may be published, each range not empty, none with 0.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Host addresses that may be published on; 0.0.0.0 stands for all, of both families.
    pub bind: Vec<IpAddr>,
    /// Links of the host that workers may share.
    pub macvlan_parents: Vec<Macvlan>,
    /// Most workers at once that do.
    pub macvlan_max: u32,
    /// Most named networks that hold addresses at once.
    pub networks_max: u32,
    /// Most workers attached at once.
    pub workers_max: u32,
    /// Most ports published at once.
    pub ports_max: u32,
}

/// Why a text is no rules. Names the owner, the rule, what was given and what would work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// Not TOML, or not these words.
    #[error("not understood: {0}")]
    Form(String),
    /// Another version.
    #[error("version = {0}: this helper reads version = {VERSION}")]
    Version(u32),
    /// A value that cannot be.
    #[error("[owners.{owner}] {rule}: {why}")]
    Value {
        /// Whose section.
        owner: String,
        /// Which line of it.
        rule: &'static str,
        /// What was given and what would work.
        why: String,
    },
    /// Two sections with one uid.
    #[error("[owners.{0}] and [owners.{1}] have the same uid: keep one of them")]
    Twice(OwnerName, OwnerName),
    /// Two sections with one prefix.
    #[error("[owners.{0}] and [owners.{1}] have the same pool6: give each owner one of its own")]
    Pool6Twice(OwnerName, OwnerName),
    /// Too many.
    #[error("{0} owners: at most {OWNERS_MAX} are served")]
    Many(usize),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    version: u32,
    #[serde(default)]
    owners: BTreeMap<String, Section>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    uid: u32,
    networks: Option<Vec<String>>,
    pool: Option<String>,
    pool6: Option<String>,
    ports: Option<Vec<String>>,
    bind: Option<Vec<String>>,
    macvlan_parents: Option<Vec<String>>,
    macvlan_max: Option<u32>,
    networks_max: Option<u32>,
    workers_max: Option<u32>,
    ports_max: Option<u32>,
    egress: Option<String>,
}

impl Rules {
    /// The owner with this uid, if listed.
    pub fn owner(&self, uid: Uid) -> Option<&Owner> {
        self.owners.get(&uid)
    }

    /// All owners, by uid.
    pub fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.owners.values()
    }
}

impl FromStr for Rules {
    type Err = RulesError;
    fn from_str(text: &str) -> Result<Self, RulesError> {
        let text: Text = toml::from_str(text).map_err(|error| RulesError::Form(error.to_string()))?;
        if text.version != VERSION {
            return Err(RulesError::Version(text.version));
        }
        if text.owners.len() > OWNERS_MAX {
            return Err(RulesError::Many(text.owners.len()));
        }
        let mut rules = Self::default();
        for (name, section) in text.owners {
            let owner = Owner::parse(&name, &section)?;
            if let Some(other) = rules.owners.get(&owner.uid) {
                return Err(RulesError::Twice(other.name.clone(), owner.name));
            }
            let same6 = |other: &&Owner| other.pool6.is_some() && other.pool6 == owner.pool6;
            if let Some(other) = rules.owners.values().find(same6) {
                return Err(RulesError::Pool6Twice(other.name.clone(), owner.name));
            }
            rules.owners.insert(owner.uid, owner);
        }
        Ok(rules)
    }
}

impl Owner {
    fn parse(name: &str, section: &Section) -> Result<Self, RulesError> {
        let refuse = |rule: &'static str, why: String| RulesError::Value { owner: shown(name), rule, why };
        if section.uid == 0 || section.uid >= 65534 && section.uid <= 65535 || section.uid == u32::MAX {
            return Err(refuse("uid", format!("{} can own nothing here: use an ordinary user's uid", section.uid)));
        }
        if let Some(egress) = section.egress.as_deref().filter(|e| *e != "open") {
            return Err(refuse("egress", format!("{:?} is not known: use \"open\"", shown(egress))));
        }
        let listed = |given: &Option<Vec<String>>, default: &[&str]| {
            given.clone().unwrap_or_else(|| default.iter().map(ToString::to_string).collect())
        };
        let each = |words: Vec<String>| words.into_iter().map(|word| mode(&word)).collect();
        let networks: Result<Vec<_>, _> = each(listed(&section.networks, &["none", "bridge"]));
        let ports: Result<Vec<_>, _> = listed(&section.ports, &["1024-65535"]).iter().map(|r| range(r)).collect();
        let bind: Result<Vec<_>, _> = listed(&section.bind, &["0.0.0.0"]).iter().map(|a| bind_address(a)).collect();
        let pool6 = section.pool6.as_deref().map(|text| text.parse().map_err(|error| format!("{error}"))).transpose();
        let parents: Result<Vec<_>, _> = listed(&section.macvlan_parents, &[]).iter().map(|p| parent(p)).collect();
        Ok(Self {
            name: name.parse().map_err(|error| refuse("name", format!("{error}")))?,
            uid: Uid(section.uid),
            networks: networks.map_err(|why| refuse("networks", why))?,
            pool: pool(section.pool.as_deref().unwrap_or("10.88.0.0/16")).map_err(|why| refuse("pool", why))?,
            pool6: pool6.map_err(|why| refuse("pool6", why))?,
            ports: ports.map_err(|why| refuse("ports", why))?,
            bind: bind.map_err(|why| refuse("bind", why))?,
            macvlan_parents: parents.map_err(|why| refuse("macvlan_parents", why))?,
            macvlan_max: section.macvlan_max.unwrap_or(8),
            networks_max: section.networks_max.unwrap_or(32),
            workers_max: section.workers_max.unwrap_or(2000),
            ports_max: section.ports_max.unwrap_or(4000),
        })
    }

    /// Whether `port` may be published.
    pub fn grants(&self, port: u16) -> bool {
        self.ports.iter().any(|range| range.contains(&port))
    }

    /// The granted ports as they would be written.
    pub fn grant(&self) -> String {
        let each = |r: &RangeInclusive<u16>| {
            if r.start() == r.end() { r.start().to_string() } else { format!("{}-{}", r.start(), r.end()) }
        };
        format!("{:?}", self.ports.iter().map(each).collect::<Vec<_>>())
    }
}

/// A mode, as the file grants it; a network's name is no mode.
fn mode(word: &str) -> Result<Network, String> {
    match word.parse() {
        Ok(Network::Macvlan(_)) => Err("macvlan is granted by its parents: list them in macvlan_parents".to_owned()),
        Ok(Network::Named(_)) | Err(_) => {
            Err(format!("{:?} is not known: use \"bridge\", \"none\", \"tap\" or \"host\"", shown(word)))
        }
        Ok(mode) => Ok(mode),
    }
}

/// A link to share: not the loopback, and none of the workers' own.
fn parent(text: &str) -> Result<Macvlan, String> {
    let of_workers = text.parse::<LinkName>().is_ok();
    let named = Macvlan::on(text).filter(|_| text != "lo" && !of_workers);
    named.ok_or_else(|| {
        format!("{:?} is no link to share: name an Ethernet link of this host (as \"eth1\")", shown(text))
    })
}

fn pool(text: &str) -> Result<Subnet, String> {
    let pool: Subnet = text.parse().map_err(|error| format!("{error}"))?;
    if !(POOL_PREFIX_MIN..=NETWORK_PREFIX).contains(&pool.prefix()) {
        return Err(format!("{pool}: the prefix length must be {POOL_PREFIX_MIN} to {NETWORK_PREFIX}"));
    }
    let private = POOLS_WITHIN.iter().any(|(base, prefix)| Subnet::around(*base, *prefix).covers(pool));
    if private {
        Ok(pool)
    } else {
        Err(format!("{pool}: use private addresses (in 10/8, 172.16/12, 192.168/16 or 100.64/10)"))
    }
}

fn range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let digits = |s: &str| (!s.is_empty() && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse::<u16>().ok())?;
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (digits(first), digits(last)) {
        (Some(first), Some(last)) if first > 0 && first <= last => Ok(first..=last),
        _ => Err(format!("{:?} is no range of ports: write \"8080\" or \"1024-65535\"", shown(text))),
    }
}

fn bind_address(text: &str) -> Result<IpAddr, String> {
    let usable = text.parse().ok().filter(|address| match address {
        IpAddr::V4(a) => !a.is_multicast() && !a.is_broadcast() && (a.is_unspecified() || a.octets()[0] != 0),
        IpAddr::V6(_) => no_place_to_publish(*address).is_none(),
    });
    usable.ok_or_else(|| format!("{:?} is no address to publish on: write \"0.0.0.0\" for all", shown(text)))
}

/// Why nothing can be published on this address, where that is so by itself.
pub fn no_place_to_publish(address: IpAddr) -> Option<&'static str> {
    let IpAddr::V6(six) = address else { return None };
    match () {
        () if six.is_unspecified() => Some("leave the address out for all of them, of IPv4 and IPv6"),
        () if six.is_loopback() => Some("answers would not find back to ::1: use 127.0.0.1"),
        () if six.is_unicast_link_local() => Some("who calls a link-local address cannot be forwarded"),
        () if six.is_multicast() || six.to_ipv4_mapped().is_some() => Some("it is no address of a host"),
        () => None,
    }
}

fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(lines: &str) -> Result<Rules, RulesError> {
        format!("version = 1\n[owners.alice]\nuid = 1000\n{lines}").parse()
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let rules = owner("").unwrap();
        let alice = rules.owner(Uid(1000)).unwrap();
        assert_eq!(alice.networks, [Network::None, Network::Bridge]);
        assert_eq!((alice.pool.to_string().as_str(), alice.workers_max, alice.ports_max), ("10.88.0.0/16", 2000, 4000));
        assert!(alice.grants(1024) && alice.grants(65535) && !alice.grants(1023) && !alice.grants(0));
        assert_eq!(alice.grant(), "[\"1024-65535\"]");
        assert_eq!((alice.pool6, rules.owner(Uid(1001))), (None, None));
        assert!(owner("pool6 = \"fd12:3456:789a::/48\"").unwrap().owner(Uid(1000)).unwrap().pool6.is_some());
    }

    #[test]
    fn the_shipped_template_is_valid() {
        let rules: Rules = include_str!("../../packaging/rules.toml").parse().unwrap();
        assert_eq!(rules.owners().count(), 0);
        let section: String = include_str!("../../packaging/rules.toml")
            .lines()
            .filter_map(|line| line.strip_prefix("#:").or((!line.starts_with('#')).then_some(line)))
            .map(|line| format!("{line}\n"))
            .collect();
        let rules: Rules = section.parse().unwrap();
        assert_eq!(rules.owners().count(), 1);
    }

    #[test]
    fn unknown_words_and_other_versions_are_refused() {
        for text in [
            "",
            "version = 2",
            "version = 1\nowner = 3",
            "version = 1\n[owners.a]\n",
            "version = 1\n[owners.a]\nuid = -1",
        ] {
            assert!(text.parse::<Rules>().is_err(), "{text:?} was taken");
        }
        for line in [
            "port = []",
            "uid = 1",
            "egress = \"none\"",
            "workers_max = -1",
            "networks = [\"macvlan\"]",
            "networks = [\"shop\"]",
            "pool6 = \"2001:db8::/48\"",
            "pool6 = \"\"",
            "networks = [\"macvlan:eth1\"]",
            "macvlan_parents = [\"lo\"]",
            "macvlan_parents = [\"hf0123456789\"]",
            "macvlan_parents = [\"*\"]",
            "macvlan_parents = [\"\"]",
            "macvlan_parents = \"eth1\"",
            "macvlan_max = -1",
            "networks = \"bridge\"",
        ] {
            assert!(owner(line).is_err(), "{line:?} was taken");
        }
    }

    #[test]
    fn uids_that_mean_nobody_or_root_are_refused() {
        for uid in [0u32, 65534, 65535, u32::MAX] {
            assert!(format!("version = 1\n[owners.a]\nuid = {uid}").parse::<Rules>().is_err(), "{uid}");
        }
        let twice = "version = 1\n[owners.a]\nuid = 7\n[owners.b]\nuid = 7".parse::<Rules>();
        assert!(matches!(twice, Err(RulesError::Twice(..))));
        let twice = "version = 1\n[owners.a]\nuid = 7\npool6 = \"fd12:3456:789a::/48\"\n[owners.b]\nuid = 8\npool6 = \"fd12:3456:789a::/48\"";
        assert!(matches!(twice.parse::<Rules>(), Err(RulesError::Pool6Twice(..))));
        assert!("version = 1\n[owners.\"a b\"]\nuid = 7".parse::<Rules>().is_err());
    }

    #[test]
    fn pools_outside_private_space_are_refused() {
        let corpus = [
            "0.0.0.0/0",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "224.0.0.0/8",
            "8.8.0.0/16",
            "10.0.0.0/7",
            "10.88.0.0/23",
            "10.88.0.0/32",
            "10.88.0.1/16",
            "192.169.0.0/16",
            "172.32.0.0/16",
            "100.128.0.0/16",
            "255.255.0.0/16",
            "::/0",
            "::ffff:10.0.0.0/104",
            "10.88.0.0",
            "10.88.0.0/",
            "10.88/16",
            "0x0a.0.0.0/8",
            "10.88.0.0/16 ",
            "1.0.0.0/8",
            "240.0.0.0/8",
            "192.0.2.0/22",
            "",
        ];
        for text in corpus {
            assert!(owner(&format!("pool = {text:?}")).is_err(), "{text:?} was taken");
        }
        for text in ["10.0.0.0/8", "172.16.0.0/12", "192.168.4.0/22", "100.64.0.0/10"] {
            assert!(owner(&format!("pool = {text:?}")).is_ok(), "{text:?} was refused");
        }
    }

    #[test]
    fn ranges_and_addresses_are_exact() {
        for text in ["", "0", "0-5", "5-4", "65536", "1-", "-1", "+5", "a", "1-2-3", " 5", "5,6"] {
            assert!(owner(&format!("ports = [{text:?}]")).is_err(), "{text:?} was taken");
        }
        for text in [
            "",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "[2001:db8::1]",
            "localhost",
            "224.0.0.1",
            "255.255.255.255",
            "0.0.0.1",
            "1.2.3",
        ] {
            assert!(owner(&format!("bind = [{text:?}]")).is_err(), "{text:?} was taken");
        }
        assert!(
            owner("ports = [\"80\", \"443\"]\nbind = [\"127.0.0.1\", \"2001:db8::1\"]")
                .unwrap()
                .owner(Uid(1000))
                .unwrap()
                .grants(443)
        );
    }
}
