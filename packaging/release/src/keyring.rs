//! Who may sign releases: root keys that a host was given, and the keyring that they signed.

use crate::{Floor, KeyId, PublicKey, Refusal, Signature, Verified};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Name of the keyring's file.
pub const KEYRING_NAME: &str = "keyring.json";
/// Most bytes of a keyring.
pub const KEYRING_BYTES_MAX: u64 = 64 * 1024;

/// Most root keys of a host.
const ROOTS_MAX: usize = 3;

/// The root keys of `/etc/holdfast/trust`. At least one.
#[derive(Debug, Clone)]
pub struct Roots(BTreeMap<KeyId, PublicKey>);

/// Release keys of one epoch, read but not yet of any worth.
#[derive(Debug, Clone, PartialEq)]
pub struct Keyring {
    file: KeyringFile,
    keys: Vec<ReleaseKey>,
}

/// A key with its time.
#[derive(Debug, Clone, PartialEq)]
pub struct ReleaseKey {
    /// The key.
    pub key: PublicKey,
    /// From then on.
    pub not_before: Timestamp,
    /// Until then, inclusive.
    pub not_after: Timestamp,
}

/// `keyring.json` as it is written. Everything that is not here is refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyringFile {
    /// Always `holdfast-keyring`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Always 1.
    pub format: u32,
    /// Only rises. A key that a newer epoch leaves out is revoked.
    pub epoch: u64,
    /// When it was made, RFC 3339.
    pub created: Timestamp,
    /// When it should have been followed by a newer one, RFC 3339.
    pub expires: Timestamp,
    /// The release keys.
    pub keys: Vec<KeyEntry>,
}

/// One key of `keyring.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEntry {
    /// Has to be the id of `public`.
    pub id: String,
    /// Always `ecdsa-p256-sha256`.
    pub algorithm: String,
    /// SPKI PEM.
    pub public: String,
    /// From then on, RFC 3339.
    pub not_before: Timestamp,
    /// Until then, RFC 3339.
    pub not_after: Timestamp,
}

impl KeyringFile {
    /// Always the `type`.
    pub const KIND: &'static str = "holdfast-keyring";
    /// Always the `format`.
    pub const FORMAT: u32 = 1;
    /// Always the `algorithm` of a key.
    pub const ALGORITHM: &'static str = "ecdsa-p256-sha256";
}

impl Roots {
    /// Of the texts of `root-*.pem`, as (file name, text): one, two or three different keys.
    pub fn parse(files: &[(String, String)]) -> Result<Self, Refusal> {
        let mut roots = BTreeMap::new();
        for (name, text) in files {
            let key = PublicKey::from_pem(name, text)?;
            // Twice the same key would make two of three from one.
            if roots.insert(key.id(), key).is_some() {
                return Err(Refusal::UnsafeConfig(format!("{name}: another file holds the same root key")));
            }
        }
        match roots.len() {
            0 => Err(Refusal::NoTrust("there is no root key")),
            1..=ROOTS_MAX => Ok(Self(roots)),
            more => Err(Refusal::UnsafeConfig(format!("{more} root keys: release format 1 has at most {ROOTS_MAX}"))),
        }
    }

    /// How many have to sign: both of two, two of three.
    pub fn threshold(&self) -> usize {
        self.0.len().min(2)
    }

    /// Their ids: each has its signature in `keyring.json.<id>.sig`.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.0.keys().copied()
    }

    /// Takes a keyring that enough root keys signed and that is not older than one seen before. `signatures` are the
    /// bytes of the files, under the root id that each file's name holds.
    pub fn verify(
        &self,
        text: &[u8],
        signatures: &BTreeMap<KeyId, Vec<u8>>,
        floor: &Floor,
        clock: Timestamp,
    ) -> Result<Verified<Keyring>, Refusal> {
        let found = text.len() as u64;
        if found > KEYRING_BYTES_MAX {
            return Err(Refusal::TooLarge { name: KEYRING_NAME.to_owned(), found, most: KEYRING_BYTES_MAX });
        }
        self.check_signatures(text, signatures)?;
        let keyring = Keyring::parse(text)?;
        let epoch = keyring.epoch();
        if epoch < floor.keyring_epoch {
            return Err(Refusal::KeyringRollback { epoch, seen: floor.keyring_epoch });
        }
        floor.check_created(KEYRING_NAME, keyring.file.created, clock)?;
        Ok(Verified::new(keyring))
    }

    fn check_signatures(&self, text: &[u8], signatures: &BTreeMap<KeyId, Vec<u8>>) -> Result<(), Refusal> {
        let ours: Vec<_> = signatures.iter().filter_map(|(id, bytes)| Some((self.0.get(id)?, bytes))).collect();
        if ours.is_empty() {
            return match signatures.keys().next() {
                Some(id) => Err(Refusal::UnknownKey { name: KEYRING_NAME.to_owned(), id: *id }),
                None => Err(Refusal::NoSignature { name: KEYRING_NAME.to_owned() }),
            };
        }
        let (mut good, mut bad) = (0, Vec::new());
        for (root, bytes) in ours {
            let name = format!("{KEYRING_NAME}.{}.sig", root.id());
            match Signature::from_base64(&name, bytes) {
                Ok(signature) if root.signed(text, &signature) => good += 1,
                Ok(_) => bad.push(format!("{name} is not over these bytes")),
                Err(refusal) => bad.push(refusal.to_string()),
            }
        }
        let wanted = self.threshold();
        match good >= wanted {
            true => Ok(()),
            false => Err(Refusal::KeyringThreshold { good, wanted, why: bad.join("; ") }),
        }
    }
}

impl Keyring {
    /// Reads the exact bytes of a `keyring.json`.
    pub fn parse(text: &[u8]) -> Result<Self, Refusal> {
        let bad = |why: String| Refusal::bad_encoding(KEYRING_NAME, why);
        let file: KeyringFile = serde_json::from_slice(text).map_err(|error| bad(error.to_string()))?;
        let wrong = |what, found: String, wanted| Refusal::WrongProduct { name: KEYRING_NAME, what, found, wanted };
        if file.kind != KeyringFile::KIND {
            return Err(wrong("type", file.kind, KeyringFile::KIND));
        }
        if file.format != KeyringFile::FORMAT {
            return Err(wrong("format", file.format.to_string(), "1"));
        }
        let mut keys: Vec<ReleaseKey> = Vec::new();
        for entry in &file.keys {
            if entry.algorithm != KeyringFile::ALGORITHM {
                return Err(bad(format!("the key {:?} has the algorithm {:?}", entry.id, entry.algorithm)));
            }
            let key = PublicKey::from_pem(KEYRING_NAME, &entry.public)?;
            if entry.id.parse() != Ok(key.id()) {
                return Err(bad(format!("the key {:?} has the id {}", entry.id, key.id())));
            }
            if keys.iter().any(|known| known.key.id() == key.id()) {
                return Err(bad(format!("the key {} is there twice", key.id())));
            }
            keys.push(ReleaseKey { key, not_before: entry.not_before, not_after: entry.not_after });
        }
        Ok(Self { file, keys })
    }

    /// Its epoch.
    pub fn epoch(&self) -> u64 {
        self.file.epoch
    }

    /// When it was made.
    pub fn created(&self) -> Timestamp {
        self.file.created
    }

    /// When a newer one is due.
    pub fn expires(&self) -> Timestamp {
        self.file.expires
    }

    /// Its keys.
    pub fn keys(&self) -> &[ReleaseKey] {
        &self.keys
    }
}
