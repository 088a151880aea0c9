//! Applies a plan: all of it, or nothing.

use super::step::{Host, Interrupted, Step};
use super::undo::Undo;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use std::fmt;

/// A plan that failed, and what became of what it had done.
#[derive(Debug)]
pub struct Failed {
    /// Number of the step, from 1.
    pub number: usize,
    /// What it was to do.
    pub step: String,
    /// Why it failed.
    pub cause: anyhow::Error,
    /// What could not be taken back.
    pub left: Vec<String>,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "step {} failed: {}: {:#}", self.number, self.step, self.cause)?;
        if self.left.is_empty() {
            return f.write_str("Everything was put back: nothing has changed.");
        }
        f.write_str("Not all could be put back. Left over:")?;
        self.left.iter().try_for_each(|left| write!(f, "\n  {left}"))
    }
}

impl std::error::Error for Failed {}

/// Applies the steps in order. If one fails, those before it are taken back in reverse.
/// Signals that would end us in the middle wait until we are done. `tell` hears of each step that changed something.
///
/// # Errors
/// With the step that failed.
pub fn apply(steps: &[Step], host: &Host, tell: &mut dyn FnMut(&Step)) -> Result<(), Failed> {
    let _held = HeldSignals::hold();
    let mut done: Vec<(String, Undo)> = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        match step.apply(host) {
            Ok(Undo::Nothing) => {}
            Ok(undo) => {
                tell(step);
                done.push((step.to_string(), undo));
            }
            Err(error) => {
                let cause = match error.downcast::<Interrupted>() {
                    Ok(Interrupted { undo, cause }) => {
                        done.push((step.to_string(), undo));
                        cause
                    }
                    Err(error) => error,
                };
                let left = revert(done, host);
                return Err(Failed { number: index + 1, step: step.to_string(), cause, left });
            }
        }
    }
    Ok(())
}

/// Applies the steps in order and takes nothing back: there is nothing better to go back to. It goes on after a step
/// that fails, so that as much as can be is as it should.
///
/// # Errors
/// With the first step that failed.
pub fn advance(steps: &[Step], host: &Host, tell: &mut dyn FnMut(&Step)) -> Result<(), Failed> {
    let _held = HeldSignals::hold();
    let mut first = None;
    for (index, step) in steps.iter().enumerate() {
        match step.apply(host) {
            Ok(Undo::Nothing) => {}
            Ok(_) => tell(step),
            Err(cause) => {
                let left = vec!["what the release before had changed".to_owned()];
                first.get_or_insert(Failed { number: index + 1, step: step.to_string(), cause, left });
            }
        }
    }
    first.map_or(Ok(()), Err)
}

/// Takes all back and returns what could not be.
fn revert(done: Vec<(String, Undo)>, host: &Host) -> Vec<String> {
    let (mut left, mut last) = (Vec::new(), Vec::new());
    for (step, undo) in done.into_iter().rev() {
        if let Err(error) = undo.apply(host, &mut last) {
            left.push(format!("{step}: {error:#}"));
        }
    }
    // The first that was restarted is the first to be so again.
    for again in last.iter().rev() {
        if let Err(error) = again.apply(host.commands) {
            left.push(format!("{again:?} as it was: {error:#}"));
        }
    }
    left
}

/// Keeps signals pending that a person or a closing terminal sends, until it is dropped.
pub struct HeldSignals(Option<SigSet>);

impl HeldSignals {
    /// From here on.
    pub fn hold() -> Self {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
            set.add(signal);
        }
        // It fails only for a bad argument; then signals end us as ever.
        Self(set.thread_swap_mask(SigmaskHow::SIG_BLOCK).ok())
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = before.thread_set_mask();
        }
    }
}
