//! The fuzzer's corpus, replayed.

mod corpus;
