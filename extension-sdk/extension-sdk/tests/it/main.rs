//! What an author meets beside a running extension: the compiler's errors, and the codecs.

mod compile;
mod fast;
