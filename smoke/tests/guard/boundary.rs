//! Who may depend on whom (DESIGN section 7, style section 7), asked of cargo for each shipped crate by itself:
//! a resolution of the whole workspace would hide what features pull in.

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// All edges between our own crates. Smoke may use anything; nothing may use smoke.
const EDGES: &[(&str, &[&str])] = &[
    ("holdfast-proto", &[]),
    ("holdfast-release", &[]),
    ("holdfast-launcher", &["holdfast-proto"]),
    ("holdfast-daemon", &["holdfast-proto", "holdfast-launcher"]),
    ("holdfast-helper", &["holdfast-proto", "holdfast-launcher"]),
    ("holdfast-cli", &["holdfast-proto", "holdfast-release"]),
];

/// What a crate's normal tree must not reach, at any depth.
const NEVER: &[(&str, &[&str])] = &[
    (
        "holdfast-helper",
        &[
            "rusqlite",
            "libsqlite3-sys",
            "reqwest",
            "rustls",
            "native-tls",
            "openssl",
            "openssl-sys",
            "clap",
            "holdfast-daemon",
            "holdfast-cli",
        ],
    ),
    (
        "holdfast-launcher",
        &["tokio", "tonic", "prost", "serde", "hyper", "rusqlite", "clap", "reqwest", "rayon", "futures-executor"],
    ),
    (
        "holdfast-daemon",
        &[
            "reqwest",
            "rustls",
            "native-tls",
            "openssl",
            "netlink-sys",
            "rtnetlink",
            "netlink-bindings",
            "holdfast-helper",
            "holdfast-cli",
        ],
    ),
    (
        "holdfast-cli",
        &[
            "rusqlite",
            "libsqlite3-sys",
            "netlink-sys",
            "netlink-bindings",
            "holdfast-helper",
            "holdfast-daemon",
            "holdfast-launcher",
        ],
    ),
    ("holdfast-proto", &["rusqlite", "reqwest", "clap", "netlink-sys", "nix"]),
];

fn metadata() -> Metadata {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    MetadataCommand::new().manifest_path(root.join("Cargo.toml")).exec().expect("cargo metadata")
}

fn ours(metadata: &Metadata) -> Vec<&Package> {
    metadata.workspace_packages()
}

#[test]
fn our_crates_depend_on_each_other_only_as_drawn() {
    let metadata = metadata();
    let names: BTreeSet<&str> = ours(&metadata).iter().map(|package| package.name.as_str()).collect();
    let drawn: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    for package in ours(&metadata) {
        let name = package.name.as_str();
        if name == "holdfast-smoke" {
            continue;
        }
        let allowed = drawn
            .get(name)
            .unwrap_or_else(|| panic!("{name} is a new crate: draw its edges here and in docs/architecture.md"));
        for dependency in package.dependencies.iter().filter(|d| names.contains(d.name.as_str())) {
            assert!(allowed.contains(&dependency.name.as_str()), "{name} -> {} is not drawn", dependency.name);
        }
    }
}

#[test]
fn shipped_crates_cannot_reach_what_they_must_not_hold() {
    for (name, never) in NEVER {
        let tree = normal_tree(name);
        for forbidden in *never {
            assert!(
                !tree.contains(*forbidden),
                "{name} reaches {forbidden}: cargo tree -p {name} -e normal -i {forbidden}"
            );
        }
    }
}

/// The helper answers and never dials: tonic's client transport is not in it.
#[test]
fn the_helper_has_no_client() {
    let features = tree(&["--package", "holdfast-helper", "--edges", "normal,features", "--invert", "tonic"]);
    assert!(features.contains("feature \"server\""), "the question is wrong:\n{features}");
    assert!(!features.contains("feature \"channel\""), "{features}");
}

/// Names in the normal tree of one package, resolved by itself.
fn normal_tree(package: &str) -> BTreeSet<String> {
    let text = tree(&["--package", package, "--edges", "normal", "--prefix", "none", "--format", "{p}"]);
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn tree(arguments: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked"])
        .args(arguments)
        .current_dir(root)
        .output()
        .expect("cargo tree");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Only the store may hold SQL, and so on: a direct dependency has the one user that it was taken for.
#[test]
fn some_crates_have_one_user_alone() {
    let metadata = metadata();
    let users = |dependency: &str| -> Vec<&str> {
        let uses = |package: &&&Package| {
            package.dependencies.iter().any(|d| d.name == dependency && d.kind == DependencyKind::Normal)
        };
        ours(&metadata).iter().filter(uses).map(|package| package.name.as_str()).collect()
    };
    for (dependency, allowed) in [
        ("rusqlite", &["holdfast-daemon"][..]),
        ("netlink-sys", &["holdfast-helper"]),
        ("netlink-bindings", &["holdfast-helper", "holdfast-launcher"]),
        ("clap", &["holdfast-cli", "holdfast-daemon", "holdfast-release"]),
        ("anyhow", &["holdfast-cli", "holdfast-release", "holdfast-smoke"]),
    ] {
        for user in users(dependency) {
            assert!(allowed.contains(&user), "{user} uses {dependency}, which is for {allowed:?}");
        }
    }
}

#[test]
fn nothing_depends_on_smoke() {
    let metadata = metadata();
    let smoke: &PackageId = &ours(&metadata).iter().find(|p| p.name.as_str() == "holdfast-smoke").expect("smoke").id;
    for package in ours(&metadata).iter().filter(|package| package.id != *smoke) {
        assert!(package.dependencies.iter().all(|d| d.name != "holdfast-smoke"), "{} depends on smoke", package.name);
    }
}
