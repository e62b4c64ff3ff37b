//! Errors of redis-rs and of the socket as errors of the adapter, by kind.
//!
//! Texts of the server are not passed on: it may repeat the arguments of a command it does not know, and with them the
//! password. What is passed on is the code, the first word of its answer.

use std::{fmt::Display, io};

use redis::{ErrorKind as Redis, RedisError};
use socketioxide_adapter_core::{
    Error,
    ErrorKind::{self, Config, Interrupted, Protocol, Unauthorized, Unavailable},
    socket,
    transport::Step,
};

/// Why there is no session with this server.
pub(crate) fn connect(kind: ErrorKind, at: impl Display, what: &str) -> Error {
    Step::Connect.error("redis", kind, format!("{at}: {what}"))
}

/// An error of the socket while connecting.
pub(crate) fn from_io(at: impl Display, error: &io::Error) -> Error {
    let (kind, what) = socket::explain(error, "Redis", "a plain redis:// port");
    connect(kind, at, &what)
}

/// An error of redis-rs: of the connection, or an answer of the server.
pub(crate) fn from_redis(step: Step, at: impl Display, error: &RedisError) -> Error {
    let (kind, what) = match error.kind() {
        Redis::Io if step == Step::Connect => {
            (Unavailable, "the connection was closed during the login")
        }
        Redis::Io => (Interrupted, "the connection was lost"),
        Redis::Parse => (
            Protocol,
            "what answers is not Redis, or wants TLS (rediss://)",
        ),
        Redis::RESP3NotSupported => (
            Config,
            "the server is too old, Redis 6.2 or newer is needed",
        ),
        Redis::AuthenticationFailed => (Unauthorized, WRONG_PASSWORD),
        Redis::Server(_) | Redis::Extension => {
            let code = error.code().unwrap_or_default();
            match answer(code, error.detail().unwrap_or_default()) {
                Some(known) => known,
                None => return unknown(step, at, code),
            }
        }
        _ => (Protocol, "an answer that redis-rs cannot read"),
    };
    step.error("redis", kind, format!("{at}: {what}"))
}

const WRONG_PASSWORD: &str = "wrong user name or password";

/// What an answer of the server means.
fn answer(code: &str, detail: &str) -> Option<(ErrorKind, &'static str)> {
    let says = |text| detail.contains(text);
    let what = match code {
        "WRONGPASS" => WRONG_PASSWORD,
        "NOAUTH" => "a password is required, add it to the URL: redis://user:password@host",
        "NOPERM" => {
            "forbidden by the ACL, the user needs +hello +publish +subscribe +unsubscribe &<prefix>:*; \
             for a cluster, sentinels and streams see their documentation"
        }
        "DENIED" => "protected mode: the server takes only local clients until it has a password",
        "NOPROTO" => "the server does not speak RESP3, Redis 6.2 or newer is needed",
        "LOADING" => "the server is loading its data",
        "BUSY" => "the server is busy with a script",
        "OOM" => "the server is out of memory",
        "MISCONF" => "the server cannot save its data and takes no writes, see its log",
        "NOREPLICAS" => "the server has fewer replicas than it wants before it takes writes",
        "READONLY" => "the server is a read-only replica, connect to its primary",
        "MASTERDOWN" => "the server is a replica without a primary",
        "CLUSTERDOWN" | "TRYAGAIN" => "the Redis Cluster is not ready",
        // Only with sharded Pub/Sub, which follows the slot.
        "MOVED" => "the slot has just moved to another server",
        "ERR" if says(TOO_MANY) => "the server has too many clients, raise its maxclients",
        "ERR" if says("cluster support disabled") => "the server is no Redis Cluster, use redis://",
        "ERR" if says("unknown command") => {
            "the server is too old, with a cluster Redis 7 or newer is needed"
        }
        "ERR" if says("DB index") || says("SELECT is not allowed") => {
            "the server has no such database, correct the number at the end of the URL"
        }
        _ => return None,
    };
    let kind = match code {
        "WRONGPASS" | "NOAUTH" | "NOPERM" | "DENIED" => Unauthorized,
        "NOPROTO" => Config,
        "ERR" if !says(TOO_MANY) => Config,
        _ => Unavailable,
    };
    Some((kind, what))
}

const TOO_MANY: &str = "max number of clients";

/// While connecting, an answer we do not know may come from a proxy whose server is away: try again.
fn unknown(step: Step, at: impl Display, code: &str) -> Error {
    let kind = match step {
        Step::Connect => Unavailable,
        _ => ErrorKind::Rejected,
    };
    let code: String = code.chars().filter(char::is_ascii_uppercase).collect();
    let message = format!("{at}: refused by the server ({code})");
    step.error("redis", kind, message)
}

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;
    use socketioxide_adapter_core::socket::Address;

    use super::*;

    const SECRET: &str = "s3cret";

    fn address() -> Address {
        Address::new("h", 1)
    }

    fn answered(line: &str) -> RedisError {
        let answer = parse_redis_value(format!("-{line} {SECRET}\r\n").as_bytes()).unwrap();
        answer.extract_error().unwrap_err()
    }

    #[test]
    fn every_answer_of_the_server_has_a_kind_and_a_text_without_its_words() {
        use ErrorKind::Rejected;
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
