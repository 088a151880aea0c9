//! Streams of the contract: a run from its beginning to its end, and output as it is kept.

use super::Events;
use crate::follow::Follow;
use crate::output::{Piece, Reader};
use crate::supervisor::{Created, Entry, Shared};
use holdfast_launcher::output::Stream as Origin;
use holdfast_proto::daemon::run_event::Event;
use holdfast_proto::daemon::*;
use holdfast_proto::problem::{Problem, Reason};
use tonic::Status;

/// The caller of a stream has gone.
pub struct Hangup;

/// One event to a caller.
pub async fn tell<T>(events: &Events<T>, event: T) -> Result<(), Hangup> {
    events.send(Ok(event)).await.map_err(|_| Hangup)
}

/// A run: the worker on record, executed, and with `attach` its output and its end.
pub async fn run(shared: &Shared, created: Created, attach: bool, events: &Events<RunEvent>) -> Result<(), Hangup> {
    let run = |event| RunEvent { event: Some(event) };
    let (entry, _watch, started) = match created {
        Created::Now { entry, watch, started } => {
            tell(events, run(Event::Created(entry.view().worker))).await?;
            let ended = |_| Err(Problem::new(Reason::Internal, "the worker's loop has ended"));
            (entry, watch, started.await.unwrap_or_else(ended))
        }
        Created::Before { entry, watch } => {
            tell(events, run(Event::Existing(entry.view().worker))).await?;
            let started = entry.settled().await;
            (entry, watch, started)
        }
    };
    match started {
        Ok(worker) => tell(events, run(Event::Started(worker))).await?,
        Err(problem) => return events.send(Err(problem.into())).await.map_err(|_| Hangup),
    }
    if attach {
        let dir = shared.log_dir(entry.id);
        let follow = (&entry, shared.changes.follow(&dir));
        output(Reader::from_start(&dir), Some(follow), events, |output| run(Event::Output(output))).await?;
        tell(events, run(Event::Exited(entry.ended().await))).await?;
    }
    Ok(())
}

/// Output as it is kept; with `follow`, on until that worker is not live.
pub async fn output<T>(
    mut reader: Reader,
    follow: Option<(&Entry, Follow)>,
    events: &Events<T>,
    event: impl Fn(Output) -> T,
) -> Result<(), Hangup> {
    let mut ended = follow.is_none();
    loop {
        let next = follow.as_ref().and_then(|(_, changes)| changes.next());
        let pieces = match reader.read() {
            Ok(pieces) => pieces,
            Err(error) => return events.send(Err(unreadable(error))).await.map_err(|_| Hangup),
        };
        if pieces.is_empty() {
            // Read once more after the end: the shim wrote everything before it said so.
            let (false, Some((entry, changes))) = (ended, &follow) else { return Ok(()) };
            tokio::select! {
                () = changes.changed(next) => {}
                _ = entry.ended() => ended = true,
                () = events.closed() => return Err(Hangup),
            }
        }
        for piece in pieces {
            tell(events, event(output_of(piece))).await?;
        }
    }
}

fn output_of(piece: Piece) -> Output {
    match piece {
        Piece::Bytes { stream, time_ns, bytes } => {
            let stream = match stream {
                Origin::Gap => 0,
                Origin::Stdout => 1,
                Origin::Stderr => 2,
            };
            Output { stream, bytes, time: time_ns, dropped: 0 }
        }
        Piece::Missing(dropped) => Output { stream: 0, bytes: Vec::new(), time: 0, dropped },
    }
}

/// A log that cannot be read, on the wire.
pub fn unreadable(error: std::io::Error) -> Status {
    Problem::new(Reason::Internal, format!("the worker's output cannot be read: {error}")).into()
}
