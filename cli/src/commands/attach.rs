//! `holdfast attach`.

use crate::args::exec::AttachArgs;
use crate::attach;
use crate::caller::Caller;
use crate::client::{self, ANSWER_MAX, answer, present};
use crate::exec::own::Seat;
use crate::exit::Stop;
use holdfast_proto::daemon::{InspectRequest, Phase};
use std::process::ExitCode;

/// Sits down at a worker that runs: its output from now on, and its input where it has one.
///
/// # Errors
/// Where there is no such worker, it is not live, or no daemon answers.
pub fn run(args: &AttachArgs, caller: &Caller) -> anyhow::Result<ExitCode> {
    client::with_daemon(caller, async |mut daemon| {
        let request = InspectRequest { worker: args.worker.clone() };
        let found = answer(ANSWER_MAX, daemon.rpc.inspect(request)).await?;
        let (worker, spec) = (present(found.worker.clone())?, present(found.spec)?);
        if worker.pid == 0 {
            let phase = Phase::try_from(worker.phase).unwrap_or(Phase::Unspecified).as_str_name();
            let phase = phase.trim_start_matches("PHASE_").to_lowercase();
            return Err(Stop::refused(format!(
                "worker {} is {phase}: only one that lives has somebody to attach to",
                worker.name
            ))
            .into());
        }
        let seat = if args.no_stdin { Seat::None } else { Seat::of(spec.stdin, spec.terminal) };
        attach::require(seat, "attach", caller)?;
        attach::again(daemon, worker, found.log_bytes, seat, caller).await.map(ExitCode::from)
    })
}
