//! `/etc/holdfast/install.toml`: who owns what was installed, and when.

use holdfast_proto::words::OwnerName;
use serde::{Deserialize, Serialize};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Installed {
    /// Of the release.
    pub version: String,
    /// Folder of the release below `releases`.
    pub release: String,
    /// Commit of its sources.
    pub commit: String,
    /// When this file last changed, RFC 3339.
    pub installed_at: jiff::Timestamp,
    /// Sorted by name.
    #[serde(default)]
    pub owners: Vec<Account>,
}

/// One owner as the account was when it was installed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Login name.
    #[serde(with = "owner_text")]
    pub name: OwnerName,
    /// Its uid.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// Its home.
    pub home: String,
}

impl Installed {
    /// Reads the file's text.
    ///
    /// # Errors
    /// Where it is not what [`Installed::text`] writes.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// The file's text.
    ///
    /// # Errors
    /// None that is known: all fields have a form in TOML.
    pub fn text(&self) -> Result<String, toml::ser::Error> {
        Ok(format!("# Written by `holdfast system install`.\n{}", toml::to_string(self)?))
    }
}

mod owner_text {
    use holdfast_proto::words::OwnerName;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(name: &OwnerName, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(name.as_str())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<OwnerName, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let alice = Account { name: "alice".parse().unwrap(), uid: 1000, gid: 1000, home: "/home/al \"ice\"".into() };
        let installed = Installed {
            version: "0.1.0".into(),
            release: "0.1.0-0123456789ab".into(),
            commit: "unknown".into(),
            installed_at: jiff::Timestamp::UNIX_EPOCH,
            owners: vec![alice],
        };
        assert_eq!(Installed::parse(&installed.text().unwrap()).unwrap(), installed);
    }

    #[test]
    fn an_owner_that_no_unit_can_carry_is_refused() {
        let text = "version='1'\nrelease='r'\ncommit='c'\ninstalled_at='1970-01-01T00:00:00Z'\n\
                    [[owners]]\nname='a%b'\nuid=1\ngid=1\nhome='/'\n";
        assert!(Installed::parse(text).is_err());
        assert!(Installed::parse(&text.replace("a%b", "ab")).is_ok());
    }
}
