//! Errors of async-nats and of the server as errors of the adapter, by kind.

use std::{error::Error as StdError, io, time::Duration};

use async_nats::{ConnectError, ConnectErrorKind};
use socketioxide_adapter_core::{Error, ErrorKind, socket};

use crate::config::Auth;

/// What failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Connect,
    Link,
    Publish,
    Subscribe,
}

impl Step {
    pub(crate) fn error(self, kind: ErrorKind, message: impl Into<String>) -> Error {
        let operation = match self {
            Self::Connect => "nats: connect",
            Self::Link => "nats: link",
            Self::Publish => "nats: publish",
            Self::Subscribe => "nats: subscribe",
        };
        Error::new(kind, operation, message.into())
    }
}

/// A call while there is no session.
pub(crate) fn down(step: Step) -> Error {
    step.error(ErrorKind::LinkDown, "the link is down")
}

/// What was waiting when the session ended.
pub(crate) fn interrupted(step: Step) -> Error {
    step.error(ErrorKind::Interrupted, "the connection was lost")
}

/// A call on a closed transport.
pub(crate) fn closed(step: Step) -> Error {
    step.error(ErrorKind::Closed, "the transport is closed")
}

/// A call that was not answered in time.
pub(crate) fn late(step: Step, limit: Duration) -> Error {
    step.error(ErrorKind::Timeout, format!("no answer within {limit:?}"))
}

/// The server's permissions forbid it.
pub(crate) fn denied(step: Step, subject: &str) -> Error {
    let message = format!(
        "forbidden by the permissions of the user, who needs to publish and subscribe to <prefix>.>: {subject}"
    );
    step.error(ErrorKind::Unauthorized, message)
}

/// Why there is no connection.
pub(crate) fn from_connect(servers: &str, auth: &Auth, error: &ConnectError) -> Error {
    let source = error.source();
    let (kind, what) = match error.kind() {
        ConnectErrorKind::AuthorizationViolation => (ErrorKind::Unauthorized, refused(auth)),
        ConnectErrorKind::Authentication => {
            (ErrorKind::Config, "the nkey seed is not valid".to_owned())
        }
        ConnectErrorKind::ServerParse => (ErrorKind::Config, "not the address of a server".into()),
        ConnectErrorKind::Dns => (ErrorKind::Unavailable, "the name is not known".into()),
        ConnectErrorKind::TimedOut => (ErrorKind::Unavailable, "no answer".into()),
        ConnectErrorKind::Tls | ConnectErrorKind::Io | ConnectErrorKind::MaxReconnects => source
            .and_then(|error| socket::explain(error, "a plain nats:// server"))
            .unwrap_or_else(|| (ErrorKind::Unavailable, io(source))),
    };
    Step::Connect.error(kind, format!("{servers}: {what}"))
}

fn refused(auth: &Auth) -> String {
    match auth {
        Auth::None => {
            "credentials are required, add them to the URL: nats://user:password@host, nats://token@host, or the option \"creds\" or \"nkey\""
        }
        _ => "the server does not accept the credentials",
    }
    .to_owned()
}

fn io(source: Option<&(dyn StdError + 'static)>) -> String {
    let kind = source.and_then(|source| source.downcast_ref::<io::Error>());
    match (kind.map(io::Error::kind), source) {
        (Some(io::ErrorKind::ConnectionRefused), _) => {
            "connection refused, is NATS running there?".to_owned()
        }
        (_, Some(source)) => source.to_string(),
        (_, None) => "the connection was closed during the login".to_owned(),
    }
}
