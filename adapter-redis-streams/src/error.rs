//! Errors that do not come from the server; those that do are read by `socketioxide-adapter-redis`.

use socketioxide_adapter_core::{Error, ErrorKind, transport::Step};

pub(crate) const NAME: &str = "redis-streams";

/// A configuration that cannot work.
pub(crate) fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::Config, "redis-streams: config", message)
}

/// An answer that is none.
pub(crate) fn unreadable(step: Step, command: &str) -> Error {
    let message = format!("an answer to {command} that cannot be read");
    step.error(NAME, ErrorKind::Protocol, message)
}

/// A cluster of nodes that keep their topics elsewhere.
pub(crate) fn other_layout(ours: &str, theirs: &str) -> Error {
    let message = format!(
        "the nodes of this cluster run with {theirs}, this one with {ours}: all need the same, or another prefix"
    );
    Step::Connect.error(NAME, ErrorKind::Config, message)
}
