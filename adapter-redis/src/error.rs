//! Errors of redis-rs and of the socket as errors of the adapter, by kind.
//!
//! Texts of the server are not passed on: it may repeat the arguments of a command it does not know, and with them the
//! password. What is passed on is the code, the first word of its answer.

use std::{fmt::Display, io, time::Duration};

use redis::{ErrorKind as Redis, RedisError, ServerErrorKind as Server};
use socketioxide_adapter_core::{Error, ErrorKind, socket};

use crate::config::{Address, RedisConfig};

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
            Self::Connect => "redis: connect",
            Self::Link => "redis: link",
            Self::Publish => "redis: publish",
            Self::Subscribe => "redis: subscribe",
        };
        Error::new(kind, operation, message.into())
    }
}

/// A call while there is no session.
pub(crate) fn down(step: Step, at: impl Display) -> Error {
    step.error(ErrorKind::LinkDown, format!("{at}: the link is down"))
}

/// A call that was waiting when the session ended.
pub(crate) fn interrupted(step: Step, at: impl Display) -> Error {
    step.error(
        ErrorKind::Interrupted,
        format!("{at}: the connection was lost"),
    )
}

/// A call on a closed transport.
pub(crate) fn closed(step: Step) -> Error {
    step.error(ErrorKind::Closed, "the transport is closed")
}

/// A call that was not answered in time.
pub(crate) fn late(step: Step, at: impl Display, limit: Duration) -> Error {
    step.error(
        ErrorKind::Timeout,
        format!("{at}: no answer within {limit:?}"),
    )
}

/// Why there was no session if no attempt came to an end.
pub(crate) fn silent(config: &RedisConfig, limit: Duration) -> String {
    let hint = match config.addresses.as_slice() {
        [Address::Tls { .. }, ..] => ", is it a plain redis:// port?",
        _ => "",
    };
    format!("{}: no answer within {limit:?}{hint}", config.at())
}

/// An error of the socket while connecting.
pub(crate) fn from_io(at: impl Display, error: &io::Error) -> Error {
    let (kind, what) = socket::explain(error, "a plain redis:// port").unwrap_or_else(|| {
        let what = match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                "connection refused, is Redis running there?".to_owned()
            }
            io::ErrorKind::PermissionDenied => {
                "the socket file cannot be opened by this user".to_owned()
            }
            _ => error.to_string(),
        };
        (ErrorKind::Unavailable, what)
    });
    Step::Connect.error(kind, format!("{at}: {what}"))
}

/// An error of redis-rs: of the connection, or an answer of the server.
pub(crate) fn from_redis(step: Step, at: impl Display, error: &RedisError) -> Error {
    let (kind, what) = match error.kind() {
        Redis::Io if step == Step::Connect => (
            ErrorKind::Unavailable,
            "the connection was closed during the login",
        ),
        Redis::Io => (ErrorKind::Interrupted, "the connection was lost"),
        Redis::Parse => (
            ErrorKind::Protocol,
            "what answers is not Redis, or wants TLS (rediss://)",
        ),
        Redis::RESP3NotSupported => (
            ErrorKind::Config,
            "the server is too old, Redis 6.2 or newer is needed",
        ),
        Redis::AuthenticationFailed => (ErrorKind::Unauthorized, WRONG_PASSWORD),
        Redis::Server(Server::ResponseError) => refusal(error.detail().unwrap_or_default())
            .unwrap_or((unknown(step), "refused by the server (ERR)")),
        Redis::Server(_) | Redis::Extension => {
            let code = error.code().unwrap_or_default();
            match answer(code) {
                Some(known) => known,
                None => return step.error(unknown(step), unknown_code(at, code)),
            }
        }
        _ => (ErrorKind::Protocol, "an answer that redis-rs cannot read"),
    };
    step.error(kind, format!("{at}: {what}"))
}

const WRONG_PASSWORD: &str = "wrong user name or password";

