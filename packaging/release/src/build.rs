//! Writes what makes a folder of files a release.

use anyhow::Context;
use holdfast_release::{
    Digest, FileName, Folder, Protocols, RELEASE_NAME, Release, ReleaseFile, Role, SIGNATURE_NAME, SUMS_NAME,
    SchemaRange, ShimProtocol, Sums, Target,
};
use jiff::{Timestamp, ToSpan};
use std::fs;
use std::path::{Path, PathBuf};

/// What the programs of these sources read and speak. Raised together with the programs; which form they write, the build
/// script counts.
const STATE_READS_FROM: u32 = 1;
const PROTOCOLS: Protocols = Protocols { daemon: 1, helper: 1, shim: ShimProtocol { speaks: 1, understands_from: 1 } };
/// A release older than this should have been followed by another (release format: at most 90 days).
const VALID_HOURS: i64 = 90 * 24;

#[derive(clap::Args)]
pub struct BuildArgs {
    /// What the programs print for --version
    #[arg(long)]
    version: semver::Version,
    /// Commit of the sources
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// Who should get it
    #[arg(long, default_value = "stable")]
    channel: String,
    /// Its place in the order of releases: above that of every release before
    #[arg(long, default_value_t = 0)]
    seq: u64,
    /// Forbid every release below this seq for good
    #[arg(long, default_value_t = 0)]
    min_seq: u64,
    /// Epoch of the newest keyring; 0 if it will not be signed
    #[arg(long, default_value_t = 0)]
    key_epoch: u64,
    /// What is new, for people
    #[arg(long, default_value = "")]
    notes: String,
    /// The folder: programs, units, conf files, LICENSE
    folder: PathBuf,
}

/// Writes `release.json` and `SHA256SUMS` into the folder, then opens it as every installer would.
pub fn complete(args: BuildArgs, now: Timestamp) -> anyhow::Result<()> {
    let folder = args.folder.as_path();
    // A signature of what was there before would only puzzle.
    match fs::remove_file(folder.join(SIGNATURE_NAME)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut sums = Vec::new();
    let mut files = Vec::new();
    for name in names(folder)? {
        let bytes = fs::read(folder.join(name.as_str())).with_context(|| name.to_string())?;
        let role = Role::of_name(name.as_str()).with_context(|| format!("{name}: a release holds no such file"))?;
        let (size, mode) = (bytes.len() as u64, role.mode_text().to_owned());
        files.push(ReleaseFile { name: name.to_string(), size, mode, role });
        sums.push((name, Digest::of(&bytes)));
    }
    let mut release = describe(files, &args, now)?;
    if let Some(before) = described(folder) {
        // What the programs are is said by the tool of their own sources, which packaging/build ran.
        (release.state_schema, release.protocols) = (before.state_schema, before.protocols);
    }
    let mut text = serde_json::to_vec_pretty(&release)?;
    text.push(b'\n');
    fs::write(folder.join(RELEASE_NAME), &text)?;
    sums.push((RELEASE_NAME.parse().map_err(anyhow::Error::msg)?, Digest::of(&text)));
    fs::write(folder.join(SUMS_NAME), Sums::of(sums).to_string())?;
    Folder::open(folder).context("the folder is no release")?;
    Ok(())
}

fn names(folder: &Path) -> anyhow::Result<Vec<FileName>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let name = entry?.file_name();
        let name = name.to_str().with_context(|| format!("{}: not a name of a release", name.display()))?;
        if name != RELEASE_NAME && name != SUMS_NAME {
            names.push(name.parse::<FileName>().map_err(|why| anyhow::anyhow!("{name:?}: {why}"))?);
        }
    }
    names.sort();
    Ok(names)
}

/// What the folder says of itself already.
fn described(folder: &Path) -> Option<Release> {
    serde_json::from_slice(&fs::read(folder.join(RELEASE_NAME)).ok()?).ok()
}

fn describe(files: Vec<ReleaseFile>, args: &BuildArgs, now: Timestamp) -> anyhow::Result<Release> {
    // Whole seconds: the description is for people too.
    let created = Timestamp::from_second(now.as_second())?;
    Ok(Release {
        kind: Release::KIND.to_owned(),
        format: Release::FORMAT,
        product: Release::PRODUCT.to_owned(),
        channel: args.channel.clone(),
        version: args.version.clone(),
        seq: args.seq,
        min_seq: args.min_seq,
        key_epoch: args.key_epoch,
        created,
        expires: created.checked_add(VALID_HOURS.hours())?,
        commit: args.commit.clone(),
        state_schema: SchemaRange { writes: env!("HOLDFAST_STATE_FORM").parse()?, reads_from: STATE_READS_FROM },
        protocols: PROTOCOLS,
        targets: vec![Target { arch: std::env::consts::ARCH.to_owned(), libc: "gnu".to_owned(), files }],
        notes: args.notes.clone(),
        x: None,
    })
}
