//! What a folder has to be to count as a release: one test for each refusal, made by changing one thing.

#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use holdfast_release::{Digest, FileName, Folder, PROGRAMS, RELEASE_NAME, Refusal, Role, SUMS_NAME, Sums};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Files of a release and the description that goes with them.
struct Draft {
    files: BTreeMap<String, Vec<u8>>,
    release: Value,
}

impl Draft {
    fn good() -> Self {
        let machine: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
        let mut elf = b"\x7fELF\x02\x01".to_vec();
        elf.resize(18, 0);
        elf.extend(machine.to_le_bytes());
        let mut files: BTreeMap<String, Vec<u8>> =
            PROGRAMS.iter().map(|(name, _)| ((*name).to_owned(), elf.clone())).collect();
        for (name, text) in
            [("holdfastd.template.service", "[Unit]\n"), ("rules.toml", "version = 1\n"), ("LICENSE", "\n")]
        {
            files.insert(name.to_owned(), text.into());
        }
        let release = json!({
            "type": "holdfast-release", "format": 1, "product": "holdfast", "channel": "stable", "version": "1.4.0",
            "seq": 17, "min_seq": 12, "key_epoch": 3, "created": "2026-11-21T00:00:00Z",
            "expires": "2027-02-19T00:00:00Z", "commit": "0",
            "state_schema": {"writes": 5, "reads_from": 3},
            "protocols": {"daemon": 2, "helper": 2, "shim": {"speaks": 3, "understands_from": 1}},
            "targets": [{"arch": std::env::consts::ARCH, "libc": "gnu", "files": listed(&files)}], "notes": ""
        });
        Self { files, release }
    }

    /// Writes it with sums that hold.
    fn write(&self, folder: &Path) {
        let text = self.release.to_string().into_bytes();
        let all = self.files.iter().map(|(name, bytes)| (name.as_str(), bytes)).chain([(RELEASE_NAME, &text)]);
        let mut sums = Vec::new();
        for (name, bytes) in all {
            fs::write(folder.join(name), bytes).unwrap();
            sums.push((name.parse::<FileName>().unwrap(), Digest::of(bytes)));
        }
        fs::write(folder.join(SUMS_NAME), Sums::of(sums).to_string()).unwrap();
    }

    fn open(&self) -> Result<Folder, Refusal> {
        let folder = tempfile::tempdir().unwrap();
        self.write(folder.path());
        Folder::open(folder.path())
    }

    /// Replaces a file and what the description says of it.
    fn put(&mut self, name: &str, bytes: &[u8]) {
        self.files.insert(name.to_owned(), bytes.to_vec());
        self.release["targets"][0]["files"] = listed(&self.files);
    }
}

fn listed(files: &BTreeMap<String, Vec<u8>>) -> Value {
    let entry = |(name, bytes): (&String, &Vec<u8>)| {
        let role = Role::of_name(name).unwrap_or(Role::Doc);
        json!({"name": name, "size": bytes.len(), "mode": role.mode_text(), "role": role})
    };
    files.iter().map(entry).collect()
}

/// The refusal after one change to a good draft.
fn refusal(change: impl FnOnce(&mut Draft)) -> &'static str {
    let mut draft = Draft::good();
    change(&mut draft);
    draft.open().expect_err("it was taken").name()
}

/// The refusal after one change to a good folder on disk.
fn refusal_on_disk(change: impl FnOnce(&Path)) -> &'static str {
    let folder = tempfile::tempdir().unwrap();
    Draft::good().write(folder.path());
    change(folder.path());
    Folder::open(folder.path()).expect_err("it was taken").name()
}

#[test]
fn a_good_folder_is_named_by_its_version_and_its_sums() {
    let folder = tempfile::tempdir().unwrap();
    Draft::good().write(folder.path());
    let opened = Folder::open(folder.path()).unwrap();
    let sums = fs::read(folder.path().join(SUMS_NAME)).unwrap();
    assert_eq!(opened.id().to_string(), format!("1.4.0-{}", Digest::of(&sums).short()));
    assert_eq!(opened.read("rules.toml").unwrap(), b"version = 1\n");
    assert!(!opened.has_signature());
    let unit = opened.release().files().iter().find_map(|file| file.unit_name());
    assert_eq!(unit.as_deref(), Some("holdfastd@.service"));
}

#[test]
fn files_that_the_sums_do_not_name_are_not_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    Draft::good().write(folder.path());
    fs::write(folder.path().join("README with a space"), "x").unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    assert!(Folder::open(folder.path()).is_ok());
}

#[test]
fn unknown_fields_are_taken_only_below_x() {
    let mut draft = Draft::good();
    draft.release["x"] = json!({"anything": [1, 2]});
    assert!(draft.open().is_ok());
    assert_eq!(refusal(|draft| draft.release["more"] = json!(1)), "bad-encoding");
    assert_eq!(refusal(|draft| draft.release["protocols"]["more"] = json!(1)), "bad-encoding");
    assert_eq!(refusal(|draft| draft.release["targets"][0]["files"][0]["more"] = json!(1)), "bad-encoding");
}

#[test]
fn every_field_has_to_be_there_and_of_its_kind() {
    let fields: Vec<String> = Draft::good().release.as_object().unwrap().keys().cloned().collect();
    assert_eq!(fields.len(), 15);
    for field in fields {
        let gone = refusal(|draft| drop(draft.release.as_object_mut().unwrap().remove(&field)));
        assert_eq!(gone, "bad-encoding", "without {field}");
    }
    for (field, value) in [("version", json!("1.4")), ("seq", json!(-1)), ("created", json!("yesterday"))] {
        assert_eq!(refusal(|draft| draft.release[field] = value), "bad-encoding", "{field}");
    }
}