/// What an error code of the server means.
fn answer(code: &str) -> Option<(ErrorKind, &'static str)> {
    Some(match code {
        "WRONGPASS" => (ErrorKind::Unauthorized, WRONG_PASSWORD),
        "NOAUTH" => (
            ErrorKind::Unauthorized,
            "a password is required, add it to the URL: redis://user:password@host",
        ),
        "NOPERM" => (
            ErrorKind::Unauthorized,
            "forbidden by the ACL, the user needs +hello +publish +subscribe +unsubscribe &<prefix>:*; \
             for a cluster, sentinels and streams see their documentation",
        ),
        "DENIED" => (
            ErrorKind::Unauthorized,
            "protected mode: the server takes only local clients until it has a password",
        ),
        "NOPROTO" => (
            ErrorKind::Config,
            "the server does not speak RESP3, Redis 6.2 or newer is needed",
        ),
        "LOADING" => (ErrorKind::Unavailable, "the server is loading its data"),
        "BUSY" => (ErrorKind::Unavailable, "the server is busy with a script"),
        "OOM" => (ErrorKind::Unavailable, "the server is out of memory"),
        "MISCONF" => (
            ErrorKind::Unavailable,
            "the server cannot save its data and takes no writes, see its log",
        ),
        "NOREPLICAS" => (
            ErrorKind::Unavailable,
            "the server has fewer replicas than it wants before it takes writes",
        ),
        "READONLY" => (
            ErrorKind::Unavailable,
            "the server is a read-only replica, connect to its primary",
        ),
        "MASTERDOWN" => (
            ErrorKind::Unavailable,
            "the server is a replica without a primary",
        ),
        "CLUSTERDOWN" | "TRYAGAIN" => (ErrorKind::Unavailable, "the Redis Cluster is not ready"),
        // Only with sharded Pub/Sub, which follows the slot.
        "MOVED" => (
            ErrorKind::Unavailable,
            "the slot has just moved to another server",
        ),
        _ => return None,
    })
}

/// What an answer with the general code `ERR` means.
fn refusal(detail: &str) -> Option<(ErrorKind, &'static str)> {
    if detail.contains("max number of clients") {
        return Some((
            ErrorKind::Unavailable,
            "the server has too many clients, raise its maxclients",
        ));
    }
    if detail.contains("cluster support disabled") {
        return Some((
            ErrorKind::Config,
            "the server is no Redis Cluster, use redis://",
        ));
    }
    if detail.contains("unknown command") {
        return Some((
            ErrorKind::Config,
            "the server is too old, with a cluster Redis 7 or newer is needed",
        ));
    }
    if detail.contains("DB index") || detail.contains("SELECT is not allowed") {
        return Some((
            ErrorKind::Config,
            "the server has no such database, correct the number at the end of the URL",
        ));
    }
    None
}

/// While connecting, an answer we do not know may come from a proxy whose server is away: try again.
fn unknown(step: Step) -> ErrorKind {
    match step {
        Step::Connect => ErrorKind::Unavailable,
        Step::Link | Step::Publish | Step::Subscribe => ErrorKind::Rejected,
    }
}

