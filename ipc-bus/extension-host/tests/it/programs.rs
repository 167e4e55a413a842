//! The programs that the tests start. They belong to other packages, and cargo names no path of those to a
//! test: so the same cargo builds them, once, into the same target folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

pub(crate) struct Programs {
    pub(crate) launcher: PathBuf,
    pub(crate) hostile: PathBuf,
    pub(crate) small_host: PathBuf,
    pub(crate) points: PathBuf,
    pub(crate) asks: PathBuf,
    /// The example `loaded`, a library.
    pub(crate) loaded: PathBuf,
    /// `echo` as a library.
    pub(crate) echo: PathBuf,
}

pub(crate) fn programs() -> &'static Programs {
    // The failure is kept too: one build, and one message for all tests.
    static PROGRAMS: OnceLock<Result<Programs, String>> = OnceLock::new();
    let built = PROGRAMS.get_or_init(|| {
        let own = std::env::current_exe().expect("a test has a path");
        // TARGET/PROFILE/deps/it-HASH
        let profile = own.parent().and_then(Path::parent).expect("a test lies in deps");
        let target = profile.parent().expect("a profile lies in the target folder");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(env!("CARGO_MANIFEST_DIR")).arg("build").arg("--quiet");
        cargo.arg("--target-dir").arg(target);
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        cargo.args([
            "--package=hostile",
            "--package=extension-launcher",
            "--package=extension-host",
            "--package=echo",
            "--package=extension-sdk",
            "--features=extension-sdk/fast",
        ]);
        cargo.args(["--lib", "--bins", "--examples"]).stdin(Stdio::null());
        let status = cargo.status().expect("cargo runs");
        let built = |path: &str| {
            let path = profile.join(path);
            let is_there = status.success() && path.is_file();
            if is_there { Ok(path) } else { Err(format!("{} cannot be built: {status}", path.display())) }
        };
        Ok(Programs {
            launcher: built("extension-launcher")?,
            hostile: built("hostile")?,
            small_host: built("examples/small-host")?,
            points: built("examples/points")?,
            asks: built("examples/asks")?,
            loaded: built("examples/libloaded.so")?,
            echo: built("libecho.so")?,
        })
    });
    built.as_ref().unwrap_or_else(|error| panic!("{error}"))
}
