//! Releases that are signed and still not to be taken, and one that openssl and sha256sum made: for real.

use crate::on_installed;
use crate::update::{runs, update};
use anyhow::ensure;
use holdfast_smoke::{Host, MIRROR, Publisher, Result, tree_hash};
use serde_json::Value;
use std::process::Command;

/// All that a refused update must leave as it was.
const PLACES: &str = "/usr/local/lib/holdfast /usr/local/bin /etc /var/lib/holdfast/floor /var/lib/holdfast/receipts";

/// Publishes a copy of a desk's folder as the newest, its release.json changed by one line of Python on `r`, signed as
/// release-format.md says it: by openssl and sha256sum alone.
fn publish_by_hand(host: &Host, publisher: &Publisher, from: &str, change: &str, key: &str) -> Result {
    let set = format!("{MIRROR}/stable/by-hand");
    let edit = format!(
        "import json; p = '{set}/release.json'; r = json.load(open(p)); f = r['targets'][0]['files']; {change}; json.dump(r, open(p, 'w'))"
    );
    // The programs are linked, not copied: only the description changes.
    let copy =
        format!("cp -rl {from} {set} && rm -f {set}/SHA256SUMS* && cp --remove-destination {from}/release.json {set}/");
    publisher.run(&format!("rm -rf {set} && {copy}"))?;
    publisher.run(&format!("python3 -c \"{edit}\""))?;
    publisher.run(&format!("cd {set} && sha256sum * | LC_ALL=C sort -k2 > /tmp/sums && mv /tmp/sums SHA256SUMS"))?;
    // The container has no openssl, the machine has: a maintainer signs elsewhere, too.
    let line =
        format!("openssl dgst -sha256 -sign desk/{key}.key by-hand/SHA256SUMS | base64 -w0 > by-hand/SHA256SUMS.sig");
    let line = line.replace("desk", &host.path("/root/desk").display().to_string());
    outside(&line.replace("by-hand", &host.path(&set).display().to_string()))?;
    publisher.run(&format!("ln -sfn by-hand {MIRROR}/stable/latest"))?;
    Ok(())
}

/// Runs a line on the machine, outside the container.
fn outside(line: &str) -> Result {
    let said = Command::new("bash").args(["-o", "pipefail", "-c", line]).output()?;
    ensure!(said.status.success(), "{line}: {}", String::from_utf8_lossy(&said.stderr));
    Ok(())
}

fn refused(host: &Host, code: i32, name: &str) -> Result {
    let said = update(host, "--yes --json")?.refuses(code, &[name])?;
    ensure!(said.json::<Value>()?["refusal"] == name, "{said}");
    Ok(())
}

