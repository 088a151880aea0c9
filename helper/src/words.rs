//! The helper's own words: who asks, for which network and ports, and how its kernel objects are named and tagged. Pure.

use holdfast_proto::words::{Generation, Macvlan, NetworkName, WorkerId};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// A uid as the kernel told it (SO_PEERCRED, NS_GET_OWNER_UID): never one from a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(pub u32);

/// A network that a worker may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Network {
    /// Loopback alone.
    None,
    /// An address of its own, NAT to the outside, no other worker in reach.
    Bridge,
    /// The same, and the workers of this network of the owner's see each other.
    Named(NetworkName),
    /// The host's own, shared with everything on it.
    Host,
    /// As [`Self::Bridge`], and a virtual machine in the worker has the address.
    Tap,
    /// A link of its own beside the host's on the same wire.
    Macvlan(Macvlan),
}

impl Network {
    /// Whether a worker of it has an address of its owner's pool.
    pub fn has_address(self) -> bool {
        match self {
            Self::Bridge | Self::Tap | Self::Named(_) => true,
            Self::None | Self::Host | Self::Macvlan(_) => false,
        }
    }
}

/// A transport that ports exist in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A published port; both numbers are 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Transport.
    pub proto: Proto,
    /// Host address that it answers on; 0.0.0.0: all of them, of both families.
    pub address: IpAddr,
    /// Port on the host.
    pub host: u16,
    /// Port in the worker.
    pub worker: u16,
}

impl Port {
    /// Whether both cannot be published at once.
    pub fn clashes(&self, other: &Self) -> bool {
        let same_address =
            self.address == other.address || self.address.is_unspecified() || other.address.is_unspecified();
        self.proto == other.proto && self.host == other.host && same_address
    }
}

/// Which start of which worker of whom: what every kernel object of ours is tagged with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Start {
    /// Whose.
    pub owner: Uid,
    /// Which worker.
    pub worker: WorkerId,
    /// Which start of it.
    pub generation: Generation,
}

/// Name of a link of ours: `hf` and 10 hex digits. Never made from what a caller said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkName(u64);

impl LinkName {
    /// Bits that a name holds.
    const BITS: u64 = 0xff_ffff_ffff;

    /// A worker's link; the caller brings the randomness, since the name of a dead one lingers (RCU).
    pub fn from_random(bits: u64) -> Self {
        Self(bits & Self::BITS)
    }

    /// As the kernel holds names in 16 bytes (IFNAMSIZ), padded with NUL.
    pub fn padded(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..12].copy_from_slice(self.to_string().as_bytes());
        bytes
    }

    /// Reads the padded form.
    pub fn from_padded(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        std::str::from_utf8(&bytes[..end]).ok()?.parse().ok()
    }
}

/// What the host end of a worker's link says it is, as its ifalias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// Which start.
    pub start: Start,
    /// Which network of its owner.
    pub network: Network,
    /// The worker's address.
    pub address: Ipv4Addr,
    /// The one of IPv6, where it has one.
    pub address6: Option<Ipv6Addr>,
}

/// A word of ours that cannot be read back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} cannot be {given:?}: {works}")]
pub struct WordError {
    what: &'static str,
    given: String,
    works: &'static str,
}

fn bad(what: &'static str, given: &str, works: &'static str) -> WordError {
    WordError { what, given: given.chars().take(64).collect(), works }
}

impl FromStr for Network {
    type Err = WordError;
    fn from_str(text: &str) -> Result<Self, WordError> {
        match text {
            "none" => Ok(Self::None),
            "bridge" => Ok(Self::Bridge),
            "host" => Ok(Self::Host),
            "tap" => Ok(Self::Tap),
            text if text.starts_with("macvlan:") => {
                text.parse().map(Self::Macvlan).map_err(|_| bad("network", text, "write macvlan: and a link's name"))
            }
            other => other
                .parse()
                .map(Self::Named)
                .map_err(|_| bad("network", other, "use \"bridge\", \"none\", \"host\" or the name of a network")),
        }
    }
}

impl FromStr for Proto {
    type Err = WordError;
    fn from_str(text: &str) -> Result<Self, WordError> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            other => Err(bad("protocol of a port", other, "use \"tcp\" or \"udp\"")),
        }
    }
}

