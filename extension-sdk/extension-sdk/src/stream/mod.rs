//! Results that go on: items which follow an answer, one after the other, as fast as their reader takes them.
//!
//! ```text
//!   Context::stream() --> Sink  --items--> (the channel, with credit) --> Stream::next()
//!                    \--> Stream, in the method's result                   at the caller
//! ```
//!
//! Where nothing carries items one by one (in the host's process, through a host of before, in a test that calls the
//! method itself) they are kept until the stream ends, and the result has a list in the stream's place. So a stream is
//! read from a list as well. This module must not know channels.

mod kept;
mod sink;

use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskContext, Poll};

use ipc_protocol::stream::EXTENSION_TYPE;
use ipc_protocol::{Fault, FaultCode};
use ipc_transport::CallError;
use ipc_transport::stream::{IncomingStream, claim};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::{self, Serialize, SerializeSeq, Serializer};
use serde_bytes::{ByteBuf, Bytes};

use crate::block_on::block_on;
use crate::context::{CallState, Context};
use crate::interface::Sendable;
use kept::Kept;
pub use sink::Sink;
pub(crate) use sink::given_up;

/// What rmp-serde takes for a MessagePack extension.
const EXTENSION_NAME: &str = "_ExtStruct";

/// In a schema: what is a list to whoever takes it whole comes item by item.
pub(crate) const SCHEMA_KEY: &str = "x-stream";

/// What can be an item of a stream: whatever can be a result. Implemented for every type that qualifies. (A trait of its own,
/// so that no error of the compiler names it where a method is meant.)
pub trait Item: Sendable {}

impl<T: Sendable> Item for T {}

/// Where the items of a stream go that a channel carries.
pub(crate) trait Writer: Send + Sync {
    /// Its id on the channel.
    fn id(&self) -> u64;

    /// Sends an encoded item; waits while its reader does not take more.
    fn send(&self, item: Vec<u8>) -> Result<(), Fault>;

    /// Nothing follows: well, or not.
    fn end(&self, how: Result<(), Fault>);

    /// Nobody will read it.
    fn give_up(&self);

    /// Whether nobody reads it any longer.
    fn is_given_up(&self) -> bool;
}

/// Items that follow a result.
///
/// A method returns one that it made with [`Context::stream`] or [`Context::stream_of`]; its caller takes the items with
/// [`Self::next`]. It may also be a part of a result. To a caller who is not written with streams in mind, a melody or a
/// program in another language, it is the list of its items.
///
/// ```
/// use extension_sdk::stream::Stream;
/// use extension_sdk::{Context, Fault, testing};
///
/// #[extension_sdk::interface]
/// pub trait Countdown {
///     /// Counts down.
///     fn count(&self, cx: &Context, from: u32) -> Result<Stream<u32>, Fault>;
/// }
///
/// #[derive(Default)]
/// struct Counter;
///
/// impl Countdown for Counter {
///     fn count(&self, cx: &Context, from: u32) -> Result<Stream<u32>, Fault> {
///         cx.stream_of((0..=from).rev().map(Ok))
///     }
/// }
///
/// # mod hidden { use super::*;
/// extension_sdk::export!(Counter as Countdown);
/// # }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let countdown = CountdownClient::new(testing::over_socket::<Counter>()?);
/// let mut numbers = countdown.count(2).wait()?;
/// let mut seen = Vec::new();
/// while let Some(number) = numbers.wait() {
///     seen.push(number?);
/// }
/// assert_eq!(seen, [2, 1, 0]);
/// # Ok(())
/// # }
/// ```
///
/// Dropping it before its end tells its writer, whose next [`Sink::send`] fails.
pub struct Stream<T> {
    source: Source<T>,
}

enum Source<T> {
    /// On its way to the caller.
    Outgoing(Outgoing),
    /// Kept, as nothing carries it.
    Kept(Arc<Kept>, Arc<CallState>),
    /// From the channel.
    Incoming(IncomingStream),
    /// From a list.
    List(std::vec::IntoIter<T>),
}

