//! The helper's gRPC service: who asks, what, may they, do it.

use crate::fence::FenceError;
use crate::lan::LanAddress;
use crate::launch::{Helper, LaunchError, Launched};
use crate::launcher::LauncherError;
use crate::ledger::Attachment;
use crate::net::NetError;
use crate::peer::Peer;
use crate::policy::{AskedLan, AskedPort, LanRefusal, LaunchRequest, Refusal};
use crate::rules::no_place_to_publish;
use crate::subnet::Subnet;
use crate::words::{Network, Port, Start, Uid};
use holdfast_launcher::launch::Failure;
use holdfast_proto::VERSION;
use holdfast_proto::helper as wire;
use holdfast_proto::problem::{Problem, Reason};
use holdfast_proto::words::{Epoch, Generation};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Most bytes of orders, as the shim's own limit.
const ORDERS_BYTES_MAX: usize = holdfast_launcher::orders::BYTES_MAX;

/// Answers the owners.
#[derive(Debug, Clone)]
pub struct Service {
    helper: Arc<Helper>,
}

impl Service {
    /// A service on what `main` opened.
    pub fn new(helper: Arc<Helper>) -> Self {
        Self { helper }
    }

    /// Whose call it is. Everybody but owners hears the same, whatever there is.
    fn owner<T>(&self, request: &Request<T>) -> Result<Uid, Status> {
        let peer = Peer::of(request).ok_or_else(not_yours)?;
        if self.helper.is_owner(peer.uid) {
            return Ok(peer.uid);
        }
        Err(not_yours())
    }
}

/// The one answer for everybody whose this is not.
fn not_yours() -> Status {
    Problem::new(Reason::NotYours, "not yours").into()
}

fn invalid(why: impl std::fmt::Display) -> Status {
    Problem::new(Reason::Invalid, why.to_string()).into()
}

#[tonic::async_trait]
impl wire::helper_server::Helper for Service {
    async fn health(&self, request: Request<wire::HealthRequest>) -> Result<Response<wire::HealthReply>, Status> {
        let peer = Peer::of(&request).ok_or_else(not_yours)?;
        if peer.uid != Uid(0) && !self.helper.is_owner(peer.uid) {
            return Err(not_yours());
        }
        let launcher = if peer.uid == Uid(0) { None } else { self.helper.launchers.of(peer.uid).ok() };
        Ok(Response::new(wire::HealthReply {
            version: VERSION.to_owned(),
            pid: std::process::id(),
            network_capable: self.helper.network_capable(),
            launcher_connected: launcher.is_some(),
            launcher_version: launcher.as_ref().map(|l| l.version().to_owned()).unwrap_or_default(),
            launcher_pid: launcher.as_ref().map_or(0, |l| l.pid()),
            forward_blockers: self.helper.forward_blockers().await,
        }))
    }

    async fn fence(&self, request: Request<wire::FenceRequest>) -> Result<Response<wire::FenceReply>, Status> {
        let owner = self.owner(&request)?;
        let epoch = Epoch(request.into_inner().epoch);
        self.helper.fences.raise(owner, epoch).await.map_err(fence_problem)?;
        Ok(Response::new(wire::FenceReply {}))
    }

    async fn launch(&self, request: Request<wire::LaunchRequest>) -> Result<Response<wire::LaunchReply>, Status> {
        let owner = self.owner(&request)?;
        let request = request.into_inner();
        let epoch = Epoch(request.epoch);
        if request.orders.len() > ORDERS_BYTES_MAX {
            return Err(invalid(format!(
                "{} bytes of orders: at most {ORDERS_BYTES_MAX} are taken",
                request.orders.len()
            )));
        }
        let asked = parse(owner, &request)?;
        let under_way = self.helper.fences.enter(owner, epoch).map_err(fence_problem)?;
        let helper = Arc::clone(&self.helper);
        // A task of its own: a caller that leaves must not leave half a launch.
        let launched = tokio::spawn(async move {
            let launched = helper.launch(asked, epoch, request.orders).await;
            drop(under_way);
            launched
        });
        match launched.await {
            Ok(Ok(launched)) => Ok(Response::new(reply(launched))),
            // Without a problem, it is neither done nor refused: the daemon finds out.
            Ok(Err(error @ LaunchError::Unconfirmed)) => Err(Status::unavailable(error.to_string())),
            Ok(Err(error)) => Err(launch_problem(&error).into()),
            Err(_) => Err(Problem::new(Reason::Internal, "the launch ended without an answer").into()),
        }
    }

