//! Where a daemon may listen, in the order of the contract ("Session mode"), and what to do where none does.

use crate::caller::Caller;
use holdfast_proto::layout::Layout;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Directory of sessions that root started, where $HOLDFAST_SESSION names no other.
const SESSION_OF_ROOT: &str = "/run/holdfast-session";

/// A socket that may be the daemon's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The socket.
    pub path: PathBuf,
    /// Why it is one.
    pub origin: Origin,
}

/// Why a socket may be the daemon's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// $HOLDFAST_SOCKET names it.
    Named,
    /// The installed system's.
    Installed,
    /// A session's.
    Session,
}

/// The environment's say in where things are.
#[derive(Debug, Default, Clone)]
struct Places {
    socket: Option<PathBuf>,
    session: Option<PathBuf>,
    runtime: Option<PathBuf>,
}

impl Places {
    fn of_process() -> Self {
        let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self { socket: path("HOLDFAST_SOCKET"), session: path("HOLDFAST_SESSION"), runtime: path("XDG_RUNTIME_DIR") }
    }
}

/// The sockets to try for `caller`, best first.
pub fn sockets(caller: &Caller) -> Vec<Candidate> {
    candidates(caller, &Places::of_process())
}

/// The directory of the session that whoever runs this program would start; none where an ordinary user has neither
/// $HOLDFAST_SESSION nor $XDG_RUNTIME_DIR.
pub fn session_root(is_root: bool) -> Option<PathBuf> {
    let places = Places::of_process();
    places.session.or_else(|| match is_root {
        true => Some(PathBuf::from(SESSION_OF_ROOT)),
        false => places.runtime.map(|runtime| runtime.join("holdfast")),
    })
}

fn candidates(caller: &Caller, places: &Places) -> Vec<Candidate> {
    if let Some(path) = &places.socket {
        return vec![Candidate { path: path.clone(), origin: Origin::Named }];
    }
    let below = |root: &Path| Layout::below(root).daemon_socket(&caller.owner);
    let mut all = vec![Candidate { path: Layout::system().daemon_socket(&caller.owner), origin: Origin::Installed }];
    let mut session = |root: &Path| all.push(Candidate { path: below(root), origin: Origin::Session });
    if let Some(root) = &places.session {
        session(root);
    } else {
        session(Path::new(SESSION_OF_ROOT));
        if let (Some(runtime), false) = (&places.runtime, caller.is_root) {
            session(&runtime.join("holdfast"));
        }
    }
    all
}

/// What to do where no daemon listens: `dead` is the first socket that was there and took no connection.
pub fn what_to_do(caller: &Caller, dead: Option<(&Candidate, std::io::Error)>) -> String {
    let owner = &caller.owner;
    let installed = Layout::system().install_toml().exists();
    match dead {
        Some((candidate, error)) => {
            let path = candidate.path.display();
            let cure = match candidate.origin {
                Origin::Named => "$HOLDFAST_SOCKET names it; unset it, or start what should listen there".to_owned(),
                Origin::Installed => format!("look with `systemctl status holdfastd@{owner}.socket holdfastd@{owner}`"),
                Origin::Session => {
                    "look with `holdfast session status`, and start it with `holdfast session start`".to_owned()
                }
            };
            match error.kind() {
                ErrorKind::NotFound => format!("no daemon answers: there is no {path}; {cure}"),
                _ => format!("no daemon answers at {path} ({error}); {cure}"),
            }
        }
        None if installed && Layout::system().owner_run(owner).exists() => format!(
            "no daemon answers: Holdfast is installed, but {} is missing; look with `systemctl status holdfastd@{owner}.socket`",
            Layout::system().daemon_socket(owner).display()
        ),
        None if installed => format!(
            "no daemon answers: Holdfast is installed, but {owner} is not an owner; \
             root can change that with `sudo holdfast system install --owner {owner}`"
        ),
        None => format!(
            "no daemon answers: Holdfast is not installed and no session runs; \
             install it with `sudo holdfast system install --owner {owner}`, \
             or try it without installing with `sudo holdfast session start --owner {owner}`"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice(is_root: bool) -> Caller {
        Caller { owner: "alice".parse().unwrap(), uid: 1000, gid: 1000, is_root }
    }

    fn paths(caller: &Caller, places: &Places) -> Vec<String> {
        candidates(caller, places).iter().map(|candidate| candidate.path.display().to_string()).collect()
    }

    #[test]
    fn a_named_socket_is_the_only_one() {
        let places = Places { socket: Some("/x/y.sock".into()), session: Some("/s".into()), runtime: None };
        assert_eq!(paths(&alice(false), &places), ["/x/y.sock"]);
    }

    #[test]
    fn the_installed_system_comes_before_sessions() {
        let runtime = Places { runtime: Some("/run/user/1000".into()), ..Places::default() };
        let installed = "/run/holdfast/owners/alice/daemon.sock";
        let of_root = "/run/holdfast-session/run/holdfast/owners/alice/daemon.sock";
        let own = "/run/user/1000/holdfast/run/holdfast/owners/alice/daemon.sock";
        assert_eq!(paths(&alice(false), &runtime), [installed, of_root, own]);
        assert_eq!(paths(&alice(true), &runtime), [installed, of_root], "root does not look into a user's session");
        let session = Places { session: Some("/s".into()), ..runtime };
        assert_eq!(paths(&alice(false), &session), [installed, "/s/run/holdfast/owners/alice/daemon.sock"]);
    }
}
