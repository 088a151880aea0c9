//! Key pairs and keyrings.

use anyhow::Context;
use holdfast_release::{KEYRING_BYTES_MAX, KeyEntry, KeyId, Keyring, KeyringFile, PrivateKey, PublicKey};
use jiff::{Timestamp, ToSpan};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct KeyringArgs {
    /// The keyring to follow: its keys stay, its epoch is raised by one
    #[arg(long)]
    from: Option<PathBuf>,
    /// Public key of a release key to add, PEM
    #[arg(long)]
    add: Vec<PathBuf>,
    /// Id of a key to leave out: from then on no host takes what it signed
    #[arg(long)]
    revoke: Vec<String>,
    /// Days until a newer keyring is due, and for which added keys are good
    #[arg(long, default_value_t = 365)]
    days: i64,
    /// The file to write
    out: PathBuf,
}

pub fn generate(name: &Path) -> anyhow::Result<()> {
    let key = PrivateKey::generate()?;
    let public = key.public()?;
    write_new(&name.with_extension("key"), key.pem()?.as_bytes(), 0o600)?;
    write_new(&name.with_extension("pem"), public.pem().as_bytes(), 0o644)?;
    println!("{}", public.id());
    Ok(())
}

pub fn write_keyring(args: &KeyringArgs, now: Timestamp) -> anyhow::Result<()> {
    let created = Timestamp::from_second(now.as_second())?;
    let expires = created.checked_add((args.days * 24).hours())?;
    let (epoch, mut keys) = match &args.from {
        None => (1, Vec::new()),
        Some(path) => {
            let old = fs::read(path).with_context(|| path.display().to_string())?;
            Keyring::parse(&old)?;
            let old: KeyringFile = serde_json::from_slice(&old)?;
            (old.epoch + 1, old.keys)
        }
    };
    for id in &args.revoke {
        id.parse::<KeyId>().map_err(|()| anyhow::anyhow!("{id:?} is no key id: 16 hex digits"))?;
        let before = keys.len();
        keys.retain(|key| key.id != *id);
        anyhow::ensure!(keys.len() < before, "no key {id} in the keyring");
    }
    for path in &args.add {
        let key = read_public(path)?;
        let (id, public) = (key.id().to_string(), key.pem());
        let algorithm = KeyringFile::ALGORITHM.to_owned();
        keys.push(KeyEntry { id, algorithm, public, not_before: created, not_after: expires });
    }
    let (kind, format) = (KeyringFile::KIND.to_owned(), KeyringFile::FORMAT);
    let file = KeyringFile { kind, format, epoch, created, expires, keys };
    let mut text = serde_json::to_vec_pretty(&file)?;
    text.push(b'\n');
    Keyring::parse(&text)?;
    anyhow::ensure!(text.len() as u64 <= KEYRING_BYTES_MAX, "too many keys: no host reads a keyring so large");
    fs::write(&args.out, text).with_context(|| args.out.display().to_string())?;
    println!("epoch {epoch}, {} keys; now each root key signs it", file.keys.len());
    Ok(())
}

pub fn read_public(path: &Path) -> anyhow::Result<PublicKey> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(PublicKey::from_pem(&path.display().to_string(), &text)?)
}

pub fn read_private(path: &Path) -> anyhow::Result<PrivateKey> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(PrivateKey::from_pem(&path.display().to_string(), &text)?)
}

/// A key that is there is never written over.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(bytes)).with_context(|| path.display().to_string())
}
