//! The launcher as a program of its own, for hosts that do not carry it inside themselves.

fn main() {
    extension_launcher::run()
}
