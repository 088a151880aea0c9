//! Project Wycheproof's vectors for ECDSA on P-256 with SHA-256, signatures in DER.

#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use holdfast_release::{PublicKey, Signature};
use serde_json::Value;

fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn every_vector_gives_its_result() {
    let vectors: Value = serde_json::from_str(include_str!("wycheproof/ecdsa_secp256r1_sha256_test.json")).unwrap();
    let (mut valid, mut invalid, mut wrong) = (0, 0, Vec::new());
    for group in vectors["testGroups"].as_array().unwrap() {
        let key = PublicKey::from_pem("vector", group["publicKeyPem"].as_str().unwrap()).unwrap();
        for test in group["tests"].as_array().unwrap() {
            let signature = Signature::from_der("vector", &bytes(&test["sig"]));
            let taken = signature.is_ok_and(|signature| key.signed(&bytes(&test["msg"]), &signature));
            let wanted = match test["result"].as_str().unwrap() {
                "valid" => true,
                "invalid" => false,
                other => panic!("a result of {other:?}"),
            };
            if wanted {
                valid += 1
            } else {
                invalid += 1
            }
            if taken != wanted {
                wrong.push(format!("{}: {} ({wanted} wanted)", test["tcId"], test["comment"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!((valid, invalid), (174, 310));
}
