//! A helper that speaks the real contract and makes shims in threads.

use super::shim;
use holdfast_launcher::orders::Orders;
use holdfast_proto::helper::helper_server::{Helper as Contract, HelperServer};
use holdfast_proto::helper::*;
use holdfast_proto::problem::{Problem, Reason};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use tonic::{Request, Response, Status};

/// What outlives a helper.
#[derive(Clone)]
pub struct World {
    pub shims: Arc<Mutex<Vec<shim::Shim>>>,
    pub attached: Arc<Mutex<Vec<Attachment>>>,
    pub fences: Arc<Mutex<Vec<u64>>>,
    pub orders: Arc<Mutex<Vec<Orders>>>,
    pub refuse: Arc<Mutex<Option<Problem>>>,
    pub next_address: Arc<AtomicU32>,
}

impl World {
    pub fn new() -> Self {
        Self {
            shims: Arc::default(),
            attached: Arc::default(),
            fences: Arc::default(),
            orders: Arc::default(),
            refuse: Arc::default(),
            next_address: Arc::new(AtomicU32::new(2)),
        }
    }

    pub fn kill_all(&self) {
        for shim in self.shims.lock().unwrap().iter() {
            shim.kill();
        }
    }
}

pub struct Helper(tokio::task::JoinHandle<()>);

impl Drop for Helper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub async fn serve(path: &Path, world: World) -> Helper {
    drop(std::fs::remove_file(path));
    let listener = tokio::net::UnixListener::bind(path).unwrap();
    super::open_to_all(path, 0o666);
    let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(HelperServer::new(Service(world)));
    Helper(tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() }))
}

struct Service(World);

#[tonic::async_trait]
impl Contract for Service {
    async fn health(&self, _: Request<HealthRequest>) -> Result<Response<HealthReply>, Status> {
        Ok(Response::new(HealthReply {
            version: "0.0.0-stage".into(),
            pid: std::process::id(),
            network_capable: false,
            launcher_connected: true,
            launcher_version: "0.0.0-stage".into(),
            launcher_pid: std::process::id(),
            forward_blockers: vec![],
        }))
    }

    async fn fence(&self, request: Request<FenceRequest>) -> Result<Response<FenceReply>, Status> {
        self.0.fences.lock().unwrap().push(request.into_inner().epoch);
        Ok(Response::new(FenceReply {}))
    }

    async fn launch(&self, request: Request<LaunchRequest>) -> Result<Response<LaunchReply>, Status> {
        let request = request.into_inner();
        if request.epoch < self.0.fences.lock().unwrap().iter().copied().max().unwrap_or(0) {
            return Err(Problem::new(Reason::StaleEpoch, "an earlier daemon").into());
        }
        if let Some(problem) = self.0.refuse.lock().unwrap().clone() {
            return Err(problem.into());
        }
        let orders = Orders::decode(&request.orders).map_err(|error| Status::internal(error.to_string()))?;
        assert_eq!((orders.worker.as_str(), orders.generation), (request.worker.as_str(), request.generation));
        self.0.orders.lock().unwrap().push(orders.clone());
        let mut addresses = vec![];
        if request.network != "none" {
            addresses.push(format!("10.88.0.{}/22", self.0.next_address.fetch_add(1, Ordering::Relaxed)));
            self.0.attached.lock().unwrap().push(Attachment {
                worker: request.worker,
                generation: request.generation,
                addresses: addresses.clone(),
                ports: request.ports.clone(),
            });
        }
        let shim = tokio::task::spawn_blocking(move || shim::Shim::start(orders)).await.unwrap();
        self.0.shims.lock().unwrap().push(shim);
        let filled = |port: Port| Port { host: if port.host == 0 { 4242 } else { port.host }, ..port };
        let ports = request.ports.into_iter().map(filled).collect();
        Ok(Response::new(LaunchReply { shim_pid: std::process::id(), addresses, ports }))
    }

    async fn detach(&self, request: Request<DetachRequest>) -> Result<Response<DetachReply>, Status> {
        let request = request.into_inner();
        let mut attached = self.0.attached.lock().unwrap();
        let before = attached.len();
        attached.retain(|one| one.worker != request.worker || one.generation != request.generation);
        Ok(Response::new(DetachReply { removed: attached.len() < before }))
    }

    async fn attached(&self, _: Request<AttachedRequest>) -> Result<Response<AttachedReply>, Status> {
        Ok(Response::new(AttachedReply { attachments: self.0.attached.lock().unwrap().clone() }))
    }

    async fn check_network(&self, _: Request<CheckNetworkRequest>) -> Result<Response<CheckNetworkReply>, Status> {
        Ok(Response::new(CheckNetworkReply { subnets: vec!["10.88.4.0/22".into()] }))
    }

    async fn counters(&self, _: Request<CountersRequest>) -> Result<Response<CountersReply>, Status> {
        Ok(Response::new(CountersReply::default()))
    }
}
