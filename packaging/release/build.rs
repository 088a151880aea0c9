//! Counts the migrations of the daemon's database: a release says which form it writes, and nobody has to remember it.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let store = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../daemon/src/store");
    println!("cargo:rerun-if-changed={}", store.display());
    let mut forms = 0;
    for entry in std::fs::read_dir(&store)? {
        forms += u32::from(entry?.path().extension().is_some_and(|extension| extension == "sql"));
    }
    println!("cargo:rustc-env=HOLDFAST_STATE_FORM={forms}");
    Ok(())
}
