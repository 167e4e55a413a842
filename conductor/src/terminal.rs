//! What stdout and stderr are: how wide, and whether colours are wanted. Knows nothing of what is written.

use std::os::fd::AsFd;

/// Columns of the terminal behind `fd`; `None` if it is none, or does not say.
pub fn columns(fd: impl AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(fd).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Whether somebody set `NO_COLOR`, to anything.
#[must_use]
pub fn is_without_colours() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}
