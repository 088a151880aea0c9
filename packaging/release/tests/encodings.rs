//! Forms of keys and signatures that are almost right.

#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod stage;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use holdfast_release::{KeyId, PrivateKey, PublicKey, Signature};
use proptest::prelude::*;
use std::sync::LazyLock;

const TEXT: &[u8] = b"what was signed";
static KEY: LazyLock<PrivateKey> = LazyLock::new(stage::generate);

fn good() -> String {
    KEY.sign(TEXT).to_base64()
}

fn der() -> Vec<u8> {
    STANDARD.decode(good()).unwrap()
}

fn refused(bytes: &[u8]) -> &'static str {
    Signature::from_base64("x.sig", bytes).expect_err(&String::from_utf8_lossy(bytes)).name()
}

#[test]
fn a_signature_is_one_line_of_base64() {
    let good = good();
    assert!(Signature::from_base64("x.sig", good.as_bytes()).is_ok());
    assert!(Signature::from_base64("x.sig", format!("{good}\n").as_bytes()).is_ok());
    let (head, tail) = good.split_at(20);
    for bad in [
        String::new(),
        "\n".to_owned(),
        format!("{good}\n\n"),
        format!("{good}\r\n"),
        format!("{good} "),
        format!(" {good}"),
        format!("\u{feff}{good}"),
        format!("{head}\n{tail}"),
        format!("{head} {tail}"),
        format!("{good}\0"),
        format!("{good}={good}"),
        format!("{good}{good}"),
        STANDARD.encode(&good),
        STANDARD_NO_PAD.encode([der(), vec![0]].concat()),
        URL_SAFE.encode([0xfb, 0xff, 0xfe]),
        format!("-----BEGIN SIGNATURE-----\n{good}\n-----END SIGNATURE-----\n"),
        format!("\"{good}\""),
    ] {
        assert_eq!(refused(bad.as_bytes()), "bad-encoding", "{bad:?}");
    }
    assert_eq!(refused(&der()), "bad-encoding", "DER without base64");
    assert_eq!(refused(&[0xff; 90]), "bad-encoding");
    assert_eq!(refused(&[b'A'; 1025]), "too-large");
}

/// A DER signature of these two numbers, big-endian.
fn sequence(r: &[u8], s: &[u8]) -> Vec<u8> {
    let number = |n: &[u8]| [&[2, u8::try_from(n.len()).unwrap()], n].concat();
    let body = [number(r), number(s)].concat();
    [&[0x30, u8::try_from(body.len()).unwrap()], body.as_slice()].concat()
}

#[test]
fn numbers_outside_the_group_are_refused() {
    // SEC 2: the order n of P-256.
    let n: Vec<u8> = [0; 1]
        .into_iter()
        .chain(0xffff_ffff_0000_0000_ffff_ffff_ffff_ffff_u128.to_be_bytes())
        .chain(0xbce6_faad_a717_9e84_f3b9_cac2_fc63_2551_u128.to_be_bytes())
        .collect();
    let mut above = n.clone();
    *above.last_mut().unwrap() += 1;
    let (zero, one) = (vec![0], vec![1]);
    let (top, beyond) = ([vec![0], vec![0xff; 32]].concat(), [vec![1], vec![0; 32]].concat());
    assert!(Signature::from_der("x", &sequence(&one, &one)).is_ok());
    for bad in [&zero, &n, &above, &top, &beyond, &vec![0xff], &vec![0, 1], &Vec::new()] {
        assert!(Signature::from_der("x", &sequence(bad, &one)).is_err(), "r = {bad:02x?}");
        assert!(Signature::from_der("x", &sequence(&one, bad)).is_err(), "s = {bad:02x?}");
    }
}

