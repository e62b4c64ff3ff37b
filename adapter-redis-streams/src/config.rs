//! What is kept for how long and where, beside how to reach the server.

use std::{collections::BTreeMap, time::Duration};

use socketioxide_adapter_core::{
    Error, ErrorKind, Result,
    backend::BackendUrl,
    transport::{Capabilities, Delivery, Replay},
};
use socketioxide_adapter_redis::RedisConfig;

/// Entries asked for at once. A log by length keeps more than that, which is what lets a reader know that nothing was
/// trimmed before its eyes.
pub(crate) const PAGE: usize = 100;
const LENGTH: u64 = 10_000;
const IDLE_EXPIRY: Duration = Duration::from_secs(3_600);
const MAX_STREAMS: u16 = 1_024;
/// How long it takes to notice a silent server, on top of what the configuration says.
const SILENCE: Duration = Duration::from_millis(2_500);

/// How much of a log the server keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retention {
    /// At least so many of the last entries, and a few more (`MAXLEN ~`). At least 100. An entry is what `publish` was
    /// given: under load one frame of up to 128 KiB with many messages.
    Length(u64),
    /// At least the entries of this time, by the server's clock (`MINID ~`). At least 1 s. Each entry then costs readers
    /// one round trip more.
    Age(Duration),
}

/// Which way membership and answers go. They are of no use later, so they need no log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ephemeral {
    /// By Pub/Sub.
    #[default]
    PubSub,
    /// Through the log like everything else: for platforms without Pub/Sub.
    Log,
}

/// Everything [`RedisStreamsTransport::connect`](crate::RedisStreamsTransport::connect) needs to know.
///
/// Nothing is checked before `connect`. `Debug` does not show the password.
///
/// ```
/// use std::time::Duration;
/// use socketioxide_adapter_redis::{Address, RedisConfig};
/// use socketioxide_adapter_redis_streams::{Retention, StreamsConfig};
///
/// let redis = RedisConfig::new(Address::Tcp { host: "10.0.0.1".into(), port: 6379 });
/// let config = StreamsConfig::new(redis)
///     .with_retention(Retention::Length(50_000))
///     .with_namespace_retention("/audit", Retention::Age(Duration::from_secs(3_600)));
/// ```
#[derive(Debug, Clone)]
#[must_use]
#[non_exhaustive]
pub struct StreamsConfig {
    /// The server, credentials, prefix, deadlines and buffers. A full `subscription_buffer` makes the reader wait; nothing
    /// is dropped. All keys begin with the prefix.
    pub redis: RedisConfig,
    /// How much of a log is kept. Default 10,000 entries.
    pub retention: Retention,
    /// Namespaces whose logs are kept otherwise. Not together with `streams`.
    pub namespaces: BTreeMap<String, Retention>,
    /// So many logs, 1 to 1,024, that all topics share, instead of one for each. Default none. For more than about a
    /// hundred namespaces.
    pub streams: Option<u16>,
    /// Which way membership and answers go. Default Pub/Sub.
    pub ephemeral: Ephemeral,
    /// A log that no node has read for this time is deleted by the server. Default 1 h, at least 60 s.
    pub idle_expiry: Duration,
}

impl StreamsConfig {
    /// The defaults, on the server that `redis` names.
    pub const fn new(redis: RedisConfig) -> Self {
        Self {
            redis,
            retention: Retention::Length(LENGTH),
            namespaces: BTreeMap::new(),
            streams: None,
            ephemeral: Ephemeral::PubSub,
            idle_expiry: IDLE_EXPIRY,
        }
    }

