//! Who is asking, and whose workers are meant.

use crate::exit::Stop;
use holdfast_proto::words::OwnerName;
use nix::unistd::{Gid, Uid, User};

/// The owner whose workers are meant, and the identity that may ask for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The owner's login name.
    pub owner: OwnerName,
    /// The owner's uid: what every call is made as.
    pub uid: u32,
    /// The owner's primary group.
    pub gid: u32,
    /// Root asks in the owner's name.
    pub is_root: bool,
}

impl Caller {
    /// Whoever runs this program, for worker verbs: root has to name an owner, others are their own.
    ///
    /// # Errors
    /// Where root names nobody, an unknown account or root; where another names somebody else.
    pub fn of_process(owner: Option<&str>) -> anyhow::Result<Self> {
        let uid = Uid::effective();
        let me = User::from_uid(uid)?;
        if uid.is_root() {
            let owner = owner.ok_or_else(|| Stop::usage("root has no workers: say whose with --owner USER"))?;
            return Self::by_name(owner, true);
        }
        let me = me.ok_or_else(|| Stop::refused(format!("uid {uid} has no login name, so it cannot own workers")))?;
        if let Some(other) = owner.map(without_blanks).filter(|other| *other != me.name) {
            let text = format!("--owner {other:?} was given, but you are {}: only root may ask for others", me.name);
            return Err(Stop::refused(text).into());
        }
        Self::from_account(&me, false)
    }

    /// An owner by login name.
    ///
    /// # Errors
    /// Where there is no such account, or it is root's.
    pub fn by_name(name: &str, is_root: bool) -> anyhow::Result<Self> {
        let name = without_blanks(name);
        let user = User::from_name(name)?.ok_or_else(|| {
            Stop::usage(format!("--owner {name:?}: there is no such account; name one that exists (getent passwd)"))
        })?;
        Self::from_account(&user, is_root)
    }

    fn from_account(user: &User, is_root: bool) -> anyhow::Result<Self> {
        if user.uid.is_root() {
            let text = "root cannot own workers: name the ordinary account that does with --owner USER";
            return Err(Stop::refused(text).into());
        }
        let owner = user.name.parse::<OwnerName>().map_err(|error| Stop::refused(error.to_string()))?;
        Ok(Self { owner, uid: user.uid.as_raw(), gid: user.gid.as_raw(), is_root })
    }

    /// Gives root's rights up for the owner's, for good: from here on this process is only the owner
    /// (a daemon that an owner has bent is not heard by root; threat T10).
    ///
    /// # Errors
    /// Where the kernel refuses, or anything of root is left.
    pub fn become_owner(&self) -> anyhow::Result<()> {
        if !self.is_root {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        nix::unistd::setgroups(&[gid])?;
        nix::unistd::setresgid(gid, gid, gid)?;
        nix::unistd::setresuid(uid, uid, uid)?;
        let left = nix::unistd::getresuid()?;
        anyhow::ensure!(
            left.real == uid
                && left.effective == uid
                && left.saved == uid
                && nix::unistd::setuid(Uid::from_raw(0)).is_err(),
            "root's rights could not be given up"
        );
        leave_terminal();
        // The daemon looks at the namespaces of who calls (threat T34), which the kernel allows for dumpable ones
        // alone. It lets the owner trace this process too, which holds nothing of root's any more.
        nix::sys::prctl::set_dumpable(true)?;
        Ok(())
    }
}

/// A login name as somebody typed it, without the blanks around it. Blanks alone: a name with a line break at its end is
/// not the name that was meant, and is judged as it is (threat T59).
pub fn without_blanks(name: &str) -> &str {
    name.trim_matches([' ', '\t'])
}

/// Without a controlling terminal, whoever takes this process over can type nothing into root's (TIOCSTI).
fn leave_terminal() {
    let leads = nix::unistd::getsid(None) == Ok(nix::unistd::getpid());
    // A leader would take the terminal from its whole session; it is root's own shell, not somebody's command.
    if !leads && let Ok(terminal) = std::fs::File::open("/dev/tty") {
        // Where there is none, there is none to leave.
        let _ = crate::sys::leave_terminal(&terminal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_around_a_name_are_not_of_it_and_nothing_else_is_taken_off() {
        for typed in ["alice", " alice", "alice ", "\t alice \t"] {
            assert_eq!(without_blanks(typed), "alice");
        }
        for other in ["alice\n", "\ralice", "\u{a0}alice", "alice\u{2003}", "al ice", "alice\0", "alice\u{b}"] {
            assert_eq!(without_blanks(other), other);
        }
    }
}
