//! A terminal of the worker's own: the end that its programs have, and the end that is kept here.

use crate::halt::{CAGE, Halt, Step};
use holdfast_launcher::session::Size;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::{InputModes, OptionalActions, Winsize};
use std::os::fd::{AsFd, OwnedFd};

/// statfs(2), DEVPTS_SUPER_MAGIC.
const DEVPTS: u64 = 0x1cd1;

/// Opens a new one: our end (non-blocking), then the programs'.
pub fn open(size: Size) -> Result<(OwnedFd, OwnedFd), Halt> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let ours = rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty()).step("open a terminal")?;
    // A volume may lie over /dev, and what is found there then is no terminal of this worker's.
    if rustix::fs::fstatfs(&ours).step("open a terminal")?.f_type as u64 != DEVPTS {
        return Err(Halt::new(CAGE, "/dev/pts/ptmx is not the worker's own", Errno::NODEV));
    }
    rustix::pty::unlockpt(&ours).step("unlock the terminal")?;
    // By its number a program could have put something else there (ioctl_tty(2), TIOCGPTPEER).
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags).step("open the terminal's other end")?;
    let mut modes = rustix::termios::tcgetattr(&theirs).step("terminal modes")?;
    // So that erasing takes whole characters.
    modes.input_modes |= InputModes::IUTF8;
    rustix::termios::tcsetattr(&theirs, OptionalActions::Now, &modes).step("terminal modes")?;
    resize(&ours, size).step("terminal size")?;
    Ok((ours, theirs))
}

/// Tells the terminal, and it its programs (SIGWINCH), that it has another size.
pub fn resize(ours: impl AsFd, size: Size) -> rustix::io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(ours, size)
}