impl<T> fmt::Debug for Stream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.source {
            Source::Outgoing(_) => "Stream(outgoing)",
            Source::Kept(..) => "Stream(kept)",
            Source::Incoming(_) => "Stream(incoming)",
            Source::List(_) => "Stream(list)",
        })
    }
}

/// The author's end of a stream before it is in an answer.
struct Outgoing {
    writer: Arc<dyn Writer>,
    /// Whether its name is in one.
    is_named: AtomicBool,
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if !*self.is_named.get_mut() {
            self.writer.give_up();
        }
    }
}

impl<T> Drop for Stream<T> {
    fn drop(&mut self) {
        if let Source::Kept(kept, _) = &self.source {
            kept.give_up();
        }
    }
}

impl Context {
    /// A stream for the result of this call, and what to write its items to.
    ///
    /// The answer goes out when the method returns, and items are read from then on: so write them from a thread that
    /// lives on. The method itself may write a few beforehand, of 64 KiB together; it is refused more. When the
    /// extension is told to finish, it may write its streams to their ends, as long as calls may take to end.
    ///
    /// ```
    /// use std::thread;
    /// use extension_sdk::stream::Stream;
    /// use extension_sdk::{Context, Fault};
    ///
    /// fn tokens(cx: &Context, text: String) -> Result<Stream<String>, Fault> {
    ///     let (mut sink, stream) = cx.stream()?;
    ///     thread::spawn(move || {
    ///         for token in text.split(' ') {
    ///             if sink.send(&token.to_owned()).is_err() {
    ///                 return;
    ///             }
    ///         }
    ///         sink.end();
    ///     });
    ///     Ok(stream)
    /// }
    /// # let mut tokens = tokens(&extension_sdk::testing::context(), "a b".into())?;
    /// # assert_eq!((tokens.wait().unwrap().unwrap(), tokens.wait().unwrap().unwrap()), ("a".into(), "b".into()));
    /// # assert!(tokens.wait().is_none());
    /// # Ok::<(), Fault>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`FaultCode::Busy`]: as many streams are open as may be.
    pub fn stream<T: Sendable>(&self) -> Result<(Sink<T>, Stream<T>), Fault> {
        let (way, source) = match self.begin_stream() {
            Some(writer) => {
                let writer = writer?;
                let outgoing = Outgoing { writer: Arc::clone(&writer), is_named: AtomicBool::new(false) };
                (writer, Source::Outgoing(outgoing))
            }
            None => {
                let kept: Arc<Kept> = Arc::default();
                let source = Source::Kept(Arc::clone(&kept), self.call_state());
                (kept as Arc<dyn Writer>, source)
            }
        };
        Ok((Sink::new(way), Stream { source }))
    }

    /// A stream of what `items` gives, taken on a thread of its own as fast as it is read. An item that is a fault ends
    /// it, and so does a panic of `items`, with a fault.
    ///
    /// # Errors
    ///
    /// As [`Self::stream`]; [`FaultCode::Io`]: the system gives no thread.
    pub fn stream_of<T: Sendable>(
        &self,
        items: impl Iterator<Item = Result<T, Fault>> + Send + 'static,
    ) -> Result<Stream<T>, Fault> {
        let (mut sink, stream) = self.stream()?;
        let write = move || {
            for item in items {
                match item {
                    Ok(item) => {
                        if let Err(fault) = sink.send(&item) {
                            return sink.fail(fault);
                        }
                    }
                    Err(fault) => return sink.fail(fault),
                }
            }
            sink.end();
        };
        let started = std::thread::Builder::new().name("stream".to_owned()).spawn(write);
        started.map_err(|error| Fault::new(FaultCode::Io, format!("no thread for a stream: {error}")))?;
        Ok(stream)
    }
}