fn unknown_code(at: impl Display, code: &str) -> String {
    let code: String = code.chars().filter(char::is_ascii_uppercase).collect();
    format!("{at}: refused by the server ({code})")
}

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;

    use super::*;

    const SECRET: &str = "s3cret";

    fn address() -> Address {
        Address::Tcp {
            host: "h".into(),
            port: 1,
        }
    }

    fn answered(line: &str) -> RedisError {
        let answer = parse_redis_value(format!("-{line} {SECRET}\r\n").as_bytes()).unwrap();
        answer.extract_error().unwrap_err()
    }

    #[test]
    fn every_answer_of_the_server_has_a_kind_and_a_text_without_its_words() {
        use ErrorKind::{Config, Rejected, Unauthorized, Unavailable};
        let table = [
            (
                "WRONGPASS invalid username-password pair",
                Unauthorized,
                Unauthorized,
                "password",
            ),
            (
                "NOAUTH Authentication required.",
                Unauthorized,
                Unauthorized,
                "password",
            ),
            (
                "NOPERM no permissions",
                Unauthorized,
                Unauthorized,
                "&<prefix>:*",
            ),
            (
                "DENIED Redis is running in protected mode",
                Unauthorized,
                Unauthorized,
                "protected",
            ),
            (
                "NOPROTO unsupported protocol version",
                Config,
                Config,
                "6.2",
            ),
            ("ERR unknown command `HELLO`", Config, Config, "6.2"),
            ("ERR DB index is out of range", Config, Config, "database"),
            (
                "ERR max number of clients reached",
                Unavailable,
                Unavailable,
                "maxclients",
            ),
            (
                "LOADING Redis is loading",
                Unavailable,
                Unavailable,
                "loading",
            ),
            ("BUSY Redis is busy", Unavailable, Unavailable, "script"),
            (
                "OOM command not allowed",
                Unavailable,
                Unavailable,
                "memory",
            ),
            (
                "MISCONF Redis is configured to save",
                Unavailable,
                Unavailable,
                "save",
            ),
            (
                "NOREPLICAS Not enough good replicas",
                Unavailable,
                Unavailable,
                "replicas",
            ),
            (
                "READONLY You can't write",
                Unavailable,
                Unavailable,
                "primary",
            ),
            (
                "MASTERDOWN Link with MASTER is down",
                Unavailable,
                Unavailable,
                "primary",
            ),
            (
                "CLUSTERDOWN The cluster is down",
                Unavailable,
                Unavailable,
                "Cluster",
            ),
            ("TRYAGAIN later", Unavailable, Unavailable, "Cluster"),
            ("ERR something else", Unavailable, Rejected, "(ERR)"),
            (
                "WHATEVER something else",
                Unavailable,
                Rejected,
                "(WHATEVER)",
            ),
            ("MOVED 1 h:2", Unavailable, Unavailable, "moved"),
        ];
        for (line, connecting, publishing, text) in table {
            let mut error = answered(line);
            if line.contains("HELLO") {
                // Only the login says this, and redis-rs reads it there.
                error = (Redis::RESP3NotSupported, "old").into();
            }
            for (step, kind) in [(Step::Connect, connecting), (Step::Publish, publishing)] {
                let error = from_redis(step, address(), &error);
                assert_eq!(error.kind(), kind, "{step:?} {line}");
                assert!(error.to_string().contains(text), "{error}");
                assert!(!format!("{error:?} {error}").contains(SECRET), "{error:?}");
            }
        }
    }

    #[test]
    fn a_lost_connection_leaves_the_outcome_of_a_publish_unknown() {
        let lost = RedisError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        let kind = |step| from_redis(step, address(), &lost).kind();
        assert_eq!(kind(Step::Connect), ErrorKind::Unavailable);
        assert_eq!(kind(Step::Publish), ErrorKind::Interrupted);
        assert_eq!(kind(Step::Subscribe), ErrorKind::Interrupted);
    }

    #[test]
    fn errors_of_the_client_are_retried_only_where_that_helps() {
        use ErrorKind::{Config, Protocol, Unauthorized};
        let table = [
            (Redis::Parse, Protocol),
            (Redis::AuthenticationFailed, Unauthorized),
            (Redis::RESP3NotSupported, Config),
            (Redis::UnexpectedReturnType, Protocol),
            (Redis::InvalidClientConfig, Protocol),
            (Redis::Client, Protocol),
        ];
        for (kind, expected) in table {
            let error = from_redis(Step::Connect, address(), &(kind, SECRET).into());
            assert_eq!((error.kind(), error.is_retryable()), (expected, false));
            assert!(!error.to_string().contains(SECRET), "{error}");
        }
    }

    #[test]
    fn a_socket_error_names_the_address_and_what_to_look_at() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(
            from_io(address(), &refused).to_string(),
            "redis: connect: h:1: connection refused, is Redis running there?"
        );
    }
}
