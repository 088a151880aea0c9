//! Words that cannot be wrong once made: names, ids, generations, epochs.

use std::fmt;
use std::str::FromStr;

/// Why a word was refused. The text names the rule, what was given, and what would work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// Not `[a-z0-9][a-z0-9-]{0,31}`.
    #[error("bad worker name {0:?}: use 1 to 32 of a-z, 0-9 and '-', not starting with '-' (as web-1)")]
    Name(String),
    /// Not 16 lower-case hex digits.
    #[error("bad worker id {0:?}: an id is 16 lower-case hex digits")]
    Id(String),
    /// Not a name for a network of the owner's.
    #[error(
        "bad network name {0:?}: use 1 to 32 of a-z, 0-9 and '-', not starting with '-', and none of bridge, none, host, macvlan, tap, default"
    )]
    Network(String),
    /// Not `macvlan:PARENT`.
    #[error(
        "bad network {0:?}: write macvlan:PARENT with the name of a link of this host, 1 to 15 of letters, digits, '_', '.' and '-' (as macvlan:eth1)"
    )]
    Macvlan(String),
    /// Not a login name that the installed units can carry.
    #[error(
        "bad owner name {0:?}: use a login name of letters, digits, '_', '.' and '-', not starting with '-' or '.'"
    )]
    Owner(String),
}

/// A worker's name: `[a-z0-9][a-z0-9-]{0,31}`. Also its host name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerName(String);

/// Name of a network that an owner made: as a worker's name, and none of the words that are modes.
/// By value, since it is part of what is copied everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkName([u8; NETWORK_NAME_BYTES_MAX]);

/// Longest name of a network.
const NETWORK_NAME_BYTES_MAX: usize = 32;

/// Words that mean a mode, now or later.
const MODES: [&str; 6] = ["bridge", "none", "host", "macvlan", "tap", "default"];

/// A link of the host that a worker of network `macvlan:PARENT` shares: `[A-Za-z0-9][A-Za-z0-9_.-]{0,14}`. By value, as
/// [`NetworkName`]; whether there is such a link, and for whom, the rules and the kernel say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Macvlan([u8; MACVLAN_BYTES_MAX]);

/// What a network of this kind begins with.
const MACVLAN: &str = "macvlan:";
/// Longest name of a link in Linux (IFNAMSIZ without the NUL).
const LINK_BYTES_MAX: usize = 15;
const MACVLAN_BYTES_MAX: usize = MACVLAN.len() + LINK_BYTES_MAX;

/// A worker's id: 64 random bits as 16 lower-case hex digits. Never used twice by one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(u64);

/// Which start of a worker: 1 is the first, 0 is before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Generation(pub u64);

/// Which start of a daemon: rises by one at each, so that a late word of an earlier one is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

/// A login name that may stand in a unit's instance name as it is (contract: `[A-Za-z0-9_.-]`,
/// at most 32 bytes, as useradd has it). Not yet known to exist.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerName(String);

impl FromStr for WorkerName {
    type Err = WordError;
    fn from_str(text: &str) -> Result<Self, WordError> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let fits = (1..=32).contains(&text.len()) && text.bytes().all(legal) && !text.starts_with('-');
        if fits { Ok(Self(text.to_owned())) } else { Err(WordError::Name(shown(text))) }
    }
}

impl FromStr for NetworkName {
    type Err = WordError;
    fn from_str(text: &str) -> Result<Self, WordError> {
        let name: Result<WorkerName, _> = text.parse();
        if name.is_err() || MODES.contains(&text) {
            return Err(WordError::Network(shown(text)));
        }
        let mut bytes = [0; NETWORK_NAME_BYTES_MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self(bytes))
    }
}

impl FromStr for Macvlan {
    type Err = WordError;
    fn from_str(text: &str) -> Result<Self, WordError> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let parent = text.strip_prefix(MACVLAN).unwrap_or_default();
        let fits = (1..=LINK_BYTES_MAX).contains(&parent.len()) && parent.bytes().all(legal);
        if !fits || parent.starts_with(['_', '.', '-']) {
            return Err(WordError::Macvlan(shown(text)));
        }
        let mut bytes = [0; MACVLAN_BYTES_MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self(bytes))
    }
}

