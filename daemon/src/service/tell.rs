//! Streams of the contract: output as it is kept.

use super::Events;
use crate::follow::Follow;
use crate::output::{Piece, Reader};
use crate::supervisor::{Entry, now};
use holdfast_launcher::output::Stream as Origin;
use holdfast_proto::daemon::*;
use holdfast_proto::problem::{Problem, Reason};
use std::time::Duration;
use tonic::Status;

/// The caller of a stream has gone.
pub struct Hangup;

/// One event to a caller.
pub async fn tell<T>(events: &Events<T>, event: T) -> Result<(), Hangup> {
    events.send(Ok(event)).await.map_err(|_| Hangup)
}

/// Of which time output is wanted, in ns since the Unix epoch; 0: all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Span {
    /// Not before it.
    pub since: i64,
    /// Before it.
    pub until: i64,
}

impl Span {
    fn is_over(self, moment: i64) -> bool {
        self.until != 0 && moment >= self.until
    }

    /// What is missing has no time: it is told between pieces that are wanted.
    fn admits(self, piece: &Piece, began: bool) -> bool {
        match piece {
            Piece::Bytes { time_ns, .. } => *time_ns >= self.since,
            Piece::Missing { .. } => self.since == 0 || began,
        }
    }
}

/// Output as it is kept; with `follow`, on until that worker is not live.
pub async fn output<T>(
    mut reader: Reader,
    span: Span,
    follow: Option<(&Entry, Follow)>,
    events: &Events<T>,
    event: impl Fn(Output) -> T,
) -> Result<(), Hangup> {
    let (mut ended, mut began) = (follow.is_none(), false);
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
                () = until(Some(span.until).filter(|until| *until != 0)) => return Ok(()),
            }
        }
        for piece in pieces {
            if matches!(&piece, Piece::Bytes { time_ns, .. } if span.is_over(*time_ns)) {
                return Ok(());
            }
            if span.admits(&piece, began) {
                began = true;
                tell(events, event(output_of(piece))).await?;
            }
        }
        // Many blocks may be passed over: by turns with other calls.
        tokio::task::yield_now().await;
    }
}

fn output_of(piece: Piece) -> Output {
    match piece {
        Piece::Bytes { stream, time_ns, position, bytes } => {
            let stream = match stream {
                Origin::Gap => 0,
                Origin::Stdout => 1,
                Origin::Stderr => 2,
            };
            Output { stream, bytes, time: time_ns, dropped: 0, position }
        }
        Piece::Missing { position, bytes } => Output { dropped: bytes, position, ..Output::default() },
    }
}

/// A log that cannot be read, on the wire.
pub fn unreadable(error: std::io::Error) -> Status {
    Problem::new(Reason::Internal, format!("the worker's output cannot be read: {error}")).into()
}

/// Waits for a moment of the host's clock; for ever where there is none.
pub async fn until(moment_ns: Option<i64>) {
    let Some(moment_ns) = moment_ns else { return std::future::pending().await };
    let left = u64::try_from(moment_ns.saturating_sub(now().0)).unwrap_or(0);
    tokio::time::sleep(Duration::from_nanos(left)).await;
}
