//! Asking again: with the same key, after growing pauses, for so long and no longer.

use super::CallError;
use holdfast_proto::daemon::daemon_client::DaemonClient;
use holdfast_proto::daemon::{ListReply, ListRequest};
use holdfast_proto::key::{KEY_HEADER, Key};
use std::io::{IsTerminal, Write};
use std::time::Duration;
use tokio::time::Instant;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

/// Longest absence of a daemon that a verb sits out.
const AWAY_MAX: Duration = Duration::from_secs(30);
/// First pause before it is looked for again; each is half as long again as the one before.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// An absence that somebody at a terminal notices is explained.
const TELL_AFTER: Duration = Duration::from_secs(1);
/// After so long with a daemon, another absence is one of its own.
const WELL_AFTER: Duration = Duration::from_secs(5);

/// How long a daemon is still waited for.
#[derive(Debug)]
pub struct Patience {
    since: Instant,
    last: Instant,
    pause: Duration,
    told: bool,
}

impl Default for Patience {
    fn default() -> Self {
        let now = Instant::now();
        Self { since: now, last: now, pause: PAUSE_MIN, told: false }
    }
}

impl Patience {
    /// Whether it is looked for any longer.
    pub fn is_left(&self) -> bool {
        self.since.elapsed() < AWAY_MAX
    }

    /// Before each look.
    pub async fn pause(&mut self) {
        if self.last.elapsed() > self.pause + WELL_AFTER {
            *self = Self { told: self.told, ..Self::default() };
        }
        if self.since.elapsed() > TELL_AFTER && !self.told && std::io::stderr().is_terminal() {
            self.told = true;
            let left = AWAY_MAX.as_secs();
            // Nobody is left to tell where stderr is gone.
            let _ = writeln!(std::io::stderr(), "holdfast: the daemon is away; waiting for it, {left} s at most");
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 3 / 2).min(PAUSE_MAX);
        self.last = Instant::now();
    }
}

/// A key for one call.
pub fn key() -> Result<Key, CallError> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits)
        .map_err(|error| CallError::Unusable(format!("the kernel gave no random bytes: {error}")))?;
    Ok(Key::from_random(bits))
}

/// The request with its key.
pub fn keyed<Q>(request: Q, key: Key) -> Request<Q> {
    let mut request = Request::new(request);
    // Hex digits are always a value.
    if let Ok(value) = AsciiMetadataValue::try_from(key.to_string()) {
        request.metadata_mut().insert(KEY_HEADER, value);
    }
    request
}

/// The question with the shortest answer.
pub async fn nothing(mut rpc: DaemonClient<Channel>) -> Result<Response<ListReply>, Status> {
    rpc.list(ListRequest { all: false, filters: vec!["id=0000000000000000".to_owned()] }).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_and_patience_ends() {
        let mut patience = Patience::default();
        let mut looks = 0;
        while patience.is_left() {
            patience.pause().await;
            looks += 1;
        }
        assert!((50..120).contains(&looks), "{looks} looks");
        tokio::time::sleep(WELL_AFTER * 2).await;
        patience.pause().await;
        assert!(patience.is_left(), "a later absence is one of its own");
    }
}