#[test]
fn update_refuses_what_was_signed_and_is_not_for_this_host() -> Result {
    on_installed(|host| {
        let publisher = Publisher::new(host)?;
        publisher.trust()?;
        publisher.take_next("next")?;
        publisher.publish("next", "0.1.1", 5, "")?;
        update(host, "--dry-run")?.ok()?;
        let before = tree_hash(host, PLACES)?;
        for (name, change) in [
            ("wrong-product", "r['product'] = 'other'"),
            ("wrong-product", "r['type'] = 'holdfast-keyring'"),
            ("wrong-channel", "r['channel'] = 'beta'"),
            ("wrong-target", "r['targets'][0]['arch'] = 'aarch64'"),
            ("wrong-target", "r['targets'][0]['libc'] = 'musl'"),
            ("wrong-role", "f[1]['role'] = 'doc'"),
            ("missing-file", "f.append(dict(f[0], name='holdfast-x.service', role='unit', mode='0644'))"),
            ("bad-encoding", "r['more'] = 1"),
            ("bad-encoding", "r['seq'] = 1 << 70"),
            ("seq-jump", "r['seq'] = 1 << 63"),
            ("below-min-seq", "r['min_seq'] = r['seq'] + 1"),
            ("from-the-future", "r['created'] = '2099-01-01T00:00:00Z'"),
            ("keyring-rollback", "r['key_epoch'] = 2"),
            ("not-migratable", "r['state_schema'] = dict(writes=9999, reads_from=9999)"),
            ("wrong-size", "f[0]['size'] += 1"),
            ("too-large", "f[0]['size'] = 1 << 40"),
            ("version-mismatch", "r['version'] = '0.1.2'"),
        ] {
            publish_by_hand(host, &publisher, "next", change, "release")?;
            refused(host, 5, name).map_err(|error| error.context(change))?;
        }
        publisher.run("holdfast-release keygen stranger")?;
        for key in ["root-1", "stranger"] {
            publish_by_hand(host, &publisher, "next", "pass", key)?;
            refused(host, 5, "bad-signature")?;
        }
        let after = tree_hash(host, PLACES)?;
        let changed: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
        ensure!(changed.is_empty() && after.len() == before.len(), "changed: {changed:#?}");
        runs(host, "0.1.0")?;

        // The same files, signed by the same commands, and nothing else: taken. What has expired is taken and says so.
        let change = "r['seq'] = 7; r['min_seq'] = 6; r['expires'] = '2020-01-01T00:00:00Z'";
        publish_by_hand(host, &publisher, "next", change, "release")?;
        let said = update(host, "--yes --soak 1 --json")?.ok()?;
        let json: Value = said.json()?;
        ensure!(json["result"] == "updated" && json["warnings"].to_string().contains("expired"), "{json}");
        runs(host, "0.1.1")?;
        let status: Value = host.alice().holdfast("status --json")?.ok()?.json()?;
        ensure!(status["update"]["expired"] == true && status["update"]["available"] == false, "{status}");
        ensure!(
            host.alice().holdfast("status")?.ok()?.text().contains("Expired  a newer release was due on 2020-01-01")
        );

        // A newer one is told by status once root has looked; older ones stay refused, whoever signed them.
        publish_by_hand(host, &publisher, "next", "r['seq'] = 8", "release")?;
        host.alice().run("holdfast update --check")?.exits(10)?;
        let status: Value = host.alice().holdfast("status --json")?.ok()?.json()?;
        ensure!(status["update"]["available"] == false, "{status}");
        host.root().run("holdfast update --check")?.exits(10)?;
        let status: Value = host.alice().holdfast("status --json")?.ok()?.json()?;
        ensure!(status["update"]["available"] == true && status["update"]["version"] == "0.1.1", "{status}");
        for (seq, name) in [(6, "below-floor"), (5, "below-min-seq"), (2000, "seq-jump")] {
            publish_by_hand(host, &publisher, "next", &format!("r['seq'] = {seq}; r['min_seq'] = 0"), "release")?;
            refused(host, 5, name)?;
        }
        // A floor that was lost or damaged: what runs still counts.
        for damage in ["rm /var/lib/holdfast/floor*", "echo x > /var/lib/holdfast/floor"] {
            host.root().run(damage)?.ok()?;
            publish_by_hand(host, &publisher, "next", "r['seq'] = 6; r['min_seq'] = 0", "release")?;
            let said = update(host, "--yes --json")?.exits(5)?;
            let refusal = said.json::<Value>()?["refusal"].clone();
            ensure!(["below-floor", "below-min-seq"].iter().any(|name| refusal == *name), "{damage}: {said}");
        }
        Ok(())
    })
}

/// A key is stolen, revoked and replaced, as operations.md says it; then its thief and an old mirror try what they can.
#[test]
fn update_follows_a_rotation_of_keys_and_takes_nothing_of_a_revoked_one() -> Result {
    on_installed(|host| {
        let publisher = Publisher::new(host)?;
        publisher.trust()?;
        publisher.take_next("next")?;
        publisher.publish("next", "0.1.1", 5, "")?;
        update(host, "--dry-run")?.ok()?;
        publisher.run(&format!("cp -r {MIRROR} old-mirror"))?;

        let id =
            publisher.run("python3 -c \"import json; print(json.load(open('keyring.json'))['keys'][0]['id'])\"")?;
        publisher.run("holdfast-release keygen release-2")?;
        publisher.run(&format!(
            "holdfast-release keyring --from keyring.json --revoke {id} --add release-2.pem keyring.json"
        ))?;
        for one_root in ["root-1", "root-2", "root-3"] {
            publisher.sign_keyring(&[one_root])?;
            refused(host, 5, "keyring-threshold")?;
        }
        publisher.sign_keyring(&["root-1", "root-3"])?;
        refused(host, 5, "bad-signature")?;
        publish_by_hand(host, &publisher, "next", "r['seq'] = 9", "release")?;
        refused(host, 5, "bad-signature")?;
        // The rotation stands though no release of it was taken yet: a mirror of before it is refused.
        publisher.run(&format!("cp -r {MIRROR} new-mirror && rm -rf {MIRROR}/* && cp -r old-mirror/* {MIRROR}/"))?;
        refused(host, 5, "keyring-rollback")?;
        publisher.run(&format!("rm -rf {MIRROR}/* && cp -r new-mirror/* {MIRROR}/"))?;
        publish_by_hand(host, &publisher, "next", "r['seq'] = 6; r['key_epoch'] = 2", "release-2")?;
        update(host, "--yes --soak 1")?.ok()?;
        runs(host, "0.1.1")?;

        // A mirror of before the rotation, and the thief with the keyring of then.
        publisher.run(&format!("rm -rf {MIRROR}/* && cp -r old-mirror/* {MIRROR}/"))?;
        refused(host, 5, "keyring-rollback")?;
        publish_by_hand(host, &publisher, "next", "r['seq'] = 10", "release")?;
        refused(host, 5, "keyring-rollback")
    })
}
