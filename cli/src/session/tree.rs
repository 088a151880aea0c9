//! The directories of a session, with the owners and modes of the contract ("Installed"), and its first rules.

use super::{Identity, Session};
use crate::client::check_directories;
use crate::install::rules::fresh_prefix;
use anyhow::Context;
use rustix::fs::{Gid, Mode, Uid};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// One directory as it has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Where.
    pub path: PathBuf,
    /// Whose.
    pub identity: Identity,
    /// Its permissions.
    pub mode: u32,
}

/// Every directory below the session's own, parents first. Pure.
pub fn directories(session: &Session) -> Vec<Directory> {
    let layout = &session.layout;
    let (keeper, owner) = (session.keeper(), &session.owner.owner);
    let own = Identity { uid: session.owner.uid, gid: session.owner.gid };
    let special = [
        (layout.config(), keeper, 0o755),
        (layout.helper_run(), session.helper, 0o700),
        (layout.session_run(), keeper, 0o755),
        (layout.workers_run(owner), own, 0o700),
        (layout.owner_state(owner), own, 0o700),
    ];
    let mut all: Vec<Directory> = Vec::new();
    for (path, identity, mode) in special {
        let between = path.ancestors().take_while(|above| *above != layout.root()).skip(1).map(Path::to_owned);
        for above in between.collect::<Vec<_>>().into_iter().rev() {
            if all.iter().all(|known| known.path != above) {
                all.push(Directory { path: above, identity: keeper, mode: 0o755 });
            }
        }
        all.push(Directory { path, identity, mode });
    }
    all
}

/// Makes what is missing of the tree, and the rules if there are none.
///
/// # Errors
/// Where something else is in its place, or others could replace it.
pub fn make(session: &Session) -> anyhow::Result<()> {
    let root = session.layout.root();
    let keeper = session.keeper();
    // Below a session's root, each directory that is made next lies in one of the keeper's alone: nobody can swap it.
    make_directory(&Directory { path: root.to_owned(), identity: keeper, mode: 0o755 })?;
    check_directories(&root.join("any"), (!session.owner.is_root).then_some(keeper.uid)).with_context(|| {
        format!("{} cannot hold a session: set HOLDFAST_SESSION to another directory", root.display())
    })?;
    for directory in directories(session) {
        make_directory(&directory)?;
    }
    write_rules(session)
}

fn make_directory(wanted: &Directory) -> anyhow::Result<()> {
    let (path, identity) = (&wanted.path, wanted.identity);
    let mode = Mode::from_bits_truncate(wanted.mode);
    match std::fs::create_dir(path) {
        Ok(()) => rustix::fs::chown(path, Some(Uid::from_raw(identity.uid)), Some(Gid::from_raw(identity.gid)))
            .with_context(|| format!("cannot give {} to uid {}", path.display(), identity.uid))?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).with_context(|| format!("cannot make {}", path.display())),
    }
    let found = path.symlink_metadata().with_context(|| format!("cannot look at {}", path.display()))?;
    anyhow::ensure!(found.is_dir(), "{} is there and no directory: remove it", path.display());
    anyhow::ensure!(
        found.uid() == identity.uid,
        "{} belongs to uid {}, not {}: it is left of another session; `holdfast session stop --purge` removes one",
        path.display(),
        found.uid(),
        identity.uid
    );
    rustix::fs::chmod(path, mode).with_context(|| format!("cannot set the mode of {}", path.display()))
}

/// The contract's default rules for this owner; a file that is there is root's word and stays.
fn write_rules(session: &Session) -> anyhow::Result<()> {
    let path = session.layout.rules_toml();
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path);
    match made {
        Ok(mut file) => Ok(file.write_all(rules_of(session, &fresh_prefix()?).as_bytes())?),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot make {}", path.display())),
    }
}

/// Everything but the uid has the contract's defaults (see `packaging/rules.toml` for the words).
fn rules_of(session: &Session, pool6: &str) -> String {
    let owner = &session.owner;
    let networks = if owner.is_root { r#"["none", "bridge"]"# } else { r#"["none", "host"]"# };
    format!(
        "# Holdfast: what each owner of this session may have. Read by holdfast-helper; again when it changes.\n\
         version = 1\n\n[owners.\"{}\"]\nuid = {}\nnetworks = {networks}\npool6 = \"{pool6}\"\n",
        owner.owner, owner.uid
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::Caller;
    use holdfast_proto::layout::Layout;

    fn session(is_root: bool) -> Session {
        let owner = Caller { owner: "alice".parse().unwrap(), uid: 1000, gid: 1001, is_root };
        let helper = Identity { uid: 61_183, gid: 61_183 };
        Session { layout: Layout::below("/s"), owner, helper }
    }

    #[test]
    fn only_three_directories_are_not_the_keepers() {
        let others: Vec<String> = directories(&session(true))
            .iter()
            .filter(|directory| directory.identity.uid != 0)
            .map(|directory| format!("{} {} {:o}", directory.path.display(), directory.identity.uid, directory.mode))
            .collect();
        let expected = [
            "/s/run/holdfast/helper 61183 700",
            "/s/run/holdfast/owners/alice/workers 1000 700",
            "/s/var/lib/holdfast/owners/alice 1000 700",
        ];
        assert_eq!(others, expected);
    }

    #[test]
    fn parents_come_first_and_each_once() {
        let all = directories(&session(true));
        for (place, directory) in all.iter().enumerate() {
            let parent = directory.path.parent().unwrap();
            assert!(
                parent == Path::new("/s") || all[..place].iter().any(|known| known.path == parent),
                "{directory:?}"
            );
            assert_eq!(all.iter().filter(|other| other.path == directory.path).count(), 1, "{directory:?}");
        }
    }

    #[test]
    fn an_ordinary_users_rules_offer_no_bridge() {
        assert!(rules_of(&session(true), "fd12:3456:789a::/48").contains("bridge"));
        assert!(!rules_of(&session(false), "fd12:3456:789a::/48").contains("bridge"));
        assert!(toml::from_str::<toml::Table>(&rules_of(&session(true), "fd12:3456:789a::/48")).is_ok());
    }
}
