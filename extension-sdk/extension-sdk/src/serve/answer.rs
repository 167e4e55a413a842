//! One call from its frame to its answer, on whatever thread.

use std::sync::Arc;
use std::time::Instant;

use ipc_protocol::{Codec, Fault, FaultCode, Flags, Header, Retry};

use super::calls::Refusal;
use super::output::Flush;
use super::{End, Server};
use crate::context::{CallState, Context};
use crate::service::unknown_method;

/// A call that was begun: it is on the table of calls, and must be answered once.
pub(super) struct Begun {
    pub(super) call: Arc<CallState>,
    pub(super) method: usize,
    /// Its arguments are in the fast codec, and so its result may be.
    pub(super) is_fast: bool,
}

impl Server {
    /// Takes a call on, or says why not. `spare` is the state of an earlier call, whose memory is used again if nobody
    /// keeps it.
    ///
    /// # Errors
    ///
    /// `Ok(Err(fault))`: the answer, which is to be sent. `Err`: the host used an id twice.
    pub(super) fn begin(
        &self,
        header: &Header,
        now: Instant,
        spare: Option<Arc<CallState>>,
    ) -> Result<Result<Begun, Fault>, &'static str> {
        let deadline = match header.aux {
            0 => None,
            left_us => now.checked_add(std::time::Duration::from_micros(left_us)),
        };
        let fresh = CallState::new(header.id, now, deadline);
        let call = match spare {
            Some(mut spare) => match Arc::get_mut(&mut spare) {
                Some(place) => {
                    *place = fresh;
                    spare
                }
                None => Arc::new(fresh),
            },
            None => Arc::new(fresh),
        };
        match self.calls.begin(&call) {
            Ok(()) => {
                let is_fast = header.codec == Codec::Wincode;
                Ok(Ok(Begun { call, method: header.method as usize, is_fast }))
            }
            Err(Refusal::Descriptors) => Ok(Err(no_descriptors())),
            Err(Refusal::Duplicate) => Err("the id of a call under way may not be used again"),
            Err(Refusal::Full) => Ok(Err(Fault::new(
                FaultCode::Busy,
                "more calls are in flight than the host announced in its hello",
            )
            .with_retry(Retry::AfterMs(10)))),
            Err(Refusal::Draining) => Ok(Err(Fault::new(
                FaultCode::Draining,
                "the extension was told to finish and takes no new calls",
            )
            .with_retry(Retry::Now))),
        }
    }

    /// What is wrong with a call before its body is looked into.
    pub(super) fn refuse(&self, header: &Header) -> Option<Fault> {
        let unsupported = |what: &str| Some(Fault::new(FaultCode::Unsupported, what));
        if header.flags.contains(Flags::SEGMENT) {
            return unsupported("this extension does not read arguments from shared segments");
        }
        if header.descriptors > 0 {
            return Some(no_descriptors());
        }
        if header.codec == Codec::Wincode && !self.has_wincode {
            return unsupported(
                "wincode was not agreed on: this extension reads arguments as MessagePack only",
            );
        }
        match self.methods.get(header.method as usize) {
            None => Some(unknown_method(header.method as usize)),
            Some(method) if header.codec == Codec::Wincode && !method.traits.is_fast => {
                unsupported("this method reads arguments as MessagePack only")
            }
            Some(_) => None,
        }
    }

    /// Runs a call and appends its answer, and writes it if `flush` says so and that takes no waiting. `scratch` is for the result; what it has after
    /// that is of no use. Returns how many bytes are queued.
    pub(super) fn run(
        &self,
        begun: &Begun,
        body: &[u8],
        scratch: &mut Vec<u8>,
        now: Instant,
        flush: Flush,
    ) -> usize {
        scratch.clear();
        let id = begun.call.id;
        let result = begun.call.check(|| now).and_then(|()| {
            let cx = Context::new(Arc::clone(&begun.call), Arc::clone(&self.output) as _);
            if begun.is_fast {
                return self.service.run_fast(begun.method, &cx, body, self.message_bytes_max, scratch);
            }
            self.service.run(begun.method, &cx, body, scratch).map(|()| Codec::MessagePack)
        });
        let result = result.and_then(|codec| match scratch.len() as u64 {
            length if length > self.message_bytes_max => Err(Fault::new(
                FaultCode::TooLarge,
                format!("the result has {length} bytes, above the limit of {}", self.message_bytes_max),
            )),
            _ => Ok(codec),
        });
        let has_result = result.is_ok();
        let queued = match result {
            Ok(codec) => self.output.append_reply(id, codec, scratch, flush),
            Err(fault) => self.output.append_fault(id, &fault),
        };
        self.streams.answered(self, id, has_result);
        queued
    }

    /// Takes an answered call off the table.
    pub(super) fn finish(&self, begun: &Begun) {
        if self.calls.end(begun.call.id) {
            self.keeper.end(Ok(End::Drained));
        }
    }
}

fn no_descriptors() -> Fault {
    Fault::new(FaultCode::Unsupported, "this extension takes no file descriptors")
}

/// Where the arguments begin: after the metadata, if there is any.
///
/// # Errors
///
/// What is wrong, for the violation.
pub(super) fn arguments<'a>(header: &Header, body: &'a [u8]) -> Result<&'a [u8], &'static str> {
    if !header.flags.contains(Flags::METADATA) {
        return Ok(body);
    }
    let (length, rest) = body.split_first_chunk::<4>().ok_or("is too short for its metadata's length")?;
    rest.get(u32::from_le_bytes(*length) as usize..).ok_or("is shorter than its metadata")
}
