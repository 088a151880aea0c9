//! From `--rootfs`, `--user` and `--allow-userns` to what the daemon is asked for. Pure.

use crate::args::run::{RunArgs, User};
use clap::builder::TypedValueParser;
use holdfast_proto::daemon::{Cage, Rootfs};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Reads `DIR[:rw|:ro]` without asking that the path be UTF-8.
#[derive(Debug, Clone)]
pub struct RootfsParser;

impl TypedValueParser for RootfsParser {
    type Value = Rootfs;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _arg: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Rootfs, clap::Error> {
        let rootfs = rootfs(value.as_bytes());
        if rootfs.path.is_empty() {
            let why = "--rootfs is DIR[:rw], a directory of this host (as --rootfs ~/trees/debian)";
            return Err(command.clone().error(clap::error::ErrorKind::ValueValidation, why));
        }
        Ok(rootfs)
    }
}

fn rootfs(given: &[u8]) -> Rootfs {
    let (path, writable) = match (given.strip_suffix(b":rw"), given.strip_suffix(b":ro")) {
        (Some(path), _) => (path, true),
        (None, Some(path)) => (path, false),
        (None, None) => (given, false),
    };
    Rootfs { path: path.to_vec(), writable }
}

/// None where the default cage was asked for; relative paths start from `directory`.
pub fn cage(args: &RunArgs, directory: &Path) -> Option<Cage> {
    let from_here = |rootfs: &Rootfs| {
        let path: PathBuf = directory.join(OsStr::from_bytes(&rootfs.path)).components().collect();
        Rootfs { path: OsString::from(path).into_vec(), writable: rootfs.writable }
    };
    let cage = Cage {
        nested_namespaces: args.allow_userns,
        user: if args.user == User::Root { "root".to_owned() } else { String::new() },
        rootfs: args.rootfs.as_ref().map(from_here),
    };
    (cage != Cage::default()).then_some(cage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_read_only_unless_said() {
        let of = |given: &[u8]| {
            let rootfs = rootfs(given);
            (String::from_utf8(rootfs.path).unwrap(), rootfs.writable)
        };
        assert_eq!(of(b"/srv/a:b"), ("/srv/a:b".to_owned(), false));
        assert_eq!(of(b"tree:rw"), ("tree".to_owned(), true));
        assert_eq!(of(b"tree:ro"), ("tree".to_owned(), false));
        assert_eq!(of(b":rw"), (String::new(), true));
    }
}
