//! One hosts file a network, `<workers_run>/hosts.<network>`: who is live on it, by name.
//!
//! Workers have the file bound over their `/etc/hosts`, so it is rewritten in place and never replaced. Shims
//! append their own line to it; the daemon's next rewrite, which follows each start, has that line too.

use crate::worker::spec::Network;
use holdfast_proto::words::NetworkName;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const HEAD: &str = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";

/// The host's own, which its workers of network `host` see as it is.
const OF_THE_HOST: &str = "/etc/hosts";

/// The file of one network.
pub fn path(workers_run: &Path, network: Network) -> PathBuf {
    if network == Network::Host {
        return OF_THE_HOST.into();
    }
    workers_run.join(format!("hosts.{}", network.name()))
}

/// Makes the files where they are not there, so that the first launch finds them.
pub fn prepare(workers_run: &Path, named: impl Iterator<Item = NetworkName>) -> io::Result<()> {
    for network in [Network::Bridge, Network::None, Network::Tap].into_iter().chain(named.map(Network::Named)) {
        make(workers_run, network)?;
    }
    Ok(())
}

/// Makes the file of one network where it is not there.
pub fn make(workers_run: &Path, network: Network) -> io::Result<()> {
    let file = open(&path(workers_run, network))?;
    if file.metadata()?.len() == 0 { rewrite(&file, HEAD) } else { Ok(()) }
}

/// Writes who is live: address (with or without a prefix length) and name of each.
pub fn write<'a>(
    workers_run: &Path,
    network: Network,
    live: impl Iterator<Item = (&'a str, &'a str)>,
) -> io::Result<()> {
    rewrite(&open(&path(workers_run, network))?, &content(live))
}

fn content<'a>(live: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = HEAD.to_owned();
    for (address, name) in live {
        let address = address.split('/').next().unwrap_or(address);
        text.push_str(&format!("{address} {name}\n"));
    }
    text
}

fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::from(0o644))?);
    // The unit's umask is 0077; workers read it as the same uid, but `--user root` and people do not.
    rustix::fs::fchmod(&file, Mode::from(0o644))?;
    Ok(file)
}

/// First the bytes, then the length: a reader in between sees old lines at the end, never an empty file.
fn rewrite(file: &File, text: &str) -> io::Result<()> {
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_rewritten_in_place_and_shrinks() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path(), std::iter::empty()).unwrap();
        let file = path(dir.path(), Network::Bridge);
        let inode = std::fs::metadata(&file).unwrap().ino();
        let live = [("10.88.0.2/22", "web"), ("10.88.0.3/22", "db"), ("fd00::2/64", "web")];
        write(dir.path(), Network::Bridge, live.into_iter()).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text, format!("{HEAD}10.88.0.2 web\n10.88.0.3 db\nfd00::2 web\n"));
        write(dir.path(), Network::Bridge, live.into_iter().take(1)).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{HEAD}10.88.0.2 web\n"));
        let metadata = std::fs::metadata(&file).unwrap();
        assert_eq!((metadata.ino(), metadata.mode() & 0o777), (inode, 0o644));
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "mine").unwrap();
        std::os::unix::fs::symlink(&victim, path(dir.path(), Network::None)).unwrap();
        assert!(prepare(dir.path(), std::iter::empty()).is_err());
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "mine");
    }
}
