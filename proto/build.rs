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
    use prost::Message;

    /// Servers and clients are generated only for the roles whose features are on.
    pub fn compile() {
        let on = |role: &str| std::env::var(format!("CARGO_FEATURE_{role}")).is_ok();
        for (file, server, client) in [
            ("problem.proto", false, false),
            ("daemon.proto", on("DAEMON_SERVER"), on("DAEMON_CLIENT")),
            ("helper.proto", on("HELPER_SERVER"), on("HELPER_CLIENT")),
        ] {
            let set = compiled(&[file]);
            tonic_prost_build::configure()
                .build_transport(false)
                .build_server(server)
                .build_client(client)
                .compile_fds(set)
                .unwrap_or_else(|error| panic!("{file}: {error}"));
        }
        if on("DAEMON_SERVER") {
            describe(&["daemon.proto", "problem.proto"]);
        }
    }

    fn compiled(files: &[&str]) -> prost_types::FileDescriptorSet {
        protox::compile(files, ["schema"]).unwrap_or_else(|error| panic!("{error:?}"))
    }

    /// What the reflection service tells: the contracts without their comments.
    fn describe(files: &[&str]) {
        let mut set = compiled(files);
        for file in &mut set.file {
            file.source_code_info = None;
        }
        let path = std::path::Path::new(&super::env("OUT_DIR")).join("daemon.fds");
        std::fs::write(&path, set.encode_to_vec()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}
