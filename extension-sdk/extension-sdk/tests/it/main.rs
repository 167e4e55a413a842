//! What an author meets beside a running extension: the compiler's errors, the codecs, and streams.

mod compile;
mod fast;
mod streams;