impl FromStr for WorkerId {
    type Err = WordError;
    fn from_str(text: &str) -> Result<Self, WordError> {
        let legal = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != 16 || !text.bytes().all(legal) {
            return Err(WordError::Id(shown(text)));
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| WordError::Id(shown(text)))
    }
}

impl FromStr for OwnerName {
    type Err = WordError;
    fn from_str(text: &str) -> Result<Self, WordError> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let fits = (1..=32).contains(&text.len()) && text.bytes().all(legal) && !text.starts_with(['-', '.']);
        if fits { Ok(Self(text.to_owned())) } else { Err(WordError::Owner(shown(text))) }
    }
}

/// What was given, short enough for a message.
fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 64;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl WorkerId {
    /// An id of 64 random bits; the caller brings the randomness.
    pub fn from_random(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits that [`fmt::Display`] shows in hex.
    pub fn bits(self) -> u64 {
        self.0
    }
}

impl Generation {
    /// The one after this.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl WorkerName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl NetworkName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        // Only ever made of ASCII.
        std::str::from_utf8(&self.0[..end]).unwrap_or_default()
    }
}

impl Macvlan {
    /// On this parent; `None` where that is no name of a link.
    pub fn on(parent: &str) -> Option<Self> {
        format!("{MACVLAN}{parent}").parse().ok()
    }

    /// The whole word.
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        // Only ever made of ASCII.
        std::str::from_utf8(&self.0[..end]).unwrap_or_default()
    }

    /// The host's link.
    pub fn parent(&self) -> &str {
        self.as_str().get(MACVLAN.len()..).unwrap_or_default()
    }
}

impl OwnerName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Macvlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for OwnerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_the_contract_says() {
        for good in ["a", "0", "web", "web-1", &"a".repeat(32)] {
            assert_eq!(good.parse::<WorkerName>().map(|n| n.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "-a", "A", "a_b", "a.b", "a/b", "../x", "a\0", "é", &"a".repeat(33), "a b", "a\n"] {
            assert!(bad.parse::<WorkerName>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn names_of_networks_are_no_modes() {
        for good in ["a", "lan-1", &"n".repeat(32)] {
            assert_eq!(good.parse::<NetworkName>().map(|n| n.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "bridge", "none", "host", "default", "tap", "macvlan", "macvlan:eth0", "a b", &"n".repeat(33)] {
            assert!(bad.parse::<NetworkName>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_parent_is_a_plain_name_of_a_link() {
        for good in ["eth1", "enp3s0f1np1", "eth0.100", "br-lan", "Lan_2", &"n".repeat(15)] {
            let word: Macvlan = format!("macvlan:{good}").parse().unwrap();
            assert_eq!((word.parent(), Macvlan::on(good)), (good, Some(word)));
        }
        for bad in [
            "",
            "-x",
            ".",
            "..",
            "_x",
            "a/b",
            "a b",
            "x;y",
            "$(id)",
            "x\"y",
            "é",
            "a:b",
            "hf%d",
            "a\n",
            "a\0",
            &"n".repeat(16),
        ] {
            assert!(format!("macvlan:{bad}").parse::<Macvlan>().is_err(), "{bad:?} was taken");
        }
        for bad in ["macvlan", "Macvlan:eth0", "eth0", "macvlan eth0"] {
            assert!(bad.parse::<Macvlan>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn ids_are_sixteen_lower_case_hex_digits() {
        let id: WorkerId = "00ff00ff00ff00ff".parse().unwrap();
        assert_eq!(id.to_string(), "00ff00ff00ff00ff");
        for bad in ["", "00FF00ff00ff00ff", "00ff00ff00ff00f", "+0ff00ff00ff00ff", "00ff00ff00ff00ff0"] {
            assert!(bad.parse::<WorkerId>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn owners_that_a_unit_cannot_carry_are_refused() {
        assert!("john-doe_2.x".parse::<OwnerName>().is_ok());
        for bad in ["", "-x", ".x", r"DOM\user", "a b", "a%i", "a\"b", "a\nb", "a@b", &"a".repeat(33)] {
            assert!(bad.parse::<OwnerName>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_refusal_shows_no_more_than_a_line_of_what_was_given() {
        let error = "x".repeat(10_000).parse::<WorkerName>().unwrap_err();
        assert!(error.to_string().len() < 300);
    }
}
