//! How to reach a broker, and where to read from.

use std::time::Duration;

use socketioxide_adapter_core::{
    Error, ErrorKind, Result,
    backend::{BackendUrl, Endpoint},
    transport::Connected,
};

use crate::{Amqp, Queue, Source};

/// What an error of the configuration begins with.
pub(crate) const OPERATION: &str = "amqp: config";
/// RabbitMQ itself takes at most 128 MiB in one message (`max_message_size`).
const PAYLOAD_CEILING: usize = 128 << 20;

/// The configuration of a node that reads from a queue of its own.
///
/// ```
/// use std::time::Duration;
/// use socketioxide_adapter_amqp::{Address, AmqpConfig, Endpoint, Limits, Queue};
///
/// let endpoint = Endpoint::new(Address::new("rabbit-1", 5672))
///     .with_server(Address::new("rabbit-2", 5672))
///     .with_credentials("chat", "secret")
///     .with_limits(Limits::default().with_timeout(Duration::from_secs(1)));
/// let config = AmqpConfig::new(endpoint)
///     .with_vhost("production")
///     .with_source(Queue::DURABLE);
/// assert!(!format!("{config:?}").contains("secret"));
/// ```
pub type AmqpConfig = Config<Queue>;

/// Everything that [`connect`](Self::connect) needs to know. Nothing is checked before it. `Debug` does not show the
/// password.
#[derive(Debug, Clone)]
#[must_use]
#[non_exhaustive]
pub struct Config<S> {
    /// The servers of one cluster, and the rest that is the same at every broker. Without credentials they are `guest` and
    /// `guest`, which RabbitMQ lets in from its own machine only. The prefix must not begin with `amq.`. A payload can have
    /// at most 128 MiB.
    pub endpoint: Endpoint,
    /// Virtual host. Default `/`.
    pub vhost: String,
    /// After twice this time without a sign of life the *broker* gives this node up. Whole seconds. Default 5 s. This
    /// node gives the broker up sooner: after 2 to 2.5 s.
    pub heartbeat: Duration,
    /// Where this node reads from.
    pub source: S,
}

impl<S: Source> Config<S> {
    /// The defaults for a broker.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            vhost: "/".to_owned(),
            heartbeat: Duration::from_secs(5),
            source: S::DEFAULT,
        }
    }

    /// Reads a URL and its options; the documentation of the crate lists them.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names the part or the option that cannot be used, never its value.
    pub fn from_url(mut url: BackendUrl) -> Result<Self> {
        let tls = url.scheme().starts_with("amqps");
        let port = if tls { 5671 } else { 5672 };
        let mut config = Self::new(Endpoint::take_from(&mut url, port, tls)?);
        let path = url.path();
        if let Some(vhost) = path.strip_prefix('/').filter(|vhost| !vhost.is_empty()) {
            config.vhost = vhost.to_owned();
        }
        url.read_duration("heartbeat", &mut config.heartbeat)?;
        config.source = S::take_from(&mut url)?;
        url.finish()?;
        Ok(config)
    }

    /// Sets the virtual host.
    pub fn with_vhost(mut self, vhost: impl Into<String>) -> Self {
        self.vhost = vhost.into();
        self
    }

    /// Sets where this node reads from.
    pub fn with_source(mut self, source: S) -> Self {
        self.source = source;
        self
    }

    /// Connects. Resolves once the first session is up; until then it tries again and again, one server after the other.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] and [`ErrorKind::Unauthorized`] at once, what else prevents a session after `connect_timeout`.
    /// Nothing is left running then.
    ///
    /// # Cancel safety
    /// Dropping the future ends what it started.
    pub async fn connect(self) -> Result<Connected<Amqp<S>>> {
        self.endpoint.validate(OPERATION, PAYLOAD_CEILING)?;
        let prefix = &self.endpoint.prefix;
        if prefix == "amq" || prefix.starts_with("amq.") {
            return Err(invalid("names that begin with \"amq.\" are the broker's"));
        }
        // A short string of AMQP.
        if self.vhost.len() > 255 {
            return Err(invalid("a virtual host has at most 255 bytes"));
        }
        if !(1..=3600).contains(&self.heartbeat.as_secs()) {
            return Err(invalid("heartbeat must be 1 second to 1 hour"));
        }
        self.source.validate().map_err(invalid)?;
        Connected::start(Amqp::new(self)?).await
    }
}

pub(crate) fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::Config, OPERATION, message)
}
