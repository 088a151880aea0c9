//! One launch from permit to release, and everything that undoes it.

mod after;
mod lan;

use crate::fence::Fences;
use crate::lan::LanLink;
use crate::launcher::{Answer, Call, LauncherError, Launchers};
use crate::ledger::{Attachment, Ledger};
use crate::net::{Net, NetError, Traffic};
use crate::netns::{self, NetnsError};
use crate::policy::{LaunchRequest, Permit, Refusal, judge, judge_network};
use crate::prefix6::{NETWORK6_BITS, gateway6};
use crate::rules::NETWORK_PREFIX;
use crate::rules_file::RulesFile;
use crate::subnet::Subnet;
use crate::words::{Network, Start, Uid};
use after::LINK_LINGERS;
use holdfast_launcher::launch::{FromHelper, Wiring};
use holdfast_proto::words::Epoch;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{MemfdFlags, SealFlags};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longest wait for a paused shim, on a host under load.
const PREPARE: Duration = Duration::from_secs(15);
/// Longest wait until it was let go.
const RELEASE: Duration = Duration::from_secs(10);
/// Longest wait until a launcher confirms that nothing is left of a launch.
const ABORT: Duration = Duration::from_secs(3);
/// Tries with other ports where a chosen one turned out to be in use.
const PORT_TRIES_MAX: usize = 16;

