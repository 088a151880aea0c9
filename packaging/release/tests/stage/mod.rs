//! A publisher with three root keys, and the small files of a release that it signs, in memory.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use holdfast_release::{
    Digest, FileName, Floor, Host, KeyEntry, KeyId, Keyring, KeyringFile, Offered, PROGRAMS, PrivateKey, RELEASE_NAME,
    Refusal, Release, ReleaseId, Role, Roots, SignedRelease, Sums, Verified,
};
use jiff::{Timestamp, ToSpan};
use semver::Version;
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub const NOW: &str = "2026-11-21T12:00:00Z";

pub fn now() -> Timestamp {
    NOW.parse().unwrap()
}

pub fn days(count: i64) -> Timestamp {
    now().checked_add((count * 24).hours()).unwrap()
}

pub fn generate() -> PrivateKey {
    PrivateKey::generate().unwrap()
}

pub fn id(key: &PrivateKey) -> KeyId {
    key.public().unwrap().id()
}

pub fn pem(key: &PrivateKey) -> String {
    key.public().unwrap().pem()
}

/// One file's bytes as a signature's file holds them.
pub fn signature(key: &PrivateKey, bytes: &[u8]) -> Vec<u8> {
    key.sign(bytes).to_base64().into_bytes()
}

pub struct Publisher {
    pub roots: Vec<PrivateKey>,
    pub release: PrivateKey,
    pub keyring: Value,
}

impl Publisher {
    pub fn new() -> Self {
        let release = generate();
        let mut publisher = Self { roots: (0..3).map(|_| generate()).collect(), release, keyring: Value::Null };
        publisher.keyring = publisher.keyring_of(3, &[&publisher.release]);
        publisher
    }

    pub fn keyring_of(&self, epoch: u64, keys: &[&PrivateKey]) -> Value {
        let entry = |key: &&PrivateKey| KeyEntry {
            id: id(key).to_string(),
            algorithm: KeyringFile::ALGORITHM.to_owned(),
            public: pem(key),
            not_before: days(-30),
            not_after: days(300),
        };
        let keys = keys.iter().map(entry).collect();
        let (kind, format) = (KeyringFile::KIND.to_owned(), KeyringFile::FORMAT);
        let file = KeyringFile { kind, format, epoch, created: days(-30), expires: days(300), keys };
        serde_json::to_value(file).unwrap()
    }

    /// The host's trust: all three root keys.
    pub fn trust(&self) -> Roots {
        let files: Vec<_> = self.roots.iter().enumerate().map(|(n, key)| (format!("root-{n}.pem"), pem(key))).collect();
        Roots::parse(&files).unwrap()
    }

    pub fn keyring_text(&self) -> Vec<u8> {
        self.keyring.to_string().into_bytes()
    }

    /// Signatures of the roots with these numbers.
    pub fn signed_by(&self, roots: &[usize], text: &[u8]) -> BTreeMap<KeyId, Vec<u8>> {
        roots.iter().map(|n| (id(&self.roots[*n]), signature(&self.roots[*n], text))).collect()
    }

    pub fn verified_keyring(&self, floor: &Floor) -> Result<Verified<Keyring>, Refusal> {
        let text = self.keyring_text();
        self.trust().verify(&text, &self.signed_by(&[0, 1], &text), floor, now())
    }
}

/// The description of a good release; every file holds its own name.
pub fn description() -> Value {
    let entry = |name: &str| {
        let role = Role::of_name(name).unwrap();
        json!({"name": name, "size": name.len(), "mode": role.mode_text(), "role": role})
    };
    let names = PROGRAMS.iter().map(|(name, _)| *name).chain(["rules.toml", "LICENSE"]);
    let files: Vec<Value> = names.map(entry).collect();
    json!({
        "type": "holdfast-release", "format": 1, "product": "holdfast", "channel": "stable", "version": "1.4.0",
        "seq": 17, "min_seq": 12, "key_epoch": 3, "created": days(-1), "expires": days(89), "commit": "0",
        "state_schema": {"writes": 5, "reads_from": 3},
        "protocols": {"daemon": 2, "helper": 2, "shim": {"speaks": 3, "understands_from": 1}},
        "targets": [{"arch": "x86_64", "libc": "gnu", "files": files}], "notes": ""
    })
}

/// The three small files of a set.
#[derive(Clone)]
pub struct Set {
    pub sums: Vec<u8>,
    pub signature: Option<Vec<u8>>,
    pub release: Vec<u8>,
}

impl Set {
    pub fn of(release: &Value, key: &PrivateKey) -> Self {
        let files = release["targets"][0]["files"].as_array().unwrap();
        let names = files.iter().map(|file| file["name"].as_str().unwrap());
        let mut sums: Vec<(FileName, Digest)> =
            names.map(|name| (name.parse().unwrap(), Digest::of(name.as_bytes()))).collect();
        let release = release.to_string().into_bytes();
        sums.push((RELEASE_NAME.parse().unwrap(), Digest::of(&release)));
        let sums = Sums::of(sums).to_string().into_bytes();
        Self { signature: Some(signature(key, &sums)), sums, release }
    }

    pub fn offered(&self) -> Offered<'_> {
        Offered { sums: &self.sums, signature: self.signature.as_deref(), release: &self.release }
    }
}

/// A host of which a test changes one thing.
pub struct HostDraft {
    pub arch: &'static str,
    pub channel: &'static str,
    pub wanted: Option<Version>,
    pub floor: Floor,
    pub kept: Vec<ReleaseId>,
    pub running: Option<Release>,
    pub clock: Timestamp,
}

impl HostDraft {
    pub fn new() -> Self {
        let floor = Floor { seq: 16, min_seq: 10, key_epoch: 3, keyring_epoch: 3, time: days(-20) };
        let (arch, channel) = ("x86_64", "stable");
        Self { arch, channel, wanted: None, floor, kept: Vec::new(), running: None, clock: now() }
    }

    pub fn judge(&self, publisher: &Publisher, set: &Set) -> Result<Verified<SignedRelease>, Refusal> {
        let keyring = publisher.verified_keyring(&self.floor)?;
        let host = Host {
            arch: self.arch,
            channel: self.channel,
            wanted: self.wanted.as_ref(),
            floor: &self.floor,
            kept: &self.kept,
            running: self.running.as_ref(),
            clock: self.clock,
        };
        holdfast_release::verify(set.offered(), &keyring, &host)
    }
}
