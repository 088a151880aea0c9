//! `release.json`: what a release says about itself, and whether that can be true.

use crate::{FileName, PROGRAMS, RELEASE_BYTES_MAX, RELEASE_NAME, Refusal, Sums};
use semver::Version;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The whole of `release.json`. Unknown fields are refused, but below `x`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Always `holdfast-release`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Always 1.
    pub format: u32,
    /// Always `holdfast`.
    pub product: String,
    /// Who should get it.
    pub channel: String,
    /// What each of its programs prints for `--version`.
    pub version: Version,
    /// Orders releases; semver does not.
    pub seq: u64,
    /// Older ones than this are not to be installed any more.
    pub min_seq: u64,
    /// Epoch of the keyring that was newest when it was made; 0 where it is not signed.
    pub key_epoch: u64,
    /// When it was made, RFC 3339.
    pub created: jiff::Timestamp,
    /// When it should have been followed by a newer one, RFC 3339.
    pub expires: jiff::Timestamp,
    /// The sources' commit, or `unknown`.
    pub commit: String,
    /// Which forms of the owner's database it writes and reads.
    pub state_schema: SchemaRange,
    /// Which contracts its programs speak.
    pub protocols: Protocols,
    /// What it is for, and its files: one target.
    pub targets: Vec<Target>,
    /// For people.
    pub notes: String,
    /// Anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<serde_json::Value>,
}

/// Forms of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemaRange {
    /// The form that is written.
    pub writes: u32,
    /// The oldest form that is read.
    pub reads_from: u32,
}

/// Versions of the contracts between the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protocols {
    /// CLI and daemon.
    pub daemon: u32,
    /// Daemon and helper.
    pub helper: u32,
    /// Shim and everybody who talks to one.
    pub shim: ShimProtocol,
}

/// A shim lives as long as its worker, so the others speak to older ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShimProtocol {
    /// What this release's shim speaks.
    pub speaks: u32,
    /// The oldest that its other programs understand.
    pub understands_from: u32,
}

/// One machine's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// As `x86_64`.
    pub arch: String,
    /// As `gnu`.
    pub libc: String,
    /// Every file but `release.json` and `SHA256SUMS`.
    pub files: Vec<ReleaseFile>,
}

/// One file of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseFile {
    /// Its name in the folder.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// `0755` or `0644`.
    pub mode: String,
    /// What it is installed as.
    pub role: Role,
}

/// What a file is installed as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The command `holdfast`.
    Cli,
    /// One owner's daemon.
    Daemon,
    /// The network helper.
    Helper,
    /// Forks workers.
    Launcher,
    /// Stands beside one worker.
    Shim,
    /// For systemd.
    Unit,
    /// sysusers, tmpfiles, default rules.
    Conf,
    /// For people.
    Doc,
}

impl Role {
    /// The only role that a file of this name can have; none where a release holds no such file.
    pub fn of_name(name: &str) -> Option<Self> {
        if let Some((_, role)) = PROGRAMS.iter().find(|(program, _)| *program == name) {
            return Some(*role);
        }
        // Units are installed by their names: one of another product must not be replaced.
        let unit = name.starts_with("holdfast")
            && [".service", ".socket", ".timer"].iter().any(|suffix| name.ends_with(suffix));
        match name {
            _ if unit => Some(Self::Unit),
            "rules.toml" => Some(Self::Conf),
            _ if name.starts_with("holdfast.") && name.ends_with(".conf") => Some(Self::Conf),
            "LICENSE" => Some(Self::Doc),
            _ => None,
        }
    }

    /// Whether it is one of the five programs.
    pub fn is_program(self) -> bool {
        match self {
            Self::Cli | Self::Daemon | Self::Helper | Self::Launcher | Self::Shim => true,
            Self::Unit | Self::Conf | Self::Doc => false,
        }
    }

    /// The mode that files of this role have, as `release.json` writes it.
    pub fn mode_text(self) -> &'static str {
        if self.is_program() { "0755" } else { "0644" }
    }
}

impl Release {
    /// Always the `type`.
    pub const KIND: &'static str = "holdfast-release";
    /// Always the `product`.
    pub const PRODUCT: &'static str = "holdfast";
    /// Always the `format`.
    pub const FORMAT: u32 = 1;

