//! Hostile sets by the hundred, made from good ones: each byte changed, each almost-right encoding, each almost-right
//! `SHA256SUMS`. What few words of the other tests show by example is shown here by counting.

#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod stage;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use holdfast_release::{Digest, Floor, RELEASE_NAME, Signature, Sums};
use p256::ecdsa::Signature as Numbers;
use stage::{HostDraft, Publisher, Set, description, now};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

static PUBLISHER: LazyLock<Publisher> = LazyLock::new(Publisher::new);

fn good() -> Set {
    Set::of(&description(), &PUBLISHER.release)
}

/// Every so many bytes one is changed: coprime to the length of a line, so that each column has its turn.
const STEP: usize = 5;

#[test]
fn bytes_all_over_a_set_and_a_keyring_count() {
    let (set, host) = (good(), HostDraft::new());
    let signature = set.signature.clone().unwrap();
    let mut refusals = BTreeMap::<&str, usize>::new();
    for (file, length) in [set.sums.len(), signature.len(), set.release.len()].into_iter().enumerate() {
        for at in (file..length).step_by(STEP) {
            let mut changed = set.clone();
            let bytes = [&mut changed.sums, changed.signature.as_mut().unwrap(), &mut changed.release];
            bytes.into_iter().nth(file).unwrap()[at] ^= 1 << (at % 8);
            let refusal = host.judge(&PUBLISHER, &changed).expect_err("a changed byte was taken").name();
            let expected: &[&str] = match file {
                0 => &["bad-signature"],
                1 => &["bad-signature", "bad-encoding"],
                _ => &["wrong-digest"],
            };
            assert!(expected.contains(&refusal), "byte {at} of file {file}: {refusal}");
            *refusals.entry(refusal).or_default() += 1;
        }
    }
    let text = PUBLISHER.keyring_text();
    let signatures = PUBLISHER.signed_by(&[0, 1, 2], &text);
    for at in (0..text.len()).step_by(STEP) {
        let mut changed = text.clone();
        changed[at] ^= 1 << (at % 8);
        let refusal = PUBLISHER.trust().verify(&changed, &signatures, &Floor::default(), now()).expect_err("taken");
        assert_eq!(refusal.name(), "keyring-threshold", "byte {at} of the keyring");
    }
    println!("{refusals:?}, keyring {}", text.len());
}

/// Ways to write what says the same to a lenient reader, and to hide it from a strict one.
fn encodings(der: &[u8]) -> BTreeSet<Vec<u8>> {
    let right = STANDARD.encode(der);
    let mut all = BTreeSet::new();
    for at in 0..=right.len() {
        let (head, tail) = right.split_at(at);
        for between in ["\n", "\r\n", " ", "\t", "\0", "="] {
            all.insert(format!("{head}{between}{tail}").into_bytes());
        }
    }
    for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
        all.insert(engine.encode(der).into_bytes());
        all.insert(format!("{}====", engine.encode(der)).into_bytes());
    }
    all.insert(URL_SAFE.encode(der).into_bytes());
    all.insert(STANDARD.encode(&right).into_bytes());
    all.insert(right.bytes().rev().collect());
    for (before, after) in [
        ("\u{feff}", ""),
        ("\n", ""),
        ("", "\n\n"),
        ("", "\r\n"),
        ("", "\r"),
        ("", "\n "),
        ("", "#"),
        ("\"", "\""),
        ("-----BEGIN SIGNATURE-----\n", "\n-----END SIGNATURE-----\n"),
        ("untrusted comment: x\n", "\n"),
        ("sig:", ""),
        ("{\"messageSignature\":{\"signature\":\"", "\"}}"),
        ("data:;base64,", ""),
        ("", &right),
        ("0x", ""),
    ] {
        all.insert(format!("{before}{right}{after}").into_bytes());
    }
    all.insert(right.encode_utf16().flat_map(u16::to_le_bytes).collect());
    all.insert(right.encode_utf16().flat_map(u16::to_be_bytes).collect());
    all.insert(der.to_vec());
    all.insert(der.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect());
    // The last letter before padding has spare bits: the same bytes by another letter.
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let padding = right.bytes().filter(|byte| *byte == b'=').count();
    let last = right.len() - padding - 1;
    let number = alphabet.iter().position(|letter| *letter == right.as_bytes()[last]).unwrap();
    for other in 0..1 << (2 * padding) {
        let mut spare = right.clone().into_bytes();
        spare[last] = alphabet[number ^ other];
        all.insert(spare);
    }
    // BER that is no DER: long lengths, zeros before a number, the endless form, more behind the end.
    let body = &der[2..];
    for bad in [
        [&[0x30, 0x81, der[1]], body].concat(),
        [&[0x30, 0x82, 0, der[1]], body].concat(),
        [&[0x30, 0x80], body, &[0, 0]].concat(),
        [der, &[0]].concat(),
        [der, der].concat(),
        [&[0x31, der[1]], body].concat(),
        [&[0x30, der[1] + 1, 2, body[1] + 1, 0], &body[2..]].concat(),
    ] {
        all.insert(STANDARD.encode(bad).into_bytes());
    }
    for whole in [right.clone(), format!("{right}\n")] {
        all.remove(whole.as_bytes());
    }
    all
}

