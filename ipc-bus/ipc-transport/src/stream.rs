//! Streams at their reader: items that follow a result, whatever they come through.
//!
//! A result that has streams in it is an [`Answer`](crate::Answer) that holds their readers; whoever decodes it claims
//! them by their ids, and what nobody claims is dropped, which tells the writer. Whoever has no use for items one by one
//! takes the result [whole](crate::Answer::collected): each stream becomes the list of its items.
//!
//! This module must not know connections.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;
use ipc_protocol::stream::EXTENSION_TYPE;
use ipc_protocol::{Codec, Fault, FaultCode, Origin};

use crate::outcome::CallError;
use crate::payload::{DecodeError, Encoded};
use crate::scan;

/// Where the items of one stream come from. Dropping it tells the writer that nobody reads any longer.
pub trait StreamSource: Send {
    /// The next item, or how the stream ended: `None` if its writer said so, an error otherwise. Not polled again after
    /// either.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Encoded, CallError>>>;
}

/// The reading end of one stream.
pub struct IncomingStream {
    id: u64,
    /// `None`: it has ended.
    source: Option<Box<dyn StreamSource>>,
}

impl fmt::Debug for IncomingStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingStream").field("id", &self.id).finish_non_exhaustive()
    }
}

impl IncomingStream {
    /// The stream that a result names with `id`.
    #[must_use]
    pub fn new(id: u64, source: Box<dyn StreamSource>) -> Self {
        Self { id, source: Some(source) }
    }

    /// The next item, or how the stream ended: `None` if its writer said so, an error otherwise. After that `None`.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Encoded, CallError>>> {
        let Some(source) = &mut self.source else { return Poll::Ready(None) };
        let next = source.poll_next(cx);
        if matches!(next, Poll::Ready(None | Some(Err(_)))) {
            self.source = None;
        }
        next
    }

    /// As [`Self::poll_next`], to be awaited.
    ///
    /// # Cancel safety
    ///
    /// Safe: an item that is not taken comes next time.
    pub async fn next(&mut self) -> Option<Result<Encoded, CallError>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }
}

/// The outcome of a call, taken [whole](crate::Answer::collected): for whoever has no use for items one by one. The
/// streams must end by `deadline` too.
///
/// # Errors
///
/// Those of the call and of its streams; [`CallError::Unknown`] where these did not end in time.
///
/// # Cancel safety
///
/// Dropping the future cancels the call, or drops its streams.
#[cfg(feature = "tokio")]
pub async fn whole(reply: crate::Reply, deadline: std::time::Instant) -> crate::CallResult {
    let answer = reply.await?;
    if !answer.has_streams() {
        return Ok(answer);
    }
    let collected = answer.collected(ipc_protocol::limits::MESSAGE_BYTES_DEFAULT);
    let in_time = tokio::time::timeout_at(deadline.into(), collected).await;
    in_time.unwrap_or(Err(CallError::Unknown(crate::Cause::Deadline)))
}

thread_local! {
    /// The streams of the answer that this thread decodes.
    static CLAIMABLE: RefCell<Vec<IncomingStream>> = const { RefCell::new(Vec::new()) };
}

/// Decodes a result with `streams` in it; those that `decode` does not [`claim`] are dropped.
pub(crate) fn claiming<R>(streams: Vec<IncomingStream>, decode: impl FnOnce() -> R) -> R {
    struct Restore(Vec<IncomingStream>);
    impl Drop for Restore {
        fn drop(&mut self) {
            let outer = std::mem::take(&mut self.0);
            // Dropped when the place is not borrowed any more: a reader's drop is foreign code.
            let unclaimed = CLAIMABLE.with(|claimable| claimable.replace(outer));
            drop(unclaimed);
        }
    }
    let _restore = Restore(CLAIMABLE.with(|claimable| claimable.replace(streams)));
    decode()
}

/// The stream with this id of the answer that is being decoded on this thread, once. For types that stand for a stream.
#[must_use]
pub fn claim(id: u64) -> Option<IncomingStream> {
    CLAIMABLE.with(|claimable| {
        let mut claimable = claimable.borrow_mut();
        let at = claimable.iter().position(|stream| stream.id == id)?;
        Some(claimable.swap_remove(at))
    })
}

