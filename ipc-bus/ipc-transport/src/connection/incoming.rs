//! What each frame of an extension means, once the handshake is over. Must not know how frames are read.

use std::task::Waker;
use std::time::Instant;

use ipc_protocol::control::{Event, Goodbye, Heartbeat, LogRecord, Progress};
use ipc_protocol::{Codec, Fault, FaultCode, Flags, Header, Kind, Origin, Retry};
use parking_lot::MutexGuard;

use super::allowance::Allowance;
use super::state::State;
use super::{PeerEvents, Shared, streams};
use crate::framing::{Body, FrameBuffer, FrameRef, Violation};
use crate::in_flight::CallId;
use crate::outcome::{Answer, CallError, CallResult};
use crate::payload::{Encoded, encode_into};

/// LIMIT: answers that are delivered before callers get to run.
const ANSWERS_PER_LOCK: u32 = 64;

/// What the reader keeps from frame to frame.
#[derive(Debug)]
pub(super) struct Heard {
    /// The peer said goodbye.
    has_left: bool,
    /// For frames beside answers.
    allowance: Allowance,
    /// Bytes that were read and are not in the statistics.
    pub(super) bytes: u64,
    /// The call whose outcome whoever reads takes himself.
    pub(super) wanted: Option<CallId>,
    pub(super) taken: Option<Taken>,
    /// A host call has come since this was set to false: its task wants to run.
    pub(super) has_host_call: bool,
}

/// The outcome of the wanted call.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) result: CallResult,
    /// Answers that are still owed.
    pub(super) in_flight: u32,
}

impl Heard {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            has_left: false,
            allowance: Allowance::new(now),
            has_host_call: false,
            bytes: 0,
            wanted: None,
            taken: None,
        }
    }
}

/// Reads every whole frame out of `frames` and acts on it. Returns whether answers came and none is owed now.
pub(super) fn deliver(
    shared: &Shared,
    frames: &mut FrameBuffer,
    events: &dyn PeerEvents,
    heard: &mut Heard,
    wake: &mut Vec<Waker>,
) -> Result<bool, Violation> {
    // Held over consecutive answers: many come in one read.
    let mut held: Option<MutexGuard<'_, State>> = None;
    let mut answers = 0;
    let outcome = loop {
        let wanted = |header: &Header| {
            let Header { kind, id, epoch, .. } = *header;
            match kind {
                _ if epoch != shared.epoch => false,
                Kind::Reply => held.get_or_insert_with(|| shared.state.lock()).is_awaited(id),
                // Refused, or a violation, whatever it says.
                Kind::HostCall => shared.hosted.is_some(),
                Kind::StreamData => {
                    shared.has_streams && held.get_or_insert_with(|| shared.state.lock()).reads_stream(id)
                }
                kind => !kind.carries_payload(),
            }
        };
        let frame = match frames.next_frame_ref_if(wanted) {
            Ok(Some(frame)) => frame,
            Ok(None) => break Ok(()),
            Err(violation) => break Err(violation),
        };
        let Header { kind, id, epoch, .. } = frame.header;
        if epoch != shared.epoch {
            held.get_or_insert_with(|| shared.state.lock()).statistics_mut().stale += 1;
            continue;
        }
        let done = if heard.has_left {
            Err(Violation::Unexpected { kind, id, expected: "goodbye is a side's last frame" })
        } else if matches!(kind, Kind::Reply | Kind::Fault) {
            answers += 1;
            if answers % ANSWERS_PER_LOCK == 0
                && let Some(state) = held.take()
            {
                shared.finish(state, wake);
            }
            answer(held.get_or_insert_with(|| shared.state.lock()), frame, wake)
        } else {
            if let Some(state) = held.take() {
                shared.finish(state, wake);
            }
            match (&shared.hosted, kind) {
                (Some(hosted), Kind::HostCall | Kind::Cancel) => {
                    heard.has_host_call = true;
                    hosted.hear(shared, frame)
                }
                (_, Kind::StreamData | Kind::StreamEnd | Kind::StreamCredit | Kind::StreamDrop)
                    if shared.has_streams =>
                {
                    streams::hear(shared, frame, wake)
                }
                _ => other(shared, &frame, events, heard),
            }
        };
        if let Err(violation) = done {
            break Err(violation);
        }
    };
    let mut is_quiet = false;
    if let Some(mut state) = held {
        let in_flight = state.in_flight();
        is_quiet = answers > 0 && in_flight == 0;
        state.statistics_mut().bytes_read += std::mem::take(&mut heard.bytes);
        if heard.taken.is_none()
            && let Some(result) = heard.wanted.and_then(|id| state.take_outcome(id))
        {
            heard.taken = Some(Taken { result, in_flight });
        }
        shared.finish(state, wake);
    }
    outcome.map(|()| is_quiet)
}

fn answer(state: &mut State, frame: FrameRef<'_>, wake: &mut Vec<Waker>) -> Result<(), Violation> {
    let Header { kind, id, codec, .. } = frame.header;
    check_plain(&frame.header)?;
    state.answer(
        kind,
        id,
        move |is_fast| {
            if kind == Kind::Fault {
                return Ok(Err(CallError::from(fault_of(frame.decode()?, frame.header.aux))));
            }
            // It was skipped, as nobody waited for it when it began: the peer guessed an id that was given since.
            if frame.body.as_slice().len() != frame.header.length as usize {
                let expected = "this call was not sent yet when its answer began";
                return Err(Violation::Unexpected { kind, id, expected });
            }
            if codec != Codec::MessagePack && !(is_fast && codec == Codec::Wincode) {
                return Err(Violation::Frame { kind, id, what: "has a codec that was not agreed on" });
            }
            Ok(Ok(match frame.body {
                Body::Borrowed(bytes) => Answer::copied(codec, bytes),
                Body::Owned(bytes) => Answer::encoded(Encoded { codec, bytes }),
            }))
        },
        wake,
    )
}

