//! The extension as a process of its own; what it does is in the library, which a host may load instead.
fn main() -> std::process::ExitCode {
    operators::main()
}
