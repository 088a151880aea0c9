//! Words to systemd (sd_notify(3)) that never make the sender wait: while systemd is away (a re-execution)
//! its queue fills, and calls must be answered all the same. READY=1 alone is worth waiting for.

use sd_notify::NotifyState;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Says that this process serves. Waits until systemd has it.
pub fn ready() {
    if let Err(error) = sd_notify::notify(&[NotifyState::Ready]) {
        tracing::warn!(%error, "systemd could not be told that this serves");
    }
}

/// Says one word, or drops it where there is no room.
pub fn say(word: NotifyState<'_>) {
    if let Err(error) = try_say(&word.to_string()) {
        tracing::warn!(%error, "systemd was not told {word}");
    }
}

fn try_say(word: &str) -> std::io::Result<()> {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(word.as_bytes(), &address).map(drop)
}
