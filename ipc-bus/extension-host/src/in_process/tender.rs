//! The task of one instance: ends calls at their deadlines, and hands those over that waited for room.

use std::time::Instant;

use super::InProcess;
use super::books::Admitted;

/// Runs until the instance's term is over.
pub(super) async fn tend(endpoint: InProcess) {
    let shared = endpoint.seat.shared;
    loop {
        let now = Instant::now();
        let mut wake = Vec::new();
        let (expired, target) = {
            let mut books = shared.books.lock();
            if !books.is_term(endpoint.term) || books.is_ended() {
                return;
            }
            let expired = match books.timer_target() {
                Some(target) if target <= now => books.expire(now, &mut wake),
                _ => Vec::new(),
            };
            let target = books.timer_target();
            shared.finish(books, Vec::new());
            (expired, target)
        };
        // Before its caller has the outcome: whatever he calls next comes behind the cancel.
        for id in expired {
            endpoint.tell_cancel(id);
        }
        for waker in wake {
            waker.wake();
        }
        hand_over_waiting(&endpoint, now);
        match target {
            Some(target) => {
                tokio::select! {
                    () = shared.tender.notified() => {}
                    () = tokio::time::sleep_until(target.into()) => {}
                }
            }
            None => shared.tender.notified().await,
        }
    }
}

fn hand_over_waiting(endpoint: &InProcess, now: Instant) {
    let shared = endpoint.seat.shared;
    loop {
        let admitted = shared.books.lock().admit();
        let Some(Admitted { id, word, method, body, deadline }) = admitted else { return };
        endpoint.hand_over(id, word, method, deadline, now, &body.bytes);
        let mut books = shared.books.lock();
        books.left();
        shared.finish(books, Vec::new());
    }
}
