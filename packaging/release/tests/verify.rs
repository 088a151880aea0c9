//! Which offered releases a host takes: each refusal by one change to what is good.

#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod stage;

use holdfast_release::{Floor, Release, ReleaseId, Warning};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};
use stage::{HostDraft, Publisher, Set, days, description, generate, signature};
use std::sync::LazyLock;

static PUBLISHER: LazyLock<Publisher> = LazyLock::new(Publisher::new);

fn good() -> Set {
    Set::of(&description(), &PUBLISHER.release)
}

fn refused(host: &HostDraft, set: &Set) -> &'static str {
    host.judge(&PUBLISHER, set).expect_err("it was taken").name()
}

/// The refusal after one change to the set's files.
fn set_refusal(change: impl FnOnce(&mut Set)) -> &'static str {
    let mut set = good();
    change(&mut set);
    refused(&HostDraft::new(), &set)
}

/// The refusal after one change to what the maintainer describes and then signs.
fn release_refusal(field: &str, value: Value) -> &'static str {
    let mut release = description();
    release[field] = value;
    refused(&HostDraft::new(), &Set::of(&release, &PUBLISHER.release))
}

/// The refusal after one change to the host.
fn host_refusal(change: impl FnOnce(&mut HostDraft)) -> &'static str {
    let mut host = HostDraft::new();
    change(&mut host);
    refused(&host, &good())
}

#[test]
fn a_good_release_is_taken() {
    let signed = HostDraft::new().judge(&PUBLISHER, &good()).unwrap();
    assert_eq!((signed.release.seq, signed.key), (17, stage::id(&PUBLISHER.release)));
    assert_eq!(signed.id, ReleaseId::of(&signed.release.version, &good().sums));
    assert_eq!(signed.warnings, []);
}

#[test]
fn the_signature_covers_the_exact_bytes() {
    assert_eq!(set_refusal(|set| set.signature = None), "no-signature");
    assert_eq!(set_refusal(|set| set.signature = Some(Vec::new())), "bad-encoding");
    assert_eq!(set_refusal(|set| set.signature = Some(signature(&generate(), &set.sums))), "bad-signature");
    assert_eq!(set_refusal(|set| set.signature = Some(signature(&PUBLISHER.release, b"x"))), "bad-signature");
    assert_eq!(set_refusal(|set| set.sums.push(b'\n')), "bad-signature");
    assert_eq!(set_refusal(|set| set.sums.resize(70_000, b' ')), "too-large");
    assert_eq!(set_refusal(|set| set.release.push(b' ')), "wrong-digest");
    // A root key signs keyrings, never releases.
    assert_eq!(set_refusal(|set| set.signature = Some(signature(&PUBLISHER.roots[0], &set.sums))), "bad-signature");
    // The same key over something else that is published.
    let keyring = PUBLISHER.keyring_text();
    assert_eq!(set_refusal(|set| set.signature = Some(signature(&PUBLISHER.release, &keyring))), "bad-signature");
}

#[test]
fn signed_nonsense_is_nonsense() {
    let resigned = |change: fn(&mut Set)| {
        set_refusal(|set| {
            change(set);
            set.signature = Some(signature(&PUBLISHER.release, &set.sums));
        })
    };
    assert_eq!(resigned(|set| set.sums = set.sums.to_ascii_uppercase()), "bad-sums-grammar");
    assert_eq!(resigned(|set| set.sums.clear()), "bad-sums-grammar");
    let without = |set: &mut Set| {
        let text = String::from_utf8(set.sums.clone()).unwrap();
        set.sums =
            text.lines().filter(|l| !l.ends_with("release.json")).map(|l| format!("{l}\n")).collect::<String>().into();
    };
    assert_eq!(resigned(without), "missing-file");
    assert_eq!(release_refusal("type", json!("holdfast-keyring")), "wrong-product");
    assert_eq!(release_refusal("product", json!("other")), "wrong-product");
    assert_eq!(release_refusal("version", json!("1.4")), "bad-encoding");
    let mut files = description()["targets"][0].clone();
    files["libc"] = json!("musl");
    assert_eq!(release_refusal("targets", json!([files])), "wrong-target");
}

#[test]
fn a_host_takes_its_channel_its_machine_and_the_version_it_asked_for() {
    assert_eq!(host_refusal(|host| host.channel = "beta"), "wrong-channel");
    assert_eq!(host_refusal(|host| host.arch = "aarch64"), "wrong-target");
    assert_eq!(host_refusal(|host| host.wanted = Some("1.4.1".parse().unwrap())), "version-mismatch");
    let mut host = HostDraft::new();
    host.wanted = Some("1.4.0".parse().unwrap());
    assert!(host.judge(&PUBLISHER, &good()).is_ok());
}

/// A release with this order, judged by a host with this floor.
fn by_order(seq: u64, min_seq: u64, key_epoch: u64, floor: Floor) -> Result<(), &'static str> {
    let mut release = description();
    release["seq"] = json!(seq);
    release["min_seq"] = json!(min_seq);
    release["key_epoch"] = json!(key_epoch);
    let mut host = HostDraft::new();
    host.floor = floor;
    host.judge(&PUBLISHER, &Set::of(&release, &PUBLISHER.release)).map(drop).map_err(|refusal| refusal.name())
}

