//! What the sources offer: all are asked, only what verifies counts, and of that the newest.

use super::config::Trust;
use super::courier::Courier;
use super::error::UpdateError;
use super::state::HostState;
use holdfast_release::{
    Floor, Host, KEYRING_BYTES_MAX, KEYRING_NAME, Keyring, Offered, RELEASE_BYTES_MAX, RELEASE_NAME,
    SIGNATURE_BYTES_MAX, SIGNATURE_NAME, SUMS_BYTES_MAX, SUMS_NAME, SignedRelease, Verified,
};
use jiff::Timestamp;
use semver::Version;
use std::collections::BTreeMap;

/// A release that this host may take, and where it lies.
#[derive(Debug)]
pub struct Offer {
    /// Address of its folder.
    pub base: String,
    /// `SHA256SUMS`, its signature and `release.json`, as they were signed.
    pub small: [(&'static str, Vec<u8>); 3],
    /// What they say.
    pub signed: Verified<SignedRelease>,
}

/// Asks all sources for `wanted`, or for their newest. `seen` becomes what was learned of keys and time: that stands,
/// whatever becomes of the release.
///
/// # Errors
/// Where no source offers anything that this host may take: with the first refusal, or else the first failure.
pub fn best(
    courier: &Courier,
    trust: &Trust,
    host: &HostState,
    wanted: Option<&Version>,
    clock: Timestamp,
    seen: &mut Floor,
) -> Result<Offer, UpdateError> {
    let sources: Vec<&str> = trust.config.sources.iter().map(|source| source.trim_end_matches('/')).collect();
    let keyrings = sources.iter().map(|source| keyring(courier, trust, &host.floor, source, clock));
    let keyring = first_by(keyrings, |keyring| keyring.epoch())?;
    *seen = Floor { keyring_epoch: keyring.epoch(), time: keyring.created(), ..Floor::default() };
    let floor = host.floor.raised_by(*seen);
    let folder = wanted.map_or_else(|| "latest".to_owned(), |version| format!("v{version}"));
    let channel = trust.config.channel.as_str();
    let sets = sources.iter().map(|source| {
        let base = format!("{source}/{channel}/{folder}");
        let small = small_files(courier, &base)?;
        let signature = small[1].1.as_slice();
        let offered = Offered {
            sums: &small[0].1,
            signature: (!signature.is_empty()).then_some(signature),
            release: &small[2].1,
        };
        let (arch, kept, running) = (std::env::consts::ARCH, &host.kept(), Some(&host.running));
        let host = Host { arch, channel, wanted, floor: &floor, kept, running, clock };
        let signed = holdfast_release::verify(offered, &keyring, &host)?;
        Ok(Offer { base, small, signed })
    });
    match (first_by(sets, |offer| offer.signed.release.seq), wanted) {
        (Err(UpdateError::NotThere(why)), Some(version)) => {
            Err(UpdateError::NoSuchVersion { version: version.to_string(), why })
        }
        (outcome, _) => outcome,
    }
}

/// The highest that came; of equals the first.
fn first_by<T>(
    outcomes: impl Iterator<Item = Result<T, UpdateError>>,
    rank: impl Fn(&T) -> u64,
) -> Result<T, UpdateError> {
    let (mut best, mut failure): (Option<T>, Option<UpdateError>) = (None, None);
    for outcome in outcomes {
        match outcome {
            Ok(found) => best = Some(best.filter(|best| rank(best) >= rank(&found)).unwrap_or(found)),
            Err(error) => {
                // A refusal says more than a source that is away.
                failure = match failure {
                    Some(first) if first.name().is_some() || error.name().is_none() => Some(first),
                    _ => Some(error),
                };
            }
        }
    }
    best.ok_or_else(|| failure.unwrap_or_else(|| UpdateError::Unreachable("there is no source".to_owned())))
}

fn keyring(
    courier: &Courier,
    trust: &Trust,
    floor: &Floor,
    source: &str,
    clock: Timestamp,
) -> Result<Verified<Keyring>, UpdateError> {
    let text = courier.small(&format!("{source}/{KEYRING_NAME}"), KEYRING_BYTES_MAX)?;
    let mut signatures = BTreeMap::new();
    for id in trust.roots.ids() {
        match courier.small(&format!("{source}/{KEYRING_NAME}.{id}.sig"), SIGNATURE_BYTES_MAX) {
            Ok(bytes) => drop(signatures.insert(id, bytes)),
            Err(UpdateError::NotThere(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(trust.roots.verify(&text, &signatures, floor, clock)?)
}

/// An absent signature is an empty one here: the check says what is missing.
fn small_files(courier: &Courier, base: &str) -> Result<[(&'static str, Vec<u8>); 3], UpdateError> {
    let get = |name: &'static str, most| courier.small(&format!("{base}/{name}"), most);
    let sums = get(SUMS_NAME, SUMS_BYTES_MAX)?;
    let signature = match get(SIGNATURE_NAME, SIGNATURE_BYTES_MAX) {
        Err(UpdateError::NotThere(_)) => Vec::new(),
        outcome => outcome?,
    };
    let release = get(RELEASE_NAME, RELEASE_BYTES_MAX)?;
    Ok([(SUMS_NAME, sums), (SIGNATURE_NAME, signature), (RELEASE_NAME, release)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away() -> Result<u64, UpdateError> {
        Err(UpdateError::Unreachable("away".into()))
    }

    fn refused() -> Result<u64, UpdateError> {
        Err(UpdateError::TooLarge("refused".into()))
    }

    #[test]
    fn the_highest_wins_whatever_the_others_say() {
        let best = |outcomes: Vec<Result<u64, UpdateError>>| first_by(outcomes.into_iter(), |rank| *rank);
        for outcomes in [vec![Ok(2), away(), refused()], vec![refused(), Ok(2), away()], vec![Ok(1), away(), Ok(2)]] {
            assert_eq!(best(outcomes).unwrap(), 2);
        }
        for outcomes in [vec![away(), refused()], vec![refused(), away()], vec![away(), refused(), away()]] {
            assert_eq!(best(outcomes).unwrap_err().name(), Some("too-large"));
        }
        assert!(best(vec![away()]).unwrap_err().to_string().contains("away"));
        assert!(best(Vec::new()).is_err());
    }
}
