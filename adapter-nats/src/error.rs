//! Errors of async-nats and of the server as errors of the adapter, by kind.

use std::error::Error as StdError;

use async_nats::{ConnectError, ConnectErrorKind};
use socketioxide_adapter_core::{Error, ErrorKind, socket, transport::Step};

use crate::config::{Auth, NatsConfig};

/// Whose errors they are.
#[derive(Debug)]
pub(crate) struct Origin {
    /// Name of the transport.
    pub(crate) name: &'static str,
    /// The configured servers.
    pub(crate) at: String,
}

impl Origin {
    pub(crate) fn error(&self, step: Step, kind: ErrorKind, what: &str) -> Error {
        step.error(self.name, kind, format!("{}: {what}", self.at))
    }

    /// The session is over.
    pub(crate) fn lost(&self, what: &str) -> Error {
        self.error(Step::Link, ErrorKind::Interrupted, what)
    }

    /// The server's permissions forbid it.
    pub(crate) fn denied(&self, step: Step, subject: &str) -> Error {
        let what = format!(
            "forbidden by the permissions of the user, who needs to publish and subscribe to <prefix>.>: {subject}"
        );
        self.error(step, ErrorKind::Unauthorized, &what)
    }

    /// Why there is no connection.
    pub(crate) fn refused(&self, config: &NatsConfig, error: &ConnectError) -> Error {
        let (kind, what) = match error.kind() {
            ConnectErrorKind::AuthorizationViolation => {
                (ErrorKind::Unauthorized, not_let_in(config))
            }
            ConnectErrorKind::Authentication => (ErrorKind::Config, "the nkey seed is not valid"),
            ConnectErrorKind::ServerParse => (ErrorKind::Config, "not the address of a server"),
            ConnectErrorKind::Dns => (ErrorKind::Unavailable, "the name is not known"),
            ConnectErrorKind::TimedOut => (ErrorKind::Unavailable, "no answer"),
            ConnectErrorKind::Tls | ConnectErrorKind::Io | ConnectErrorKind::MaxReconnects => {
                let Some(source) = error.source() else {
                    let what = "the connection was closed during the login";
                    return self.error(Step::Connect, ErrorKind::Unavailable, what);
                };
                let (kind, what) = socket::explain(source, "NATS", "a plain nats:// server");
                return self.error(Step::Connect, kind, &what);
            }
        };
        self.error(Step::Connect, kind, what)
    }
}

fn not_let_in(config: &NatsConfig) -> &'static str {
    if config.auth == Auth::Endpoint && config.endpoint.username.is_none() {
        "credentials are required, add them to the URL: nats://user:password@host, nats://token@host, or the option \"creds\" or \"nkey\""
    } else {
        "the server does not accept the credentials"
    }
}
