//! The services that gRPC clients know of every server: health, and the contract itself (reflection).

use super::{Guarded, Service, admit};
use holdfast_proto::daemon::FILE_DESCRIPTOR_SET;
use holdfast_proto::daemon::daemon_server::DaemonServer;
use tonic::service::interceptor::InterceptedService;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_reflection::server::{Builder, v1, v1alpha};

/// `grpc.health.v1.Health`: serving, as soon as it answers.
pub async fn health() -> Guarded<HealthServer<impl Health>> {
    let (reporter, server) = tonic_health::server::health_reporter();
    reporter.set_serving::<DaemonServer<Service>>().await;
    InterceptedService::new(server, admit)
}

/// `grpc.reflection.v1.ServerReflection`.
pub fn reflection()
-> Result<Guarded<v1::ServerReflectionServer<impl v1::ServerReflection>>, tonic_reflection::server::Error> {
    Ok(InterceptedService::new(described().build_v1()?, admit))
}

/// `grpc.reflection.v1alpha.ServerReflection`: what Python's and older clients ask for.
pub fn reflection_v1alpha()
-> Result<Guarded<v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection>>, tonic_reflection::server::Error> {
    Ok(InterceptedService::new(described().build_v1alpha()?, admit))
}

fn described() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}
