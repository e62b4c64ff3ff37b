//! What is kept for how long and where, beside how to reach the server.

use std::{collections::BTreeMap, time::Duration};

use socketioxide_adapter_core::{
    Result,
    backend::BackendUrl,
    transport::{Topic, log::Place},
};
use socketioxide_adapter_redis::RedisConfig;
use tracing::warn;

use crate::{error::invalid, transport::RedisStreamsTransport};

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

/// Everything that connecting needs to know. Nothing is checked before [`connect`](Self::connect). `Debug` does not show the
/// passwords.
///
/// ```
/// use std::time::Duration;
/// use socketioxide_adapter_redis_streams::{Address, Endpoint, RedisConfig, Retention, StreamsConfig};
///
/// let endpoint = Endpoint::new(Address::new("10.0.0.1", 6379)).with_prefix("chat");
/// let config = StreamsConfig::new(RedisConfig::new(endpoint))
///     .with_retention(Retention::Length(50_000))
///     .with_namespace_retention("/audit", Retention::Age(Duration::from_secs(3_600)));
/// ```
#[derive(Debug, Clone)]
#[must_use]
#[non_exhaustive]
pub struct StreamsConfig {
    /// The server, credentials, prefix, deadlines, buffers and the database. A full `subscription_buffer` makes the reader
    /// wait; nothing is dropped. All keys begin with the prefix.
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
    /// `Config` that names the part or the option that cannot be used, never its value.
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

    /// Connects. Resolves once the first session is up; until then it tries again and again.
    ///
    /// # Errors
    /// As [`RedisConfig::connect`]; also `Config` if the nodes that are there already share their logs in another way.
    ///
    /// # Cancel safety
    /// Dropping the future ends what it started.
    pub async fn connect(self) -> Result<RedisStreamsTransport> {
        self.validate()?;
        let window = self.reconnect_window();
        if let Retention::Age(age) = self.retention
            && age < window
        {
            warn!(
                ?age,
                ?window,
                "the logs keep less than an outage may take, raise max_age"
            );
        }
        RedisStreamsTransport::start(self).await
    }

    /// Checks what the types cannot; the rest is for the transport below.
    fn validate(&self) -> Result<()> {
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

    /// The longest that a node may be away because of an outage of a moment: what is kept for less is lost by it.
    pub(crate) fn reconnect_window(&self) -> Duration {
        let limits = &self.redis.endpoint.limits;
        SILENCE + limits.backoff.ceiling + limits.connect_timeout
    }

    /// Where a topic is kept; `None`: nowhere, it goes by Pub/Sub.
    pub(crate) fn place(&self, topic: &Topic) -> Option<Place> {
        if self.ephemeral == Ephemeral::PubSub && !matches!(topic, Topic::Namespace(_)) {
            return None;
        }
        let (prefix, name) = (&self.redis.endpoint.prefix, topic.to_string());
        let (log, topic) = match self.streams {
            None => (format!("{prefix}:{name}"), None),
            Some(streams) => {
                let stream = hash(name.as_bytes()) % u64::from(streams);
                // In braces: what a Redis Cluster spreads keys by.
                (format!("{prefix}:{{log/{stream}}}"), Some(name.into()))
            }
        };
        let kept = match self.retention_of(&log) {
            Retention::Length(length) => length,
            Retention::Age(_) => 0,
        };
        let log = log.into();
        Some(Place { log, topic, kept })
    }

    /// How much of a log is kept.
    pub(crate) fn retention_of(&self, log: &str) -> Retention {
        let topic = log.strip_prefix(&*self.redis.endpoint.prefix);
        let path = topic.and_then(|topic| topic.strip_prefix(":ns"));
        let own = path.and_then(|path| self.namespaces.get(path));
        own.copied().unwrap_or(self.retention)
    }

    /// What all nodes of a cluster must have in common.
    pub(crate) fn layout(&self) -> String {
        let ephemeral = match self.ephemeral {
            Ephemeral::PubSub => "ephemeral=pubsub",
            Ephemeral::Log => "ephemeral=log",
        };
        match self.streams {
            None => ephemeral.to_owned(),
            Some(streams) => format!("streams={streams} {ephemeral}"),
        }
    }
}

/// FNV-1a. Every node must come to the same, whatever it was built with.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use socketioxide_adapter_core::NodeId;
    use socketioxide_adapter_redis::{Address, Endpoint};

    use super::*;

    fn config() -> StreamsConfig {
        let endpoint = Endpoint::new(Address::new("h", 1)).with_prefix("p:q");
        StreamsConfig::new(RedisConfig::new(endpoint))
    }

    fn namespace(path: &str) -> Topic {
        Topic::Namespace(path.to_owned().into())
    }

    #[test]
    fn a_namespace_has_its_log_with_its_retention_and_the_rest_has_none() {
        let minute = Retention::Age(Duration::from_secs(60));
        let config = config().with_namespace_retention("/audit", minute);
        let place = |path| config.place(&namespace(path)).unwrap();
        let (chat, audit) = (place("/chat"), place("/audit"));
        assert_eq!(
            (&*chat.log, chat.topic, chat.kept),
            ("p:q:ns/chat", None, LENGTH)
        );
        assert_eq!(
            (&*audit.log, audit.topic, audit.kept),
            ("p:q:ns/audit", None, 0)
        );
        assert_eq!(config.retention_of(&audit.log), minute);
        assert_eq!(config.retention_of("p:q:ns/audit/x"), config.retention);
        let others = [Topic::Cluster, Topic::Node(NodeId::random())];
        assert!(others.iter().all(|topic| config.place(topic).is_none()));
        let logged = config.with_ephemeral(Ephemeral::Log);
        let cluster = logged.place(&Topic::Cluster).unwrap();
        assert_eq!((&*cluster.log, cluster.kept), ("p:q:cluster", LENGTH));
    }

    /// All nodes must come to the same, also those of another version.
    #[test]
    fn topics_that_share_logs_are_where_they_always_were() {
        let config = config().with_streams(4);
        let place = |path| config.place(&namespace(path)).unwrap();
        let logs = ["/", "/chat", "/a", "/b"].map(|path| place(path).log);
        let logs = logs.each_ref().map(|log| &**log);
        assert_eq!(
            logs,
            ["p:q:{log/3}", "p:q:{log/1}", "p:q:{log/2}", "p:q:{log/3}"]
        );
        assert_eq!(place("/a").topic.as_deref(), Some("ns/a"));
    }
}