#[test]
fn of_hundreds_of_encodings_one_is_taken() {
    let set = good();
    let der = STANDARD.decode(set.signature.as_ref().unwrap()).unwrap();
    let all = encodings(&der);
    assert!(all.len() > 200, "{} encodings", all.len());
    for bytes in &all {
        let refusal = Signature::from_base64("x", bytes).err().map(|refusal| refusal.name());
        let shown = String::from_utf8_lossy(bytes);
        assert!(matches!(refusal, Some("bad-encoding")), "{shown:?}: {refusal:?}");
        let changed = Set { signature: Some(bytes.clone()), ..set.clone() };
        assert_eq!(
            HostDraft::new().judge(&PUBLISHER, &changed).expect_err("taken").name(),
            "bad-encoding",
            "{shown:?}"
        );
    }
    println!("{} encodings", all.len());
}

/// The other signature that the same numbers give (SEC 1: s and n - s both hold).
fn mirrored(signature: &[u8]) -> Vec<u8> {
    let numbers = Numbers::from_der(&STANDARD.decode(signature).unwrap()).unwrap();
    let other = Numbers::from_scalars(*numbers.r(), -*numbers.s()).unwrap();
    assert_ne!(numbers, other);
    STANDARD.encode(other.to_der().as_bytes()).into_bytes()
}

/// Malleable as ECDSA is, it must not matter: the same outcome everywhere, and no identity hangs on a signature.
#[test]
fn a_signature_and_its_mirror_mean_the_same_everywhere() {
    let (set, host) = (good(), HostDraft::new());
    let other = Set { signature: set.signature.as_deref().map(mirrored), ..set.clone() };
    let [one, two] = [&set, &other].map(|set| host.judge(&PUBLISHER, set).unwrap());
    assert_eq!((&one.id, &one.key, &one.sums), (&two.id, &two.key, &two.sums));
    let text = PUBLISHER.keyring_text();
    let signatures = PUBLISHER.signed_by(&[0, 1], &text);
    let mixed: BTreeMap<_, _> = signatures.iter().map(|(id, signature)| (*id, mirrored(signature))).collect();
    assert!(PUBLISHER.trust().verify(&text, &mixed, &Floor::default(), now()).is_ok());
    // One root key and the mirror of its own signature are one root key.
    let [first, second] = [0, 1].map(|root| PUBLISHER.signed_by(&[root], &text));
    let mut twice = first.clone();
    twice.insert(*second.keys().next().unwrap(), mirrored(first.values().next().unwrap()));
    let refusal = PUBLISHER.trust().verify(&text, &twice, &Floor::default(), now()).unwrap_err();
    assert_eq!(refusal.name(), "keyring-threshold");
    let folder = tempfile::tempdir().unwrap();
    for (name, set) in [("one", &set), ("two", &other)] {
        let der = STANDARD.decode(set.signature.as_ref().unwrap()).unwrap();
        fs::write(folder.path().join(name), der).unwrap();
        fs::write(folder.path().join("sums"), &set.sums).unwrap();
        fs::write(folder.path().join("key.pem"), stage::pem(&PUBLISHER.release)).unwrap();
        let line = format!("dgst -sha256 -verify key.pem -signature {name} sums");
        let said = Command::new("openssl").args(line.split(' ')).current_dir(folder.path()).output().unwrap();
        assert!(said.status.success(), "openssl, {name}: {}", String::from_utf8_lossy(&said.stderr));
    }
}

