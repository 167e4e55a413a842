//! The streams that this extension writes: with the credit that their reader gives.
//!
//! ```text
//!  begun --items, few--> kept --first credit--> written as credit comes --end, all written--> over
//!    |                                                |
//!    +---- nobody reads it: dropped by the host, its call failed, the channel ends ----------> over
//! ```
//!
//! What is decided is in [`Book`], under the stream's own lock; whoever holds it appends, so that items stay in order.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::thread::{self, ThreadId};

use ipc_protocol::limits::{STREAM_ITEM_BYTES_MAX, STREAMS_MAX};
use ipc_protocol::stream::{ITEM_OVERHEAD_BYTES, OF_EXTENSION};
use ipc_protocol::{Fault, FaultCode, Kind, Retry};
use parking_lot::{Condvar, Mutex};

use super::{End, Server};
use crate::stream::{Writer, given_up};

/// LIMIT: bytes of items that wait for credit; whoever sends more waits too.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// What to wait before another try where there are too many.
const RETRY_AFTER_MS: u32 = 10;

/// The streams of one channel.
pub(super) struct Streams {
    /// Whether the host reads streams.
    is_agreed: bool,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    last: u64,
    open: HashMap<u64, Arc<Written>>,
    is_over: bool,
}

/// One stream.
pub(super) struct Written {
    id: u64,
    call: u64,
    /// Who runs the method: it must not wait for what comes after its answer.
    author: ThreadId,
    server: Weak<Server>,
    book: Mutex<Book>,
    may_send: Condvar,
}

/// What is known of a stream.
#[derive(Debug, Default)]
struct Book {
    /// Bytes that its reader lets come, in total.
    granted: u64,
    sent: u64,
    kept: VecDeque<Vec<u8>>,
    kept_bytes: usize,
    /// How it ends, after what is kept.
    end: Option<Result<(), Fault>>,
    is_answered: bool,
    is_over: bool,
}

/// What becomes of an item.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Write,
    Keep,
    Wait,
    Over,
}

/// What goes out.
#[derive(Debug, PartialEq, Eq)]
enum Out {
    Item(Vec<u8>),
    End(Result<(), Fault>),
}

impl Book {
    fn has_credit(&self) -> bool {
        self.sent < self.granted
    }

    fn place(&self, bytes: usize) -> Place {
        if self.is_over || self.end.is_some() {
            Place::Over
        } else if self.kept.is_empty() && self.has_credit() {
            Place::Write
        } else if self.kept_bytes == 0 || self.kept_bytes + bytes <= KEPT_BYTES_MAX {
            Place::Keep
        } else {
            Place::Wait
        }
    }

    fn keep(&mut self, item: Vec<u8>) {
        self.kept_bytes += item.len();
        self.kept.push_back(item);
    }

    /// The next that may go out of what is kept.
    fn next(&mut self) -> Option<Out> {
        if self.is_over {
            return None;
        }
        if self.kept.is_empty() {
            let end = self.end.take()?;
            self.is_over = true;
            return Some(Out::End(end));
        }
        if !self.has_credit() {
            return None;
        }
        let item = self.kept.pop_front()?;
        self.kept_bytes -= item.len();
        self.sent += item.len() as u64 + ITEM_OVERHEAD_BYTES;
        Some(Out::Item(item))
    }

    /// Nobody reads it. Returns whether that is new.
    fn give_up(&mut self) -> bool {
        self.kept.clear();
        self.kept_bytes = 0;
        !std::mem::replace(&mut self.is_over, true)
    }
}

impl Streams {
    pub(super) fn new(is_agreed: bool) -> Self {
        Self { is_agreed, table: Mutex::default() }
    }

    pub(super) fn are_agreed(&self) -> bool {
        self.is_agreed
    }

    /// A new one within `call`; `None`: the host reads none.
    pub(super) fn begin(&self, server: &Arc<Server>, call: u64) -> Option<Result<Arc<Written>, Fault>> {
        if !self.is_agreed {
            return None;
        }
        let mut table = self.table.lock();
        if table.is_over {
            return Some(Err(given_up()));
        }
        if table.open.len() >= STREAMS_MAX as usize {
            let message = format!("{STREAMS_MAX} streams are open");
            return Some(
                Err(Fault::new(FaultCode::Busy, message).with_retry(Retry::AfterMs(RETRY_AFTER_MS))),
            );
        }
        table.last += 1;
        let id = OF_EXTENSION | table.last;
        let written = Arc::new(Written {
            id,
            call,
            author: thread::current().id(),
            server: Arc::downgrade(server),
            book: Mutex::default(),
            may_send: Condvar::new(),
        });
        table.open.insert(id, Arc::clone(&written));
        server.calls.begin_stream();
        Some(Ok(written))
    }

    fn find(&self, id: u64) -> Option<Arc<Written>> {
        self.table.lock().open.get(&id).cloned()
    }

    /// The host lets more come.
    pub(super) fn granted(&self, server: &Server, id: u64, total: u64) {
        if let Some(written) = self.find(id) {
            let mut book = written.book.lock();
            book.granted = book.granted.max(total);
            written.write_kept(server, &mut book);
            drop(book);
            written.may_send.notify_all();
        }
    }

    /// The host does not read it any longer.
    pub(super) fn dropped(&self, server: &Server, id: u64) {
        if let Some(written) = self.find(id) {
            written.give_up_at(server);
        }
    }

