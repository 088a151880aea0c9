#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use super::*;
use std::fs;

/// A directory with the files of a cgroup, as far as they are written here; a write replaces, as a file does.
fn fake(controllers: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("cgroup.controllers"), controllers).unwrap();
    fs::write(dir.path().join("cgroup.subtree_control"), "").unwrap();
    dir
}

#[test]
fn what_limits_workers_is_enabled_where_it_is_there() {
    assert_eq!(wanted("cpuset cpu io memory hugetlb pids rdma\n"), "+cpu +memory +pids");
    assert_eq!(wanted("cpuset hugetlb\n"), "");
    let dir = fake("cpuset memory hugetlb\n");
    divide(dir.path()).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("cgroup.subtree_control")).unwrap(), "+memory");
    let dir = fake("hugetlb\n");
    assert_eq!(divide(dir.path()).unwrap().enabled, "");
    assert_eq!(fs::read_to_string(dir.path().join("cgroup.subtree_control")).unwrap(), "", "nothing was written");
}

#[test]
fn a_worker_hands_on_what_it_was_given() {
    let dir = fake("cpu memory pids\n");
    let mut base = divide(dir.path()).unwrap();
    base.enabled = "+cpu +memory +pids".to_owned();
    let worker: WorkerId = "0123456789abcdef".parse().unwrap();
    let own = dir.path().join(Cgroups::name(worker));
    // The kernel makes the file with the directory.
    fs::create_dir(&own).unwrap();
    fs::write(own.join("cgroup.subtree_control"), "").unwrap();
    let mut cgroups = Cgroups { base: Some(base) };
    cgroups.make(worker).unwrap().unwrap();
    assert_eq!(fs::read_to_string(own.join("cgroup.subtree_control")).unwrap(), "+cpu +memory +pids");
    assert!(own.join("shim").is_dir() && own.join("worker").is_dir());
}

#[test]
fn a_cgroup_that_was_made_anew_is_found_under_its_path() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("workers");
    let make = || {
        fs::create_dir(&path).unwrap();
        fs::write(path.join("cgroup.controllers"), "").unwrap();
        fs::write(path.join("cgroup.subtree_control"), "").unwrap();
    };
    make();
    let mut cgroups = Cgroups { base: Some(divide(&path).unwrap()) };
    fs::remove_dir_all(&path).unwrap();
    make();
    let worker: WorkerId = "0123456789abcdef".parse().unwrap();
    cgroups.make(worker).unwrap().unwrap();
    assert!(path.join(Cgroups::name(worker)).join("shim").is_dir());
}

#[test]
fn only_a_cgroup_that_processes_may_be_moved_to_is_used() {
    let slice = fake("");
    let own = slice.path().join("holdfast-launcher@alice.service");
    fs::create_dir(&own).unwrap();
    let workers = slice.path().join("holdfast-workers@alice.service");
    assert!(divide_beside(&own).err().unwrap().contains("cgroup.procs"), "the slice was not opened");
    fs::write(slice.path().join("cgroup.procs"), "").unwrap();
    assert!(divide_beside(&own).err().unwrap().contains("holdfast-workers@alice"), "there is none");
    fs::create_dir(&workers).unwrap();
    assert!(divide_beside(&own).is_err(), "its files are not there");
    for file in ["cgroup.controllers", "cgroup.subtree_control"] {
        fs::write(workers.join(file), "").unwrap();
    }
    assert_eq!(divide_beside(&own).unwrap().path, workers);
    assert!(divide_beside(&slice.path().join("user@1000.service")).is_err());
}
