//! Puts the parts together and serves until it is told to end.

use crate::StartError;
use crate::confine::Standing;
use crate::launch::Helper;
use crate::ledger::Ledger;
use crate::net::rules_watch;
use crate::net::watch::{self, Event, Watch};
use crate::net::{Kernel, Net};
use crate::netns;
use crate::notify;
use crate::peer::Callers;
use crate::rules_file::RulesFile;
use crate::service::Service;
use crate::sockets::Listeners;
use holdfast_proto::MESSAGE_BYTES_MAX;
use holdfast_proto::helper::helper_server::HelperServer;
use rustix::fd::OwnedFd;
use sd_notify::NotifyState;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

/// Calls of one connection at once.
const CALLS_PER_CONNECTION_MAX: usize = 64;
/// Streams of one connection at once, as HTTP/2 tells the other side.
const STREAMS_PER_CONNECTION_MAX: u32 = 128;
/// Longest time of one call: a launch with all its waits, or a fence.
const CALL_SECS_MAX: u64 = 60;
/// How long calls may go on after SIGTERM. A connection that never spoke would keep the server for ever.
const DRAIN: Duration = Duration::from_secs(5);
/// Longest answer of the self-check before the watchdog is left unfed.
const SELF_CHECK: Duration = Duration::from_secs(5);

/// Everything opened: what comes after needs no new thread and no new netlink socket.
pub struct Prepared {
    runtime: tokio::runtime::Runtime,
    helper: Arc<Helper>,
    watch: Option<OwnedFd>,
    rules_watch: Option<OwnedFd>,
    listeners: Listeners,
    signals: (Signal, Signal, Signal),
}

impl Prepared {
    /// Opens the network, takes stock of it, and makes the runtime.
    pub fn new(standing: Standing, rules: RulesFile, listeners: Listeners) -> Result<Self, StartError> {
        let step = |step| move |source| StartError::Step { step, source };
        let mut ledger = Ledger::default();
        let (mut net, mut watch, mut rules_watch) = (None, None, None);
        if standing == Standing::Capable {
            // Before the census, so that nothing that vanishes in between is missed.
            watch = Some(watch::open()?);
            let mut kernel = Kernel::open()?;
            for attachment in kernel.take_stock()? {
                let start = attachment.start;
                ledger.enter(attachment);
                ledger.link(start);
            }
            for link in kernel.on_wires()? {
                let start = link.start;
                ledger.enter_lan(link);
                ledger.link_lan(start);
            }
            if !kernel.owns_rules {
                tracing::info!("this kernel has no tables that others cannot flush: the ruleset is watched");
                rules_watch = Some(rules_watch::open()?);
            }
            ledger.learn_host6(kernel.host6()?);
            net = Some(Net::start(kernel).map_err(step("start the network thread"))?);
        }
        let host_netns = netns::own().map_err(step("look at the own network namespace"))?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(step("make the runtime"))?;
        let signals = runtime.block_on(async {
            Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?))
        });
        let signals = signals.map_err(step("watch for signals"))?;
        let helper = Arc::new(Helper::new(rules, ledger, net, host_netns));
        Ok(Self { runtime, helper, watch, rules_watch, listeners, signals })
    }

    /// Serves until SIGTERM or SIGINT, then lets calls under way end.
    pub fn run(self) -> Result<(), StartError> {
        let Self { runtime, helper, watch, rules_watch, listeners, signals } = self;
        let step = |step| move |source| StartError::Step { step, source };
        runtime.block_on(async move {
            let launchers =
                crate::sys::register(listeners.launchers, Interest::READABLE).map_err(step("listen for launchers"))?;
            let accepting = Arc::clone(&helper);
            tokio::spawn(Arc::clone(&helper.launchers).accept(launchers, move |uid| accepting.is_owner(uid)));
            if let Some(socket) = watch {
                let watch = Watch::new(socket).map_err(step("listen to the kernel"))?;
                tokio::spawn(follow(Arc::clone(&helper), watch));
            }
            if let Some(socket) = rules_watch {
                let watch = Watch::new(socket).map_err(step("listen to the ruleset"))?;
                tokio::spawn(follow_rules(Arc::clone(&helper), watch));
            }
            tokio::spawn(feed_watchdog(Arc::clone(&helper)));
            let calls = UnixListener::from_std(listeners.calls.into()).map_err(step("listen for calls"))?;
            serve_calls(helper, calls, signals).await
        })
    }
}

async fn serve_calls(
    helper: Arc<Helper>,
    calls: UnixListener,
    (mut terminate, mut interrupt, hangup): (Signal, Signal, Signal),
) -> Result<(), StartError> {
    tokio::spawn(read_rules_on_hangup(Arc::clone(&helper), hangup));
    let service = HelperServer::new(Service::new(helper))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let stopping = Arc::new(tokio::sync::Notify::new());
    let stopped = Arc::clone(&stopping);
    let server = tonic::transport::Server::builder()
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION_MAX)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .timeout(Duration::from_secs(CALL_SECS_MAX))
        .add_service(service)
        .serve_with_incoming_shutdown(Callers::new(calls), async move { stopped.notified().await });
    tokio::pin!(server);
    notify::ready();
    tracing::info!(version = holdfast_proto::VERSION, "serving");
    let ended = tokio::select! {
        ended = &mut server => ended,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    ended.map_err(|error| StartError::Step { step: "serve", source: std::io::Error::other(error) })?;
    notify::say(NotifyState::Stopping);
    stopping.notify_one();
    if timeout(DRAIN, server).await.is_err() {
        tracing::info!("connections that did not end by themselves are dropped");
    }
    Ok(())
}

async fn read_rules_on_hangup(helper: Arc<Helper>, mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        helper.read_rules_again();
    }
}

async fn follow(helper: Arc<Helper>, mut watch: Watch) {
    loop {
        match watch.next().await {
            Ok(events) => {
                let host_changed = events.contains(&Event::HostChanged);
                for event in events {
                    match event {
                        Event::HostChanged => {}
                        Event::LinkGone(link) => Arc::clone(&helper).link_gone(link).await,
                        Event::Lost => Arc::clone(&helper).look_again().await,
                    }
                }
                if host_changed {
                    helper.host_changed().await;
                }
            }
            Err(error) => {
                // Without it nothing is cleaned up: end, and let the next start take stock.
                tracing::error!(%error, "the kernel's notifications ended");
                std::process::exit(1);
            }
        }
    }
}

async fn follow_rules(helper: Arc<Helper>, mut watch: Watch) {
    let mut reader = rules_watch::Reader::default();
    loop {
        match watch.datagram().await {
            Ok(Some(datagram)) => {
                if let Some(culprit) = reader.read(datagram) {
                    helper.restore_rules(Some(culprit)).await;
                }
            }
            // Whatever was lost, the table is there or it is not.
            Ok(None) => helper.restore_rules(None).await,
            Err(error) => {
                tracing::error!(%error, "the ruleset's notifications ended");
                std::process::exit(1);
            }
        }
    }
}

/// Fed only while the network thread answers and this runtime turns.
async fn feed_watchdog(helper: Arc<Helper>) {
    let Some(period) = sd_notify::watchdog_enabled() else { return };
    let mut ticks = tokio::time::interval(period / 3);
    loop {
        ticks.tick().await;
        let answers = match helper.net() {
            Some(net) => timeout(SELF_CHECK, net.ask(|_| Ok(()))).await.is_ok_and(|answer| answer.is_ok()),
            None => true,
        };
        if answers {
            notify::say(NotifyState::Watchdog);
        }
    }
}
