//! Exit codes of the contract ("Verbs"), and the one place where an error becomes one.

use std::io::ErrorKind;
use std::process::ExitCode;

/// Something failed; the reason is on stderr.
pub const FAILED: u8 = 1;

/// Says what went wrong on stderr and chooses the exit code.
///
/// A reader that went away (`ps | head`) is not a failure worth a word.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    anstream::eprintln!("holdfast: {error:#}");
    ExitCode::from(FAILED)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == ErrorKind::BrokenPipe)
}
