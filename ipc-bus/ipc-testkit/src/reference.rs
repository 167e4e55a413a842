//! An extension whose methods bring a call into each state that a caller must survive.
//!
//! | method | does |
//! |---|---|
//! | `echo` | answers its arguments |
//! | `fail` | a fault with its argument, a string, as message |
//! | `ticket` | the number of tickets that were asked for before |
//! | `hold` | no answer until `release` with the same key, a string, or until it is cancelled; a key that begins with `stubborn` is not cancelled |
//! | `release` | answers the held call, then itself |
//! | `cancels` | how many cancels came |
//! | `produce` | as many bytes as asked for |
//! | `end` | dies: `before` the answer, `inside` it, or `after` |

use std::collections::HashMap;

use ipc_protocol::{Fault, FaultCode, Kind};
use ipc_transport::framing::{Frame, append_frame};
use ipc_transport::{Encoded, Message};

use crate::peer::Peer;

/// The methods, in the order of the table.
pub const METHODS: [&str; 8] = ["echo", "fail", "ticket", "hold", "release", "cancels", "produce", "end"];

/// Serves until the host is gone or `end` is called.
///
/// # Panics
///
/// When the host breaks the protocol or the rules of the methods.
pub fn serve(mut peer: Peer) {
    peer.accept(&METHODS);
    let mut tickets = 0_u64;
    let mut cancels = 0_u64;
    let mut held = HashMap::<String, Frame>::new();
    while let Some(frame) = peer.receive() {
        match frame.header.kind {
            Kind::Call => {}
            Kind::Cancel => {
                cancels += 1;
                let key = held
                    .iter()
                    .find(|(key, call)| call.header.id == frame.header.id && !key.starts_with("stubborn"));
                if let Some(call) = key.map(|(key, _)| key.clone()).and_then(|key| held.remove(&key)) {
                    peer.fault(&call, &Fault::new(FaultCode::Cancelled, "cancelled"));
                }
                continue;
            }
            _ => continue,
        }
        match METHODS[frame.header.method as usize] {
            "echo" => peer.reply(&frame, &frame.body),
            "fail" => peer.fault(&frame, &Fault::new(FaultCode::Failed, argument::<String>(&frame))),
            "ticket" => {
                answer(&mut peer, &frame, &tickets);
                tickets += 1;
            }
            "hold" => {
                held.insert(argument(&frame), frame);
            }
            "release" => {
                let key: String = argument(&frame);
                let call = held.remove(&key).expect("a call with this key is held");
                answer(&mut peer, &call, &key);
                answer(&mut peer, &frame, &());
            }
            "cancels" => answer(&mut peer, &frame, &cancels),
            "produce" => {
                let count: usize = argument(&frame);
                peer.reply(&frame, &bin(count));
            }
            _ => {
                let mut bytes = Vec::new();
                append_frame(&mut bytes, peer.header(Kind::Reply, frame.header.id), b"\xc0");
                let sent = match argument::<String>(&frame).as_str() {
                    "before" => 0,
                    "inside" => bytes.len() - 1,
                    _ => bytes.len(),
                };
                peer.raw(&bytes[..sent]);
                return;
            }
        }
    }
}

/// `count` bytes as one MessagePack value.
#[must_use]
pub fn bin(count: usize) -> Vec<u8> {
    let mut bytes = vec![0xc6];
    bytes.extend(u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend((0..count).map(|at| u8::try_from(at % 251).unwrap_or(0)));
    bytes
}

fn argument<T: Message>(frame: &Frame) -> T {
    Encoded::message_pack(frame.body.clone()).decode().expect("the arguments are what the method takes")
}

fn answer<T: Message>(peer: &mut Peer, call: &Frame, value: &T) {
    let body = Encoded::from_value(value).expect("the answer is encoded");
    peer.reply(call, &body.bytes);
}
