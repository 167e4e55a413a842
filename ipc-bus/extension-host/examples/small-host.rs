//! A host without a conductor, in one file: starts one extension, calls it, prints the answer, stops it.
//!
//! ```text
//! small-host EXTENSION.TOML PROGRAM METHOD [stay]
//! ```
//!
//! With `stay` it does not stop the extension, but waits to be ended from outside, with whatever it started.

use std::path::{Path, PathBuf};
use std::time::Duration;

use extension_host::{Host, HostOptions, LauncherProgram, Manifest};
use ipc_transport::{Caller, Encoded, Payload, Request};

#[expect(clippy::print_stdout, reason = "the example's answer")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    // First of all: the launcher is this same program under another name.
    extension_launcher::run_if_launcher();

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [manifest, program, method, stay @ ..] = arguments.as_slice() else {
        return Err("usage: small-host EXTENSION.TOML PROGRAM METHOD [stay]".into());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let host = Host::new(HostOptions::new(LauncherProgram::CurrentExe))?;
        let manifest = Manifest::load(Path::new(manifest))?;
        let name = manifest.name.clone();
        host.register(manifest, PathBuf::from(program))?;
        let nothing = Payload::Encoded(Encoded::from_value(&())?);
        let request = Request::new(method, nothing, Duration::from_secs(10));
        let answer = host.extension(&name)?.call(request).await?.into_encoded()?;
        println!("{}", answer.bytes.escape_ascii());
        if !stay.is_empty() {
            std::future::pending::<()>().await;
        }
        host.shutdown(Duration::from_secs(5)).await;
        Ok(())
    })
}
