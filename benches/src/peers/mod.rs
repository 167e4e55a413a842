//! What others reach for a call into another process, with the same bytes and the same number in flight.
//!
//! Each peer stands in a file of its own, in the configuration that serves it best for an echo; what was chosen stands
//! in the file's header. Its answering side is this program started once more, on a core of its own. What is measured,
//! and in which order, is said in `lanes` alone: a peer knows neither ids nor reports.

mod iceoryx2_echo;
mod lanes;
mod memory;
mod server;
mod sockets;
mod tarpc_echo;
mod tonic_echo;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};

pub use lanes::Peers;
pub use server::serve_if_asked;

/// LIMIT: how long a spinning side looks for an answer, in spins: minutes. A peer that died is an error, not a hang.
const SPINS_MAX: u64 = 1 << 34;

/// One operation after the other.
trait OneByOne {
    /// The times of single operations, until `time` has passed.
    fn one_by_one(&mut self, time: Duration) -> LocalBoxFuture<'_, anyhow::Result<Vec<Duration>>>;
}

/// Many at once.
trait InFlight {
    /// Operations per second with `in_flight` of them under way, over `time`.
    fn rate(&mut self, in_flight: usize, time: Duration) -> LocalBoxFuture<'_, anyhow::Result<f64>>;
}

/// Something whose call is over when it returns.
trait Call {
    fn call(&mut self) -> anyhow::Result<()>;
}

impl<T: Call> OneByOne for T {
    fn one_by_one(&mut self, time: Duration) -> LocalBoxFuture<'_, anyhow::Result<Vec<Duration>>> {
        async move {
            let (begun, mut times) = (Instant::now(), Vec::new());
            while begun.elapsed() < time {
                let start = Instant::now();
                self.call()?;
                times.push(start.elapsed());
            }
            Ok(times)
        }
        .boxed_local()
    }
}

/// Keeps `in_flight` futures of `call` under way in one task; answers that come after `time` do not count.
async fn rate_of_futures<F: Future<Output = anyhow::Result<()>>>(
    call: impl Fn() -> F,
    in_flight: usize,
    time: Duration,
) -> anyhow::Result<f64> {
    let mut flying: FuturesUnordered<_> = (0..in_flight).map(|_| call()).collect();
    let (begun, mut answered) = (Instant::now(), 0_u32);
    while begun.elapsed() < time {
        flying.next().await.context("nothing is in flight")??;
        answered += 1;
        flying.push(call());
    }
    let rate = f64::from(answered) / begun.elapsed().as_secs_f64();
    while let Some(last) = flying.next().await {
        last?;
    }
    Ok(rate)
}
