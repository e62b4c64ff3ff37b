//! Errors that do not come from the server; those that do are read by `socketioxide-adapter-redis`.

use std::time::Duration;

use socketioxide_adapter_core::{Error, ErrorKind};

/// A subscribe that cannot succeed, or did not.
pub(crate) fn subscribe(kind: ErrorKind, message: impl Into<String>) -> Error {
    Error::new(kind, "redis-streams: subscribe", message.into())
}

/// A subscribe that was not answered in time.
pub(crate) fn late(at: impl std::fmt::Display, limit: Duration) -> Error {
    subscribe(
        ErrorKind::Timeout,
        format!("{at}: no answer within {limit:?}"),
    )
}

/// An answer that is none.
pub(crate) fn unreadable(command: &str) -> Error {
    Error::new(
        ErrorKind::Protocol,
        "redis-streams: read",
        format!("an answer to {command} that cannot be read"),
    )
}

/// A cluster of nodes that keep their topics elsewhere.
pub(crate) fn other_layout(ours: &str, theirs: &str) -> Error {
    Error::new(
        ErrorKind::Config,
        "redis-streams: connect",
        format!(
            "the nodes of this cluster run with {theirs}, this one with {ours}: all need the same, or another prefix"
        ),
    )
}
