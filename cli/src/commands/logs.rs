//! `holdfast logs`.

use crate::args::LogsArgs;
use crate::caller::Caller;
use crate::client::{self, ANSWER_MAX, CallError, Daemon, answer};
use crate::sink::{self, Cursor};
use holdfast_proto::daemon::LogsRequest;
use std::process::ExitCode;

/// Shows what a worker wrote: stdout to stdout, stderr to stderr.
///
/// With `--follow`, a daemon that goes away is waited for, and the reading goes on where it broke off.
///
/// # Errors
/// Where there is no such worker, no daemon answers, or output cannot be written.
pub fn run(args: &LogsArgs, caller: &Caller) -> anyhow::Result<ExitCode> {
    client::with_daemon(caller, async |daemon| {
        let mut reading = Reading { daemon, cursor: Cursor::default(), last_time: None };
        loop {
            let request = reading.request(args);
            match reading.read(request).await {
                Err(error) if args.follow && is_lost(&error) => reading.daemon = reading.daemon.again().await?,
                outcome => return outcome.map(|()| ExitCode::SUCCESS),
            }
        }
    })
}

fn is_lost(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<CallError>(), Some(CallError::Lost))
}

struct Reading {
    daemon: Daemon,
    cursor: Cursor,
    /// With `--tail`, what came before is unknown: a second reading goes by the time of the last piece.
    last_time: Option<i64>,
}

impl Reading {
    /// The first time what was asked for; later everything, since only that has a known beginning.
    fn request(&mut self, args: &LogsArgs) -> LogsRequest {
        self.cursor.rewind();
        let tail_lines = args.tail.filter(|_| self.last_time.is_none());
        LogsRequest { worker: args.worker.clone(), follow: args.follow, tail_lines }
    }

    async fn read(&mut self, request: LogsRequest) -> anyhow::Result<()> {
        let (tail, by_time) = (request.tail_lines.is_some(), self.last_time);
        let mut events = answer(ANSWER_MAX, self.daemon.rpc.logs(request)).await?;
        while let Some(event) = events.message().await.map_err(CallError::from)? {
            let Some(piece) = event.output else { continue };
            let time = piece.time;
            if tail || by_time.is_some() {
                if by_time.is_some_and(|last| time <= last) {
                    continue;
                }
                self.last_time = Some(time);
                sink::write(&piece, true)?;
            } else if let Some(piece) = self.cursor.advance(piece) {
                sink::write(&piece, true)?;
            }
        }
        Ok(())
    }
}
