//! What root configured: `/etc/holdfast/update.toml` and the root keys. Only root's files count, and only where nobody
//! else can write them.

use holdfast_proto::layout::Layout;
use holdfast_release::{FileName, Refusal, Roots};
use rustix::fs::{Mode, OFlags};
use serde::Deserialize;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Most bytes of one of these files.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// How to get there, for whoever has not.
const HOW: &str = "put the publisher's root keys into /etc/holdfast/trust/root-*.pem and write /etc/holdfast/update.toml: \
    sources = [\"https://…\"] and channel = \"stable\" (docs/operations.md)";

/// `update.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Base addresses, each asked in this order.
    pub sources: Vec<String>,
    /// Which releases.
    #[serde(default = "stable")]
    pub channel: String,
    /// The only proxy that is used.
    #[serde(default)]
    pub proxy: Option<String>,
}

/// What this host follows, and whom it believes.
#[derive(Debug, Clone)]
pub struct Trust {
    /// Where from.
    pub config: Config,
    /// Whose word counts.
    pub roots: Roots,
}

fn stable() -> String {
    "stable".to_owned()
}

impl Config {
    /// Reads the file's text.
    ///
    /// # Errors
    /// Where it is not understood, or names nothing that can be asked.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let unsafe_config = |why: String| Refusal::UnsafeConfig(format!("/etc/holdfast/update.toml: {why}"));
        let config: Self = toml::from_str(text).map_err(|error| unsafe_config(error.message().to_owned()))?;
        if config.sources.is_empty() {
            return Err(unsafe_config("sources is empty".to_owned()));
        }
        if let Some(source) = config.sources.iter().find(|source| !is_address(source)) {
            return Err(unsafe_config(format!("{source:?} is no address of https://, http:// or file:///")));
        }
        if config.channel.parse::<FileName>().is_err() {
            return Err(unsafe_config(format!("{:?} is no name of a channel", config.channel)));
        }
        Ok(config)
    }
}

fn is_address(source: &str) -> bool {
    let plain = source.bytes().all(|byte| byte.is_ascii_graphic());
    let known = ["https://", "http://", "file:///"]
        .iter()
        .any(|scheme| source.len() > scheme.len() && source.starts_with(scheme));
    plain && known && !source.contains(['?', '#'])
}

/// Reads both. `root_uid` is 0; a test's own below a root of its own.
///
/// # Errors
/// Where there is no trust, or others than root could have written it.
pub fn read(layout: &Layout, root_uid: u32) -> Result<Trust, Refusal> {
    let config = layout.config();
    let trust = config.join("trust");
    if !trust.exists() {
        return Err(Refusal::NoTrust(HOW));
    }
    check_owner(&config, root_uid)?;
    check_owner(&trust, root_uid)?;
    let mut names = Vec::new();
    for entry in fs::read_dir(&trust).map_err(|source| io(&trust, source))? {
        let name = entry.map_err(|source| io(&trust, source))?.file_name().to_string_lossy().into_owned();
        if name.starts_with("root-") && name.ends_with(".pem") {
            names.push(name);
        }
    }
    names.sort();
    let mut keys = Vec::new();
    for name in names {
        let text = read_file(&trust.join(&name), root_uid)?;
        keys.push((name, text));
    }
    if keys.is_empty() {
        return Err(Refusal::NoTrust(HOW));
    }
    let roots = Roots::parse(&keys)?;
    let path = config.join("update.toml");
    if !path.exists() {
        return Err(Refusal::UnsafeConfig(format!("there is no {}: {HOW}", path.display())));
    }
    Ok(Trust { config: Config::parse(&read_file(&path, root_uid)?)?, roots })
}

fn read_file(path: &Path, root_uid: u32) -> Result<String, Refusal> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| io(path, errno.into()))?;
    let file = File::from(file);
    let about = file.metadata().map_err(|source| io(path, source))?;
    if !about.is_file() {
        return Err(Refusal::UnsafeConfig(format!("{} is not a regular file", path.display())));
    }
    judge_owner(path, about.uid(), about.mode(), root_uid)?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(|source| io(path, source))?;
    Ok(text)
}

fn check_owner(directory: &Path, root_uid: u32) -> Result<(), Refusal> {
    let about = fs::symlink_metadata(directory).map_err(|source| io(directory, source))?;
    if !about.is_dir() {
        return Err(Refusal::UnsafeConfig(format!("{} is not a directory", directory.display())));
    }
    judge_owner(directory, about.uid(), about.mode(), root_uid)
}

fn judge_owner(path: &Path, uid: u32, mode: u32, root_uid: u32) -> Result<(), Refusal> {
    let path = path.display();
    if uid != root_uid {
        return Err(Refusal::UnsafeConfig(format!("{path} belongs to uid {uid}; it must be root's")));
    }
    if mode & 0o022 != 0 {
        return Err(Refusal::UnsafeConfig(format!("others may write to {path} (mode {:04o})", mode & 0o7777)));
    }
    Ok(())
}

fn io(path: &Path, source: std::io::Error) -> Refusal {
    Refusal::Io { what: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn sources_are_addresses_and_channels_are_names() {
        let good = Config::parse("sources = [\"https://a/b\", \"file:///srv/m\"]\n").unwrap();
        assert_eq!((good.channel.as_str(), good.sources.len(), good.proxy), ("stable", 2, None));
        for bad in [
            "",
            "sources = []",
            "sources = [\"ftp://a\"]",
            "sources = [\"file://relative\"]",
            "sources = [\"https://a b\"]",
            "sources = [\"https://a?b\"]",
            "sources = [\"https://\"]",
            "sources = [\"https://a\"]\nchannel = \"../x\"",
            "sources = [\"https://a\"]\nkey = \"x\"",
        ] {
            assert_eq!(Config::parse(bad).unwrap_err().name(), "unsafe-config", "{bad}");
        }
    }

    #[test]
    fn only_files_that_nobody_else_can_write_are_believed() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::below(root.path());
        let me = nix::unistd::Uid::effective().as_raw();
        let name = |result: Result<Trust, Refusal>| result.unwrap_err().name();
        assert_eq!(name(read(&layout, me)), "no-trust");
        fs::create_dir_all(layout.config().join("trust")).unwrap();
        for directory in [layout.config(), layout.config().join("trust")] {
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
        }
        assert_eq!(name(read(&layout, me)), "no-trust");
        let key = holdfast_release::PrivateKey::generate().unwrap().public().unwrap().pem();
        let (pem, toml) = (layout.config().join("trust/root-1.pem"), layout.config().join("update.toml"));
        let write = |path: &Path, text: &str, mode: u32| {
            fs::write(path, text).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        write(&pem, &key, 0o644);
        assert_eq!(name(read(&layout, me)), "unsafe-config");
        write(&toml, "sources = [\"https://a\"]", 0o644);
        assert!(read(&layout, me).is_ok());
        assert_eq!(name(read(&layout, me + 1)), "unsafe-config");
        for (path, mode) in
            [(&pem, 0o664), (&toml, 0o646), (&layout.config(), 0o777), (&layout.config().join("trust"), 0o775)]
        {
            let before = fs::metadata(path).unwrap().permissions();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(name(read(&layout, me)), "unsafe-config", "{} {mode:o}", path.display());
            fs::set_permissions(path, before).unwrap();
        }
        fs::rename(&pem, root.path().join("key")).unwrap();
        std::os::unix::fs::symlink(root.path().join("key"), &pem).unwrap();
        assert!(read(&layout, me).is_err(), "a link was followed");
    }
}