impl FromStr for LinkName {
    type Err = WordError;
    fn from_str(text: &str) -> Result<Self, WordError> {
        let digits = text
            .strip_prefix("hf")
            .filter(|d| d.len() == 10 && d.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
        let bits = digits.and_then(|d| u64::from_str_radix(d, 16).ok());
        bits.map(Self).ok_or_else(|| bad("link name", text, "ours are hf and 10 hex digits"))
    }
}

impl FromStr for Start {
    type Err = WordError;
    /// `owner=1000 worker=00ff00ff00ff00ff generation=1`, words in this order; more may follow.
    fn from_str(text: &str) -> Result<Self, WordError> {
        let parsed = || {
            let mut words = text.split(' ');
            let owner = Uid(words.next()?.strip_prefix("owner=")?.parse().ok()?);
            let worker = words.next()?.strip_prefix("worker=")?.parse().ok()?;
            let generation = Generation(words.next()?.strip_prefix("generation=")?.parse().ok()?);
            Some(Self { owner, worker, generation })
        };
        parsed().ok_or_else(|| bad("tag", text, "ours say owner, worker and generation"))
    }
}

impl FromStr for Tag {
    type Err = WordError;
    fn from_str(text: &str) -> Result<Self, WordError> {
        let value = |key: &str| text.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let parsed = || {
            let start = text.strip_prefix("holdfast ")?.parse().ok()?;
            let address6 = value("address6").map(str::parse).transpose().ok()?;
            let (network, address) = (value("network")?.parse().ok()?, value("address")?.parse().ok()?);
            Some(Self { start, network, address, address6 })
        };
        parsed().ok_or_else(|| bad("tag", text, "ours start with \"holdfast owner=\""))
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Bridge => f.write_str("bridge"),
            Self::Host => f.write_str("host"),
            Self::Tap => f.write_str("tap"),
            Self::Macvlan(link) => link.fmt(f),
            Self::Named(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf{:010x}", self.0)
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "owner={} worker={} generation={}", self.owner, self.worker, self.generation)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "holdfast {} network={} address={}", self.start, self.network, self.address)?;
        self.address6.map_or(Ok(()), |address6| write!(f, " address6={address6}"))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", SocketAddr::new(self.address, self.host), self.worker, self.proto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that the kernel takes or that mean something to a shell, to nft or to a path.
    const HOSTILE: &[&str] = &[
        "",
        "x\"y",
        "x;y",
        "x}y",
        "$(id)",
        "\u{1}",
        "é",
        "-x",
        "hf%d",
        "../x",
        "a/b",
        "a b",
        "a\nb",
        "all",
        "default",
        "lo",
        "eth0",
        "docker0",
        "hf",
        "hf0123456789a",
        "hf012345678",
        "HF0123456789",
        "hf012345678G",
        "hf01234567 9",
        "hf0123456789\0",
        "{ }",
        "@bridges",
        "' or 1=1",
        "0x7f",
        "%2e%2e",
        "hf+123456789",
        "*",
        "~",
        "\\",
        "nul\0l",
        "owner=0",
        "holdfast owner=0",
        "--",
        "10.88.0.1",
        "bridge ",
        " none",
        "Bridge",
        "tcp/udp",
        "TCP",
    ];

    #[test]
    fn hostile_words_are_refused_everywhere() {
        for text in HOSTILE {
            assert!(text.parse::<LinkName>().is_err(), "link name {text:?}");
            if text.parse::<NetworkName>().is_err() {
                assert!(text.parse::<Network>().is_err(), "network {text:?}");
            }
            assert!(text.parse::<Proto>().is_err(), "protocol {text:?}");
            assert!(text.parse::<Tag>().is_err(), "tag {text:?}");
            assert!(text.parse::<Start>().is_err(), "start {text:?}");
        }
    }

    #[test]
    fn tags_are_read_back_and_fit_an_ifalias() {
        let start =
            Start { owner: Uid(u32::MAX), worker: WorkerId::from_random(u64::MAX), generation: Generation(u64::MAX) };
        let name = "n".repeat(32).parse().unwrap();
        for network in [Network::Bridge, Network::Named(name)] {
            for address6 in [None, Some(Ipv6Addr::from_bits(u128::MAX))] {
                let tag = Tag { start, network, address: Ipv4Addr::new(255, 255, 255, 255), address6 };
                assert_eq!(tag.to_string().parse(), Ok(tag));
                assert!(tag.to_string().len() < 255);
            }
        }
    }

    #[test]
    fn names_of_links_are_read_back() {
        let name = LinkName::from_random(u64::MAX);
        assert_eq!(name.to_string().len(), 12);
        assert_eq!(LinkName::from_padded(&name.padded()), Some(name));
    }

    #[test]
    fn a_port_on_all_addresses_clashes_with_one_on_any() {
        let port = |address: [u8; 4], host| Port { proto: Proto::Tcp, address: address.into(), host, worker: 80 };
        let six = Port { address: Ipv6Addr::LOCALHOST.into(), ..port([0; 4], 80) };
        assert!(port([0; 4], 80).clashes(&six) && !port([127, 0, 0, 1], 80).clashes(&six));
        assert_eq!(six.to_string(), "[::1]:80:80/tcp");
        assert!(port([0; 4], 80).clashes(&port([127, 0, 0, 1], 80)));
        assert!(!port([10, 0, 0, 1], 80).clashes(&port([127, 0, 0, 1], 80)));
        assert!(!port([0; 4], 80).clashes(&port([0; 4], 81)));
        assert!(!port([0; 4], 80).clashes(&Port { proto: Proto::Udp, ..port([0; 4], 80) }));
    }
}
