//! What is measured of the peers, under which id, in which order.
//!
//! A lane is one figure: one peer with one payload. A round takes a turn of each lane, beginning with another one than
//! the round before, so that no lane always runs in the state that the same other one left. A turn begins unmeasured.

use std::time::Duration;

use super::iceoryx2_echo::{Answer, IN_FLIGHT_MAX, Iceoryx2};
use super::memory::TwoCopies;
use super::sockets::{Coalesced, Hot, WithGap};
use super::tarpc_echo::Tarpc;
use super::tonic_echo::Tonic;
use super::{InFlight, OneByOne};
use crate::raw_socket::RawSocket;
use crate::report::{Figure, Report};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// How long a turn runs before it counts: longer than what other turns leave ticking.
const LEAD_IN: Duration = Duration::from_millis(45);
/// How long a turn counts.
const TURN: Duration = Duration::from_millis(55);
/// The same where a call begins every 10 ms only.
const TURN_WITH_GAPS: Duration = Duration::from_millis(210);

enum Measured {
    OneByOne { peer: Box<dyn OneByOne>, turn: Duration, times: Vec<Duration> },
    InFlight { peer: Box<dyn InFlight>, in_flight: usize, rates: Vec<f64> },
}

struct Lane {
    id: &'static str,
    measured: Measured,
}

/// All peers, running.
pub struct Peers {
    lanes: Vec<Lane>,
    rounds: usize,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<_> = self.lanes.iter().map(|lane| lane.id).collect();
        formatter.debug_struct("Peers").field("lanes", &ids).field("rounds", &self.rounds).finish()
    }
}

impl Peers {
    /// Starts each peer: its answering side on `their_core`, this thread on `our_core`, where it stays. Call inside a
    /// tokio runtime of one thread.
    ///
    /// # Errors
    ///
    /// When a peer does not start.
    pub async fn start(our_core: usize, their_core: usize) -> anyhow::Result<Self> {
        crate::pin_to(our_core)?;
        let blocking = |bytes, core| -> anyhow::Result<RawSocket> {
            // It takes its core from whoever starts it.
            crate::pin_to(core)?;
            let socket = RawSocket::start(bytes);
            crate::pin_to(our_core)?;
            socket
        };
        let gap = |gap| anyhow::Ok(WithGap { socket: blocking(64, their_core)?, gap });
        let iceoryx2 = |bytes, answer| Iceoryx2::start(bytes, their_core, answer);
        let milli = Duration::from_millis(1);
        let lanes = vec![
            // 64 bytes are the bench's own business: it takes them with and without peers.
            calls("peer/raw-socket/1024", blocking(KIB, their_core)?),
            calls("peer/raw-socket/65536", blocking(64 * KIB, their_core)?),
            calls_in("peer/raw-socket/64/gap-1ms", gap(milli)?, TURN_WITH_GAPS),
            calls_in("peer/raw-socket/64/gap-10ms", gap(10 * milli)?, TURN_WITH_GAPS),
            calls("peer/raw-socket/64/one-core", blocking(64, our_core)?),
            calls("peer/raw-socket-hot/64", Hot::start(64, their_core)?),
            calls("peer/tarpc/64", Tarpc::start(64, their_core)?),
            calls("peer/tarpc/1024", Tarpc::start(KIB, their_core)?),
            calls("peer/tarpc/65536", Tarpc::start(64 * KIB, their_core)?),
            calls("peer/tonic-uds/64", Tonic::start(64, their_core).await?),
            calls("peer/tonic-uds/1024", Tonic::start(KIB, their_core).await?),
            calls("peer/tonic-uds/65536", Tonic::start(64 * KIB, their_core).await?),
            calls("peer/iceoryx2-rr/64", iceoryx2(64, Answer::Echo)?),
            calls("peer/iceoryx2-rr/1024", iceoryx2(KIB, Answer::Echo)?),
            calls("peer/iceoryx2-rr/65536", iceoryx2(64 * KIB, Answer::Echo)?),
            calls("peer/iceoryx2-rr/1MiB/read-all", iceoryx2(MIB, Answer::ReadAll)?),
            calls("peer/memcpy/1MiB", TwoCopies::of(MIB)),
            rate("peer/rate/raw-socket/256", blocking(64, their_core)?, 256),
            rate("peer/rate/raw-socket/256/coalesced", Coalesced::start(64, their_core)?, 256),
            rate("peer/rate/tarpc/256", Tarpc::start(64, their_core)?, 256),
            rate("peer/rate/tonic-uds/256", Tonic::start(64, their_core).await?, 256),
            rate("peer/rate/iceoryx2-rr/64", iceoryx2(64, Answer::Echo)?, IN_FLIGHT_MAX),
        ];
        Ok(Self { lanes, rounds: 0 })
    }

    /// A turn of each.
    ///
    /// # Errors
    ///
    /// When a peer fails or answers something else.
    pub async fn round(&mut self) -> anyhow::Result<()> {
        let lanes = self.lanes.len();
        for index in 0..lanes {
            self.lanes[(self.rounds + index) % lanes].turn().await?;
        }
        self.rounds += 1;
        Ok(())
    }

    /// What the rounds showed, as figures; ends all peers.
    pub fn report(self, report: &mut Report) {
        for Lane { id, measured } in self.lanes {
            report.push(match measured {
                Measured::OneByOne { times, .. } => Figure::from_round_trips(id, &times),
                Measured::InFlight { rates, .. } => Figure::from_rates(id, rates),
            });
        }
    }
}

impl Lane {
    async fn turn(&mut self) -> anyhow::Result<()> {
        match &mut self.measured {
            Measured::OneByOne { peer, turn, times } => {
                peer.one_by_one(LEAD_IN).await?;
                times.extend(peer.one_by_one(*turn).await?);
            }
            Measured::InFlight { peer, in_flight, rates } => {
                peer.rate(*in_flight, LEAD_IN).await?;
                rates.push(peer.rate(*in_flight, TURN).await?);
            }
        }
        Ok(())
    }
}

fn calls(id: &'static str, peer: impl OneByOne + 'static) -> Lane {
    calls_in(id, peer, TURN)
}

fn calls_in(id: &'static str, peer: impl OneByOne + 'static, turn: Duration) -> Lane {
    Lane { id, measured: Measured::OneByOne { peer: Box::new(peer), turn, times: Vec::new() } }
}

fn rate(id: &'static str, peer: impl InFlight + 'static, in_flight: usize) -> Lane {
    Lane { id, measured: Measured::InFlight { peer: Box::new(peer), in_flight, rates: Vec::new() } }
}
