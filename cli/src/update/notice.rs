//! What `status` says of updates without asking anybody: what root's last look at the sources found, and whether what
//! runs should have been followed by something newer.

use super::offer::Offer;
use super::state::HostState;
use crate::install::disk;
use anyhow::Context;
use holdfast_proto::layout::Layout;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The newest release that root's last look found; anybody may read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    version: String,
    seq: u64,
    at: Timestamp,
}

/// What is worth saying.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notice {
    /// A newer release, and when it was seen.
    pub available: Option<(String, Timestamp)>,
    /// Since when what runs is overdue.
    pub expired: Option<Timestamp>,
}

fn path(layout: &Layout) -> PathBuf {
    layout.state().join("offered")
}

/// Keeps what was offered.
///
/// # Errors
/// Where it cannot be written, as by anybody but root.
pub fn remember(layout: &Layout, offer: &Offer, now: Timestamp) -> anyhow::Result<()> {
    let release = &offer.signed.release;
    keep(layout, &Seen { version: release.version.to_string(), seq: release.seq, at: now })
}

fn keep(layout: &Layout, seen: &Seen) -> anyhow::Result<()> {
    disk::write_file(&path(layout), serde_json::to_string(seen)?.as_bytes(), 0o644).context("offered")
}

/// What is known. Where nothing is installed, or what is there is not understood, nothing is.
pub fn read(layout: &Layout, now: Timestamp) -> Notice {
    let Ok(Some(state)) = HostState::read(layout) else { return Notice::default() };
    let text = disk::read_if_there(&path(layout)).ok().flatten();
    let seen = text.and_then(|text| serde_json::from_slice(&text).ok());
    judge(&state, seen, now)
}

fn judge(state: &HostState, seen: Option<Seen>, now: Timestamp) -> Notice {
    let newer = seen.filter(|seen| seen.seq > state.running.seq);
    let expires = state.running.expires;
    Notice {
        available: newer.map(|seen| (seen.version, seen.at)),
        expired: (expires < state.floor.now(now)).then_some(expires),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_release::Floor;
    use jiff::ToSpan;
    use serde_json::json;

    fn state() -> HostState {
        let running = json!({
            "type": "holdfast-release", "format": 1, "product": "holdfast", "channel": "stable", "version": "1.4.0",
            "seq": 17, "min_seq": 12, "key_epoch": 3, "created": "2026-11-20T00:00:00Z",
            "expires": "2027-02-18T00:00:00Z", "commit": "0", "state_schema": {"writes": 5, "reads_from": 3},
            "protocols": {"daemon": 2, "helper": 2, "shim": {"speaks": 3, "understands_from": 1}},
            "targets": [{"arch": "x86_64", "libc": "gnu", "files": []}], "notes": ""
        });
        let current = "1.4.0-0123456789ab".parse().unwrap();
        let running = serde_json::from_value(running).unwrap();
        HostState { current, previous: None, running, floor: Floor::default() }
    }

    #[test]
    fn newer_is_what_has_a_higher_order_and_expired_is_by_the_later_clock() {
        let mut state = state();
        let now: Timestamp = "2026-11-21T00:00:00Z".parse().unwrap();
        let seen = |seq| Some(Seen { version: "1.5.0".into(), seq, at: now });
        assert_eq!(judge(&state, None, now), Notice::default());
        assert_eq!(judge(&state, seen(17), now), Notice::default());
        assert_eq!(judge(&state, seen(18), now).available, Some(("1.5.0".into(), now)));
        let later = state.running.expires.checked_add(1.second()).unwrap();
        assert_eq!(judge(&state, None, later).expired, Some(state.running.expires));
        // A clock that went back is judged by what the host has seen.
        state.floor.time = later;
        assert_eq!(judge(&state, None, Timestamp::UNIX_EPOCH).expired, Some(state.running.expires));
    }

    #[test]
    fn what_was_seen_is_kept_and_damage_says_nothing() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::below(root.path());
        std::fs::create_dir_all(layout.state()).unwrap();
        let seen = Seen { version: "1.5.0".into(), seq: 18, at: Timestamp::UNIX_EPOCH };
        keep(&layout, &seen).unwrap();
        let text = std::fs::read(path(&layout)).unwrap();
        assert_eq!(serde_json::from_slice::<Seen>(&text).unwrap(), seen);
        assert_eq!(read(&layout, Timestamp::UNIX_EPOCH), Notice::default(), "nothing is installed there");
    }
}