#[test]
fn der_has_one_form() {
    let good = der();
    assert!(Signature::from_der("x", &good).is_ok());
    for length in 0..good.len() {
        assert!(Signature::from_der("x", &good[..length]).is_err(), "the first {length} bytes were taken");
    }
    let body = &good[2..];
    let long_length = [&[0x30, 0x81, good[1]], body].concat();
    let endless = [&[0x30, 0x80], body, &[0, 0]].concat();
    for bad in [long_length, endless, [good.as_slice(), &[0]].concat(), [&[0x31, good[1]], body].concat()] {
        assert!(Signature::from_der("x", &bad).is_err(), "{bad:02x?}");
    }
}

#[test]
fn a_public_key_is_what_openssl_writes() {
    let pem = stage::pem(&KEY);
    assert_eq!(PublicKey::from_pem("k", &pem).unwrap().id(), stage::id(&KEY));
    assert!(PublicKey::from_pem("k", pem.trim_end()).is_ok());
    let der = STANDARD.decode(pem.lines().filter(|line| !line.starts_with('-')).collect::<String>()).unwrap();
    let armour = |der: &[u8]| {
        let text = STANDARD.encode(der);
        let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    };
    assert_eq!(armour(&der), pem);
    let point = der.len() - 65;
    // RFC 5480: the point's length and the outer lengths shrink by 32.
    let mut compressed = der[..point + 33].to_vec();
    compressed[1] -= 32;
    compressed[point - 2] -= 32;
    compressed[point] = 2 + (der[der.len() - 1] & 1);
    let mut off_curve = der.clone();
    *off_curve.last_mut().unwrap() ^= 1;
    let mut infinity = der[..=point].to_vec();
    infinity[1] -= 64;
    infinity[point - 2] -= 64;
    infinity[point] = 0;
    // SEC 2: secp256k1 has the OID 1.3.132.0.10.
    let k1 = "-----BEGIN PUBLIC KEY-----\nMFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEeb5mfvncu6xVoGKVzocLBwKb/NstzijZ\nWfKBWxb4F5hIOtp3JqPEZV2k+/wOEQio/Re0SKaFVBmcR9CP+xDUuA==\n-----END PUBLIC KEY-----\n";
    for bad in [
        armour(&compressed),
        armour(&off_curve),
        armour(&infinity),
        k1.to_owned(),
        pem.replace('\n', "\r\n"),
        format!("# root key\n{pem}"),
        format!("{pem}{pem}"),
        pem.replace("PUBLIC", "PRIVATE"),
        KEY.pem().unwrap(),
        String::new(),
    ] {
        assert_eq!(PublicKey::from_pem("k", &bad).expect_err(&bad).name(), "bad-encoding");
    }
}

#[test]
fn an_id_is_sixteen_lower_case_digits() {
    let id = stage::id(&KEY);
    assert_eq!(id.to_string().parse(), Ok(id));
    for bad in ["", "0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF", "+123456789abcdef", "0123456789abcdeg"]
    {
        assert_eq!(bad.parse::<KeyId>(), Err(()), "{bad:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_bit_of_text_or_signature_may_change(at in 0usize..10_000, in_text: bool) {
        let (mut text, mut der) = (TEXT.to_vec(), der());
        let bytes = if in_text { &mut text } else { &mut der };
        let at = at % (bytes.len() * 8);
        bytes[at / 8] ^= 1 << (at % 8);
        let taken = Signature::from_der("x", &der).is_ok_and(|signature| KEY.public().unwrap().signed(&text, &signature));
        prop_assert!(!taken);
    }

    #[test]
    fn whatever_is_taken_has_one_form(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        if let Ok(signature) = Signature::from_base64("x", &bytes) {
            let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
            prop_assert_eq!(signature.to_base64().into_bytes(), line);
        }
    }

    #[test]
    fn what_one_key_signs_another_does_not_own(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let other = stage::generate();
        let signature = other.sign(&text);
        prop_assert!(other.public().unwrap().signed(&text, &signature));
        prop_assert!(!KEY.public().unwrap().signed(&text, &signature));
    }
}