    /// Reads a URL and its options; the [crate documentation](crate) lists them.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names the part or the option that cannot be used, never its value.
    pub fn from_url(mut url: BackendUrl) -> Result<Self> {
        let length = url.take_parsed("maxlen", "a number of entries such as 10000")?;
        let age = url.take_duration("max_age")?;
        let streams = url.take_parsed("streams", "a number of streams such as 4")?;
        let ephemeral = url.take("ephemeral");
        let expiry = url.take_duration("expire")?;
        let scheme = url.scheme().trim_end_matches("+streams").to_owned();
        let mut config = Self::new(RedisConfig::from_url(url.with_scheme(&scheme)?)?);
        config.retention = match (length, age) {
            (Some(_), Some(_)) => return Err(invalid("give either maxlen or max_age")),
            (Some(length), None) => Retention::Length(length),
            (None, Some(age)) => Retention::Age(age),
            (None, None) => config.retention,
        };
        config.streams = streams;
        config.ephemeral = match ephemeral.as_deref() {
            None | Some("pubsub") => Ephemeral::PubSub,
            Some("log") => Ephemeral::Log,
            Some(_) => return Err(invalid("ephemeral must be pubsub or log")),
        };
        config.idle_expiry = expiry.unwrap_or(config.idle_expiry);
        Ok(config)
    }

    /// Sets how much of a log is kept.
    pub const fn with_retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Sets how much of the log of one namespace is kept.
    pub fn with_namespace_retention(
        mut self,
        path: impl Into<String>,
        retention: Retention,
    ) -> Self {
        self.namespaces.insert(path.into(), retention);
        self
    }

    /// Lets all topics share so many logs.
    pub const fn with_streams(mut self, streams: u16) -> Self {
        self.streams = Some(streams);
        self
    }

    /// Sets which way membership and answers go.
    pub const fn with_ephemeral(mut self, ephemeral: Ephemeral) -> Self {
        self.ephemeral = ephemeral;
        self
    }

    /// Sets when a log that nobody reads is deleted.
    pub const fn with_idle_expiry(mut self, expiry: Duration) -> Self {
        self.idle_expiry = expiry;
        self
    }

    /// Checks what the types cannot; the rest is for the transport below.
    pub(crate) fn validate(&self) -> Result<()> {
        for retention in self.namespaces.values().chain([&self.retention]) {
            match retention {
                Retention::Length(length) if *length < PAGE as u64 => {
                    return Err(invalid("maxlen must be at least 100"));
                }
                Retention::Age(age) if *age < Duration::from_secs(1) => {
                    return Err(invalid("max_age must be at least 1s"));
                }
                Retention::Length(_) | Retention::Age(_) => {}
            }
        }
        if self.streams.is_some_and(|n| n == 0 || n > MAX_STREAMS) {
            return Err(invalid("streams must be 1 to 1024"));
        }
        if self.streams.is_some() && !self.namespaces.is_empty() {
            return Err(invalid(
                "a namespace that shares its stream has no retention of its own",
            ));
        }
        if self.idle_expiry < Duration::from_secs(60) {
            return Err(invalid("expire must be at least 60s"));
        }
        Ok(())
    }

    pub(crate) const fn capabilities(&self) -> Capabilities {
        Capabilities::new(Delivery::AtLeastOnce)
            .with_replay(Replay::WithinRetention)
            .with_confirms(true)
            .with_total_order(true)
            .with_max_payload(self.redis.limits.max_payload)
    }

    /// The longest that a node may be away because of an outage of a moment: what is kept for less is lost by it.
    pub(crate) fn reconnect_window(&self) -> Duration {
        SILENCE + self.redis.limits.backoff.ceiling + self.redis.limits.connect_timeout
    }

    /// What all nodes of a cluster must have in common.
    pub(crate) fn layout(&self) -> String {
        let streams = self.streams.unwrap_or(0);
        let ephemeral = match self.ephemeral {
            Ephemeral::PubSub => "pubsub",
            Ephemeral::Log => "log",
        };
        match streams {
            0 => format!("ephemeral={ephemeral}"),
            _ => format!("streams={streams} ephemeral={ephemeral}"),
        }
    }
}

pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, "redis-streams: config", message.into())
}