    async fn detach(&self, request: Request<wire::DetachRequest>) -> Result<Response<wire::DetachReply>, Status> {
        let owner = self.owner(&request)?;
        let request = request.into_inner();
        self.helper.fences.check(owner, Epoch(request.epoch)).map_err(fence_problem)?;
        let worker = request.worker.parse().map_err(invalid)?;
        let start = Start { owner, worker, generation: Generation(request.generation) };
        let removed = Arc::clone(&self.helper).detach(start).await;
        Ok(Response::new(wire::DetachReply { removed }))
    }

    async fn attached(&self, request: Request<wire::AttachedRequest>) -> Result<Response<wire::AttachedReply>, Status> {
        let owner = self.owner(&request)?;
        let attachments = self.helper.attached(owner).into_iter().map(|attachment| wire::Attachment {
            worker: attachment.start.worker.to_string(),
            generation: attachment.start.generation.0,
            addresses: addresses(&attachment),
            ports: attachment.ports.iter().map(port).collect(),
        });
        let shared = self.helper.on_wires(owner).into_iter().map(|link| wire::Attachment {
            worker: link.start.worker.to_string(),
            generation: link.start.generation.0,
            addresses: vec![link.address.to_string()],
            ports: Vec::new(),
        });
        Ok(Response::new(wire::AttachedReply { attachments: attachments.chain(shared).collect() }))
    }

    async fn check_network(
        &self,
        request: Request<wire::CheckNetworkRequest>,
    ) -> Result<Response<wire::CheckNetworkReply>, Status> {
        let owner = self.owner(&request)?;
        let request = request.into_inner();
        let network = request.network.parse().map_err(invalid)?;
        let subnets = self.helper.check_network(owner, network, range(&request.subnet)?).await;
        let subnets = subnets.map_err(|error| Status::from(launch_problem(&error)))?;
        Ok(Response::new(wire::CheckNetworkReply { subnets }))
    }

    async fn counters(&self, request: Request<wire::CountersRequest>) -> Result<Response<wire::CountersReply>, Status> {
        let owner = self.owner(&request)?;
        let counted = self.helper.counters(owner).await.map_err(|error| Status::from(launch_problem(&error)))?;
        let counters = counted.into_iter().map(|(start, traffic)| wire::Counter {
            worker: start.worker.to_string(),
            generation: start.generation.0,
            // What the host's end received, the worker sent.
            rx_bytes: traffic.tx_bytes,
            rx_packets: traffic.tx_packets,
            tx_bytes: traffic.rx_bytes,
            tx_packets: traffic.rx_packets,
        });
        Ok(Response::new(wire::CountersReply { counters: counters.collect() }))
    }
}

fn parse(owner: Uid, request: &wire::LaunchRequest) -> Result<LaunchRequest, Status> {
    let start =
        Start { owner, worker: request.worker.parse().map_err(invalid)?, generation: Generation(request.generation) };
    let network = request.network.parse().map_err(invalid)?;
    let ports = request.ports.iter().map(parse_port).collect::<Result<_, _>>()?;
    let mut nonce = [0; 8];
    rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| Status::from(Problem::new(Reason::Internal, format!("getrandom: {errno}"))))?;
    let (subnet, internal) = match network {
        Network::Named(_) => (range(&request.subnet)?, request.internal),
        _ => (None, false),
    };
    let nonce = u64::from_ne_bytes(nonce);
    let lan = lan(network, request)?;
    Ok(LaunchRequest { start, network, subnet, internal, lan, ports, nonce, avoid: BTreeSet::new() })
}

/// For network `macvlan` alone.
fn lan(network: Network, request: &wire::LaunchRequest) -> Result<Option<AskedLan>, Status> {
    if !matches!(network, Network::Macvlan(_)) || request.address.is_empty() {
        return Ok(None);
    }
    let address: LanAddress = request.address.parse().map_err(invalid)?;
    Ok(Some(AskedLan { address, gateway: address.gateway(&request.gateway).map_err(invalid)? }))
}

