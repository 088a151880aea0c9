//! Whether a host may take a release that a stranger offers. Pure: bytes, keys, floor and clock are given.

use crate::{
    Digest, Floor, KeyId, Keyring, RELEASE_NAME, Refusal, Release, ReleaseId, ReleaseKey, SIGNATURE_NAME,
    SUMS_BYTES_MAX, SUMS_NAME, Signature, Sums, Verified,
};
use jiff::Timestamp;
use semver::Version;

/// Releases that a signer may leave out at most while the keyring stays: a thief of a release key cannot use the order up.
const SEQ_STEP_MAX: u64 = 1_000;
/// The same from one keyring to a newer one, which is how maintainers get past what a thief has signed.
const SEQ_STEP_NEW_EPOCH_MAX: u64 = 1_000_000_000;
/// The highest order: what every reader of JSON can hold exactly.
const SEQ_MAX: u64 = (1 << 53) - 1;

/// The three small files of a set as they came, before anything is known of them.
#[derive(Debug, Clone, Copy)]
pub struct Offered<'a> {
    /// `SHA256SUMS`.
    pub sums: &'a [u8],
    /// `SHA256SUMS.sig`, if there is one.
    pub signature: Option<&'a [u8]>,
    /// `release.json`.
    pub release: &'a [u8],
}

/// The host that asks.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a> {
    /// Its machine, as `x86_64`.
    pub arch: &'a str,
    /// The channel of its update.toml.
    pub channel: &'a str,
    /// The version that was asked for, if one was.
    pub wanted: Option<&'a Version>,
    /// What it remembers.
    pub floor: &'a Floor,
    /// What `current` and `current.previous` point to: always allowed, or a rollback would be final.
    pub kept: &'a [ReleaseId],
    /// What runs there now.
    pub running: Option<&'a Release>,
    /// Its clock.
    pub clock: Timestamp,
}

/// A release whose description, sums and signature hold. Its other files are to be checked against `sums`.
#[derive(Debug, Clone, PartialEq)]
pub struct SignedRelease {
    /// What names it once installed.
    pub id: ReleaseId,
    /// The names and digests of its files.
    pub sums: Sums,
    /// Its description.
    pub release: Release,
    /// Who signed it.
    pub key: KeyId,
    /// What an operator should know; none of it stops an update.
    pub warnings: Vec<Warning>,
}

/// True, worth saying, and no reason to refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// A newer one is overdue: the source may be old, or somebody holds the newer one back.
    #[error("expired: {name} should have been followed by a newer one on {expires}")]
    Expired {
        /// `release.json` or `keyring.json`.
        name: &'static str,
        /// Since when.
        expires: Timestamp,
    },
}

/// Decides. Nothing of `offered` is parsed before its signature was found good.
pub fn verify(
    offered: Offered<'_>,
    keyring: &Verified<Keyring>,
    host: &Host<'_>,
) -> Result<Verified<SignedRelease>, Refusal> {
    let key = signer(offered, keyring)?;
    check_validity(key, host)?;
    let sums = Sums::parse(offered.sums)?;
    let found = Digest::of(offered.release);
    match sums.digest(RELEASE_NAME) {
        Some(wanted) if wanted == found => {}
        Some(wanted) => return Err(Refusal::WrongDigest { name: RELEASE_NAME.to_owned(), wanted, found }),
        None => return Err(Refusal::MissingFile { name: RELEASE_NAME.to_owned(), why: "SHA256SUMS does not name it" }),
    }
    let release = Release::parse(offered.release, &sums, host.arch)?;
    let id = ReleaseId::of(&release.version, offered.sums);
    check_fit(&release, host)?;
    check_order(&release, &id, keyring, host)?;
    host.floor.check_created(RELEASE_NAME, release.created, host.clock)?;
    let warnings = warnings(&release, keyring, host);
    Ok(Verified::new(SignedRelease { id, sums, release, key: key.key.id(), warnings }))
}