/// Where a value names streams: the position of each name, and the id. `bytes` that are no value name none from there
/// on.
#[must_use]
pub fn named_in(bytes: &[u8]) -> Vec<(usize, u64)> {
    let mut named = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let Ok(length) = scan::item_length(bytes, at) else { break };
        if let Some([0xd7, kind, id @ ..]) = bytes.get(at..at + NAME_BYTES)
            && i8::from_be_bytes([*kind]) == EXTENSION_TYPE
            && let Ok(id) = id.try_into()
        {
            named.push((at, u64::from_le_bytes(id)));
        }
        at += length;
    }
    named
}

/// Bytes of a stream's name in a value: marker, type, id.
pub(crate) const NAME_BYTES: usize = 10;

/// The items of one stream that came so far.
#[derive(Default)]
struct Collected {
    items: Vec<u8>,
    count: u32,
    is_over: bool,
}

/// Puts the items of each stream in its place, as a list. Reads all streams at once: their writer may take turns.
///
/// # Errors
///
/// How a stream ended, if not well; [`FaultCode::TooLarge`] when all items are above `bytes_max`.
pub(crate) async fn collect(
    value: Encoded,
    mut streams: Vec<IncomingStream>,
    bytes_max: u64,
) -> Result<Encoded, CallError> {
    if value.codec != Codec::MessagePack {
        return Err(DecodeError::Codec(value.codec).into());
    }
    let mut collected: Vec<Collected> = streams.iter().map(|_| Collected::default()).collect();
    let mut bytes = 0;
    poll_fn(|cx| {
        let mut is_over = true;
        for (stream, collected) in streams.iter_mut().zip(&mut collected) {
            while !collected.is_over {
                match stream.poll_next(cx) {
                    Poll::Pending => {
                        is_over = false;
                        break;
                    }
                    Poll::Ready(None) => collected.is_over = true,
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                    Poll::Ready(Some(Ok(item))) => {
                        bytes += item.bytes.len() as u64;
                        if bytes > bytes_max {
                            let message =
                                format!("the items of its streams have more than {bytes_max} bytes");
                            let fault = Fault::new(FaultCode::TooLarge, message).with_origin(Origin::Host);
                            return Poll::Ready(Err(fault.into()));
                        }
                        collected.take(&item)?;
                    }
                }
            }
        }
        if is_over { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await?;
    let mut whole = Vec::with_capacity(value.bytes.len() + usize::try_from(bytes).unwrap_or(0));
    let mut from = 0;
    for (at, id) in named_in(&value.bytes) {
        let Some(place) = streams.iter().position(|stream| stream.id == id) else { continue };
        whole.extend_from_slice(&value.bytes[from..at]);
        let Collected { items, count, .. } = &collected[place];
        // A vector takes whatever is written to it.
        let _ = rmp::encode::write_array_len(&mut whole, *count);
        whole.extend_from_slice(items);
        from = at + NAME_BYTES;
    }
    whole.extend_from_slice(&value.bytes[from..]);
    Ok(Encoded::message_pack(Bytes::from(whole)))
}

impl Collected {
    fn take(&mut self, item: &Encoded) -> Result<(), CallError> {
        if item.codec != Codec::MessagePack {
            return Err(DecodeError::Codec(item.codec).into());
        }
        // Without this an item could be more than one, or less, and the rest of the value be taken for another.
        scan::scan(&item.bytes).map_err(|error| {
            let message = format!("an item of a stream is no value: {error}");
            Fault::new(FaultCode::ProtocolViolation, message).with_origin(Origin::Transport)
        })?;
        self.items.extend_from_slice(&item.bytes);
        self.count = self.count.saturating_add(1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;

    use super::*;
    use crate::outcome::Answer;

    /// Items that are there, and how many sources were dropped.
    struct Items(VecDeque<Result<Encoded, CallError>>, Arc<AtomicUsize>);

    impl StreamSource for Items {
        fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Encoded, CallError>>> {
            Poll::Ready(self.0.pop_front())
        }
    }

    impl Drop for Items {
        fn drop(&mut self) {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn name(id: u64) -> Vec<u8> {
        let mut name = vec![0xd7, 1];
        name.extend(id.to_le_bytes());
        name
    }

    fn stream(id: u64, items: &[&[u8]], dropped: &Arc<AtomicUsize>) -> IncomingStream {
        let items = items.iter().map(|item| Ok(Encoded::message_pack(item.to_vec()))).collect();
        IncomingStream::new(id, Box::new(Items(items, Arc::clone(dropped))))
    }

    #[test]
    fn names_are_found_wherever_they_stand_and_nowhere_else() {
        // [name 7, "d7 01 ..." as a string, {"a": name 9}, another type of extension]
        let mut value = vec![0x94];
        value.extend(name(7));
        value.push(0xaa);
        value.extend([0xd7, 1, b'x', b'x', b'x', b'x', b'x', b'x', b'x', b'x']);
        value.extend([0x81, 0xa1, b'a']);
        let second = value.len();
        value.extend(name(9));
        value.extend([0xd7, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(named_in(&value), [(1, 7), (second, 9)]);
        assert_eq!(named_in(&value[..second + 5]), [(1, 7)], "what is cut off is no name");
        assert_eq!(named_in(&[]), []);
    }

    #[test]
    fn what_is_taken_whole_has_lists_for_streams() {
        let dropped = Arc::default();
        let mut value = vec![0x93, 0x01];
        value.extend(name(7));
        value.extend(name(8));
        let streams = vec![stream(8, &[], &dropped), stream(7, &[b"\x05", b"\xa1x"], &dropped)];
        let whole = collect(Encoded::message_pack(value), streams, 3).now_or_never().expect("all is there");
        assert_eq!(&whole.expect("they end well").bytes[..], b"\x93\x01\x92\x05\xa1x\x90");
        // One that is the whole result can be had as it is, and nothing else.
        let answer = |value: Vec<u8>| {
            Answer::streaming(Encoded::message_pack(value), vec![stream(7, &[], &Arc::default())])
        };
        assert!(answer(name(7)).into_stream().is_ok());
        assert!(
            answer([b"\x91", &name(7)[..]].concat()).into_stream().is_err_and(|answer| answer.has_streams())
        );
        assert!(Answer::encoded(Encoded::message_pack(name(7))).into_stream().is_err());
    }

    #[test]
    fn items_that_are_too_many_or_no_values_end_it() {
        let dropped = Arc::default();
        let code = |item: &[u8], count| {
            let streams = vec![stream(7, &vec![item; count], &dropped)];
            let whole = collect(Encoded::message_pack(name(7)), streams, 3);
            match whole.now_or_never().expect("all is there") {
                Ok(_) => None,
                Err(CallError::Fault(fault)) => Some(fault.code),
                Err(other) => panic!("{other:?}"),
            }
        };
        assert_eq!(code(b"\x01\x02", 1), Some(FaultCode::ProtocolViolation), "two values are no item");
        assert_eq!(code(b"\x92\x01", 1), Some(FaultCode::ProtocolViolation), "half a value is none");
        assert_eq!(code(b"\x01", 4), Some(FaultCode::TooLarge));
        assert_eq!(code(b"\x01", 3), None);
    }

    #[test]
    fn a_decoder_claims_a_stream_once_and_what_it_leaves_is_dropped() {
        let dropped: Arc<AtomicUsize> = Arc::default();
        let streams = vec![stream(7, &[b"\x05"], &dropped), stream(8, &[], &dropped)];
        let answer = Answer::streaming(Encoded::message_pack(vec![0xc0]), streams);
        let mut claimed = None;
        struct Claims;
        impl<'de> serde::Deserialize<'de> for Claims {
            fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
                Ok(Self)
            }
        }
        let (value, streams) = answer.into_parts();
        claiming(streams, || {
            assert!(value.decode::<Claims>().is_ok());
            claimed = claim(7);
            assert!(claim(7).is_none(), "once");
            assert!(claim(9).is_none(), "there is none");
        });
        assert_eq!(dropped.load(Ordering::Relaxed), 1, "the one that nobody claimed");
        let mut claimed = claimed.expect("it is there");
        let item = claimed.next().now_or_never().expect("it is there").expect("an item").expect("a good one");
        assert_eq!(&item.bytes[..], b"\x05");
        assert!(claimed.next().now_or_never().expect("it is there").is_none());
        assert_eq!(dropped.load(Ordering::Relaxed), 2, "one that ended needs no source");
        assert!(claim(8).is_none(), "nothing is left for whoever decodes next");
    }
}
