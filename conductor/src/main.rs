//! The binary: a launcher if it was started as one, else the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else, while there is one thread: this process may be the launcher of an extension.
    extension_launcher::run_if_launcher();
    conductor::cli::main().into()
}
