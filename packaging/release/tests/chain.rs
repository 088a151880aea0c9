//! Twenty releases over four keyrings, taken one by one and with gaps, and what thieves of keys can do meanwhile.

#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod stage;

use holdfast_release::{Floor, PrivateKey, Refusal, ReleaseId};
use serde_json::json;
use stage::{HostDraft, Publisher, Set, days, description, generate};

const RELEASES: u64 = 20;
/// Releases that one key signs before it is replaced.
const PER_KEY: u64 = 5;

/// A publisher who has made all of it, and what each step needs.
struct Chain {
    publisher: Publisher,
    keys: Vec<PrivateKey>,
    sets: Vec<Set>,
}

/// Which keyring was the newest when release `seq` was made. Epochs begin at 1.
fn epoch_of(seq: u64) -> u64 {
    1 + (seq - 1) / PER_KEY
}

impl Chain {
    fn new() -> Self {
        let publisher = Publisher::new();
        let keys: Vec<_> = (0..RELEASES / PER_KEY).map(|_| generate()).collect();
        let set = |seq: u64| {
            let mut release = description();
            release["version"] = json!(format!("1.{seq}.0"));
            release["seq"] = json!(seq);
            release["min_seq"] = json!(0);
            release["key_epoch"] = json!(epoch_of(seq));
            Set::of(&release, &keys[usize::try_from(epoch_of(seq) - 1).unwrap()])
        };
        let sets = (1..=RELEASES).map(set).collect();
        Self { publisher, keys, sets }
    }

    /// What is published at the time of release `seq`: each rotation leaves the key before out.
    fn publish(&mut self, epoch: u64) {
        let key = &self.keys[usize::try_from(epoch - 1).unwrap()];
        self.publisher.keyring = self.publisher.keyring_of(epoch, &[key]);
    }

    fn set(&self, seq: u64) -> &Set {
        &self.sets[usize::try_from(seq - 1).unwrap()]
    }
}

/// A host that remembers, as `holdfast update` does.
struct Follower {
    host: HostDraft,
}

impl Follower {
    fn fresh() -> Self {
        let mut host = HostDraft::new();
        host.floor = Floor::default();
        Self { host }
    }

    fn update(&mut self, chain: &Chain, set: &Set) -> Result<(), Refusal> {
        // A keyring counts from when it was seen, whatever becomes of the release.
        let keyring = chain.publisher.verified_keyring(&self.host.floor)?;
        let seen = Floor { keyring_epoch: keyring.epoch(), time: keyring.created(), ..Floor::default() };
        self.host.floor = self.host.floor.raised_by(seen);
        let signed = self.host.judge(&chain.publisher, set)?;
        self.host.floor = self.host.floor.raised_by(Floor::of(&signed.release));
        let before = self.host.kept.first().cloned();
        self.host.kept = std::iter::once(signed.id.clone()).chain(before).collect();
        self.host.running = Some(signed.release.clone());
        Ok(())
    }
}

#[test]
fn a_host_follows_all_twenty_and_goes_back_to_none() {
    let mut chain = Chain::new();
    let mut follower = Follower::fresh();
    for seq in 1..=RELEASES {
        chain.publish(epoch_of(seq));
        follower.update(&chain, chain.set(seq)).unwrap();
        // Replay each older set: only the previous one may come back, as long as its key is not revoked.
        for old in 1..seq {
            let result = follower.host.judge(&chain.publisher, chain.set(old)).map_err(|refusal| refusal.name());
            let revoked = epoch_of(old) < epoch_of(seq);
            match (revoked, old + 1 == seq) {
                (true, _) => assert_eq!(result.unwrap_err(), "bad-signature", "{old} after {seq}"),
                (false, true) => assert!(result.is_ok(), "{old} after {seq}: {result:?}"),
                (false, false) => assert_eq!(result.unwrap_err(), "below-floor", "{old} after {seq}"),
            }
        }
    }
}

#[test]
fn a_host_that_was_away_catches_up_from_anywhere() {
    let mut chain = Chain::new();
    for gap in 1..RELEASES {
        let mut follower = Follower::fresh();
        let mut seq = 1;
        while seq <= RELEASES {
            chain.publish(epoch_of(seq));
            follower.update(&chain, chain.set(seq)).unwrap_or_else(|refusal| panic!("gap {gap}, seq {seq}: {refusal}"));
            seq += gap;
        }
    }
}

#[test]
fn an_old_keyring_is_not_taken_after_a_newer_one_was_seen() {
    let mut chain = Chain::new();
    let mut follower = Follower::fresh();
    chain.publish(3);
    follower.update(&chain, chain.set(11)).unwrap();
    chain.publish(2);
    // The thief of key 2 signs what looks newer, and holds the newer keyring back.
    let mut release = description();
    release["seq"] = json!(12);
    release["key_epoch"] = json!(2);
    let forged = Set::of(&release, &chain.keys[1]);
    assert_eq!(follower.update(&chain, &forged).unwrap_err().name(), "keyring-rollback");
    // A host that saw nothing cannot tell yet, but a release made under epoch 3 shows that epoch 2 is old.
    let mut fresh = Follower::fresh();
    let real = chain.set(11).clone();
    assert_eq!(fresh.update(&chain, &real).unwrap_err().name(), "bad-signature");
    release["key_epoch"] = json!(3);
    assert_eq!(fresh.update(&chain, &Set::of(&release, &chain.keys[1])).unwrap_err().name(), "keyring-rollback");
}

#[test]
fn a_stolen_release_key_cannot_use_the_order_up() {
    let mut chain = Chain::new();
    let mut follower = Follower::fresh();
    chain.publish(1);
    follower.update(&chain, chain.set(1)).unwrap();
    let by_thief = |seq: u64| {
        let mut release = description();
        release["seq"] = json!(seq);
        release["min_seq"] = json!(0);
        release["key_epoch"] = json!(1);
        Set::of(&release, &chain.keys[0])
    };
    for seq in [1u64 << 63, (1 << 53) - 1, 1_002] {
        assert_eq!(follower.update(&chain, &by_thief(seq)).unwrap_err().name(), "seq-jump", "{seq}");
    }
    // What was signed before it is noticed is taken, and the maintainers get past it with the next keyring.
    follower.update(&chain, &by_thief(1_001)).unwrap();
    chain.publish(2);
    assert_eq!(follower.update(&chain, chain.set(6)).unwrap_err().name(), "below-floor");
    let mut release = description();
    release["seq"] = json!(2_000_000);
    release["key_epoch"] = json!(2);
    let set = Set::of(&release, &chain.keys[1]);
    follower.update(&chain, &set).unwrap();
    assert_eq!(follower.host.kept[0], ReleaseId::of(&"1.4.0".parse().unwrap(), &set.sums));
}

#[test]
fn one_root_key_of_three_can_do_nothing() {
    let chain = Chain::new();
    let thief = generate();
    let mut publisher = chain.publisher;
    publisher.keyring = publisher.keyring_of(9, &[&thief]);
    let text = publisher.keyring_text();
    for root in 0..3 {
        let signatures = publisher.signed_by(&[root], &text);
        let refusal = publisher.trust().verify(&text, &signatures, &Floor::default(), stage::now()).unwrap_err();
        assert_eq!(refusal.name(), "keyring-threshold", "root {root}");
    }
    let signatures = publisher.signed_by(&[0, 2], &text);
    assert!(publisher.trust().verify(&text, &signatures, &Floor::default(), days(1)).is_ok());
}
