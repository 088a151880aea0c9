//! Words to systemd: ready, who the main process is, and alive for as long as a call over our own socket is answered.
//!
//! Where systemd listens comes with the environment, or from the daemon that this one succeeds; so it is a value here.

use holdfast_proto::daemon::{ListReply, ListRequest};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;
use tonic::transport::Endpoint;

/// How long a self-call may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const LIST: &str = "/holdfast.daemon.v1.Daemon/List";

/// The service manager, if there is one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Systemd {
    /// Its socket, as $NOTIFY_SOCKET has it; empty: none.
    pub socket: String,
    /// How often it wants to hear, at least.
    pub watchdog: Option<Duration>,
}

impl Systemd {
    /// Says that this daemon serves. Nobody listening is no error.
    pub fn ready(&self, live: usize) {
        self.say(&format!("READY=1\nSTATUS={live} workers live"));
    }

    /// Feeds the watchdog once, before something that takes a while.
    pub fn alive(&self) {
        self.say("WATCHDOG=1");
    }

    /// Says that it ends.
    pub fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// Says that from now on another process of the unit is the main one.
    pub fn main_is(&self, pid: u32) {
        self.say(&format!("MAINPID={pid}"));
    }

    /// Feeds the watchdog, where there is one, at half its time, each time after a call that went through our own
    /// socket, service and runtime. Never ends.
    pub async fn feed_watchdog(&self, socket: &Path) {
        let Some(limit) = self.watchdog else { return std::future::pending().await };
        loop {
            match tokio::time::timeout(ANSWER_WITHIN.min(limit / 2), call(socket)).await {
                Ok(Ok(())) => self.alive(),
                Ok(Err(error)) => tracing::error!(error = &*error, "the self-call failed; the watchdog is not fed"),
                Err(_) => tracing::error!("the self-call took too long; the watchdog is not fed"),
            }
            tokio::time::sleep(limit / 2).await;
        }
    }

    fn say(&self, words: &str) {
        if self.socket.is_empty() {
            return;
        }
        let address = match self.socket.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(&self.socket),
        };
        let said = address.and_then(|to| UnixDatagram::unbound()?.send_to_addr(words.as_bytes(), &to));
        if let Err(error) = said {
            tracing::warn!(%error, "systemd could not be told");
        }
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
