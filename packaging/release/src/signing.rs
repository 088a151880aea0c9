//! Signatures over folders and keyrings.

use crate::keys::{read_private, read_public};
use anyhow::Context;
use holdfast_release::{
    Floor, Folder, Host, KEYRING_NAME, KeyId, Keyring, Offered, RELEASE_NAME, Roots, SIGNATURE_NAME, SUMS_NAME,
};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct VerifyArgs {
    /// Public root key, PEM; once for each that hosts have
    #[arg(long, required = true)]
    root: Vec<PathBuf>,
    /// The keyring, its signatures beside it
    #[arg(long)]
    keyring: PathBuf,
    /// The channel that hosts follow
    #[arg(long, default_value = "stable")]
    channel: String,
    /// The release folder
    folder: PathBuf,
}

pub fn sign(key: &Path, what: &Path) -> anyhow::Result<()> {
    let key = read_private(key)?;
    let id = key.public()?.id();
    let (signed, signature) = if what.is_dir() {
        // What no host would take is not signed either.
        Folder::open(what).context("the folder is no release")?;
        (what.join(SUMS_NAME), what.join(SIGNATURE_NAME))
    } else {
        let text = fs::read(what).with_context(|| what.display().to_string())?;
        Keyring::parse(&text).context("only release folders and keyrings are signed")?;
        (what.to_owned(), what.with_file_name(signature_of_keyring(id)))
    };
    let bytes = fs::read(&signed).with_context(|| signed.display().to_string())?;
    fs::write(&signature, key.sign(&bytes).to_base64()).with_context(|| signature.display().to_string())?;
    println!("{} by {id}", signature.display());
    Ok(())
}

pub fn verify(args: &VerifyArgs, clock: Timestamp) -> anyhow::Result<()> {
    let mut roots = Vec::new();
    for path in &args.root {
        roots.push((path.display().to_string(), read_public(path)?.pem()));
    }
    let (roots, floor) = (Roots::parse(&roots)?, Floor::default());
    let text = fs::read(&args.keyring).with_context(|| args.keyring.display().to_string())?;
    let signatures = keyring_signatures(&roots, &args.keyring)?;
    let keyring = roots.verify(&text, &signatures, &floor, clock)?;

    let read = |name: &str| fs::read(args.folder.join(name)).with_context(|| name.to_owned());
    let (sums, release) = (read(SUMS_NAME)?, read(RELEASE_NAME)?);
    let signature = match read(SIGNATURE_NAME) {
        Err(_) if !args.folder.join(SIGNATURE_NAME).exists() => None,
        signature => Some(signature?),
    };
    let offered = Offered { sums: &sums, signature: signature.as_deref(), release: &release };
    let (arch, channel) = (std::env::consts::ARCH, args.channel.as_str());
    let host = Host { arch, channel, wanted: None, floor: &floor, kept: &[], running: None, clock };
    let signed = holdfast_release::verify(offered, &keyring, &host)?;
    let folder = Folder::open(&args.folder)?;
    anyhow::ensure!(folder.id() == signed.id, "the folder changed meanwhile");
    println!("{}: seq {}, signed by {} (epoch {})", signed.id, signed.release.seq, signed.key, keyring.epoch());
    for warning in &signed.warnings {
        println!("warning: {warning}");
    }
    Ok(())
}

fn signature_of_keyring(id: KeyId) -> String {
    format!("{KEYRING_NAME}.{id}.sig")
}

fn keyring_signatures(roots: &Roots, keyring: &Path) -> anyhow::Result<BTreeMap<KeyId, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for id in roots.ids() {
        let path = keyring.with_file_name(signature_of_keyring(id));
        if path.exists() {
            found.insert(id, fs::read(&path).with_context(|| path.display().to_string())?);
        }
    }
    Ok(found)
}