/// The key of the keyring that signed the sums.
fn signer<'k>(offered: Offered<'_>, keyring: &'k Keyring) -> Result<&'k ReleaseKey, Refusal> {
    let found = offered.sums.len() as u64;
    if found > SUMS_BYTES_MAX {
        return Err(Refusal::TooLarge { name: SUMS_NAME.to_owned(), found, most: SUMS_BYTES_MAX });
    }
    let text = offered.signature.ok_or_else(|| Refusal::NoSignature { name: SUMS_NAME.to_owned() })?;
    let signature = Signature::from_base64(SIGNATURE_NAME, text)?;
    let signed = |key: &&ReleaseKey| key.key.signed(offered.sums, &signature);
    keyring.keys().iter().find(signed).ok_or_else(|| {
        let keys = keyring.keys().iter().map(|key| key.key.id()).collect();
        Refusal::BadSignature { epoch: keyring.epoch(), keys }
    })
}

fn check_validity(key: &ReleaseKey, host: &Host<'_>) -> Result<(), Refusal> {
    let now = host.floor.now(host.clock);
    match key.not_before <= now && now <= key.not_after {
        true => Ok(()),
        false => {
            let (not_before, not_after) = (key.not_before, key.not_after);
            Err(Refusal::KeyNotValidNow { id: key.key.id(), not_before, not_after, clock: now })
        }
    }
}

/// Whether it is the release that this host follows, and one that can go on from its state.
fn check_fit(release: &Release, host: &Host<'_>) -> Result<(), Refusal> {
    if release.channel != host.channel {
        return Err(Refusal::WrongChannel { found: release.channel.clone(), wanted: host.channel.to_owned() });
    }
    if let Some(wanted) = host.wanted.filter(|wanted| **wanted != release.version) {
        let (name, found) = (RELEASE_NAME.to_owned(), release.version.to_string());
        return Err(Refusal::VersionMismatch { name, found, wanted: wanted.to_string() });
    }
    let reads_from = release.state_schema.reads_from;
    match host.running.map(|running| running.state_schema.writes).filter(|writes| *writes < reads_from) {
        Some(writes) => Err(Refusal::NotMigratable(format!(
            "it reads the owner's database from form {reads_from} on, this host has form {writes}: update to a release in between first"
        ))),
        None => Ok(()),
    }
}

/// Orders: nothing older than what was committed, nothing that would use the order up.
fn check_order(release: &Release, id: &ReleaseId, keyring: &Keyring, host: &Host<'_>) -> Result<(), Refusal> {
    let (seq, floor) = (release.seq, host.floor);
    if release.key_epoch > keyring.epoch() {
        // Its maker knew a newer keyring than the source shows: somebody holds it back.
        return Err(Refusal::KeyringRollback { epoch: keyring.epoch(), seen: release.key_epoch });
    }
    if host.kept.contains(id) {
        return Ok(());
    }
    let least = floor.min_seq.max(release.min_seq);
    if seq < least {
        return Err(Refusal::BelowMinSeq { seq, least });
    }
    if seq < floor.seq {
        return Err(Refusal::BelowFloor { seq, floor: floor.seq });
    }
    let step = if release.key_epoch > floor.key_epoch { SEQ_STEP_NEW_EPOCH_MAX } else { SEQ_STEP_MAX };
    // A host that has committed no signed release yet can begin anywhere.
    let most = if floor.key_epoch == 0 { SEQ_MAX } else { floor.seq.saturating_add(step).min(SEQ_MAX) };
    if seq > most { Err(Refusal::SeqJump { seq, most }) } else { Ok(()) }
}

fn warnings(release: &Release, keyring: &Keyring, host: &Host<'_>) -> Vec<Warning> {
    let now = host.floor.now(host.clock);
    let dates = [(RELEASE_NAME, release.expires), (crate::KEYRING_NAME, keyring.expires())];
    let past = dates.into_iter().filter(|(_, expires)| *expires < now);
    past.map(|(name, expires)| Warning::Expired { name, expires }).collect()
}