    /// A call was answered: with a result, which names its streams, or without.
    pub(super) fn answered(&self, server: &Server, call: u64, has_result: bool) {
        if !self.is_agreed {
            return;
        }
        let of_call: Vec<_> = {
            let table = self.table.lock();
            if table.open.is_empty() {
                return;
            }
            table.open.values().filter(|written| written.call == call).cloned().collect()
        };
        for written in of_call {
            if has_result {
                written.book.lock().is_answered = true;
            } else {
                written.give_up_at(server);
            }
        }
    }

    /// Nothing more goes to the host.
    pub(super) fn close(&self) {
        let open = {
            let mut table = self.table.lock();
            table.is_over = true;
            std::mem::take(&mut table.open)
        };
        for written in open.into_values() {
            written.book.lock().give_up();
            written.may_send.notify_all();
        }
    }
}

impl Written {
    /// Appends what may go out of what is kept.
    fn write_kept(&self, server: &Server, book: &mut Book) {
        while let Some(out) = book.next() {
            match out {
                Out::Item(item) => server.output.append_stream_item(self.id, item),
                Out::End(how) => {
                    match how {
                        Ok(()) => server.output.append_bare(Kind::StreamEnd, self.id),
                        Err(fault) => server.output.append_control(Kind::StreamEnd, self.id, &fault),
                    }
                    self.leave(server);
                }
            }
        }
    }

    fn leave(&self, server: &Server) {
        let was_there = server.streams.table.lock().open.remove(&self.id).is_some();
        if was_there && server.calls.end_stream() {
            server.keeper.end(Ok(End::Drained));
        }
    }

    fn give_up_at(&self, server: &Server) {
        let is_new = self.book.lock().give_up();
        if is_new {
            self.may_send.notify_all();
            self.leave(server);
        }
    }
}

impl Writer for Written {
    fn id(&self) -> u64 {
        self.id
    }

    fn send(&self, item: Vec<u8>) -> Result<(), Fault> {
        let Some(server) = self.server.upgrade() else { return Err(given_up()) };
        let (length, limit) = (item.len() as u64, server.message_bytes_max.min(STREAM_ITEM_BYTES_MAX));
        if length > limit {
            let message = format!(
                "an item of a stream has {length} bytes, above the limit of {limit}: send it in parts"
            );
            return Err(Fault::new(FaultCode::TooLarge, message));
        }
        let mut book = self.book.lock();
        loop {
            match book.place(item.len()) {
                Place::Over => return Err(given_up()),
                Place::Keep => {
                    book.keep(item);
                    return Ok(());
                }
                Place::Write => {
                    book.keep(item);
                    self.write_kept(&server, &mut book);
                    drop(book);
                    server.output.flush();
                    return Ok(());
                }
                Place::Wait if !book.is_answered && thread::current().id() == self.author => {
                    let message = format!(
                        "more than {KEPT_BYTES_MAX} bytes of a stream before its call is answered: write from a thread \
                         of its own"
                    );
                    return Err(Fault::new(FaultCode::Busy, message));
                }
                Place::Wait => self.may_send.wait(&mut book),
            }
        }
    }

    fn end(&self, how: Result<(), Fault>) {
        let Some(server) = self.server.upgrade() else { return };
        {
            let mut book = self.book.lock();
            book.end.get_or_insert(how);
            // Nothing comes before the first credit: before it whoever reads may not know the stream yet.
            if book.granted > 0 {
                self.write_kept(&server, &mut book);
            }
        }
        server.output.flush();
    }

    fn give_up(&self) {
        if let Some(server) = self.server.upgrade() {
            self.give_up_at(&server);
        }
    }

    fn is_given_up(&self) -> bool {
        self.book.lock().is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(bytes: usize) -> Vec<u8> {
        vec![0; bytes]
    }

    #[test]
    fn nothing_goes_before_credit_and_everything_after_it_in_order() {
        let mut book = Book::default();
        assert_eq!(book.place(10), Place::Keep);
        book.keep(vec![1]);
        book.keep(vec![2]);
        book.end = Some(Ok(()));
        assert_eq!(book.next(), None, "not even the end");
        book.granted = 1;
        assert_eq!(book.next(), Some(Out::Item(vec![1])));
        assert_eq!(book.next(), None, "the credit is used up");
        book.granted = 2 + ITEM_OVERHEAD_BYTES;
        assert_eq!(book.next(), Some(Out::Item(vec![2])));
        assert_eq!(book.next(), Some(Out::End(Ok(()))));
        assert_eq!((book.next(), book.place(1)), (None, Place::Over), "it has ended");
    }

    #[test]
    fn an_item_above_all_credit_passes_and_the_next_waits_for_what_it_used() {
        let mut book = Book { granted: 10, ..Book::default() };
        assert_eq!(book.place(1000), Place::Write);
        book.keep(item(1000));
        assert!(matches!(book.next(), Some(Out::Item(_))));
        book.granted = 1000 + ITEM_OVERHEAD_BYTES;
        book.keep(item(1));
        assert_eq!(book.next(), None);
        book.granted += 1;
        assert!(matches!(book.next(), Some(Out::Item(_))));
    }

    #[test]
    fn what_is_kept_is_bounded_but_for_a_single_item() {
        let mut book = Book::default();
        assert_eq!(book.place(10 * KEPT_BYTES_MAX), Place::Keep, "it could never go otherwise");
        book.keep(item(KEPT_BYTES_MAX - 1));
        assert_eq!((book.place(1), book.place(2)), (Place::Keep, Place::Wait));
        assert!(book.give_up() && !book.give_up());
        assert_eq!((book.place(1), book.next()), (Place::Over, None));
    }
}