#[test]
fn another_product_format_or_machine_is_refused() {
    assert_eq!(refusal(|draft| draft.release["type"] = json!("x")), "wrong-product");
    assert_eq!(refusal(|draft| draft.release["product"] = json!("x")), "wrong-product");
    assert_eq!(refusal(|draft| draft.release["format"] = json!(2)), "wrong-product");
    assert_eq!(refusal(|draft| draft.release["targets"][0]["arch"] = json!("sparc")), "wrong-target");
    assert_eq!(refusal(|draft| draft.release["targets"][0]["libc"] = json!("musl")), "wrong-target");
    assert_eq!(refusal(|draft| draft.release["targets"] = json!([])), "wrong-target");
    assert_eq!(refusal(|draft| draft.put("holdfastd", b"#!/bin/sh\nexec something\n")), "wrong-target");
}

#[test]
fn names_roles_and_modes_go_together() {
    let swap = |draft: &mut Draft, role: &str| draft.release["targets"][0]["files"][1]["role"] = json!(role);
    for role in ["daemon", "unit", "conf", "doc"] {
        assert_eq!(refusal(|draft| swap(draft, role)), "wrong-role", "{role}");
    }
    assert_eq!(refusal(|draft| swap(draft, "root")), "bad-encoding");
    let mode = |draft: &mut Draft, mode: &str| draft.release["targets"][0]["files"][1]["mode"] = json!(mode);
    for text in ["0644", "4755", "755", "0777", ""] {
        assert_eq!(refusal(|draft| mode(draft, text)), "wrong-role", "{text}");
    }
    for name in ["sshd.service", "getty.socket", "evil.sh", "other.conf", "ld.so.preload"] {
        assert_eq!(refusal(|draft| draft.put(name, b"x")), "wrong-role", "{name}");
    }
    let twice = |draft: &mut Draft| {
        let files = draft.release["targets"][0]["files"].as_array_mut().unwrap();
        files.push(files[0].clone());
    };
    assert_eq!(refusal(twice), "wrong-role");
}

#[test]
fn the_set_is_exact() {
    for (program, _) in PROGRAMS {
        let without = |draft: &mut Draft| {
            draft.files.remove(program);
            draft.release["targets"][0]["files"] = listed(&draft.files);
        };
        assert_eq!(refusal(without), "missing-file", "{program}");
    }
    // In the sums alone, and in the description alone.
    assert_eq!(refusal(|draft| drop(draft.files.insert("holdfast-x.timer".into(), b"x".to_vec()))), "wrong-role");
    assert_eq!(refusal(|draft| drop(draft.files.remove("LICENSE"))), "missing-file");
}

#[test]
fn what_is_on_disk_has_to_be_what_the_sums_say() {
    let edit = |name: &'static str, by: fn(&mut Vec<u8>)| {
        refusal_on_disk(move |folder| {
            let mut bytes = fs::read(folder.join(name)).unwrap();
            by(&mut bytes);
            fs::write(folder.join(name), bytes).unwrap();
        })
    };
    assert_eq!(edit("holdfastd", |bytes| bytes[10] ^= 1), "wrong-digest");
    assert_eq!(edit("holdfastd", |bytes| bytes.push(0)), "wrong-size");
    assert_eq!(edit("holdfastd", |bytes| bytes.truncate(bytes.len() - 1)), "wrong-size");
    assert_eq!(edit(RELEASE_NAME, |bytes| bytes.push(b' ')), "wrong-digest");
    assert_eq!(edit(RELEASE_NAME, |bytes| bytes.resize(70_000, b' ')), "too-large");
    assert_eq!(edit(SUMS_NAME, |bytes| bytes.resize(70_000, b' ')), "too-large");
    assert_eq!(edit(SUMS_NAME, |bytes| bytes[0] = b'G'), "bad-sums-grammar");
}

#[test]
fn only_regular_files_are_read() {
    let replaced = |with: fn(&Path)| {
        refusal_on_disk(move |folder| {
            fs::rename(folder.join("rules.toml"), folder.join("elsewhere")).unwrap();
            with(folder);
        })
    };
    assert_eq!(replaced(|_| ()), "missing-file");
    assert_eq!(
        replaced(|folder| std::os::unix::fs::symlink("elsewhere", folder.join("rules.toml")).unwrap()),
        "missing-file"
    );
    assert_eq!(replaced(|folder| fs::create_dir(folder.join("rules.toml")).unwrap()), "missing-file");
    // A FIFO without a writer would hold an ordinary open up for ever.
    let fifo = |folder: &Path| {
        let made = std::process::Command::new("/usr/bin/mkfifo").arg(folder.join("rules.toml")).status().unwrap();
        assert!(made.success());
    };
    assert_eq!(replaced(fifo), "missing-file");
}

#[test]
fn a_size_above_the_cap_is_refused_before_anything_is_read() {
    let big = |draft: &mut Draft| draft.release["targets"][0]["files"][1]["size"] = json!(1u64 << 40);
    assert_eq!(refusal(big), "too-large");
}

#[test]
fn sums_are_those_that_sha256sum_checks() {
    let folder = tempfile::tempdir().unwrap();
    Draft::good().write(folder.path());
    let check = std::process::Command::new("/usr/bin/sha256sum")
        .args(["--check", "--strict", "--quiet", SUMS_NAME])
        .current_dir(folder.path())
        .status();
    assert!(check.unwrap().success());
}
