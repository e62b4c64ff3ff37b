//! Errors of lapin and of the socket as errors of the adapter, by kind.
//!
//! Texts of the broker are not passed on: what they say is not ours to judge. What is passed on is the code of its answer.

use std::{io, time::Duration};

use lapin::{
    ErrorKind as Lapin,
    protocol::{AMQPError, AMQPErrorKind, AMQPHardError as Hard, AMQPSoftError as Soft},
};
use socketioxide_adapter_core::{
    Error, ErrorKind,
    socket::{self, Address},
};

use crate::config::AmqpConfig;

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
            Self::Connect => "amqp: connect",
            Self::Link => "amqp: link",
            Self::Publish => "amqp: publish",
            Self::Subscribe => "amqp: subscribe",
        };
        Error::new(kind, operation, message.into())
    }

    /// A call while there is no session, or the broker takes nothing.
    pub(crate) fn down(self) -> Error {
        self.error(ErrorKind::LinkDown, "the link is down")
    }

    /// A call that was waiting when the session ended.
    pub(crate) fn interrupted(self) -> Error {
        self.error(ErrorKind::Interrupted, "the connection was lost")
    }

    /// A call on a closed transport.
    pub(crate) fn closed(self) -> Error {
        self.error(ErrorKind::Closed, "the transport is closed")
    }

    /// A call that was not answered in time.
    pub(crate) fn late(self, limit: Duration) -> Error {
        self.error(
            ErrorKind::Timeout,
            format!("no answer of the broker within {limit:?}"),
        )
    }
}

/// What is known of servers that said nothing.
pub(crate) fn silent(config: &AmqpConfig, servers: &[Address], limit: Duration) -> String {
    let other = match config.tls {
        Some(_) => "a plain amqp:// port",
        None => "an amqps:// port",
    };
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    let servers = servers.join(", ");
    format!("{servers}: no answer within {limit:?}, is it {other}?")
}

/// The broker takes nothing from those who publish.
pub(crate) fn blocked(address: &Address) -> Error {
    Step::Link.error(
        ErrorKind::Unavailable,
        format!("{address}: {BLOCKED_BY_ALARM}"),
    )
}

/// What a blocked link says.
pub(crate) const BLOCKED_BY_ALARM: &str =
    "the broker takes no messages, it is short of memory or of disk space";

/// An error of the socket while connecting.
pub(crate) fn from_io(address: &Address, error: &io::Error) -> Error {
    let (kind, what) = socket::explain(error, "a plain amqp:// port").unwrap_or_else(|| {
        let what = match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                "connection refused, is RabbitMQ running there?".to_owned()
            }
            _ => error.to_string(),
        };
        (ErrorKind::Unavailable, what)
    });
    Step::Connect.error(kind, format!("{address}: {what}"))
}

/// An error of lapin: of the connection, or an answer of the broker.
pub(crate) fn from_lapin(step: Step, address: &Address, error: &lapin::Error) -> Error {
    let connecting = step == Step::Connect;
    let lost = if connecting {
        (
            ErrorKind::Unavailable,
            "the connection was closed during the login",
        )
    } else {
        (ErrorKind::Interrupted, "the connection was lost")
    };
    let (kind, what) = match error.kind() {
        Lapin::ProtocolError(error) => {
            let (kind, what) = answer(step, error);
            let code = error.get_id();
            return step.error(kind, format!("{address}: {what} (code {code})"));
        }
        Lapin::MissingHeartbeatError => (ErrorKind::Interrupted, "no heartbeat of the broker"),
        Lapin::ParsingError(_) | Lapin::InvalidProtocolVersion(_) => (
            ErrorKind::Protocol,
            "what answers does not speak AMQP 0-9-1, or wants TLS (amqps://)",
        ),
        Lapin::ChannelsLimitReached => (
            ErrorKind::Unavailable,
            "the broker allows no more channels, raise its channel_max",
        ),
        Lapin::IOError(error) if error.kind() == io::ErrorKind::NotFound => (
            ErrorKind::Unavailable,
            "this server has no copy of the stream",
        ),
        Lapin::IOError(_)
        | Lapin::InvalidChannel(_)
        | Lapin::InvalidChannelState(..)
        | Lapin::InvalidConnectionState(_) => lost,
        _ => (ErrorKind::Protocol, "something that lapin cannot handle"),
    };
    step.error(kind, format!("{address}: {what}"))
}

/// Whether the broker says that what was asked for is not there, or not yet.
pub(crate) fn is_not_found(error: &lapin::Error) -> bool {
    is_soft(error, Soft::NOTFOUND)
}

/// Whether a server says that it has no copy of a stream that was to be read, or not yet.
pub(crate) fn has_no_copy(error: &lapin::Error) -> bool {
    is_soft(error, Soft::PRECONDITIONFAILED) || is_not_found(error)
}

/// The same as an error of its own: elsewhere the code means something that is not to be tried again.
pub(crate) fn no_copy() -> lapin::Error {
    io::Error::from(io::ErrorKind::NotFound).into()
}

fn is_soft(error: &lapin::Error, kind: Soft) -> bool {
    matches!(error.kind(), Lapin::ProtocolError(no) if *no.kind() == AMQPErrorKind::Soft(kind))
}

/// What an error code of the broker means.
fn answer(step: Step, error: &AMQPError) -> (ErrorKind, &'static str) {
    match error.kind() {
        AMQPErrorKind::Soft(Soft::ACCESSREFUSED) if step == Step::Connect => {
            (ErrorKind::Unauthorized, "wrong user name or password")
        }
        AMQPErrorKind::Soft(Soft::ACCESSREFUSED) => (
            ErrorKind::Unauthorized,
            "forbidden, the user needs the permissions configure, write and read for <prefix>.*",
        ),
        AMQPErrorKind::Hard(Hard::NOTALLOWED) => (
            ErrorKind::Unauthorized,
            "there is no such virtual host, or the user may not use it, or there are too many connections",
        ),
        AMQPErrorKind::Soft(Soft::PRECONDITIONFAILED) => (
            ErrorKind::Config,
            "the exchange, queue or stream is there with other settings: use the same everywhere, or delete it",
        ),
        AMQPErrorKind::Soft(Soft::NOTFOUND) => (
            ErrorKind::Unavailable,
            "the exchange, queue or stream is gone, or its node is down",
        ),
        AMQPErrorKind::Soft(Soft::RESOURCELOCKED) => (
            ErrorKind::Unavailable,
            "the queue still belongs to another connection",
        ),
        AMQPErrorKind::Soft(_) => (ErrorKind::Rejected, "refused by the broker"),
        AMQPErrorKind::Hard(Hard::CONNECTIONFORCED) => {
            (lost(step), "the broker closed the connection")
        }
        AMQPErrorKind::Hard(Hard::RESOURCEERROR | Hard::INTERNALERROR) => (
            ErrorKind::Unavailable,
            "the broker has a problem of its own",
        ),
        AMQPErrorKind::Hard(Hard::NOTIMPLEMENTED) => (
            ErrorKind::Incompatible,
            "the broker cannot do this, RabbitMQ 3.9 or newer is needed",
        ),
        AMQPErrorKind::Hard(_) => (ErrorKind::Protocol, "the broker did not understand us"),
    }
}

fn lost(step: Step) -> ErrorKind {
    match step {
        Step::Connect => ErrorKind::Unavailable,
        Step::Link | Step::Publish | Step::Subscribe => ErrorKind::Interrupted,
    }
}