    /// Reads a `release.json` and checks it against itself, `sums` and `arch`.
    pub fn parse(bytes: &[u8], sums: &Sums, arch: &str) -> Result<Self, Refusal> {
        if bytes.len() as u64 > RELEASE_BYTES_MAX {
            let found = bytes.len() as u64;
            return Err(Refusal::TooLarge { name: RELEASE_NAME.to_owned(), found, most: RELEASE_BYTES_MAX });
        }
        let release: Self =
            serde_json::from_slice(bytes).map_err(|error| Refusal::bad_encoding(RELEASE_NAME, error))?;
        release.check_product()?;
        release.check_files(sums, arch)?;
        Ok(release)
    }

    /// The files of its one target.
    pub fn files(&self) -> &[ReleaseFile] {
        self.targets.first().map_or(&[], |target| &target.files)
    }

    fn check_product(&self) -> Result<(), Refusal> {
        let wrong = |what, found: &str, wanted| Refusal::WrongProduct {
            name: RELEASE_NAME,
            what,
            found: found.to_owned(),
            wanted,
        };
        if self.kind != Self::KIND {
            return Err(wrong("type", &self.kind, Self::KIND));
        }
        if self.product != Self::PRODUCT {
            return Err(wrong("product", &self.product, Self::PRODUCT));
        }
        if self.format != Self::FORMAT {
            return Err(wrong("format", &self.format.to_string(), "1"));
        }
        Ok(())
    }

    fn check_files(&self, sums: &Sums, arch: &str) -> Result<(), Refusal> {
        let [target] = self.targets.as_slice() else {
            let count = self.targets.len();
            return Err(Refusal::WrongTarget(format!("release.json has {count} targets, a folder has exactly one")));
        };
        if (target.arch.as_str(), target.libc.as_str()) != (arch, "gnu") {
            let (found, libc) = (&target.arch, &target.libc);
            return Err(Refusal::WrongTarget(format!("it is for {found}-{libc}, this machine is {arch}-gnu")));
        }
        let mut named = BTreeSet::from([RELEASE_NAME]);
        for file in &target.files {
            file.check(sums)?;
            if !named.insert(&file.name) {
                return Err(Refusal::WrongRole { name: file.name.clone(), why: "release.json names it twice".into() });
            }
        }
        if let Some(extra) = sums.names().find(|name| !named.contains(name.as_str())) {
            let why = "SHA256SUMS names it, release.json does not".to_owned();
            return Err(Refusal::WrongRole { name: extra.to_string(), why });
        }
        match PROGRAMS.iter().find(|(program, _)| !named.contains(program)) {
            Some((program, _)) => {
                Err(Refusal::MissingFile { name: (*program).to_owned(), why: "release.json does not name it" })
            }
            None => Ok(()),
        }
    }
}

impl ReleaseFile {
    /// What systemd calls this file, if it is a unit. Release format 1 has no '@' in names, so a template travels as
    /// `NAME.template.service`.
    pub fn unit_name(&self) -> Option<String> {
        (self.role == Role::Unit).then(|| self.name.replacen(".template.", "@.", 1))
    }

    fn check(&self, sums: &Sums) -> Result<(), Refusal> {
        let name = self.name.clone();
        if self.name.parse::<FileName>().is_err() || sums.digest(&name).is_none() {
            return Err(Refusal::MissingFile { name, why: "SHA256SUMS does not name it" });
        }
        if Role::of_name(&name) != Some(self.role) {
            let why = match Role::of_name(&name) {
                Some(role) => format!("a file of this name has the role {role:?}, not {:?}", self.role).to_lowercase(),
                None => "a release holds no file of this name".to_owned(),
            };
            return Err(Refusal::WrongRole { name, why });
        }
        if self.mode != self.role.mode_text() {
            let why = format!("its mode is {:?}, its role has {}", self.mode, self.role.mode_text());
            return Err(Refusal::WrongRole { name, why });
        }
        match self.size > crate::FILE_BYTES_MAX {
            true => Err(Refusal::TooLarge { name, found: self.size, most: crate::FILE_BYTES_MAX }),
            false => Ok(()),
        }
    }
}
