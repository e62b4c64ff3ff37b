//! The backends that were compiled in, and how to connect to them.

use socketioxide_adapter_core::{Cluster, ClusterConfig, Result, backend::Registry, memory};

/// A backend on each line: its cargo feature, its constant, and the schemes of its URLs, which must be known also where it
/// is not compiled in.
macro_rules! registry {
    ($($feature:literal, $backend:path, [$($scheme:literal),+];)+) => {{
        let registry = Registry::new().with(memory::BACKEND);
        $(
            #[cfg(feature = $feature)]
            let registry = registry.with($backend);
            #[cfg(not(feature = $feature))]
            let registry = registry.with_disabled($feature, &[$($scheme),+]);
        )+
        registry
    }};
}

/// All backends of this build. Add your own with [`Registry::with`].
pub fn registry() -> Registry {
    registry! {
        "redis", socketioxide_adapter_redis::BACKEND, ["redis", "rediss", "redis+unix", "redis+sentinel", "rediss+sentinel", "valkey", "valkeys", "valkey+unix", "valkey+sentinel", "valkeys+sentinel"];
        "redis-cluster", socketioxide_adapter_redis_cluster::BACKEND, ["redis+cluster", "rediss+cluster", "valkey+cluster", "valkeys+cluster"];
        "redis-streams", socketioxide_adapter_redis_streams::BACKEND, ["redis+streams", "rediss+streams", "redis+sentinel+streams", "rediss+sentinel+streams", "valkey+streams", "valkeys+streams", "valkey+sentinel+streams", "valkeys+sentinel+streams"];
        "nats", socketioxide_adapter_nats::BACKEND, ["nats", "nats+tls"];
        "jetstream", socketioxide_adapter_jetstream::BACKEND, ["nats+jetstream", "nats+jetstream+tls"];
        "amqp", socketioxide_adapter_amqp::BACKEND, ["amqp", "amqps"];
        "rabbitmq-streams", socketioxide_adapter_rabbitmq_streams::BACKEND, ["amqp+streams", "amqps+streams"];
    }
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
