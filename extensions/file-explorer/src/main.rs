//! Lists folders.
//!
//! It must not know what the list is for.

mod root;
mod walk;

use extension_sdk::{Context, Fault};
use interfaces::{FileExplorer, Listing, Tree};

#[derive(Default)]
struct Explorer;

impl FileExplorer for Explorer {
    fn list(&self, cx: &Context, request: Listing) -> Result<Tree, Fault> {
        let root = root::resolve(&request.path)?;
        walk::walk(cx, &root, &request)
    }
}

extension_sdk::export!(Explorer as FileExplorer);
