//! Compiles every `proto/*.proto` to Rust: messages, gRPC clients and servers. protox parses them
//! in this process, so building needs no protoc.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut protos: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir("proto")? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "proto") {
            protos.push(path);
        }
    }
    protos.sort();
    let descriptors = protox::compile(&protos, ["proto"])?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        // Tunnel bodies are decoded from the packet's own buffer: `bytes` fields share it.
        .bytes(".fedgate.tunnel.v1")
        // What is signed is handed on as it came: its copies share one buffer.
        .bytes(".fedgate.store.v1")
        .bytes(".fedgate.join.v1")
        .compile_fds(descriptors)?;
    Ok(())
}