/// A range that was asked for; empty: none.
fn range(text: &str) -> Result<Option<Subnet>, Status> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(invalid) }
}

fn parse_port(port: &wire::Port) -> Result<AskedPort, Status> {
    let number = |given: u32, what: &str| {
        u16::try_from(given).map_err(|_| invalid(format!("{what} port {given}: ports are 1 to 65535")))
    };
    let address = match port.address.as_str() {
        "" => Ok(Ipv4Addr::UNSPECIFIED.into()),
        text => match text.parse::<IpAddr>() {
            Ok(address) => match no_place_to_publish(address) {
                None => Ok(address),
                Some(why) => Err(invalid(format!("address {address} of a port: {why}"))),
            },
            Err(_) => Err(invalid(format!(
                "address {:?} of a port is no IP address",
                text.chars().take(64).collect::<String>()
            ))),
        },
    }?;
    let worker = number(port.worker, "worker")?;
    if worker == 0 {
        return Err(invalid("worker port 0: ports are 1 to 65535"));
    }
    let host = Some(number(port.host, "host")?).filter(|host| *host != 0);
    Ok(AskedPort { proto: port.proto.parse().map_err(invalid)?, address, host, worker })
}

fn reply(launched: Launched) -> wire::LaunchReply {
    let attachment = launched.attachment.as_ref();
    wire::LaunchReply {
        shim_pid: launched.shim_pid,
        addresses: attachment
            .map(addresses)
            .unwrap_or_else(|| launched.lan.iter().map(|lan| lan.address.to_string()).collect()),
        ports: attachment.map(|a| a.ports.iter().map(port).collect()).unwrap_or_default(),
    }
}

fn addresses(attachment: &Attachment) -> Vec<String> {
    let four = std::iter::once(format!("{}/32", attachment.address));
    four.chain(attachment.address6.map(|six| format!("{six}/128"))).collect()
}

fn port(port: &Port) -> wire::Port {
    let address = if port.address.is_unspecified() { String::new() } else { port.address.to_string() };
    wire::Port { proto: port.proto.to_string(), host: port.host.into(), worker: port.worker.into(), address }
}

fn fence_problem(error: FenceError) -> Status {
    let (reason, hint) = match error {
        FenceError::Stale { .. } => (Reason::StaleEpoch, "another daemon of this owner has taken over"),
        FenceError::Busy => (Reason::Unavailable, "try again when some of them have ended"),
        FenceError::Deadline => (Reason::Deadline, "try again"),
    };
    Problem::new(reason, error.to_string()).hint(hint).into()
}

/// The one place where a failed launch gets its reason and its way out.
fn launch_problem(error: &LaunchError) -> Problem {
    if let LaunchError::Net(NetError::Blocked(blocker)) = error {
        return Problem::new(Reason::Host, error.to_string()).hint(format!("root may allow it: {}", blocker.remedy));
    }
    let (reason, hint) = match error {
        LaunchError::Refused(refusal) => refusal_reason(refusal),
        LaunchError::NoRules(_) => (Reason::Rules, "root mends the file; the next launch reads it again"),
        LaunchError::NoCapability => (
            Reason::Host,
            "start it with sudo holdfast session start, or install: sudo holdfast system install --owner U; networks none and host work as they are",
        ),
        LaunchError::Launcher(LauncherError::Deadline(_)) => {
            (Reason::Deadline, "try again; the host may be overloaded")
        }
        // A launcher that leaves refuses with it; no call of the kernel's ever does.
        LaunchError::Launcher(LauncherError::Failed(failure)) if failure.errno == libc::ERESTART => {
            (Reason::Unavailable, "try again in a moment; another launcher dials in by itself")
        }
        LaunchError::Launcher(LauncherError::Failed(failure)) => (Reason::Host, failure_hint(failure)),
        LaunchError::Launcher(_) => {
            (Reason::Unavailable, "try again in a moment; the launcher dials in again by itself")
        }
        LaunchError::Net(NetError::PortInUse(_)) => (Reason::PortInUse, "choose another port, or end that program"),
        LaunchError::Net(NetError::Parent { .. }) => {
            (Reason::Host, "a parent is an Ethernet link of this host; root lists another one in macvlan_parents")
        }
        LaunchError::Net(NetError::HostsAddress(_)) => (Reason::Rules, "give another one"),
        LaunchError::Net(NetError::Blocked(_)) => (Reason::Host, ""),
        LaunchError::Net(NetError::Busy | NetError::Gone) => (Reason::Unavailable, "try again in a moment"),
        LaunchError::Net(NetError::Deadline) => (Reason::Deadline, "try again"),
        LaunchError::Net(NetError::Kernel { .. } | NetError::NoIpv6) => {
            (Reason::Host, "holdfast doctor says what this host lacks")
        }
        LaunchError::Netns(_) => (Reason::Host, "restart the owner's launcher"),
        LaunchError::Unconfirmed => (Reason::Unavailable, "try again in a moment"),
        LaunchError::Orders(_) => (Reason::NoSpace, "try again; the host may be short of memory"),
    };
    Problem::new(reason, error.to_string()).hint(hint)
}

