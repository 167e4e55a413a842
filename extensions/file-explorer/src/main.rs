//! Lists folders and reads files.
//!
//! It must not know what for.

mod lines;
mod root;
mod walk;

use extension_sdk::stream::Stream;
use extension_sdk::{Blob, Context, Fault};
use interfaces::{FileExplorer, Listing, Tree};

#[derive(Default)]
struct Explorer;

impl FileExplorer for Explorer {
    fn list(&self, cx: &Context, request: Listing) -> Result<Tree, Fault> {
        let root = root::resolve(&request.path)?;
        walk::walk(cx, &root, &request)
    }

    fn lines(&self, cx: &Context, path: Blob, follow: bool) -> Result<Stream<Blob>, Fault> {
        lines::lines(cx, &path, follow)
    }
}

extension_sdk::export!(Explorer as FileExplorer);
