//! How to reach the servers, and how long their stream keeps what.

use std::time::Duration;

use socketioxide_adapter_core::{
    Error, ErrorKind, Result, backend::BackendUrl, transport::Connected,
};
use socketioxide_adapter_nats::NatsConfig;

use crate::{JetStream, JetStreamTransport};

/// Everything [`connect`](Self::connect) needs to know.
///
/// The stream is named after the prefix. It is made with these settings if it does not exist; one that exists is used as it
/// is, and where it differs, a warning says so. Nothing is checked before `connect`. `Debug` shows no secret.
///
/// ```
/// use std::time::Duration;
/// use socketioxide_adapter_jetstream::{Address, Endpoint, JetStreamConfig, NatsConfig};
///
/// let endpoint = Endpoint::new(Address::new("127.0.0.1", 4222)).with_prefix("chat.blue");
/// let mut config = JetStreamConfig::new(NatsConfig::new(endpoint));
/// config.max_age = Duration::from_secs(600);
/// ```
#[derive(Debug, Clone)]
#[must_use]
#[non_exhaustive]
pub struct JetStreamConfig {
    /// Servers, TLS, login, prefix, deadlines and buffers. A frame has 128 bytes less than a message may have.
    pub nats: NatsConfig,
    /// How long a frame is kept: the longest absence after which a node loses nothing. Default 5 min, at least 1 s.
    pub max_age: Duration,
    /// How many bytes are kept; the oldest frames go first. Default 256 MiB, at least 1 MiB.
    pub max_bytes: u64,
    /// On how many servers each frame is stored before it counts as accepted: 1 to 5. Default 1.
    pub replicas: u8,
    /// Whether the stream is kept in memory instead of in files. Default `false`.
    pub in_memory: bool,
}

impl JetStreamConfig {
    /// The defaults for these servers.
    pub const fn new(nats: NatsConfig) -> Self {
        Self {
            nats,
            max_age: Duration::from_secs(300),
            max_bytes: 256 << 20,
            replicas: 1,
            in_memory: false,
        }
    }

    /// Reads a URL and its options; the [crate documentation](crate) lists them.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names the part or the option that cannot be used, never its value.
    pub fn from_url(mut url: BackendUrl) -> Result<Self> {
        let mut config = Self::new(NatsConfig::take_from(&mut url)?);
        url.read_duration("max_age", &mut config.max_age)?;
        if let Some(bytes) = url.take_parsed("max_bytes", "a number of bytes such as 268435456")? {
            config.max_bytes = bytes;
        }
        if let Some(replicas) = url.take_parsed("replicas", "a number from 1 to 5")? {
            config.replicas = replicas;
        }
        match url.take("storage").as_deref() {
            None | Some("file") => {}
            Some("memory") => config.in_memory = true,
            Some(_) => return Err(invalid("option \"storage\" must be file or memory")),
        }
        url.finish()?;
        Ok(config)
    }

    /// Connects. Resolves once the first session is up; until then it tries again and again.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] and [`ErrorKind::Unauthorized`] at once, what else prevents a session after
    /// `connect_timeout`. Nothing is left running then.
    ///
    /// # Cancel safety
    /// Dropping the future ends what it started.
    pub async fn connect(self) -> Result<JetStreamTransport> {
        Connected::start(JetStream::new(self)?).await
    }

    /// Checks what the types cannot, and what [`NatsConfig`] does not.
    pub(crate) fn validate(&self) -> Result<()> {
        if self.max_age < Duration::from_secs(1) {
            return Err(invalid("max_age must be at least 1s"));
        }
        if self.max_bytes < 1 << 20 || i64::try_from(self.max_bytes).is_err() {
            return Err(invalid("max_bytes must be at least 1 MiB"));
        }
        if !(1..=5).contains(&self.replicas) {
            return Err(invalid("replicas must be 1 to 5"));
        }
        Ok(())
    }
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::Config, "jetstream: config", message)
}
