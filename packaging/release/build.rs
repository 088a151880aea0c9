//! Counts the migrations of the daemon's database: a release says which form it writes, and nobody has to remember it.

use std::path::Path;

fn main() -> std::io::Result<()> {
    // Asked for when it runs: two trees may share one target directory, and then also this program.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let store = Path::new(&here).join("../../daemon/src/store");
    println!("cargo:rerun-if-env-changed=HOLDFAST_BUILD_VERSION");
    println!("cargo:rerun-if-changed={}", store.display());
    let mut forms = 0;
    for entry in std::fs::read_dir(&store)? {
        forms += u32::from(entry?.path().extension().is_some_and(|extension| extension == "sql"));
    }
    println!("cargo:rustc-env=HOLDFAST_STATE_FORM={forms}");
    Ok(())
}
