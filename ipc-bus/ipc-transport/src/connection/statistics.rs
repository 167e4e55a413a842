//! What a connection counts. Must not know what it counts it for.

/// What one connection did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStatistics {
    /// Calls sent.
    pub calls: u64,
    /// Those of them whose arguments went in the fast codec.
    pub calls_fast: u64,
    /// Answers that somebody waited for.
    pub answers: u64,
    /// Answers that came after their caller had its outcome, or was gone.
    pub late: u64,
    /// Second answers to one call.
    pub duplicates: u64,
    /// Frames of another incarnation.
    pub stale: u64,
    /// Frames that belong to no call in flight, or to a part of the protocol that is not in use.
    pub ignored: u64,
    /// Frames beside answers that came faster than they are looked at, and were dropped.
    pub dropped: u64,
    /// Calls whose deadline passed.
    pub expired: u64,
    /// Calls whose reply was dropped.
    pub cancelled: u64,
    /// Calls that were not taken.
    pub rejected: u64,
    /// Host calls that served a call in flight.
    pub host_calls: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Bytes that wait to be written.
    pub bytes_queued: u64,
    /// Answers that are owed now.
    pub in_flight: u32,
    /// Those of them that nobody waits for any longer: the caller is gone, or its deadline passed.
    pub unanswered: u32,
    /// Calls that wait for room now.
    pub waiting: u32,
    /// Streams that the extension writes now.
    pub streams: u32,
}

impl ConnectionStatistics {
    /// The counts of this connection and of those before it, together. What is a state and no count, from
    /// [`Self::bytes_queued`] on, stays this one's.
    #[must_use]
    pub fn with_earlier(self, earlier: &Self) -> Self {
        Self {
            calls: self.calls + earlier.calls,
            calls_fast: self.calls_fast + earlier.calls_fast,
            host_calls: self.host_calls + earlier.host_calls,
            answers: self.answers + earlier.answers,
            late: self.late + earlier.late,
            duplicates: self.duplicates + earlier.duplicates,
            stale: self.stale + earlier.stale,
            ignored: self.ignored + earlier.ignored,
            dropped: self.dropped + earlier.dropped,
            expired: self.expired + earlier.expired,
            cancelled: self.cancelled + earlier.cancelled,
            rejected: self.rejected + earlier.rejected,
            bytes_read: self.bytes_read + earlier.bytes_read,
            bytes_written: self.bytes_written + earlier.bytes_written,
            ..self
        }
    }
}
