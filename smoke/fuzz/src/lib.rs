//! What each parser promises for any bytes at all: no panic, bounded work, and what is taken has one form.
//!
//! One function per parser, for `targets/`. None of this is in the product.

mod wire;

pub use wire::{control, counters, exit_record, launch, log_records, orders, session};

use base64::Engine as _;
use holdfast_release::{
    Digest, FileName, Floor, Host, Keyring, Offered, PROGRAMS, PublicKey, RELEASE_NAME, Release, Roots, SIGNATURE_NAME,
    SUMS_NAME, Signature, Sums,
};
use std::collections::BTreeMap;
use std::sync::LazyLock;

// Files of the two programs that have no library, as they are.
#[path = "../../../cli/src/update/config.rs"]
#[allow(dead_code)]
mod config_file;
#[path = "../../../helper/src/prefix6.rs"]
#[allow(dead_code)]
mod prefix6;
#[path = "../../../cli/src/update/record.rs"]
#[allow(dead_code)]
mod record;
#[path = "../../../helper/src/rules.rs"]
#[allow(dead_code)]
mod rules;
#[path = "../../../helper/src/subnet.rs"]
#[allow(dead_code)]
mod subnet;
#[path = "../../../helper/src/words.rs"]
#[allow(dead_code)]
mod words;

/// `SHA256SUMS`: what is taken writes itself back byte for byte.
pub fn sums(bytes: &[u8]) {
    if let Ok(sums) = Sums::parse(bytes) {
        assert_eq!(sums.to_string().as_bytes(), bytes);
        assert!(sums.digest(RELEASE_NAME).is_some());
        let plain = |name: &str| !name.contains('/') && ![SUMS_NAME, SIGNATURE_NAME].contains(&name);
        assert!(sums.names().all(|name| plain(name.as_str())));
    }
}

/// A signature's file, base64 and DER: one form each.
pub fn signature(bytes: &[u8]) {
    if let Ok(signature) = Signature::from_base64("x", bytes) {
        assert_eq!(signature.to_base64().as_bytes(), bytes.strip_suffix(b"\n").unwrap_or(bytes));
    }
    if let Ok(signature) = Signature::from_der("x", bytes) {
        assert_eq!(signature.to_base64(), base64::engine::general_purpose::STANDARD.encode(bytes));
    }
}

/// A public key's file.
pub fn key(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(key) = PublicKey::from_pem("x", text) {
        assert_eq!(key.pem().trim_end(), text.trim_end());
        assert_eq!(key.id().to_string().parse(), Ok(key.id()));
    }
}

/// The sums that `release.json` of the corpus goes with.
fn sums_of_corpus() -> Sums {
    let names = PROGRAMS.iter().map(|(name, _)| *name).chain(["rules.toml", "LICENSE", RELEASE_NAME]);
    let digest = |name: &str| -> (FileName, Digest) { (name.parse().expect("a name"), Digest::of(name.as_bytes())) };
    Sums::of(names.map(digest))
}

/// `release.json`, with sums that fit the corpus.
pub fn release(bytes: &[u8]) {
    static SUMS: LazyLock<Sums> = LazyLock::new(sums_of_corpus);
    if let Ok(release) = Release::parse(bytes, &SUMS, "x86_64") {
        let files = release.files();
        assert_eq!(files.len() + 1, SUMS.names().count());
        assert!(files.iter().all(|file| SUMS.digest(&file.name).is_some()));
    }
}

/// `keyring.json`.
pub fn keyring(bytes: &[u8]) {
    if let Ok(keyring) = Keyring::parse(bytes) {
        let ids: std::collections::BTreeSet<String> =
            keyring.keys().iter().map(|key| key.key.id().to_string()).collect();
        assert_eq!(ids.len(), keyring.keys().len());
    }
}

/// The floor's file.
pub fn floor(bytes: &[u8]) {
    // No fuzzer finds a digest that fits: below a right one it sees the JSON, too.
    for bytes in [bytes, &with_digest(bytes)] {
        let Ok(floor) = Floor::parse(bytes) else { continue };
        let text = floor.to_text().expect("what was read can be written");
        assert_eq!(Floor::parse(text.as_bytes()).expect("what was written can be read"), floor);
        assert_eq!(floor.raised_by(floor), floor);
    }
}

fn with_digest(bytes: &[u8]) -> Vec<u8> {
    [Digest::of(bytes).to_string().as_bytes(), b"  ", bytes, b"\n"].concat()
}

/// A whole set and its keyring, cut from the bytes: nobody here has a key, so nothing may be taken.
pub fn verify(bytes: &[u8]) {
    static ROOTS: LazyLock<Roots> = LazyLock::new(|| {
        let pem = include_str!("../corpus/key/good").to_owned();
        Roots::parse(&[("root-1.pem".to_owned(), pem)]).expect("one root key")
    });
    let mut parts = bytes.splitn(5, |byte| *byte == 0xff);
    let mut part = || parts.next().unwrap_or_default();
    let (text, signature) = (part(), part().to_vec());
    let (floor, clock) = (Floor::default(), jiff::Timestamp::UNIX_EPOCH);
    let signatures: BTreeMap<_, _> = ROOTS.ids().into_iter().map(|id| (id, signature.clone())).collect();
    let Ok(keyring) = ROOTS.verify(text, &signatures, &floor, clock) else { return };
    let offered = Offered { sums: part(), signature: Some(part()), release: part() };
    let host = Host { arch: "x86_64", channel: "stable", wanted: None, floor: &floor, kept: &[], running: None, clock };
    assert!(holdfast_release::verify(offered, &keyring, &host).is_err(), "a set was taken that nobody signed");
}

/// `update.toml`.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(config) = config_file::Config::parse(text) {
        let known =
            |source: &String| ["https://", "http://", "file:///"].iter().any(|scheme| source.starts_with(scheme));
        assert!(!config.sources.is_empty() && config.sources.iter().all(known));
        assert!(config.channel.parse::<FileName>().is_ok());
    }
}

/// `rules.toml`, as the helper reads it.
pub fn rules(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = text.parse::<rules::Rules>();
}

/// The record of an update under way.
pub fn txn(bytes: &[u8]) {
    for bytes in [bytes, &with_digest(bytes)] {
        if let Ok(txn) = record::Txn::parse(bytes) {
            assert_eq!(txn.format, record::Txn::FORMAT);
        }
    }
}
