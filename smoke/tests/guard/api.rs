//! docs/api.md says every call and every reason of the contracts.

use crate::sources::root;

#[test]
fn the_api_page_names_each_call_and_each_reason() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let page = read("docs/api.md");
    let (daemon, problem) = (read("proto/schema/daemon.proto"), read("proto/schema/problem.proto"));
    let calls = daemon.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next());
    let reasons = problem.lines().filter_map(|line| line.trim().strip_prefix("REASON_")?.split(' ').next());
    let words: Vec<&str> = calls.chain(reasons.filter(|reason| *reason != "UNSPECIFIED")).collect();
    assert!(words.len() > 25, "the contracts were not read: {words:?}");
    let missing: Vec<_> = words.into_iter().filter(|word| !page.contains(&format!("`{word}`"))).collect();
    assert!(missing.is_empty(), "docs/api.md does not name {missing:?}");
}
