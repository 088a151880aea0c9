//! Words to systemd: ready, and alive for as long as a call over our own socket is answered.

use holdfast_proto::daemon::{ListReply, ListRequest};
use sd_notify::NotifyState;
use std::path::Path;
use std::time::Duration;
use tonic::transport::Endpoint;

/// How long a self-call may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const LIST: &str = "/holdfast.daemon.v1.Daemon/List";

/// Says that this daemon serves. Nobody listening is no error.
pub fn ready(live: usize) {
    say(&[NotifyState::Ready, NotifyState::Status(&format!("{live} workers live"))]);
}

/// Says that it ends.
pub fn stopping() {
    say(&[NotifyState::Stopping]);
}

/// Feeds the watchdog, where there is one, at half its time, each time after a call that went through our own
/// socket, service and runtime. Never ends.
pub async fn feed_watchdog(socket: &Path) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    loop {
        match tokio::time::timeout(ANSWER_WITHIN.min(limit / 2), call(socket)).await {
            Ok(Ok(())) => say(&[NotifyState::Watchdog]),
            Ok(Err(error)) => tracing::error!(error = &*error, "the self-call failed; the watchdog is not fed"),
            Err(_) => tracing::error!("the self-call took too long; the watchdog is not fed"),
        }
        tokio::time::sleep(limit / 2).await;
    }
}

async fn call(socket: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let channel = Endpoint::from_shared(format!("unix://{}", socket.display()))?.connect().await?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await?;
    let codec = tonic_prost::ProstCodec::<ListRequest, ListReply>::default();
    client.unary(tonic::Request::new(ListRequest::default()), LIST.parse()?, codec).await?;
    Ok(())
}

fn say(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd could not be told");
    }
}