/// Why a launch was not done. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The rules do not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There are no rules at present.
    #[error("the rules file is bad, so nothing is launched: {0}")]
    NoRules(String),
    /// No network but `none` and `host` here.
    #[error("network bridge: this helper has no network capability, for it was started by an ordinary user")]
    NoCapability,
    /// The launcher.
    #[error("launch by the owner's launcher: {0}")]
    Launcher(#[from] LauncherError),
    /// The network.
    #[error("network: {0}")]
    Net(#[from] NetError),
    /// What the launcher sent.
    #[error("launch by the owner's launcher: {0}")]
    Netns(#[from] NetnsError),
    /// The shim was told to go, and the launcher left before it said that it passed that on. What was given stays, until
    /// the daemon, which can ask the shim, takes it back, or the shim's namespaces go.
    #[error("the owner's launcher left before it confirmed the launch")]
    Unconfirmed,
    /// The orders could not be put into a memory file.
    #[error("orders: {0}")]
    Orders(#[from] std::io::Error),
}

/// Everything that calls work on.
#[derive(Debug)]
pub struct Helper {
    rules: Mutex<RulesFile>,
    ledger: Mutex<Ledger>,
    /// Addresses whose flows are to be forgotten.
    flows: Mutex<BTreeSet<IpAddr>>,
    net: Option<Net>,
    host_netns: netns::Identity,
    /// Owners' launchers.
    pub launchers: Arc<Launchers>,
    /// Owners' epochs.
    pub fences: Fences,
}

/// A launch that was done.
#[derive(Debug)]
pub struct Launched {
    /// For people.
    pub shim_pid: u32,
    /// What it was given of its owner's pool.
    pub attachment: Option<Attachment>,
    /// What it was given on a wire of the host's.
    pub lan: Option<LanLink>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Helper {
    /// Puts together what `main` opened. `net` is absent in an ordinary user's session.
    pub fn new(rules: RulesFile, ledger: Ledger, net: Option<Net>, host_netns: netns::Identity) -> Self {
        Self {
            rules: Mutex::new(rules),
            ledger: Mutex::new(ledger),
            flows: Mutex::default(),
            net,
            host_netns,
            launchers: Arc::default(),
            fences: Fences::default(),
        }
    }

    /// Whether networks other than `none` and `host` can be had.
    pub fn network_capable(&self) -> bool {
        self.net.is_some()
    }

    /// The network thread.
    pub fn net(&self) -> Option<&Net> {
        self.net.as_ref()
    }

    /// Whether this uid is an owner.
    pub fn is_owner(&self, uid: Uid) -> bool {
        lock(&self.rules).is_owner(uid)
    }

    /// Reads the rules again.
    pub fn read_rules_again(&self) {
        lock(&self.rules).read_again();
    }

    /// What is attached for one owner.
    pub fn attached(&self, owner: Uid) -> Vec<Attachment> {
        lock(&self.ledger).of_owner(owner).cloned().collect()
    }

    /// The ranges that a named network has, or the one that it would begin with.
    pub async fn check_network(
        &self,
        owner: Uid,
        network: Network,
        wish: Option<Subnet>,
    ) -> Result<Vec<String>, LaunchError> {
        self.learn_foreign(owner, network).await?;
        let mut rules = lock(&self.rules);
        let rules = rules.current().map_err(|error| LaunchError::NoRules(error.to_string()))?;
        let ledger = lock(&self.ledger);
        let first = judge_network(owner, network, wish, (rules, &ledger))?;
        let mut subnets = ledger.subnets(owner, network);
        if subnets.is_empty() {
            subnets.push(first);
        }
        let prefix = rules.owner(owner).and_then(|owner| owner.pool6).filter(|_| ledger.host6());
        let both = subnets.iter().flat_map(|four| {
            let six = prefix.map(|prefix| format!("{}/{NETWORK6_BITS}", prefix.network(*four)));
            std::iter::once(four.to_string()).chain(six)
        });
        Ok(both.collect())
    }

    /// What went over the links of one owner's workers.
    pub async fn counters(&self, owner: Uid) -> Result<Vec<(Start, Traffic)>, LaunchError> {
        let Some(net) = &self.net else { return Ok(Vec::new()) };
        let traffic = net.ask(crate::net::Kernel::traffic).await?;
        let ledger = lock(&self.ledger);
        Ok(ledger.of_owner(owner).filter_map(|a| Some((a.start, *traffic.get(&a.link)?))).collect())
    }

    /// Does one launch. To be run to its end, even where its caller is gone.
    pub async fn launch(
        self: Arc<Self>,
        mut request: LaunchRequest,
        epoch: Epoch,
        orders: Vec<u8>,
    ) -> Result<Launched, LaunchError> {
        if request.network.has_address() {
            self.learn_foreign(request.start.owner, request.network).await?;
        }
        let mut tries = 0;
        loop {
            tries += 1;
            let permit = self.permit(&request)?;
            let launched = self.clone().launch_permitted(&permit, epoch, &orders).await;
            match launched {
                Err(LaunchError::Net(NetError::PortInUse(port))) if permit.chose(&port) && tries < PORT_TRIES_MAX => {
                    request.avoid.insert((port.proto, port.host));
                }
                // Again, without: the ledger gives none until the host changes. The link of this try may linger.
                Err(LaunchError::Net(NetError::NoIpv6)) if lock(&self.ledger).forget_host6() => {
                    request.nonce = request.nonce.wrapping_add(1);
                }
                outcome => return outcome,
            }
        }
    }

    /// A range that a network does not have yet must not overlap what the host has by now.
    async fn learn_foreign(&self, owner: Uid, network: Network) -> Result<(), LaunchError> {
        let net = self.net.as_ref().ok_or(LaunchError::NoCapability)?;
        if lock(&self.ledger).needs_range(owner, network) {
            let foreign = net.ask(super::net::Kernel::foreign_networks).await?;
            lock(&self.ledger).learn_foreign(foreign);
        }
        Ok(())
    }

    /// Judges, and enters what is permitted into the ledger, without anything in between.
    fn permit(&self, request: &LaunchRequest) -> Result<Permit, LaunchError> {
        let mut rules = lock(&self.rules);
        let rules = rules.current().map_err(|error| LaunchError::NoRules(error.to_string()))?;
        let mut ledger = lock(&self.ledger);
        let permit = judge(request, rules, &ledger)?;
        if let Some(attachment) = permit.attachment() {
            let entered = ledger.enter(attachment.clone());
            debug_assert!(entered, "judge permits nothing that the ledger has given");
        }
        if let Some(link) = permit.lan() {
            let entered = ledger.enter_lan(link.clone());
            debug_assert!(entered, "judge permits nothing that the ledger has given");
        }
        Ok(permit)
    }

    async fn launch_permitted(
        self: Arc<Self>,
        permit: &Permit,
        epoch: Epoch,
        orders: &[u8],
    ) -> Result<Launched, LaunchError> {
        let mut call = None;
        let launched = self.try_launch(permit, (epoch, orders), &mut call).await;
        if let Err(LaunchError::Unconfirmed) = launched {
            tracing::warn!(start = %permit.start(), "launch not confirmed");
        } else if let Err(error) = &launched {
            tracing::warn!(start = %permit.start(), %error, "launch undone");
            self.undo(permit, call).await;
        }
        launched
    }

    async fn try_launch(
        &self,
        permit: &Permit,
        (epoch, orders): (Epoch, &[u8]),
        call: &mut Option<Call>,
    ) -> Result<Launched, LaunchError> {
        let start = permit.start();
        let began = Instant::now();
        let orders = sealed(orders)?;
        let call = call.insert(self.launchers.awaited(start.owner).await?.call());
        let (seq, worker, generation) = (call.seq(), start.worker.to_string(), start.generation.0);
        let host_network = permit.network() == Network::Host;
        let prepare = FromHelper::Prepare { seq, epoch: epoch.0, worker, generation, host_network };
        call.say(&prepare, Some(orders.as_fd())).await?;
        drop(orders);
        // The rules are laid while the launcher forks: each takes about as long as the other.
        let (admitted, prepared) = tokio::join!(async { (self.admit(permit).await, began.elapsed()) }, async {
            (call.answer("prepare", PREPARE).await, began.elapsed())
        });
        let ((admission, admitted), (prepared, prepared_at)) = (admitted, prepared);
        admission?;
        let prepared = prepared?;
        let Answer::Prepared { shim_pid, netns } = prepared else {
            return Err(LauncherError::Nonsense("released before it was let go").into());
        };
        let before_wire = began.elapsed();
        let wiring = if host_network {
            // There is nothing to do in it.
            Wiring::default()
        } else {
            self.wire(permit, netns::checked(netns, start.owner, self.host_netns)?).await?
        };
        let wired = began.elapsed() - before_wire;
        call.say(&FromHelper::Release { seq, wiring }, None).await?;
        match call.answer("release", RELEASE).await.map_err(unconfirmed)? {
            Answer::Released => {
                let total = began.elapsed();
                tracing::info!(%start, shim_pid, ?admitted, prepared = ?prepared_at, ?wired, ?total, "launched");
                Ok(Launched { shim_pid, attachment: permit.attachment().cloned(), lan: permit.lan().cloned() })
            }
            Answer::Prepared { .. } | Answer::Failed(_) => Err(LauncherError::Nonsense("prepared twice").into()),
        }
    }

    async fn admit(&self, permit: &Permit) -> Result<(), LaunchError> {
        match (permit.attachment().cloned(), &self.net) {
            (Some(attachment), Some(net)) => Ok(net.ask(move |kernel| kernel.admit(&attachment)).await?),
            (Some(_), None) => Err(LaunchError::NoCapability),
            (None, _) => Ok(()),
        }
    }

    async fn wire(&self, permit: &Permit, netns: netns::Netns) -> Result<Wiring, LaunchError> {
        if let Some(link) = permit.lan() {
            return self.wire_lan(link.clone(), netns).await;
        }
        let Some(attachment) = permit.attachment().cloned() else { return Ok(Wiring::default()) };
        let net = self.net.as_ref().ok_or(LaunchError::NoCapability)?;
        let gateway = Subnet::around(attachment.address, NETWORK_PREFIX).gateway();
        let mut wiring = Wiring {
            link: crate::net::INSIDE.to_owned(),
            addresses: vec![(attachment.address.into(), 32)],
            gateways: vec![gateway.into()],
            no_ipv6: false,
        };
        if let Some(address6) = attachment.address6 {
            wiring.addresses.push((address6.into(), 128));
            wiring.gateways.push(gateway6(attachment.address).into());
        }
        net.ask(move |kernel| kernel.wire(&attachment, &netns.into_fd())).await?;
        lock(&self.ledger).link(permit.start());
        Ok(wiring)
    }

    /// In reverse: the shim first, so that nothing of it uses what is taken back.
    async fn undo(self: Arc<Self>, permit: &Permit, call: Option<Call>) {
        if let Some(mut call) = call
            && !call.is_over()
        {
            match call.say(&FromHelper::Abort { seq: call.seq() }, None).await {
                // Prepared may still be on its way, before Failed.
                Ok(()) => while call.answer("abort", ABORT).await.is_ok() {},
                // A launcher that loses the connection ends what was not let go.
                Err(_) => call.hang_up(),
            }
        }
        if let Some(link) = permit.lan() {
            self.clone().take_back_lan(link.start);
        }
        if let Some(attachment) = permit.attachment() {
            let (link, net) = (attachment.link, self.net.clone());
            self.take_back(attachment).await;
            // Where this fails, it is done with the link's removal.
            if let Some(net) = net {
                let _ = net.ask(move |kernel| kernel.forget_unless_there(link)).await;
            }
        }
    }
}

/// What a launcher that leaves has passed on cannot be known here.
fn unconfirmed(error: LauncherError) -> LaunchError {
    match error {
        LauncherError::Closed => LaunchError::Unconfirmed,
        error => error.into(),
    }
}

/// A memory file that nobody can change any more.
fn sealed(bytes: &[u8]) -> Result<OwnedFd, std::io::Error> {
    let file = rustix::fs::memfd_create("orders", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let file = std::fs::File::from(file);
    file.write_all_at(bytes, 0)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
    Ok(file.into())
}
