//! Every bound of the wire, by name. A peer that passes one is ended with a protocol violation.

/// Body bytes of one frame. A longer payload is sent as several frames with [`crate::Flags::MORE`].
pub const FRAME_BODY_BYTES_MAX: u32 = 1 << 20;

/// Bytes of one assembled message (all its frames). The host may set a lower one in its `Hello`.
pub const MESSAGE_BYTES_MAX: u64 = 1 << 30;

/// Bytes of one message that a host's `Hello` allows, unless configured otherwise.
pub const MESSAGE_BYTES_DEFAULT: u64 = 256 << 20;

/// Bytes of a control message (handshake, progress, log, fault ...): anything but call and reply bodies.
pub const CONTROL_BYTES_MAX: u32 = 256 << 10;

/// Bytes of [`crate::Fault::message`]; the rest is cut at a character boundary by the sender.
pub const FAULT_MESSAGE_BYTES_MAX: usize = 4 << 10;

/// Calls in flight on one connection, unless the manifest says otherwise.
pub const IN_FLIGHT_CALLS_DEFAULT: u32 = 1024;

/// Calls in flight on one connection, at most.
pub const IN_FLIGHT_CALLS_MAX: u32 = 65_536;

/// Host calls of one extension that are not answered; further ones are refused as busy.
pub const HOST_CALLS_IN_FLIGHT_MAX: u32 = 256;

/// Calls of extensions, one within the other; a deeper one is refused.
pub const CALL_DEPTH_MAX: u8 = 8;

/// Streams that one side writes at a time on one connection.
pub const STREAMS_MAX: u32 = 256;

/// Bytes of a stream's items that its reader lets come before they are taken, unless it chooses otherwise.
pub const STREAM_WINDOW_BYTES: u64 = 256 << 10;

/// Bytes of one item of a stream: what is larger is no stream's to carry.
pub const STREAM_ITEM_BYTES_MAX: u64 = 1 << 20;

/// Bytes of the state that a host keeps for an extension.
pub const STATE_BYTES_MAX: u64 = 64 << 10;

/// Bytes queued for one peer that does not read, unless configured otherwise.
pub const QUEUED_BYTES_DEFAULT: u64 = 64 << 20;

/// Messages half received at the same time on one connection.
pub const PARTIAL_MESSAGES_MAX: usize = 64;

/// Descriptors that travel with one frame.
pub const FRAME_DESCRIPTORS_MAX: u8 = 16;

/// Methods of one extension.
pub const METHODS_MAX: usize = 1024;

/// Bytes of a name: extension, interface, method, feature.
pub const NAME_BYTES_MAX: usize = 64;

/// Features that one side may list.
pub const FEATURES_MAX: usize = 64;

/// Bytes of what `--describe` prints.
pub const DESCRIPTION_BYTES_MAX: u64 = 4 << 20;

/// Milliseconds that each step of the handshake may take: the peer's `Welcome`.
pub const WELCOME_TIMEOUT_MS: u32 = 5_000;

/// Milliseconds from `Welcome` to `Ready`: the extension's own start.
pub const READY_TIMEOUT_MS: u32 = 10_000;

/// Frames between `Welcome` and `Ready`.
pub const EARLY_FRAMES_MAX: u32 = 4096;

/// Bytes of all frames between `Welcome` and `Ready`.
pub const EARLY_BYTES_MAX: u64 = 4 << 20;

/// Milliseconds between two heartbeats of an extension.
pub const HEARTBEAT_INTERVAL_MS: u32 = 5_000;

/// Nesting of a MessagePack value that is looked into before it is decoded.
pub const NESTING_MAX: usize = 128;
