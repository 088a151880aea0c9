//! The maintainer's tool, and openssl beside it: what one signs, the other checks.

#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use holdfast_release::{PROGRAMS, PublicKey, Signature};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// A publisher's folder: keys, keyring, and a release folder `out` that is not complete yet.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        let out = desk.path().join("out");
        fs::create_dir(&out).unwrap();
        let machine: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
        let mut elf = b"\x7fELF\x02\x01".to_vec();
        elf.resize(18, 0);
        elf.extend(machine.to_le_bytes());
        for (program, _) in PROGRAMS {
            fs::write(out.join(program), &elf).unwrap();
        }
        fs::write(out.join("LICENSE"), "\n").unwrap();
        desk
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Runs the tool with these words.
    fn tool(&self, words: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-release"));
        command.args(words.split_whitespace()).current_dir(self.path()).output().unwrap()
    }

    fn done(&self, words: &str) -> String {
        let output = self.tool(words);
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn refused(&self, words: &str) -> String {
        let output = self.tool(words);
        assert!(!output.status.success(), "{words} was done");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Runs a script as a maintainer would type it.
    fn shell(&self, script: &str) -> String {
        let mut command = Command::new("/bin/bash");
        let output = command.args(["-euo", "pipefail", "-c", script]).current_dir(self.path()).output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path().join(name)).unwrap()
    }

    /// Keys and a signed keyring by the tool.
    fn keys(&self) {
        for name in ["root-1", "root-2", "root-3", "release"] {
            let id = self.done(&format!("keygen {name}"));
            assert_eq!(id.trim().len(), 16);
        }
        self.done("keyring --add release.pem keyring.json");
        self.done("sign --key root-1.key keyring.json");
        self.done("sign --key root-3.key keyring.json");
    }
}

const BUILD: &str = "build --version 1.4.0 --seq 17 --key-epoch 1 out";
const VERIFY: &str = "verify --root root-1.pem --root root-2.pem --root root-3.pem --keyring keyring.json out";

#[test]
fn a_release_made_by_the_tool_is_taken() {
    let desk = Desk::new();
    desk.keys();
    desk.done(BUILD);
    assert!(desk.refused(VERIFY).contains("no-signature"));
    desk.done("sign --key release.key out");
    let said = desk.done(VERIFY);
    assert!(said.starts_with("1.4.0-") && said.contains("seq 17") && said.contains("(epoch 1)"), "{said}");

    // Whatever changes afterwards is seen.
    fs::write(desk.path().join("out/LICENSE"), "!").unwrap();
    assert!(desk.refused(VERIFY).contains("wrong-digest: LICENSE"));
    desk.done(BUILD);
    assert!(desk.refused(VERIFY).contains("no-signature"), "a new build keeps an old signature");
    desk.done("sign --key root-1.key out");
    assert!(desk.refused(VERIFY).contains("bad-signature"));
}

#[test]
fn a_revoked_key_signs_nothing_more() {
    let desk = Desk::new();
    desk.keys();
    desk.done(BUILD);
    desk.done("sign --key release.key out");
    let id = desk.done("keygen release-2");
    desk.done("keyring --from keyring.json --add release-2.pem keyring.json");
    assert!(desk.refused(VERIFY).contains("keyring-threshold"), "signatures of the old keyring were taken");
    for root in ["root-1", "root-2"] {
        desk.done(&format!("sign --key {root}.key keyring.json"));
    }
    assert!(desk.done(VERIFY).contains("(epoch 2)"));
    let old = PublicKey::from_pem("k", &String::from_utf8(desk.read("release.pem")).unwrap()).unwrap().id();
    desk.done(&format!("keyring --from keyring.json --revoke {old} keyring.json"));
    for root in ["root-2", "root-3"] {
        desk.done(&format!("sign --key {root}.key keyring.json"));
    }
    let said = desk.refused(VERIFY);
    assert!(said.contains("bad-signature") && said.contains(id.trim()), "{said}");
    desk.done("sign --key release-2.key out");
    assert!(desk.done(VERIFY).contains("(epoch 3)"));
}

#[test]
fn a_key_is_private_and_never_written_over() {
    use std::os::unix::fs::PermissionsExt;
    let desk = Desk::new();
    desk.done("keygen root-1");
    let key = desk.read("root-1.key");
    assert_eq!(fs::metadata(desk.path().join("root-1.key")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(desk.refused("keygen root-1").contains("exists"));
    assert_eq!(desk.read("root-1.key"), key);
}

#[test]
fn only_releases_and_keyrings_are_signed() {
    let desk = Desk::new();
    desk.keys();
    assert!(desk.refused("sign --key release.key out").contains("no release"));
    fs::write(desk.path().join("letter"), "{}").unwrap();
    assert!(desk.refused("sign --key release.key letter").contains("only release folders and keyrings"));
    assert!(desk.refused("keyring --from keyring.json --revoke 0123456789abcdef k.json").contains("no key"));
    assert!(desk.refused("keyring --from keyring.json --revoke x k.json").contains("no key id"));
}

/// The commands of release format 1, "Making one by hand", with keys that openssl made.
#[test]
fn a_release_signed_by_openssl_alone_is_taken() {
    let desk = Desk::new();
    for name in ["root-1", "root-2", "root-3", "release"] {
        desk.shell(&format!(
            "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.key 2>/dev/null
             openssl pkey -in {name}.key -pubout -out {name}.pem"
        ));
    }
    desk.done("keyring --add release.pem keyring.json");
    desk.done(BUILD);
    desk.shell(
        "(cd out; rm SHA256SUMS
          sha256sum * | LC_ALL=C sort -k2 -o SHA256SUMS
          openssl dgst -sha256 -sign ../release.key SHA256SUMS | base64 -w0 > SHA256SUMS.sig)
         for root in root-1 root-2; do
           openssl dgst -sha256 -sign $root.key keyring.json | base64 -w0 \
             > keyring.json.$(openssl pkey -in $root.key -pubout -outform DER | sha256sum | cut -c1-16).sig
         done",
    );
    assert!(desk.done(VERIFY).starts_with("1.4.0-"));
}

#[test]
fn openssl_takes_what_the_tool_signs() {
    let desk = Desk::new();
    desk.keys();
    desk.done(BUILD);
    desk.done("sign --key release.key out");
    let said = desk.shell(
        "base64 -d out/SHA256SUMS.sig > sig; openssl dgst -sha256 -verify release.pem -signature sig out/SHA256SUMS
         for n in 1 3; do
           base64 -d keyring.json.$(openssl pkey -pubin -in root-$n.pem -outform DER | sha256sum | cut -c1-16).sig > sig
           openssl dgst -sha256 -verify root-$n.pem -signature sig keyring.json
         done",
    );
    assert_eq!(said, "Verified OK\nVerified OK\nVerified OK\n");
    // And its keys are keys for openssl.
    desk.shell(
        "openssl dgst -sha256 -sign release.key out/SHA256SUMS | base64 -w0 > mine
         openssl pkey -in release.key -pubout | cmp - release.pem",
    );
    let key = PublicKey::from_pem("k", &String::from_utf8(desk.read("release.pem")).unwrap()).unwrap();
    let signature = Signature::from_base64("mine", &desk.read("mine")).unwrap();
    assert!(key.signed(&desk.read("out/SHA256SUMS"), &signature));
}
