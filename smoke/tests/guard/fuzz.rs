//! `smoke/fuzz` is outside of this workspace and includes files of programs that have no library: what those begin to
//! use has to be included as well, or it builds no more.

use crate::sources::{root, shipped};
use std::fs;

#[test]
fn what_fuzzed_files_use_is_included_with_them() {
    let library = fs::read_to_string(root().join("smoke/fuzz/src/lib.rs")).expect("smoke/fuzz/src/lib.rs");
    let included: Vec<&str> = library
        .lines()
        .filter_map(|line| line.trim().strip_prefix("#[path = \"../../../")?.strip_suffix("\"]"))
        .collect();
    assert!(included.len() > 3, "files are not included by their paths any more: {included:?}");
    let sources = shipped();
    for path in included {
        let source = sources.iter().find(|source| source.path.ends_with(path));
        let source = source.unwrap_or_else(|| panic!("smoke/fuzz includes {path}, which is gone"));
        for (n, line) in source.code() {
            for used in line.split("crate::").skip(1) {
                let module =
                    used.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap_or(used);
                let known =
                    library.contains(&format!("mod {module};")) || library.contains(&format!("mod {module} {{"));
                assert!(known, "{path}:{n} uses crate::{module}: smoke/fuzz/src/lib.rs has to include it, too");
            }
        }
    }
}
