//! Makes the worker's seccomp filters (`build/calls.rs` is the table): constants in the shim, so that no launch pays
//! for building them.

#[path = "build/calls.rs"]
#[allow(dead_code, reason = "the page is made of the words")]
mod calls;
#[path = "build/filter.rs"]
mod filter;

use calls::{Group, ROWS};
use std::fmt::Write;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=build");
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it");
    assert_eq!(
        arch,
        std::env::consts::ARCH,
        "system call numbers here are the building machine's: build on the target"
    );
    let mut text = String::new();
    for (name, nested) in [("FILTER", false), ("FILTER_NESTED", true)] {
        let program = filter::program(ROWS.iter().filter(|row| !nested || row.group != Group::Namespaces));
        writeln!(text, "const {name}: [libc::sock_filter; {}] = [", program.len()).expect("into a String");
        for libc::sock_filter { code, jt, jf, k } in program {
            writeln!(text, "    libc::sock_filter {{ code: {code}, jt: {jt}, jf: {jf}, k: {k} }},")
                .expect("into a String");
        }
        text.push_str("];\n");
    }
    let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    std::fs::write(format!("{out}/seccomp.rs"), text).expect("OUT_DIR is writable");
}
