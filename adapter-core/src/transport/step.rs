//! What a transport was doing when something failed, and the errors that read the same at every broker.

use std::{fmt, time::Duration};

use crate::error::{Error, ErrorKind};

/// What a transport was doing: the second half of an error's operation, as in `redis: publish`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Making a session.
    Connect,
    /// Keeping a session that is up.
    Link,
    /// Publishing.
    Publish,
    /// Subscribing.
    Subscribe,
}

/// Shows `connect`, `link`, `publish` or `subscribe`.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Link => "link",
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
        })
    }
}

impl Step {
    /// An error of `kind` in the transport of this name; `message` says what happened, where, and what to do.
    pub fn error(self, name: &str, kind: ErrorKind, message: impl Into<String>) -> Error {
        Error::new(kind, format!("{name}: {self}"), message.into())
    }

    /// What it means that the connection is gone: while connecting nothing was sent, later it may have been.
    pub const fn lost(self) -> ErrorKind {
        match self {
            Self::Connect => ErrorKind::Unavailable,
            Self::Link | Self::Publish | Self::Subscribe => ErrorKind::Interrupted,
        }
    }

    /// A call while there is no session.
    pub fn down(self, name: &str, at: impl fmt::Display) -> Error {
        let message = format!("{at}: the link is down");
        self.error(name, ErrorKind::LinkDown, message)
    }

    /// What was waiting when the session ended.
    pub fn interrupted(self, name: &str, at: impl fmt::Display) -> Error {
        let message = format!("{at}: the connection was lost");
        self.error(name, ErrorKind::Interrupted, message)
    }

    /// A call on a closed transport.
    pub fn closed(self, name: &str) -> Error {
        self.error(name, ErrorKind::Closed, "the transport is closed")
    }

    /// A call that was not answered in time.
    pub fn late(self, name: &str, at: impl fmt::Display, limit: Duration) -> Error {
        let message = format!("{at}: no answer within {limit:?}");
        self.error(name, ErrorKind::Timeout, message)
    }
}
