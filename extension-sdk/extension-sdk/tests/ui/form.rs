//! Exports in another form.

mod a {
    extension_sdk::export!(Explorer);
}
mod b {
    extension_sdk::export!(Explorer as FileExplorer, begin = Explorer::new);
}

fn main() {}
