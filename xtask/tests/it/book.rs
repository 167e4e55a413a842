//! The pages of the book, where `mdbook` is there to make them.

use std::io::Write as _;

use xtask::book;

use crate::copy::Copy;

#[test]
fn a_warning_of_the_book_is_an_error() {
    let mut copy = Copy::new();
    // Not into the folder of the tree: another may be building there.
    copy.cargo.target_folder = copy.root().join("target");
    let Some(folder) = book::build(&copy.workspace()).expect("the book can be built") else {
        // Past the capture of output, so that it is counted.
        let _ = writeln!(
            std::io::stderr(),
            "skipped: a_warning_of_the_book_is_an_error: mdbook is not installed"
        );
        return;
    };
    assert!(folder.join("index.html").is_file());
    copy.append("docs/glossary.md", "\n<div>never closed\n");
    let error = book::build(&copy.workspace()).expect_err("mdbook warns");
    assert!(error.to_string().contains("glossary.md"), "{error}");
}

#[test]
fn a_page_without_its_line_and_a_dead_link_are_found_without_mdbook() {
    let mut copy = Copy::new();
    copy.write("docs/novelty.md", "[nowhere](nothing.md)\n");
    let rules: Vec<_> = book::check(&copy.workspace()).iter().map(|broken| broken.rule).collect();
    assert!(rules.contains(&"link") && rules.contains(&"summary"), "{rules:?}");
}
