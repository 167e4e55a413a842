//! Each rule over a copy of this tree: it holds as the tree is, and fails by its name when one thing is broken.

mod copy;
mod list;
mod cases;
mod rules;
mod cargo;
mod book;
