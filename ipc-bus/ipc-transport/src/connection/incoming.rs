//! What each frame of an extension means, once the handshake is over. Must not know how frames are read.

use std::task::Waker;

use ipc_protocol::control::{Event, Goodbye, Heartbeat, LogRecord, Progress};
use ipc_protocol::{Codec, Fault, FaultCode, Flags, Header, Kind, Origin};
use parking_lot::MutexGuard;

use super::state::State;
use super::{PeerEvents, Shared};
use crate::framing::{FrameBuffer, FrameRef, Violation};
use crate::outcome::{Answer, CallError};
use crate::payload::{Encoded, encode_into};

/// LIMIT: answers that are delivered before callers get to run.
const ANSWERS_PER_LOCK: u32 = 64;

/// Reads every whole frame out of `frames` and acts on it.
pub(super) fn deliver(
    shared: &Shared,
    frames: &mut FrameBuffer,
    events: &dyn PeerEvents,
    has_left: &mut bool,
    wake: &mut Vec<Waker>,
) -> Result<(), Violation> {
    // Held over consecutive answers: many come in one read.
    let mut held: Option<MutexGuard<'_, State>> = None;
    let mut answers = 0;
    let outcome = loop {
        let frame = match frames.next_frame_ref() {
            Ok(Some(frame)) => frame,
            Ok(None) => break Ok(()),
            Err(violation) => break Err(violation),
        };
        let Header { kind, id, epoch, .. } = frame.header;
        if epoch != shared.epoch {
            held.get_or_insert_with(|| shared.state.lock()).statistics_mut().stale += 1;
            continue;
        }
        let done = if *has_left {
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
            other(shared, &frame, events, has_left)
        };
        if let Err(violation) = done {
            break Err(violation);
        }
    };
    if let Some(state) = held {
        shared.finish(state, wake);
    }
    outcome
}

fn answer(state: &mut State, frame: FrameRef<'_>, wake: &mut Vec<Waker>) -> Result<(), Violation> {
    let Header { kind, id, codec, .. } = frame.header;
    check_plain(&frame.header)?;
    state.answer(
        kind,
        id,
        move || {
            if kind == Kind::Fault {
                let Fault { code, origin, retry, message, .. } = frame.decode()?;
                // `new` holds the message to its limit, whatever the peer sent.
                let fault = Fault::new(code, message).with_origin(origin).with_retry(retry);
                return Ok(Err(CallError::from(fault)));
            }
            if codec != Codec::MessagePack {
                return Err(Violation::Frame { kind, id, what: "has a codec that was not agreed on" });
            }
            Ok(Ok(Answer::encoded(Encoded { codec, bytes: frame.body.into_bytes() })))
        },
        wake,
    )
}

/// Refuses what only features bring that this side does not offer.
fn check_plain(header: &Header) -> Result<(), Violation> {
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
    has_left: &mut bool,
) -> Result<(), Violation> {
    let Header { kind, id, .. } = frame.header;
    let unexpected = |expected| Err(Violation::Unexpected { kind, id, expected });
    match kind {
        kind if is_event(kind) => return tell(frame, events),
        Kind::Goodbye => {
            check_plain(&frame.header)?;
            events.goodbye(frame.decode::<Goodbye>()?);
            *has_left = true;
            return Ok(());
        }
        Kind::Progress => {
            check_plain(&frame.header)?;
            let progress = frame.decode::<Progress>()?;
            let is_running = shared.state.lock().is_running(id);
            if is_running {
                events.progress(id, progress);
            } else {
                shared.state.lock().statistics_mut().ignored += 1;
            }
            return Ok(());
        }
        _ => {}
    }
    let mut state = shared.state.lock();
    let done = match kind {
        Kind::Ping => state.answer_peer(Header::new(Kind::Pong, 0, id), &[]),
        // What is defined and not built yet is refused in its own terms.
        Kind::HostCall => refuse(&mut state, Kind::HostFault, id, "host calls"),
        Kind::Descriptor | Kind::SegmentReturn => refuse(&mut state, Kind::HostFault, id, "descriptors"),
        Kind::StreamCredit => refuse(&mut state, Kind::StreamEnd, id, "streams"),
        Kind::StreamData => state.answer_peer(Header::new(Kind::StreamDrop, 0, id), &[]),
        Kind::StreamEnd | Kind::StreamDrop | Kind::Pong => {
            state.statistics_mut().ignored += 1;
            Ok(())
        }
        Kind::Welcome | Kind::Ready => unexpected("the handshake is over"),
        _ => unexpected("only the host sends it"),
    };
    shared.finish(state, &mut Vec::new());
    done
}

fn refuse(state: &mut State, kind: Kind, id: u64, what: &str) -> Result<(), Violation> {
    let message = format!("this host does not support {what} yet");
    let fault = Fault::new(FaultCode::Unsupported, message).with_origin(Origin::Host);
    let mut body = Vec::new();
    // A struct of numbers and strings cannot fail to be encoded.
    let _ = encode_into(&fault, &mut body);
    state.answer_peer(Header { codec: Codec::MessagePack, ..Header::new(kind, 0, id) }, &body)
}