#[test]
fn order_is_judged_as_the_table_says() {
    let floor = Floor { seq: 16, min_seq: 10, key_epoch: 2, keyring_epoch: 3, time: days(-20) };
    let fresh = Floor::default();
    let unsigned = Floor { key_epoch: 0, keyring_epoch: 0, ..floor };
    const MAX: u64 = (1 << 53) - 1;
    let table = [
        // seq, min_seq, key_epoch, floor, result
        (16, 0, 2, floor, Ok(())),
        (17, 17, 2, floor, Ok(())),
        (15, 0, 2, floor, Err("below-floor")),
        (9, 0, 2, floor, Err("below-min-seq")),
        (17, 18, 2, floor, Err("below-min-seq")),
        (1_016, 0, 2, floor, Ok(())),
        (1_017, 0, 2, floor, Err("seq-jump")),
        (1_017, 0, 3, floor, Ok(())),
        (1_000_000_016, 0, 3, floor, Ok(())),
        (1_000_000_017, 0, 3, floor, Err("seq-jump")),
        (1 << 63, 0, 3, floor, Err("seq-jump")),
        (u64::MAX, 0, 3, floor, Err("seq-jump")),
        (17, 0, 4, floor, Err("keyring-rollback")),
        // A host that never committed a signed release begins anywhere; its own programs' order still holds.
        (0, 0, 1, fresh, Ok(())),
        (MAX, 0, 3, fresh, Ok(())),
        (MAX + 1, 0, 3, fresh, Err("seq-jump")),
        (900_000, 0, 1, unsigned, Ok(())),
        (15, 0, 1, unsigned, Err("below-floor")),
    ];
    for (seq, min_seq, key_epoch, floor, result) in table {
        assert_eq!(by_order(seq, min_seq, key_epoch, floor), result, "seq {seq}, min_seq {min_seq}, epoch {key_epoch}");
    }
}

#[test]
fn what_current_and_previous_point_to_is_always_allowed() {
    let mut host = HostDraft::new();
    host.floor = Floor { seq: 99, min_seq: 99, ..host.floor };
    assert_eq!(refused(&host, &good()), "below-min-seq");
    host.kept = vec![ReleaseId::of(&"1.4.0".parse().unwrap(), &good().sums)];
    assert!(host.judge(&PUBLISHER, &good()).is_ok());
    // The same version with other contents is another release.
    let mut release = description();
    release["notes"] = json!("other");
    assert_eq!(refused(&host, &Set::of(&release, &PUBLISHER.release)), "below-min-seq");
}

#[test]
fn keys_have_their_time_and_the_floor_bounds_the_clock() {
    let year = 365;
    assert_eq!(host_refusal(|host| host.clock = days(10 * year)), "key-not-valid-now");
    assert_eq!(host_refusal(|host| host.clock = days(301)), "key-not-valid-now");
    // A clock that went back is judged by what the host has seen.
    for clock in [days(-10 * year), Timestamp::UNIX_EPOCH, Timestamp::MIN] {
        let mut host = HostDraft::new();
        host.clock = clock;
        host.floor.time = days(-1);
        assert!(host.judge(&PUBLISHER, &good()).is_ok(), "{clock}");
        // One that has seen nothing cannot tell.
        host.floor = Floor::default();
        assert_eq!(refused(&host, &good()), "key-not-valid-now", "{clock}");
    }
    assert_eq!(release_refusal("created", json!(days(2))), "from-the-future");
}

#[test]
fn what_has_expired_warns_and_is_taken() {
    let mut host = HostDraft::new();
    host.clock = days(90);
    let signed = host.judge(&PUBLISHER, &good()).unwrap();
    assert_eq!(signed.warnings, [Warning::Expired { name: "release.json", expires: days(89) }]);
    assert!(signed.warnings[0].to_string().starts_with("expired: "));
}

#[test]
fn a_release_has_to_read_the_state_that_is_there() {
    let running = |writes: u32| {
        let mut release = description();
        release["state_schema"] = json!({"writes": writes, "reads_from": 1});
        let release: Release = serde_json::from_value(release).unwrap();
        Some(release)
    };
    assert_eq!(host_refusal(|host| host.running = running(2)), "not-migratable");
    let mut host = HostDraft::new();
    host.running = running(3);
    assert!(host.judge(&PUBLISHER, &good()).is_ok());
}

#[test]
fn files_of_two_releases_do_not_mix() {
    let mut other = description();
    other["version"] = json!("1.4.1");
    other["seq"] = json!(18);
    let sets = [good(), Set::of(&other, &PUBLISHER.release)];
    let mut taken = 0;
    for mix in 0..8usize {
        let [sums, signature, release] = [mix & 1, mix >> 1 & 1, mix >> 2 & 1];
        let set = Set {
            sums: sets[sums].sums.clone(),
            signature: sets[signature].signature.clone(),
            release: sets[release].release.clone(),
        };
        taken += usize::from(HostDraft::new().judge(&PUBLISHER, &set).is_ok());
    }
    assert_eq!(taken, 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn no_bit_of_the_set_may_change(file in 0usize..3, at in 0usize..100_000) {
        let mut set = good();
        let bytes = match file {
            0 => &mut set.sums,
            1 => set.signature.as_mut().unwrap(),
            _ => &mut set.release,
        };
        let at = at % (bytes.len() * 8);
        bytes[at / 8] ^= 1 << (at % 8);
        prop_assert!(HostDraft::new().judge(&PUBLISHER, &set).is_err());
    }

    #[test]
    fn nothing_below_the_floor_is_ever_taken(seq in 0u64..40, min_seq in 0u64..40, floor_seq in 0u64..40, floor_min in 0u64..40) {
        let floor = Floor { seq: floor_seq, min_seq: floor_min, key_epoch: 2, keyring_epoch: 3, time: days(-20) };
        let result = by_order(seq, min_seq, 2, floor);
        prop_assert_eq!(result.is_ok(), seq >= floor_seq && seq >= floor_min && seq >= min_seq);
    }
}
