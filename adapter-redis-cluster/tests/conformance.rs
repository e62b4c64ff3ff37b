//! The conformance suite on a Redis Cluster of three masters, by sharded Pub/Sub.

#[path = "../../adapter-redis/tests/common/gate.rs"]
mod gate;

use std::{process::ExitCode, sync::Arc, time::Duration};

use async_trait::async_trait;
use gate::{PASSWORD, Servers, UserGate};
use socketioxide_adapter_conformance::{Ability, Faults, Gate, Lab, LabResult};
use socketioxide_adapter_core::{backend::BackendUrl, transport::Transport};
use socketioxide_adapter_redis_cluster::RedisClusterConfig;
use socketioxide_broker_lab::{Redis, RedisCluster, Result};
use tokio::task::block_in_place;

fn main() -> ExitCode {
    socketioxide_adapter_conformance::main(async || {
        Ok(ClusterLab(Arc::new(RedisCluster::start()?)))
    })
}

struct ClusterLab(Arc<RedisCluster>);

impl Servers for RedisCluster {
    fn servers(&self) -> Vec<&Redis> {
        self.servers().collect()
    }
}

impl ClusterLab {
    fn config(&self, prefix: &str) -> LabResult<RedisClusterConfig> {
        let mut config = RedisClusterConfig::from_url(BackendUrl::parse(&self.0.url())?)?;
        config.endpoint = config.endpoint.with_prefix(prefix);
        Ok(config)
    }

    /// What happens to the broker happens to all of its servers.
    fn all(&self, fault: impl Fn(&Redis) -> Result<()>) -> LabResult {
        Ok(self.0.servers().try_for_each(fault)?)
    }
}

#[async_trait]
impl Lab for ClusterLab {
    async fn connect(&self, prefix: &str) -> LabResult<Arc<dyn Transport>> {
        let config = self.config(prefix)?;
        Ok(Arc::new(config.connect().await?))
    }

    fn has_gates(&self) -> bool {
        true
    }

    async fn connect_gated(&self, prefix: &str) -> LabResult<(Arc<dyn Transport>, Box<dyn Gate>)> {
        let (gate, user) = UserGate::new(&self.0)?;
        let mut config = self.config(prefix)?;
        config.endpoint = config.endpoint.with_credentials(user, PASSWORD);
        let transport = config.connect().await?;
        Ok((Arc::new(transport), Box::new(gate)))
    }

    fn faults(&self) -> Option<&dyn Faults> {
        Some(self)
    }

    /// After a restart, the servers need some seconds to find each other.
    fn patience(&self) -> Duration {
        Duration::from_secs(20)
    }
}

#[async_trait]
impl Faults for ClusterLab {
    fn abilities(&self) -> &[Ability] {
        &[
            Ability::Restart,
            Ability::Stop,
            Ability::Freeze,
            Ability::Cut,
            Ability::Wipe,
        ]
    }

    async fn restore(&self) -> LabResult {
        block_in_place(|| Ok(self.0.heal()?))
    }

    async fn restart(&self) -> LabResult {
        self.stop().await?;
        self.start().await
    }

    async fn stop(&self) -> LabResult {
        block_in_place(|| self.all(Redis::kill))
    }

    async fn start(&self) -> LabResult {
        self.restore().await
    }

    async fn freeze(&self) -> LabResult {
        self.all(Redis::freeze)
    }

    async fn thaw(&self) -> LabResult {
        self.all(Redis::thaw)
    }

    async fn cut(&self) -> LabResult {
        // The servers among themselves use other ports, and the lab itself comes over the unix sockets.
        block_in_place(|| {
            self.all(|server| {
                let address = format!("127.0.0.1:{}", server.port());
                server
                    .command(&["CLIENT", "KILL", "LADDR", &address])
                    .map(drop)
            })
        })
    }

    async fn wipe(&self) -> LabResult {
        // Nothing is on disk but who belongs to the cluster.
        self.restart().await
    }
}
