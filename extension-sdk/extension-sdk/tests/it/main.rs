//! What an author meets beside a running extension: the compiler's errors.

mod compile;