/// A key signs one kind of thing; what it signed elsewhere is worth nothing here.
#[test]
fn signatures_made_for_something_else_are_worth_nothing() {
    let set = good();
    let (keyring, digest) = (PUBLISHER.keyring_text(), Digest::of(&set.sums));
    let reversed: Vec<u8> = set.sums.iter().rev().copied().collect();
    for other in [&set.release, &keyring, &digest.bytes().to_vec(), &digest.to_string().into_bytes(), &reversed] {
        let signature = Some(stage::signature(&PUBLISHER.release, other));
        let refusal = HostDraft::new().judge(&PUBLISHER, &Set { signature, ..set.clone() }).unwrap_err();
        assert_eq!(refusal.name(), "bad-signature");
    }
    // A keyring that is offered as the sums of a set, rightly signed by the release key; and sums as a keyring.
    let as_sums =
        Set { sums: keyring.clone(), signature: Some(stage::signature(&PUBLISHER.release, &keyring)), ..set.clone() };
    assert_eq!(HostDraft::new().judge(&PUBLISHER, &as_sums).unwrap_err().name(), "bad-sums-grammar");
    for text in [&set.sums, &set.release] {
        let signatures = PUBLISHER.signed_by(&[0, 1, 2], text);
        let refusal = PUBLISHER.trust().verify(text, &signatures, &Floor::default(), now()).unwrap_err();
        assert!(["bad-encoding", "wrong-product"].contains(&refusal.name()), "{refusal}");
    }
}

/// What a builder, an editor, another tool or an attacker may make of a good `SHA256SUMS` of these two files.
fn corpus(files: [(&str, &[u8]); 2]) -> BTreeSet<Vec<u8>> {
    let lines: Vec<String> = files.iter().map(|(name, bytes)| format!("{}  {name}\n", Digest::of(bytes))).collect();
    let good = lines.concat();
    let (digest, name) = (&lines[0][..64], files[0].0);
    let mut all: BTreeSet<Vec<u8>> = BTreeSet::from([good.clone().into_bytes(), lines[1].clone().into_bytes()]);
    // Between the digest and the name, before and after the line, and around the whole.
    let odd = [
        "", " ", "  ", "   ", " *", "* ", "\t", " \t", "\r", "\u{a0} ", "\0", "\n", "\\", "#", "\u{feff}", ";", "./",
        "/", "../", "?", "'", "\"", "$(id)", "`id`", "-", "é",
    ];
    for word in odd {
        all.insert(format!("{digest}{word}{name}\n{}", lines[1]).into_bytes());
        all.insert(format!("{digest}  {word}{name}\n{}", lines[1]).into_bytes());
        all.insert(format!("{digest}  {name}{word}\n{}", lines[1]).into_bytes());
        all.insert(format!("{word}{good}").into_bytes());
        all.insert(format!("{good}{word}").into_bytes());
        all.insert(format!("{}{word}\n{}", &lines[0][..lines[0].len() - 1], lines[1]).into_bytes());
        all.insert(format!("{}{word}{}", lines[0], lines[1]).into_bytes());
        all.insert(format!("{}{word}{}  {name}\n{}", &digest[..10], &digest[10..], lines[1]).into_bytes());
    }
    for end in ["", "\r\n", "\r", "\n\r", "\u{2028}", "\0\n"] {
        all.insert(good.replace('\n', end).into_bytes());
        all.insert(format!("{}{end}", good.trim_end()).into_bytes());
    }
    for form in [
        "SHA256 (NAME) = SUM\n",
        "SHA256(NAME)= SUM\n",
        "\\SUM  NAME\n",
        "SUM *NAME\n",
        "NAME  SUM\n",
        "SUM NAME\n",
        "SUM  NAME NAME\n",
        "SUM  NAME\nSUM  NAME\n",
    ] {
        for line in [form.to_owned(), form.to_uppercase().replace("NAME", name).replace("SUM", digest)] {
            let line = line.replace("NAME", name).replace("SUM", digest);
            all.insert(format!("{line}{}", lines[1]).into_bytes());
            all.insert(format!("{}{line}", lines[1]).into_bytes());
        }
    }
    for length in [1, 32, 40, 56, 63, 65, 96, 128] {
        let sum: String = digest.chars().cycle().take(length).collect();
        all.insert(format!("{sum}  {name}\n{}", lines[1]).into_bytes());
    }
    for other in
        [".", "..", "-", "/etc/passwd", "SHA256SUMS", "SHA256SUMS.sig", "a\\nb", "a b", " a", "a ", "", "RELEASE.JSON"]
    {
        all.insert(format!("{digest}  {other}\n{}", lines[1]).into_bytes());
    }
    all.insert(good.to_uppercase().into_bytes());
    all.insert(format!("{}{}", lines[1], lines[0]).into_bytes());
    all.insert(good.encode_utf16().flat_map(u16::to_le_bytes).collect());
    all.insert(vec![b'\n'; 70_000]);
    for at in 0..64 {
        let mut changed = good.clone().into_bytes();
        changed[at] = changed[at].to_ascii_uppercase();
        all.insert(changed.clone());
        changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
        all.insert(changed);
    }
    all
}

