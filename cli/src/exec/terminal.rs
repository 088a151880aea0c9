//! The terminal that somebody sits at: raw while a program has it, and as it was before on every way out.

use crate::exit::Stop;
use holdfast_proto::daemon::TerminalSize;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::sync::{Mutex, Once, PoisonError};

/// As it was; here, so that a panic finds it (it ends the process without unwinding).
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// A terminal in raw mode; dropped, it is as it was.
pub struct RawTerminal(());

impl RawTerminal {
    /// Takes every key as it is, Ctrl-C too.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn enter() -> std::io::Result<Self> {
        static HOOK: Once = Once::new();
        let before = tcgetattr(rustix::stdio::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        HOOK.call_once(|| {
            let next = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                next(panic);
            }));
        });
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &raw)?;
        Ok(Self(()))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if let Ok(mut saved) = SAVED.try_lock()
        && let Some(before) = saved.take()
    {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &before);
    }
}

/// Somebody sits at both ends.
///
/// # Errors
/// Where standard input or output is no terminal.
pub fn require(verb: &str) -> Result<(), Stop> {
    for (fd, name) in [(rustix::stdio::stdin(), "input"), (rustix::stdio::stdout(), "output")] {
        if !isatty(fd) {
            let text =
                format!("-t needs a terminal, and standard {name} is none: leave -t out (holdfast {verb} -i ...)");
            return Err(Stop::usage(text));
        }
    }
    Ok(())
}

/// How large it is now; as terminals once were, where it does not say.
pub fn size() -> TerminalSize {
    let size = tcgetwinsize(rustix::stdio::stdout()).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0);
    let (rows, columns) = size.map_or((24, 80), |size| (size.ws_row, size.ws_col));
    TerminalSize { rows: rows.into(), columns: columns.into() }
}