/// A fault of the extension's, held to what it may say; `aux` is the header's.
pub(super) fn fault_of(fault: Fault, aux: u64) -> Fault {
    let Fault { code, origin, retry, message, .. } = fault;
    // An extension speaks for itself, or for the channel below it, and never for its host.
    let origin = if origin == Origin::Transport { origin } else { Origin::Extension };
    let retry = match aux {
        0 => retry,
        after_ms => Retry::AfterMs(u32::try_from(after_ms).unwrap_or(u32::MAX)),
    };
    // `new` holds the message to its limit, whatever the peer sent.
    Fault::new(code, message).with_origin(origin).with_retry(retry)
}

/// Refuses what only features bring that this side does not offer.
pub(super) fn check_plain(header: &Header) -> Result<(), Violation> {
    let Header { kind, id, .. } = *header;
    let wrong = |what| Err(Violation::Frame { kind, id, what });
    if header.flags != Flags::NONE {
        return wrong("has flags that were not agreed on");
    }
    if header.descriptors != 0 {
        return wrong("brings descriptors that were not agreed on");
    }
    Ok(())
}

/// Whether frames of this kind may come at any time, calls or not.
pub(super) fn is_event(kind: Kind) -> bool {
    matches!(kind, Kind::Log | Kind::Event | Kind::Heartbeat)
}

/// Passes one of [`is_event`] on.
pub(super) fn tell(frame: &FrameRef<'_>, events: &dyn PeerEvents) -> Result<(), Violation> {
    check_plain(&frame.header)?;
    match frame.header.kind {
        Kind::Log => events.log(frame.decode::<LogRecord>()?),
        Kind::Event => events.event(frame.decode::<Event>()?),
        _ => events.heartbeat(frame.decode::<Heartbeat>()?),
    }
    Ok(())
}

fn other(
    shared: &Shared,
    frame: &FrameRef<'_>,
    events: &dyn PeerEvents,
    heard: &mut Heard,
) -> Result<(), Violation> {
    let Header { kind, id, length, .. } = frame.header;
    let unexpected = |expected| Err(Violation::Unexpected { kind, id, expected });
    match kind {
        kind if (is_event(kind) || kind == Kind::Progress) && !heard.allowance.take(length, Instant::now) => {
            shared.state.lock().statistics_mut().dropped += 1;
            return Ok(());
        }
        kind if is_event(kind) => return tell(frame, events),
        Kind::Goodbye => {
            check_plain(&frame.header)?;
            events.goodbye(frame.decode::<Goodbye>()?);
            heard.has_left = true;
            return Ok(());
        }
        Kind::Progress => {
            check_plain(&frame.header)?;
            let running = {
                let mut state = shared.state.lock();
                let running = state.running(id);
                state.statistics_mut().ignored += u64::from(running.is_none());
                running
            };
            let Some(sink) = running else { return Ok(()) };
            let progress = frame.decode::<Progress>()?;
            // Outside the lock: it is foreign code, and it is dropped here if its call ends meanwhile.
            if let Some(sink) = sink {
                sink.tell(progress);
            }
            return Ok(());
        }
        _ => {}
    }
    let mut state = shared.state.lock();
    let done = match kind {
        Kind::Ping => state.answer_peer(kind, Header::new(Kind::Pong, 0, id), &[]),
        // What was not agreed on, or is defined and not built yet, is refused in its own terms.
        Kind::HostCall => refuse(&mut state, kind, Kind::HostFault, id, "host calls"),
        Kind::Descriptor if shared.grants_descriptors => {
            unexpected("descriptors go from the host to the extension")
        }
        Kind::Descriptor | Kind::SegmentReturn => {
            refuse(&mut state, kind, Kind::HostFault, id, "descriptors")
        }
        Kind::StreamCredit => refuse(&mut state, kind, Kind::StreamEnd, id, "streams"),
        Kind::StreamData => state.answer_peer(kind, Header::new(Kind::StreamDrop, 0, id), &[]),
        Kind::StreamEnd | Kind::StreamDrop | Kind::Pong => {
            state.statistics_mut().ignored += 1;
            Ok(())
        }
        Kind::Welcome | Kind::Ready => unexpected("the handshake is over"),
        Kind::Wake => unexpected("a bell comes over the socket beside rings, and nowhere else"),
        _ => unexpected("only the host sends it"),
    };
    shared.finish(state, &mut Vec::new());
    done
}

fn refuse(state: &mut State, asked: Kind, kind: Kind, id: u64, what: &str) -> Result<(), Violation> {
    let message = format!("this host does not support {what} yet");
    let fault = Fault::new(FaultCode::Unsupported, message).with_origin(Origin::Host);
    let mut body = Vec::new();
    // A struct of numbers and strings cannot fail to be encoded.
    let _ = encode_into(&fault, &mut body);
    state.answer_peer(asked, Header { codec: Codec::MessagePack, ..Header::new(kind, 0, id) }, &body)
}
