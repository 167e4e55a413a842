//! The connection against real sockets and peers that do as they are told.

#![expect(clippy::duplicate_mod, reason = "the same peers over both ways that frames can go")]

mod agreed;
mod codec;
mod conforms;
mod decoders;
mod framing;
mod handshake;
mod python;
mod rendezvous;
mod rings;

/// Everything that a peer can do to a connection, over the socket.
#[path = "."]
mod over_socket {
    pub(crate) const OFFERS_RINGS: bool = false;

    #[path = "connected.rs"]
    pub(crate) mod connected;
    #[path = "host_calls.rs"]
    mod host_calls;
    #[path = "hostile.rs"]
    mod hostile;
    #[path = "streams.rs"]
    mod streams;
}

/// The same through shared memory.
#[path = "."]
mod over_rings {
    pub(crate) const OFFERS_RINGS: bool = true;

    #[path = "connected.rs"]
    pub(crate) mod connected;
    #[path = "host_calls.rs"]
    mod host_calls;
    #[path = "hostile.rs"]
    mod hostile;
    #[path = "streams.rs"]
    mod streams;
}