/// What a host lacks where its kernel gives no namespaces (clone(2), user_namespaces(7)).
fn failure_hint(failure: &Failure) -> &'static str {
    match (failure.step.as_str(), failure.errno) {
        ("clone3", libc::ENOSPC | libc::EUSERS) => {
            "user namespaces are off or used up on this host: root raises user.max_user_namespaces by sysctl"
        }
        ("clone3", libc::EPERM) => {
            "an ordinary user may not make a user namespace here: see kernel.unprivileged_userns_clone, AppArmor, and the filters of holdfast-launcher@.service"
        }
        ("clone3", libc::ENOSYS) => {
            "clone3 is blocked, by which a user namespace is made: lift the system-call filter that does it"
        }
        _ => "holdfast doctor says what this host lacks",
    }
}

fn refusal_reason(refusal: &Refusal) -> (Reason, &'static str) {
    match refusal {
        Refusal::NotYours => (Reason::NotYours, ""),
        Refusal::AlreadyAttached { .. } => (Reason::WrongPhase, "detach it first, or launch a later generation"),
        Refusal::Network { .. } => (Reason::Rules, "use one that is listed, or ask root to add it to rules.toml"),
        Refusal::PortsWithoutNetwork { network: Network::Host, .. } => {
            (Reason::Invalid, "publish nothing: a worker of it listens on the host's own addresses")
        }
        Refusal::PortsWithoutNetwork { .. } => (Reason::Invalid, "use network bridge, or publish nothing"),
        Refusal::Lan(LanRefusal::Parent { .. }) => {
            (Reason::Rules, "use one that is listed, or ask root to add it to rules.toml")
        }
        Refusal::Lan(LanRefusal::NoAddress(_)) => (Reason::Invalid, "give one that is free there: --ip ADDRESS/PREFIX"),
        Refusal::Lan(LanRefusal::Taken { .. }) => (Reason::Rules, "give another one"),
        Refusal::ManyPorts(_) => (Reason::Invalid, "publish fewer"),
        Refusal::PortGrant { .. } => (
            Reason::Rules,
            "use a port that is granted, or ask root: sudo holdfast system install --owner U --ports RANGES",
        ),
        Refusal::Bind { .. } => (Reason::Rules, "use an address that is listed, or ask root to add it to rules.toml"),
        Refusal::PortTwice(_) => (Reason::Invalid, "publish it once"),
        Refusal::PortTaken { .. } => (Reason::PortInUse, "choose another port, or stop that worker"),
        Refusal::NoPortFree { .. } => (Reason::Quota, "stop a worker that publishes ports"),
        Refusal::Quota { .. } => (Reason::Quota, "stop some workers, or ask root to raise it in rules.toml"),
        Refusal::PoolFull { .. } => (Reason::Quota, "ask root for another pool in rules.toml"),
        Refusal::NotInPool { .. } => (Reason::Rules, "give one of the pool's, or none: one is chosen"),
        Refusal::SubnetTaken { .. } => (Reason::Rules, "give another one, or none: one is chosen"),
        Refusal::NoIpv6 { .. } => (Reason::Rules, "holdfast doctor says why; an IPv4 address works"),
        Refusal::PortsOnInternal(_) => (Reason::Rules, "publish on a network that is not internal"),
    }
}
