//! What the peer asks of this side: the calls that its host calls serve, and a place for the answers to all of it.

use std::time::Instant;

use ipc_protocol::frame::HEADER_BYTES;
use ipc_protocol::{Codec, Fault, FaultCode, Header, Kind, Origin, Retry};

use super::State;
use crate::connection::host_calls::{HostAnswer, HostGrant, busy, granting};
use crate::framing::Violation;
use crate::in_flight::{CallId, CallerSide, PeerSide};
use crate::outgoing::QueuedBody;
use crate::payload::{Encoded, encode_into};

/// LIMIT: bytes of answers to the peer's own requests that it leaves unread.
const UNREAD_ANSWERS_BYTES_MAX: u64 = 256 << 10;

/// The call that a host call serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::connection) struct Served {
    pub(in crate::connection) deadline: Instant,
    pub(in crate::connection) depth: u8,
}

/// Why a host call serves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::connection) enum NotServed {
    /// It was answered, or nobody waits for the answer any longer.
    Over,
    /// The peer made it up.
    NeverSent,
}

impl State {
    /// The call that a host call says that it serves; from here on its end is told by [`Self::take_over_hosting`].
    pub(in crate::connection) fn serve(&mut self, id: u64) -> Result<Served, NotServed> {
        let call = CallId::from_wire(id);
        let taken = self.outgoing.taken();
        let Some(slot) = self.calls.get_mut(call) else {
            let was_issued = self.calls.was_issued(call);
            return Err(if was_issued { NotServed::Over } else { NotServed::NeverSent });
        };
        match (&slot.peer, &slot.caller) {
            (PeerSide::Sent { start, .. }, _) if *start >= taken => Err(NotServed::NeverSent),
            (PeerSide::Sent { .. }, CallerSide::Listening(_)) => {
                slot.is_hosting = true;
                self.statistics.host_calls += 1;
                Ok(Served { deadline: slot.listens_until, depth: slot.depth })
            }
            (PeerSide::Sent { .. } | PeerSide::Over, _) => Err(NotServed::Over),
            (PeerSide::Waiting { .. }, _) => Err(NotServed::NeverSent),
        }
    }

    /// Whether a call is under way that host calls may serve.
    pub(in crate::connection) fn is_served(&mut self, id: u64) -> bool {
        self.calls.get_mut(CallId::from_wire(id)).is_some_and(|slot| {
            matches!((&slot.peer, &slot.caller), (PeerSide::Sent { .. }, CallerSide::Listening(_)))
        })
    }

    /// The calls that are over and had host calls, since this was asked last.
    pub(in crate::connection) fn take_over_hosting(&mut self) -> Vec<CallId> {
        std::mem::take(&mut self.over_hosting)
    }

    /// Queues an answer to something that the peer asked for with a frame of the kind `asked`.
    pub(in crate::connection) fn answer_peer(
        &mut self,
        asked: Kind,
        header: Header,
        body: &[u8],
    ) -> Result<(), Violation> {
        if self.outgoing.is_empty() {
            self.answer_bytes = 0;
        }
        self.answer_bytes += (HEADER_BYTES + body.len()) as u64;
        // Both: a single message may be longer than the queue, which is not the peer's doing; and answers that it read
        // since the queue was empty count only while there is too much in it.
        if self.answer_bytes > UNREAD_ANSWERS_BYTES_MAX
            && self.outgoing.queued() > self.limits.queued_bytes_max + UNREAD_ANSWERS_BYTES_MAX
        {
            let (kind, id) = (asked, header.id);
            let expected = "the peer must first read the answers to what it asked for";
            return Err(Violation::Unexpected { kind, id, expected });
        }
        self.push_frame(Header { epoch: self.epoch, ..header }, body);
        Ok(())
    }

    /// Queues a descriptor. Returns whether there was room for it.
    fn push_grant(&mut self, id: u64, HostGrant { descriptor, grant }: HostGrant) -> bool {
        let mut body = Vec::new();
        // A struct of numbers and strings cannot fail to be encoded.
        let _ = encode_into(&grant, &mut body);
        let header = Header { codec: Codec::MessagePack, ..granting(self.epoch, id) };
        !self.may_push() || self.outgoing.push_granting(header, &body, descriptor)
    }

    /// Queues the answer to a host call. One that finds no room is a fault instead.
    pub(in crate::connection) fn answer_host_call(
        &mut self,
        id: u64,
        outcome: Result<HostAnswer, Fault>,
    ) -> Result<(), Violation> {
        let outcome = outcome.and_then(|answer| match answer.result.bytes.len() as u64 {
            length if length > self.limits.message_bytes_max => {
                let limit = self.limits.message_bytes_max;
                let message = format!("the answer has {length} bytes, above the limit of {limit}");
                Err(Fault::new(FaultCode::TooLarge, message).with_origin(Origin::Host))
            }
            length
                if !self.outgoing.is_empty()
                    && self.outgoing.queued() + length > self.limits.queued_bytes_max =>
            {
                Err(busy(format!("{} bytes wait to be read", self.outgoing.queued())))
            }
            _ => Ok(answer),
        });
        let outcome = outcome.and_then(|HostAnswer { result, grant }| {
            let is_granted = grant.is_none_or(|grant| self.push_grant(id, grant));
            if is_granted { Ok(result) } else { Err(busy("descriptors wait to be taken".to_owned())) }
        });
        match outcome {
            Ok(Encoded { codec, bytes }) => {
                let codec = if bytes.is_empty() { Codec::None } else { codec };
                let header = Header { codec, ..Header::new(Kind::HostReply, self.epoch, id) };
                if self.may_push() {
                    self.outgoing.push(header, QueuedBody::Shared(&bytes));
                }
                Ok(())
            }
            Err(fault) => {
                let mut body = Vec::new();
                // A struct of numbers and strings cannot fail to be encoded.
                let _ = encode_into(&fault, &mut body);
                let aux = if let Retry::AfterMs(after_ms) = fault.retry { after_ms.into() } else { 0 };
                let header = Header { codec: Codec::MessagePack, aux, ..Header::new(Kind::HostFault, 0, id) };
                self.answer_peer(Kind::HostCall, header, &body)
            }
        }
    }
}
