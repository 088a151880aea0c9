//! Moments as people type them: `10m` (ago), `2026-11-21T15:30:00Z`, `2026-11-21 15:30`, seconds since 1970. Pure.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use std::str::FromStr;

/// Longest that is read.
const TEXT_BYTES_MAX: usize = 64;
/// Units of a duration, and their nanoseconds.
const UNITS: [(&str, i128); 5] = [
    ("ms", 1_000_000),
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
];

/// What was typed is no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no time: use 90s, 10m, 1h30m or 2d (ago), 2026-11-21T15:30:00Z, '2026-11-21 15:30' (here), or seconds since 1970"
)]
pub struct BadMoment(String);

/// A moment, as it was typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Nanoseconds since 1970.
    At(i64),
    /// Nanoseconds before now.
    Ago(i64),
}

impl Moment {
    /// Nanoseconds since 1970, never 0, which the daemon takes for none.
    pub fn at(self, now: Timestamp) -> i64 {
        let moment = match self {
            Self::At(nanos) => nanos,
            Self::Ago(nanos) => i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX).saturating_sub(nanos),
        };
        moment.max(1)
    }
}

impl FromStr for Moment {
    type Err = BadMoment;

    fn from_str(text: &str) -> Result<Self, BadMoment> {
        let refused = || BadMoment(crate::view::cell(text, TEXT_BYTES_MAX));
        if text.len() > TEXT_BYTES_MAX {
            return Err(refused());
        }
        let moment = match duration(text) {
            Some(nanos) => i64::try_from(nanos).map(Self::Ago),
            None => i64::try_from(timestamp(text).ok_or_else(refused)?).map(Self::At),
        };
        moment.map_err(|_| refused())
    }
}

/// `1h30m`; none where it is of another form.
fn duration(mut text: &str) -> Option<i128> {
    let mut nanos: i128 = 0;
    if text.is_empty() {
        return None;
    }
    while !text.is_empty() {
        let digits = text.len() - text.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
        let (number, rest) = text.split_at(digits);
        let (unit, length) = UNITS.iter().find(|(unit, _)| rest.starts_with(unit))?;
        nanos = nanos.checked_add(number.parse::<i128>().ok()?.checked_mul(*length)?)?;
        text = &rest[unit.len()..];
    }
    Some(nanos)
}

fn timestamp(text: &str) -> Option<i128> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse::<i128>().ok()?.checked_mul(1_000_000_000);
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Some(moment.as_nanosecond());
    }
    let here = text.parse::<DateTime>().ok()?.to_zoned(TimeZone::system()).ok()?;
    Some(here.timestamp().as_nanosecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_people_type_them() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        for (text, second) in [
            ("10m", 999_400),
            ("1h30m", 994_600),
            ("2d", 827_200),
            ("0s", 1_000_000),
            ("1970-01-02T00:00:00Z", 86_400),
            ("1970-01-02T01:00:00+01:00", 86_400),
            ("86400", 86_400),
        ] {
            assert_eq!(text.parse::<Moment>().map(|moment| moment.at(now)), Ok(second * 1_000_000_000), "{text}");
        }
        assert_eq!("250ms".parse(), Ok(Moment::Ago(250_000_000)));
        assert!("2026-11-21".parse::<Moment>().is_ok() && "2026-11-21 15:30".parse::<Moment>().is_ok());
        assert_eq!("1970-01-01T00:00:00Z".parse::<Moment>().map(|moment| moment.at(now)), Ok(1));
        assert_eq!("100000d".parse::<Moment>().map(|moment| moment.at(now)), Ok(1), "before 1970");
    }

    #[test]
    fn what_is_no_moment_is_refused_with_what_would_be_one() {
        for bad in [
            "",
            "m",
            "-5m",
            "5x",
            "1m5",
            "yesterday",
            "10 m",
            "1.5h",
            "2026-13-01",
            "99999999999999999999d",
            "9999999999999999",
            "\0",
            "é",
            &"9".repeat(4096),
            "1h-5m",
        ] {
            let error = bad.parse::<Moment>().unwrap_err().to_string();
            assert!(error.contains("1h30m") && error.len() < 400, "{bad:?}: {error}");
        }
    }
}
