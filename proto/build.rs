//! Compiles the contracts with protox, a protobuf compiler in Rust: no `protoc` is needed to build.

fn main() {
    println!("cargo:rerun-if-changed=schema");
    println!("cargo:rerun-if-env-changed=HOLDFAST_BUILD_VERSION");
    let version = std::env::var("HOLDFAST_BUILD_VERSION").unwrap_or_else(|_| env("CARGO_PKG_VERSION"));
    println!("cargo:rustc-env=HOLDFAST_VERSION={version}");
    #[cfg(feature = "_codegen")]
    contracts::compile();
}

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}

#[cfg(feature = "_codegen")]
mod contracts {
    /// Servers and clients are generated only for the roles whose features are on.
    pub fn compile() {
        let on = |role: &str| std::env::var(format!("CARGO_FEATURE_{role}")).is_ok();
        for (file, server, client) in [
            ("problem.proto", false, false),
            ("daemon.proto", on("DAEMON_SERVER"), on("DAEMON_CLIENT")),
            ("helper.proto", on("HELPER_SERVER"), on("HELPER_CLIENT")),
        ] {
            let set = protox::compile([file], ["schema"]).unwrap_or_else(|error| panic!("{error:?}"));
            tonic_prost_build::configure()
                .build_transport(false)
                .build_server(server)
                .build_client(client)
                .compile_fds(set)
                .unwrap_or_else(|error| panic!("{file}: {error}"));
        }
    }
}