impl<T: Sendable> Stream<T> {
    /// The next item; `None` when its writer has ended the stream. After an error there is nothing more.
    ///
    /// # Errors
    ///
    /// A fault of its writer; [`CallError::Unknown`] when the extension is gone before the stream has ended;
    /// [`CallError::Decode`] when an item is something else than the interface says.
    pub fn poll_next(&mut self, cx: &mut TaskContext<'_>) -> Poll<Option<Result<T, CallError>>> {
        match &mut self.source {
            Source::Incoming(incoming) => incoming.poll_next(cx).map(|next| {
                next.map(|item| {
                    item.and_then(|item| {
                        ipc_transport::scan::scan(&item.bytes).map_err(|error| {
                            let message = format!("an item of a stream is no value: {error}");
                            Fault::new(FaultCode::ProtocolViolation, message)
                        })?;
                        Ok(item.decode()?)
                    })
                })
            }),
            Source::List(items) => Poll::Ready(items.next().map(Ok)),
            Source::Kept(kept, _) => kept.poll_next(cx.waker()).map(|next| {
                next.map(|item| item.map_err(CallError::from).and_then(|item| Ok(kept::decode(&item)?)))
            }),
            Source::Outgoing(_) => {
                let fault = Fault::new(FaultCode::Failed, "a stream is read by whoever gets the result");
                Poll::Ready(Some(Err(fault.into())))
            }
        }
    }

    /// As [`Self::poll_next`], to be awaited.
    ///
    /// # Cancel safety
    ///
    /// Safe: an item that is not taken comes next time.
    pub async fn next(&mut self) -> Option<Result<T, CallError>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`Self::next`], for a thread that may wait.
    pub fn wait(&mut self) -> Option<Result<T, CallError>> {
        block_on(self.next())
    }
}

impl<T: Sendable> Serialize for Stream<T> {
    /// # Errors
    ///
    /// It is one that this side reads, or the items that are kept for it end with a fault.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.source {
            Source::Outgoing(outgoing) => {
                // ORDERING(stream-named): Relaxed, whoever drops the stream has it alone.
                outgoing.is_named.store(true, Ordering::Relaxed);
                let id = outgoing.writer.id().to_le_bytes();
                serializer.serialize_newtype_struct(EXTENSION_NAME, &(EXTENSION_TYPE, Bytes::new(&id)))
            }
            Source::Kept(kept, call) => {
                let items = kept.whole(call).map_err(|fault| ser::Error::custom(fault.message))?;
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    let item: T = kept::decode(&item).map_err(ser::Error::custom)?;
                    list.serialize_element(&item)?;
                }
                list.end()
            }
            Source::Incoming(_) | Source::List(_) => Err(ser::Error::custom(
                "a stream that comes from elsewhere cannot be passed on: write one of its items",
            )),
        }
    }
}

impl<'de, T: Sendable> Deserialize<'de> for Stream<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StreamVisitor(PhantomData))
    }
}

struct StreamVisitor<T>(PhantomData<T>);

impl<'de, T: Sendable> Visitor<'de> for StreamVisitor<T> {
    type Value = Stream<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a stream, or a list")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, extension: D) -> Result<Stream<T>, D::Error> {
        let (kind, id) = <(i8, ByteBuf)>::deserialize(extension)?;
        let id = <[u8; 8]>::try_from(id.as_slice()).ok().filter(|_| kind == EXTENSION_TYPE);
        let Some(id) = id else { return Err(de::Error::custom("an extension that is no stream")) };
        match claim(u64::from_le_bytes(id)) {
            Some(incoming) => Ok(Stream { source: Source::Incoming(incoming) }),
            None => Err(de::Error::custom("a stream that did not come with it")),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Stream<T>, A::Error> {
        // A list may announce any length: memory grows with what has come.
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Stream { source: Source::List(items.into_iter()) })
    }
}

impl<T: Sendable> JsonSchema for Stream<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Stream_of_{}", T::schema_name()).into()
    }

    fn schema_id() -> std::borrow::Cow<'static, str> {
        format!("extension_sdk::Stream<{}>", T::schema_id()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let items = generator.subschema_for::<T>();
        json_schema!({ "type": "array", "items": items, SCHEMA_KEY: true })
    }
}
