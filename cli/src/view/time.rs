//! Times of the contract (nanoseconds since 1970) for people and for scripts.

use jiff::Timestamp;

/// RFC 3339 in UTC; none for 0 and for what no calendar holds.
pub fn rfc3339(nanos: i64) -> Option<String> {
    if nanos == 0 {
        return None;
    }
    Timestamp::from_nanosecond(nanos.into()).ok().map(|time| time.to_string())
}

/// RFC 3339 in UTC, always as wide; what no calendar holds as the beginning of 1970.
pub fn rfc3339_nanos(nanos: i64) -> String {
    format!("{:.9}", Timestamp::from_nanosecond(nanos.into()).unwrap_or_default())
}

/// `3 minutes ago`; `-` for 0.
pub fn ago(nanos: i64, now: Timestamp) -> String {
    if nanos == 0 {
        return "-".to_owned();
    }
    let secs = (now.as_nanosecond() - i128::from(nanos)) / 1_000_000_000;
    match secs {
        ..0 => "in the future".to_owned(),
        0 => "just now".to_owned(),
        1..120 => count(secs, "second"),
        120..7_200 => count(secs / 60, "minute"),
        7_200..172_800 => count(secs / 3_600, "hour"),
        _ => count(secs / 86_400, "day"),
    }
}

/// `45s`, `12m 3s`, `5h 12m`, `3d 4h`.
pub fn span(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs}s"),
        60..3_600 => format!("{}m {}s", secs / 60, secs % 60),
        3_600..86_400 => format!("{}h {}m", secs / 3_600, secs / 60 % 60),
        _ => format!("{}d {}h", secs / 86_400, secs / 3_600 % 24),
    }
}

/// `in 3 seconds`; `now` for what is due.
pub fn until(nanos: i64, now: Timestamp) -> String {
    // Rounded up: nobody is told to look before it is so.
    match (i128::from(nanos) - now.as_nanosecond() + 999_999_999) / 1_000_000_000 {
        ..=0 => "now".to_owned(),
        1 => "in 1 second".to_owned(),
        secs => format!("in {secs} seconds"),
    }
}

fn count(number: i128, unit: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {unit}{plural} ago")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_in_utc() {
        assert_eq!(rfc3339(0), None);
        assert_eq!(rfc3339(1_500_000_000).as_deref(), Some("1970-01-01T00:00:01.5Z"));
        assert_eq!(rfc3339(i64::MAX).as_deref(), Some("2262-04-11T23:47:16.854775807Z"));
    }

    #[test]
    fn spans_have_two_units_at_most() {
        for (secs, told) in [(0, "0s"), (59, "59s"), (60, "1m 0s"), (3_661, "1h 1m"), (90_000, "1d 1h")] {
            assert_eq!(span(secs), told);
        }
    }

    #[test]
    fn what_is_to_come_is_rounded_up() {
        let now = Timestamp::from_second(10).unwrap();
        for (nanos, told) in [
            (9_000_000_000, "now"),
            (10_000_000_000, "now"),
            (10_000_000_001, "in 1 second"),
            (12_500_000_000, "in 3 seconds"),
        ] {
            assert_eq!(until(nanos, now), told);
        }
    }

    #[test]
    fn ages_are_told_as_people_tell_them() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        for (secs, told) in [
            (0, "just now"),
            (1, "1 second ago"),
            (119, "119 seconds ago"),
            (120, "2 minutes ago"),
            (7_199, "119 minutes ago"),
            (7_200, "2 hours ago"),
            (172_800, "2 days ago"),
            (-5, "in the future"),
        ] {
            assert_eq!(ago((1_000_000 - secs) * 1_000_000_000, now), told, "{secs}");
        }
        assert_eq!(ago(0, now), "-");
        assert_eq!(ago(i64::MIN, now).split(' ').next_back(), Some("ago"));
    }
}
