//! Makes the messages, the client and the server from `proto/catalog.proto`, in Rust alone.
#![allow(clippy::print_stdout)]

use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let set = protox::compile(["proto/catalog.proto"], ["proto"])?;
    // For reflection, and for the cache: it says which methods have no side effects.
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("catalog.bin"), set.encode_to_vec())?;
    tonic_prost_build::configure().emit_rerun_if_changed(false).compile_fds(set)?;
    Ok(())
}
