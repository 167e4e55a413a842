//! What an endpoint calls, whatever the tier. It must not know how it came to be.

use std::time::Instant;

use ipc_transport::connection::{Connection, ConnectionStatistics};
use ipc_transport::{Caller, Reply, Request};

use crate::in_process::InProcess;

/// One running instance.
pub(crate) enum Callee {
    Process(Connection),
    InProcess(InProcess),
}

impl Callee {
    pub(crate) fn call(&self, request: Request<'_>) -> Reply {
        match self {
            Self::Process(connection) => connection.call(request),
            Self::InProcess(instance) => instance.call(request),
        }
    }

    pub(crate) fn statistics(&self) -> ConnectionStatistics {
        match self {
            Self::Process(connection) => connection.statistics(),
            Self::InProcess(instance) => instance.statistics(),
        }
    }

    pub(crate) fn oldest_unanswered(&self) -> Option<Instant> {
        match self {
            Self::Process(connection) => connection.oldest_unanswered(),
            Self::InProcess(instance) => instance.oldest_unanswered(),
        }
    }

    /// Whether `method` takes arguments in the fast codec from a caller whose interface says `schema_hash` of it.
    /// A library is called in MessagePack.
    pub(crate) fn is_fast(&self, method: &str, schema_hash: u64) -> bool {
        match self {
            Self::Process(connection) => connection.is_fast(method, schema_hash),
            Self::InProcess(_) => false,
        }
    }
}
