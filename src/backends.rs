//! The backends that were compiled in, and how to connect to them.

use socketioxide_adapter_core::{Cluster, ClusterConfig, Result, backend::Registry, memory};

/// All backends of this build. Add your own with [`Registry::with`].
pub fn registry() -> Registry {
    let registry = Registry::new().with(memory::BACKEND);
    #[cfg(feature = "redis")]
    let registry = registry.with(socketioxide_adapter_redis::BACKEND);
    #[cfg(not(feature = "redis"))]
    let registry = registry.with_disabled(
        "redis",
        &[
            "redis",
            "rediss",
            "redis+unix",
            "redis+sentinel",
            "rediss+sentinel",
            "valkey",
            "valkeys",
            "valkey+unix",
            "valkey+sentinel",
            "valkeys+sentinel",
        ],
    );
    #[cfg(feature = "redis-cluster")]
    let registry = registry.with(socketioxide_adapter_redis::CLUSTER_BACKEND);
    #[cfg(not(feature = "redis-cluster"))]
    let registry = registry.with_disabled(
        "redis-cluster",
        &[
            "redis+cluster",
            "rediss+cluster",
            "valkey+cluster",
            "valkeys+cluster",
        ],
    );
    #[cfg(feature = "redis-streams")]
    let registry = registry.with(socketioxide_adapter_redis_streams::BACKEND);
    #[cfg(not(feature = "redis-streams"))]
    let registry = registry.with_disabled(
        "redis-streams",
        &[
            "redis+streams",
            "rediss+streams",
            "redis+sentinel+streams",
            "rediss+sentinel+streams",
            "valkey+streams",
            "valkeys+streams",
            "valkey+sentinel+streams",
            "valkeys+sentinel+streams",
        ],
    );
    #[cfg(feature = "amqp")]
    let registry = registry.with(socketioxide_adapter_amqp::BACKEND);
    #[cfg(not(feature = "amqp"))]
    let registry = registry.with_disabled("amqp", &["amqp", "amqps"]);
    #[cfg(feature = "rabbitmq-streams")]
    let registry = registry.with(socketioxide_adapter_amqp::STREAMS_BACKEND);
    #[cfg(not(feature = "rabbitmq-streams"))]
    let registry = registry.with_disabled("rabbitmq-streams", &["amqp+streams", "amqps+streams"]);
    #[cfg(feature = "nats")]
    let registry = registry.with(socketioxide_adapter_nats::BACKEND);
    #[cfg(not(feature = "nats"))]
    let registry = registry.with_disabled("nats", &["nats", "nats+tls"]);
    #[cfg(feature = "jetstream")]
    let registry = registry.with(socketioxide_adapter_nats::JETSTREAM);
    #[cfg(not(feature = "jetstream"))]
    let registry = registry.with_disabled("jetstream", &["nats+jetstream", "nats+jetstream+tls"]);
    registry
}

/// Connects to the broker that `url` names, with the default settings.
///
/// # Errors
/// One line that says what to do: the URL or an option is wrong, the feature of the backend is off, the broker cannot be
/// reached or refuses our credentials. It never repeats the URL.
///
/// # Cancel safety
/// Dropping the future leaves nothing behind.
pub async fn connect(url: &str) -> Result<Cluster> {
    connect_with(url, ClusterConfig::default()).await
}

/// Connects to the broker that `url` names, with settings of your own.
///
/// # Errors
/// As [`connect`], and [`ErrorKind::Config`](crate::ErrorKind::Config) for settings that cannot work.
///
/// # Cancel safety
/// Dropping the future leaves nothing behind.
pub async fn connect_with(url: &str, config: ClusterConfig) -> Result<Cluster> {
    config.validate()?;
    let transport = registry().connect(url).await?;
    Cluster::new(transport, config)
}
