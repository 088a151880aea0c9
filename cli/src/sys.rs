//! The two system calls of this program that have no safe wrapper.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Marks every descriptor from `first` on to be closed when another program is executed (close_range(2), Linux 5.11).
///
/// # Errors
/// Where the kernel refuses.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: close_range takes three integers and touches no memory of ours; with CLOEXEC it closes nothing here, so
    // that no descriptor that some value owns becomes invalid.
    let outcome = unsafe { libc::close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives the controlling terminal up (tty_ioctl(4), TIOCNOTTY). Reading, writing and its signals go on as before.
///
/// # Errors
/// Where there is none.
pub fn leave_terminal(terminal: impl AsFd) -> io::Result<()> {
    // SAFETY: TIOCNOTTY takes no argument and touches no memory; the descriptor is open for as long as it is borrowed.
    let outcome = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCNOTTY) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
