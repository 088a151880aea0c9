//! What a host remembers, so that nobody takes it back: the newest order, keyring and time that it has accepted.

use crate::{Digest, Refusal, Release};
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

/// Most bytes of a floor's text.
const FLOOR_BYTES_MAX: usize = 4096;
/// How far ahead of a host's clock a maintainer's may be.
const CLOCKS_APART_HOURS: i64 = 24;

/// Each value only rises. `default()` is that of a host which knows nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floor {
    /// Order of the newest release that was committed.
    pub seq: u64,
    /// Highest `min_seq` that a committed release named.
    pub min_seq: u64,
    /// `key_epoch` of the newest release that was committed; 0 where that was not signed.
    pub key_epoch: u64,
    /// Epoch of the newest keyring that root keys signed.
    pub keyring_epoch: u64,
    /// Newest `created` that was accepted: it cannot be earlier than this, whatever the clock says.
    pub time: Timestamp,
}

impl Floor {
    /// What running `release` proves.
    pub fn of(release: &Release) -> Self {
        let Release { seq, min_seq, key_epoch, created, .. } = *release;
        Self { seq, min_seq, key_epoch, keyring_epoch: key_epoch, time: created }
    }

    /// The higher of each value.
    #[must_use]
    pub fn raised_by(self, other: Self) -> Self {
        Self {
            seq: self.seq.max(other.seq),
            min_seq: self.min_seq.max(other.min_seq),
            key_epoch: self.key_epoch.max(other.key_epoch),
            keyring_epoch: self.keyring_epoch.max(other.keyring_epoch),
            time: self.time.max(other.time),
        }
    }

    /// The time to judge by: the clock, but never before what has been seen.
    pub fn now(&self, clock: Timestamp) -> Timestamp {
        clock.max(self.time)
    }

    /// Refuses what was made more than a day after `now`: a host must not take a time from it that never was.
    pub(crate) fn check_created(&self, name: &str, created: Timestamp, clock: Timestamp) -> Result<(), Refusal> {
        let latest = self.now(clock).checked_add(CLOCKS_APART_HOURS.hours()).unwrap_or(Timestamp::MAX);
        match created > latest {
            true => Err(Refusal::FromTheFuture { name: name.to_owned(), created, clock: self.now(clock) }),
            false => Ok(()),
        }
    }

    /// The text for disk: SHA-256 of the rest, two spaces, JSON, LF. A part of it is never taken for a lower floor.
    pub fn to_text(&self) -> Result<String, Refusal> {
        let json = serde_json::to_string(self).map_err(|error| Refusal::bad_encoding("floor", error))?;
        Ok(format!("{}  {json}\n", Digest::of(json.as_bytes())))
    }

    /// Reads what [`Floor::to_text`] wrote.
    pub fn parse(text: &[u8]) -> Result<Self, Refusal> {
        let bad = |why: &str| Refusal::bad_encoding("floor", why);
        let text = Some(text).filter(|text| text.len() <= FLOOR_BYTES_MAX).ok_or_else(|| bad("it is too long"))?;
        let text = std::str::from_utf8(text).map_err(|_| bad("it is not text"))?;
        let line = text.strip_suffix('\n').ok_or_else(|| bad("it is cut off"))?;
        let (digest, json) = line.split_once("  ").ok_or_else(|| bad("it has no digest"))?;
        if digest.parse() != Ok(Digest::of(json.as_bytes())) {
            return Err(bad("its digest does not fit"));
        }
        serde_json::from_str(json).map_err(|error| Refusal::bad_encoding("floor", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floor() -> Floor {
        Floor { seq: 17, min_seq: 12, key_epoch: 3, keyring_epoch: 4, time: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn a_floor_survives_the_disk_and_no_part_of_it_does() {
        let text = floor().to_text().unwrap();
        assert_eq!(Floor::parse(text.as_bytes()).unwrap(), floor());
        for length in 0..text.len() {
            assert!(Floor::parse(&text.as_bytes()[..length]).is_err(), "the first {length} bytes were taken");
        }
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1;
            assert!(Floor::parse(&changed).is_err(), "byte {at} may be anything");
        }
        assert!(Floor::parse(&vec![b' '; FLOOR_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn nothing_of_a_floor_falls() {
        let other = Floor { seq: 1, min_seq: 99, key_epoch: 9, keyring_epoch: 1, time: Timestamp::MAX };
        let both = Floor { seq: 17, min_seq: 99, key_epoch: 9, keyring_epoch: 4, time: Timestamp::MAX };
        assert_eq!(floor().raised_by(other), both);
        assert_eq!(other.raised_by(floor()), both);
    }

    #[test]
    fn a_clock_that_went_back_is_not_believed() {
        let seen: Timestamp = "2026-11-21T00:00:00Z".parse().unwrap();
        let floor = Floor { time: seen, ..Floor::default() };
        assert_eq!(floor.now(Timestamp::UNIX_EPOCH), seen);
        let within = seen.checked_add(24.hours()).unwrap();
        assert!(floor.check_created("x", within, Timestamp::UNIX_EPOCH).is_ok());
        let beyond = within.checked_add(1.second()).unwrap();
        let refusal = floor.check_created("x", beyond, Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(refusal.name(), "from-the-future");
    }
}
