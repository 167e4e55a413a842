//! The connection against real sockets and peers that do as they are told.

mod agreed;
mod codec;
mod conforms;
mod connected;
mod decoders;
mod framing;
mod handshake;
mod hostile;
mod python;