/// The names whose bytes `sha256sum` says fit: its reading of the same text.
fn fits_by_coreutils(folder: &Path, text: &[u8]) -> Option<BTreeSet<String>> {
    let mut child = Command::new("sha256sum")
        .args(["--check", "--strict"])
        .current_dir(folder)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let text = text.to_vec();
    let feeding = std::thread::spawn(move || drop(stdin.write_all(&text)));
    let said = child.wait_with_output().unwrap();
    feeding.join().unwrap();
    let lines = String::from_utf8_lossy(&said.stdout).into_owned();
    let fitting = lines.lines().filter_map(|line| line.strip_suffix(": OK").map(str::to_owned)).collect();
    said.status.success().then_some(fitting)
}

/// Whatever is taken here means the same to `sha256sum`; much that it would take is refused here.
#[test]
fn what_is_taken_as_sums_means_the_same_to_coreutils() {
    let folder = tempfile::tempdir().unwrap();
    let files: [(&str, &[u8]); 2] = [("holdfast", b"program"), (RELEASE_NAME, b"{}")];
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let all = corpus(files);
    assert!(all.len() >= 300, "{} cases", all.len());
    let (mut taken, mut refused_here_alone) = (0, 0);
    for text in &all {
        let shown = String::from_utf8_lossy(&text[..text.len().min(300)]).into_owned();
        let theirs = fits_by_coreutils(folder.path(), text);
        let Ok(sums) = Sums::parse(text) else {
            refused_here_alone += usize::from(theirs.is_some());
            continue;
        };
        taken += 1;
        let digest_of = |name: &str| fs::read(folder.path().join(name)).ok().map(|bytes| Digest::of(&bytes));
        let ours: Option<BTreeSet<String>> = sums
            .names()
            .map(|name| (digest_of(name.as_str()) == sums.digest(name.as_str())).then(|| name.to_string()))
            .collect();
        assert_eq!(ours, theirs, "{shown:?}");
    }
    println!("{} cases, {taken} taken, {refused_here_alone} refused that sha256sum takes", all.len());
    assert!(taken > 1 && refused_here_alone > 20, "the corpus shows nothing: {taken}, {refused_here_alone}");
}
