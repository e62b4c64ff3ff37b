//! The one error type of the workspace.

use std::{borrow::Cow, error::Error as StdError, fmt};

use socketioxide_core::adapter::errors::AdapterError;

use crate::id::NodeId;

/// Result of every fallible operation of the adapter.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure happened; the part of an [`Error`] to match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A URL, option or setting cannot be used as given. Fatal: change the configuration.
    Config,
    /// The broker refused our credentials or forbids an operation we need. Fatal: change the credentials or the ACL.
    Unauthorized,
    /// The broker cannot be reached or is not ready; trying again later can help.
    Unavailable,
    /// Refused at once because our own link to the broker is known to be down. Nothing was sent.
    LinkDown,
    /// The link died after the payload was handed to it: it may or may not have arrived.
    Interrupted,
    /// A deadline passed. For a publish the outcome is unknown.
    Timeout,
    /// The broker answered that it did not take the payload.
    Rejected,
    /// The payload exceeds what the frame or the broker allows. Nothing was sent.
    TooLarge,
    /// A bounded buffer stayed full until the deadline. Nothing was sent.
    Full,
    /// Some nodes did not answer a request; [`Error::missing`] names them.
    Incomplete,
    /// A peer speaks another wire version, uses another parser or signs with another secret.
    Incompatible,
    /// Bytes that are not what they should be.
    Protocol,
    /// The transport or the cluster was shut down.
    Closed,
}

/// What is known about a publish that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The payload certainly did not reach the broker.
    NotSent,
    /// The broker certainly did not take the payload.
    Rejected,
    /// The payload may or may not have reached the broker.
    Unknown,
}

impl ErrorKind {
    /// Whether trying the same thing again later can succeed without a change of configuration.
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::Unavailable
                | Self::LinkDown
                | Self::Interrupted
                | Self::Timeout
                | Self::Full
                | Self::Incomplete
        )
    }

    /// What a *publish* that failed this way says about its payload.
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::Interrupted | Self::Timeout | Self::Protocol | Self::Incomplete => {
                Outcome::Unknown
            }
            Self::Rejected | Self::Unauthorized => Outcome::Rejected,
            Self::Config
            | Self::Unavailable
            | Self::LinkDown
            | Self::TooLarge
            | Self::Full
            | Self::Incompatible
            | Self::Closed => Outcome::NotSent,
        }
    }
}

/// An error of the adapter, a transport or a backend.
///
/// `Display` is one lowercase line `operation: what happened`, without the cause and without secrets; the cause is
/// [`source`](StdError::source).
pub struct Error {
    kind: ErrorKind,
    operation: Cow<'static, str>,
    message: Cow<'static, str>,
    missing: Vec<NodeId>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Makes an error of `kind`; `operation` says where (`"redis: subscribe"`), `message` what happened and what to do.
    pub fn new(
        kind: ErrorKind,
        operation: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            kind,
            operation: operation.into(),
            message: message.into(),
            missing: Vec::new(),
            source: None,
        }
    }

    /// Adds the cause. It must not contain secrets.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Names the nodes that did not answer.
    #[must_use]
    pub fn with_missing(mut self, missing: Vec<NodeId>) -> Self {
        self.missing = missing;
        self
    }

    /// The kind, to match on.
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Nodes that did not answer; empty unless the kind is [`ErrorKind::Incomplete`].
    pub fn missing(&self) -> &[NodeId] {
        &self.missing
    }

    /// Same as [`ErrorKind::is_retryable`] of the kind.
    pub const fn is_retryable(&self) -> bool {
        self.kind.is_retryable()
    }

    /// Same as [`ErrorKind::outcome`] of the kind.
    pub const fn outcome(&self) -> Outcome {
        self.kind.outcome()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.message)?;
        for (i, node) in self.missing.iter().enumerate() {
            write!(f, "{}{node}", if i == 0 { ": " } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({self})", self.kind)?;
        let mut source = self.source();
        while let Some(cause) = source {
            write!(f, " <- {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<Error> for AdapterError {
    fn from(error: Error) -> Self {
        let boxed: Box<dyn StdError + Send> = Box::new(error);
        Self::from(boxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_one_line_and_names_the_missing() {
        let node = NodeId::random();
        let error = Error::new(
            ErrorKind::Incomplete,
            "fetch sockets",
            "1 of 2 nodes did not answer",
        )
        .with_missing(vec![node]);
        assert_eq!(
            error.to_string(),
            format!("fetch sockets: 1 of 2 nodes did not answer: {node}")
        );
    }

    #[test]
    fn display_leaves_the_cause_to_source() {
        let error = Error::new(
            ErrorKind::Unavailable,
            "redis: connect",
            "connection refused",
        )
        .with_source("os error 111");
        assert_eq!(error.to_string(), "redis: connect: connection refused");
        assert_eq!(
            format!("{error:?}"),
            "Unavailable(redis: connect: connection refused) <- os error 111"
        );
    }
}
