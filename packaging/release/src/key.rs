//! Keys and signatures: ECDSA P-256 over SHA-256, in the two forms that `openssl` writes.
//!
//! One key has one form here (uncompressed SPKI) and one signature has one form (strict DER), so that an id is an
//! identity. A signature never is: (r, s) and (r, n-s) are both good for the same bytes.

use crate::{Digest, Refusal};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::{Signer as _, Verifier as _};
use p256::ecdsa::{SigningKey, VerifyingKey};
use p256::pkcs8::{
    DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _, LineEnding,
};
use std::fmt;
use std::str::FromStr;

/// Most bytes of a signature's file.
pub const SIGNATURE_BYTES_MAX: u64 = 1024;

/// The first 16 hex digits of SHA-256 over the key's DER SPKI.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 8]);

/// A key that signatures are checked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    key: VerifyingKey,
    id: KeyId,
}

/// A key that signs. Maintainers and tests have one; no host does.
pub struct PrivateKey(SigningKey);

/// One well-formed signature. Says nothing of whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature(p256::ecdsa::Signature);

impl PublicKey {
    /// Reads SPKI PEM exactly as `openssl pkey -pubout` writes it; `name` is for the message.
    pub fn from_pem(name: &str, text: &str) -> Result<Self, Refusal> {
        let bad = |why: &dyn fmt::Display| Refusal::bad_encoding(name, format!("no P-256 public key in PEM: {why}"));
        let key = VerifyingKey::from_public_key_pem(text).map_err(|error| bad(&error))?;
        let own = key.to_public_key_pem(LineEnding::LF).map_err(|error| bad(&error))?;
        // A compressed point or other spaces would be the same key by another id.
        if text != own && text != own.trim_end() {
            return Err(bad(&"it is not in the form that openssl writes"));
        }
        Self::of(key, name)
    }

    fn of(key: VerifyingKey, name: &str) -> Result<Self, Refusal> {
        let der = key.to_public_key_der().map_err(|error| Refusal::bad_encoding(name, error))?;
        Ok(Self { key, id: KeyId::of(der.as_bytes()) })
    }

    /// What names it.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Its SPKI PEM.
    pub fn pem(&self) -> String {
        self.key.to_public_key_pem(LineEnding::LF).unwrap_or_default()
    }

    /// Whether `signature` is this key's, over SHA-256 of `bytes`.
    pub fn signed(&self, bytes: &[u8], signature: &Signature) -> bool {
        self.key.verify(bytes, &signature.0).is_ok()
    }
}

impl PrivateKey {
    /// A new one from the system's random numbers.
    pub fn generate() -> std::io::Result<Self> {
        loop {
            let mut bytes = [0; 32];
            getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
            // Zero and what is above the group's order are no keys: about one in 2^32.
            if let Ok(key) = SigningKey::from_slice(&bytes) {
                return Ok(Self(key));
            }
        }
    }

    /// Reads PKCS#8 PEM, as `openssl genpkey` writes it.
    pub fn from_pem(name: &str, text: &str) -> Result<Self, Refusal> {
        let bad = |error| Refusal::bad_encoding(name, format!("no P-256 private key in PKCS#8 PEM: {error}"));
        SigningKey::from_pkcs8_pem(text).map(Self).map_err(bad)
    }

    /// Its PKCS#8 PEM.
    pub fn pem(&self) -> Result<String, Refusal> {
        let pem = self.0.to_pkcs8_pem(LineEnding::LF).map_err(|error| Refusal::bad_encoding("private key", error))?;
        Ok(pem.as_str().to_owned())
    }

    /// The public half.
    pub fn public(&self) -> Result<PublicKey, Refusal> {
        PublicKey::of(*self.0.verifying_key(), "public key")
    }

    /// Signs SHA-256 of `bytes`.
    pub fn sign(&self, bytes: &[u8]) -> Signature {
        Signature(self.0.sign(bytes))
    }
}

impl Signature {
    /// Reads the bytes of a signature's file: one line of standard base64 with its padding, at most one LF after it.
    pub fn from_base64(name: &str, bytes: &[u8]) -> Result<Self, Refusal> {
        let found = bytes.len() as u64;
        if found > SIGNATURE_BYTES_MAX {
            return Err(Refusal::TooLarge { name: name.to_owned(), found, most: SIGNATURE_BYTES_MAX });
        }
        let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let der = STANDARD.decode(line).map_err(|error| Refusal::bad_encoding(name, format!("base64: {error}")))?;
        Self::from_der(name, &der)
    }

    /// Reads a DER `ECDSA-Sig-Value`: the one DER that its numbers have, both in [1, n-1].
    pub fn from_der(name: &str, der: &[u8]) -> Result<Self, Refusal> {
        let bad = |why: &dyn fmt::Display| Refusal::bad_encoding(name, format!("no DER ECDSA signature: {why}"));
        let signature = p256::ecdsa::Signature::from_der(der).map_err(|error| bad(&error))?;
        match signature.to_der().as_bytes() == der {
            true => Ok(Self(signature)),
            false => Err(bad(&"its numbers have another DER form")),
        }
    }

    /// One line of base64 without its end, as `base64 -w0` writes it.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.0.to_der().as_bytes())
    }
}

impl KeyId {
    fn of(spki: &[u8]) -> Self {
        let mut id = [0; 8];
        id.copy_from_slice(&Digest::of(spki).bytes()[..8]);
        Self(id)
    }
}

impl FromStr for KeyId {
    type Err = ();

    /// Exactly 16 digits, lower case only.
    fn from_str(text: &str) -> Result<Self, ()> {
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != 16 || !text.bytes().all(digit) {
            return Err(());
        }
        u64::from_str_radix(text, 16).map(|number| Self(number.to_be_bytes())).map_err(|_| ())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}
