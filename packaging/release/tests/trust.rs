//! Root keys and keyrings: who can speak for whom.

#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod stage;

use holdfast_release::{Floor, Refusal, Roots};
use serde_json::{Value, json};
use stage::{Publisher, days, generate, id, now, pem, signature};
use std::collections::BTreeMap;

fn roots(publisher: &Publisher, count: usize) -> Roots {
    let file = |n: usize| (format!("root-{n}.pem"), pem(&publisher.roots[n]));
    Roots::parse(&(0..count).map(file).collect::<Vec<_>>()).unwrap()
}

fn name<T>(result: Result<T, Refusal>) -> &'static str {
    result.err().expect("it was taken").name()
}

/// The refusal of a keyring that two root keys signed, after one change.
fn refusal(change: impl FnOnce(&mut Value)) -> &'static str {
    let mut publisher = Publisher::new();
    change(&mut publisher.keyring);
    name(publisher.verified_keyring(&Floor::default()))
}

#[test]
fn as_many_roots_sign_as_the_table_says() {
    let publisher = Publisher::new();
    let text = publisher.keyring_text();
    // Roots of the host, roots that signed, whether that is enough.
    let table: [(usize, &[usize], bool); 11] = [
        (1, &[0], true),
        (2, &[0], false),
        (2, &[1], false),
        (2, &[0, 1], true),
        (2, &[0, 2], false),
        (3, &[0], false),
        (3, &[2], false),
        (3, &[0, 1], true),
        (3, &[0, 2], true),
        (3, &[1, 2], true),
        (3, &[0, 1, 2], true),
    ];
    for (count, signed, enough) in table {
        let signatures = publisher.signed_by(signed, &text);
        let result = roots(&publisher, count).verify(&text, &signatures, &Floor::default(), now());
        match enough {
            true => assert!(result.is_ok(), "{signed:?} of {count}: {result:?}"),
            false => assert_eq!(name(result), "keyring-threshold", "{signed:?} of {count}"),
        }
    }
}

#[test]
fn one_root_key_cannot_count_as_two() {
    let publisher = Publisher::new();
    let text = publisher.keyring_text();
    let own = signature(&publisher.roots[0], &text);
    // Its signature under another root's name.
    let signatures = BTreeMap::from([(id(&publisher.roots[0]), own.clone()), (id(&publisher.roots[1]), own)]);
    assert_eq!(name(publisher.trust().verify(&text, &signatures, &Floor::default(), now())), "keyring-threshold");
    // Its file twice in the host's trust.
    let file = |n: &str| (n.to_owned(), pem(&publisher.roots[0]));
    assert_eq!(name(Roots::parse(&[file("root-1.pem"), file("root-2.pem")])), "unsafe-config");
}

#[test]
fn strangers_and_broken_signatures_do_not_count() {
    let publisher = Publisher::new();
    let (trust, floor, text) = (publisher.trust(), Floor::default(), publisher.keyring_text());
    let stranger = generate();
    assert_eq!(name(trust.verify(&text, &BTreeMap::new(), &floor, now())), "no-signature");
    let only = BTreeMap::from([(id(&stranger), signature(&stranger, &text))]);
    assert_eq!(name(trust.verify(&text, &only, &floor, now())), "unknown-key");
    let mut mixed = publisher.signed_by(&[0], &text);
    mixed.extend(only);
    assert_eq!(name(trust.verify(&text, &mixed, &floor, now())), "keyring-threshold");
    // A broken one neither helps nor hinders.
    mixed.insert(id(&publisher.roots[1]), b"garbage".to_vec());
    assert_eq!(name(trust.verify(&text, &mixed, &floor, now())), "keyring-threshold");
    mixed.extend(publisher.signed_by(&[2], &text));
    assert!(trust.verify(&text, &mixed, &floor, now()).is_ok());
    // Signatures of one keyring do not fit another, nor one with a space more.
    let signatures = publisher.signed_by(&[0, 1, 2], &text);
    let spaced = [text.as_slice(), b" "].concat();
    assert_eq!(name(trust.verify(&spaced, &signatures, &floor, now())), "keyring-threshold");
}

#[test]
fn a_host_has_one_to_three_root_keys() {
    assert_eq!(name(Roots::parse(&[])), "no-trust");
    let four: Vec<_> = (0..4).map(|n| (format!("root-{n}.pem"), pem(&generate()))).collect();
    assert_eq!(name(Roots::parse(&four)), "unsafe-config");
    assert_eq!(name(Roots::parse(&[("root-1.pem".to_owned(), "key".to_owned())])), "bad-encoding");
}

#[test]
fn epochs_only_rise() {
    let publisher = Publisher::new();
    for (seen, allowed) in [(0, true), (2, true), (3, true), (4, false), (u64::MAX, false)] {
        let floor = Floor { keyring_epoch: seen, ..Floor::default() };
        let result = publisher.verified_keyring(&floor);
        match allowed {
            true => assert_eq!(result.unwrap().epoch(), 3, "seen {seen}"),
            false => assert_eq!(name(result), "keyring-rollback", "seen {seen}"),
        }
    }
}

#[test]
fn a_keyring_says_exactly_what_it_should() {
    assert_eq!(refusal(|keyring| keyring["type"] = json!("holdfast-release")), "wrong-product");
    assert_eq!(refusal(|keyring| keyring["format"] = json!(2)), "wrong-product");
    assert_eq!(refusal(|keyring| keyring["more"] = json!(1)), "bad-encoding");
    assert_eq!(refusal(|keyring| keyring["x"] = json!(1)), "bad-encoding");
    assert_eq!(refusal(|keyring| keyring["keys"][0]["more"] = json!(1)), "bad-encoding");
    assert_eq!(refusal(|keyring| keyring["keys"][0]["id"] = json!("0123456789abcdef")), "bad-encoding");
    assert_eq!(refusal(|keyring| keyring["keys"][0]["algorithm"] = json!("none")), "bad-encoding");
    assert_eq!(refusal(|keyring| keyring["keys"][0]["public"] = json!("")), "bad-encoding");
    assert_eq!(refusal(|keyring| keyring["created"] = json!(days(2))), "from-the-future");
    let twice = |keyring: &mut Value| {
        let key = keyring["keys"][0].clone();
        keyring["keys"].as_array_mut().unwrap().push(key);
    };
    assert_eq!(refusal(twice), "bad-encoding");
    for field in ["type", "format", "epoch", "created", "expires", "keys"] {
        let gone = refusal(|keyring| drop(keyring.as_object_mut().unwrap().remove(field)));
        assert_eq!(gone, "bad-encoding", "without {field}");
    }
    assert_eq!(refusal(|keyring| *keyring = json!("x".repeat(70_000))), "too-large");
}
